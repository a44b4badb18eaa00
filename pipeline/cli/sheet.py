"""Documents as CSV (RFC 4180): one table, raw values, and nothing that a sheet would obey."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.cli.document import (
    Cell,
    Chart,
    Column,
    Document,
    Kind,
    Strip,
    Table,
    Text,
    Waterfall,
    tabulate_chart,
    tabulate_strip,
    tabulate_waterfall,
)
from pipeline.sanitize import sheet_text

SUFFIXES = {Kind.DURATION: "_us", Kind.MOMENT: "_utc"}


class _LastLine:
    """A file that holds one line: what the writer of CSV wrote last."""

    def write(self, text: str) -> None:
        """Keep *text*."""
        self.text = text


def _head(column: Column) -> str:
    name = column.name.replace(" ", "_")
    suffix = SUFFIXES.get(column.kind, "")
    return name if name.endswith(suffix) else name + suffix


def _raw(cell: Cell) -> str | int | float | None:
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return sheet_text(cell) if isinstance(cell, str) else cell


def _as_table(document: Document) -> Table:
    """Give the first table, else the first part that can be made one."""
    parts = sorted(document.parts, key=lambda part: not isinstance(part, Table))
    for part in parts:
        match part:
            case Table():
                return part
            case Chart():
                return tabulate_chart(part)
            case Waterfall():
                return tabulate_waterfall(part)
            case Strip():
                return tabulate_strip(part)
            case Text():
                continue
    return Table(columns=[Column("fact")], rows=[(fact,) for fact in document.facts])


def render_sheet(document: Document) -> Iterator[str]:
    """Write the first table of *document*, row by row as it is walked over.

    Without one it is the first chart, waterfall or strip as a table, or the facts. Durations are
    microseconds below ``…_us``, times ISO 8601 below ``…_utc``, what is not known is empty. Text
    that a sheet would calculate has a ``'`` before it. A line holds its end but for the ``\\n``.
    """
    table = _as_table(document)
    line = _LastLine()
    writer = csv.writer(line)  # its line end is that of RFC 4180
    writer.writerow(sheet_text(_head(column)) for column in table.columns)
    yield line.text.removesuffix("\n")
    for row in table.rows:
        writer.writerow(_raw(cell) for cell in row)
        yield line.text.removesuffix("\n")
