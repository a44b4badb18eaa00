"""Values to text or JSON on stdout; foreign text is harmless once it went through here."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime

from pipeline.sanitize import printable

WIDE = 10_000  # characters: where nobody looks, no line is ever folded

UNITS = ((1_000, 1, "µs"), (1_000_000, 1_000, "ms"), (60_000_000, 1_000_000, "s"))

STYLES = {
    "ok": "green",
    "collected": "green",
    "partial": "yellow",
    "deferred": "yellow",
    "skipped": "yellow",
    "running": "cyan",
}


def write(text: str) -> None:
    """Write *text* and a line end; a closed stdout takes nothing."""
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")


def show_duration(us: int | None) -> str:
    """Write microseconds as a person would: ``340 µs``, ``12 ms``, ``1.03 s``, ``2 min 5 s``."""
    if us is None:
        return "-"
    for limit, divisor, unit in UNITS:
        if us < limit:
            return f"{us / divisor:.3g} {unit}"
    minutes, seconds = divmod(us // 1_000_000, 60)
    return f"{minutes} min {seconds} s"


def show_time(moment: datetime | None) -> str:
    """Write a moment in UTC, to the second, and say so with a Z."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; numbers to the right, verdicts in colour where there is a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if sys.stdout is None:
        return
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    listed = list(rows)
    for index, column in enumerate(columns):
        is_number = all(isinstance(row[index], int | float) for row in listed)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in listed:
        cells = (printable("-" if cell is None else str(cell)) for cell in row)
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in cells))
    console.print(table)


def as_json(value: object) -> object:
    """Make plain JSON of our values: records become objects, times ISO 8601 in UTC, bytes text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(f"no JSON for {type(value).__name__}")


def _dump(value: object) -> str:
    return json.dumps(value, default=as_json, ensure_ascii=True)


def write_json(head: dict[str, object], **lists: Iterable[object]) -> None:
    """Write one JSON object: the keys of *head*, then each of *lists*, an element a line.

    The lists are written as they are walked over, so that a long history takes no memory.
    """
    write("{" + ", ".join(f"{_dump(key)}: {_dump(value)}" for key, value in head.items()))
    for name, elements in lists.items():
        write(f", {_dump(name)}: [")
        walk = iter(elements)
        for first in walk:
            write(f"  {_dump(first)}")
            for element in walk:
                write(f", {_dump(element)}")
        write("]")
    write("}")
