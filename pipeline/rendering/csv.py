"""Write cells and documents as CSV (RFC 4180), so that no spreadsheet calculates foreign text."""

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from pipeline.rendering.document import Cell, Column, Document, Kind, SourceName, Table
from pipeline.rendering.figures import tabulate_part
from pipeline.rendering.words import iso_time
from pipeline.sanitize import sheet_text

SAME_CELLS = 4096  # distinct texts or moments that are spelled once; most cells repeat those above


@lru_cache(SAME_CELLS)
def spell_text(text: str) -> str:
    """Write a text: quoted if need be, and so that no sheet calculates it."""
    safe = sheet_text(text)
    # sheet_text has made line ends visible. An empty text gets quotes, to be told from nothing.
    if not safe or "," in safe or '"' in safe:
        safe = safe.replace('"', '""')
        return f'"{safe}"'
    return safe


@lru_cache(SAME_CELLS)
def spell_moment(moment: datetime) -> str:
    """Write a time."""
    return iso_time(moment)


def spell_flag(flag: bool) -> str:
    """Write a claim: true or false."""
    return "true" if flag else "false"


def _spell(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return spell_flag(cell)
        case str():
            return spell_text(cell)
        case datetime():
            return spell_moment(cell)
        case SourceName():
            return f"{spell_text(cell.name)},{_spell(cell.is_sandbox)}"
        case _:
            return str(cell)


def _head(column: Column) -> str:
    head = spell_text(column.name)
    return f"{head},is_sandbox" if column.kind is Kind.SOURCE else head


def _line(cells: Iterator[str]) -> str:
    return f"{','.join(cells)}\r"


def _as_table(document: Document) -> Table:
    """Give the first table, else the first part that can be made one."""
    parts = sorted(document.parts, key=lambda part: not isinstance(part, Table))
    tables = (part for part in map(tabulate_part, parts) if isinstance(part, Table))
    if (first := next(tables, None)) is not None:
        return first
    return Table(columns=[Column("fact")], rows=[(fact,) for fact in document.facts])


def render_sheet(document: Document) -> Iterator[str]:
    """Write the first table of *document*, row by row as it is walked over.

    Without one it is the first chart, waterfall or strip as a table, or the facts. The heads are
    the published names; what is not known is empty. A line holds all of its end but
    the line feed.
    """
    table = _as_table(document)
    yield _line(map(_head, table.columns))
    for row in table.rows:
        yield _line(map(_spell, row))
