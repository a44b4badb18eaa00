"""Values to text or JSON, and both to stdout; what went through here cannot steer a terminal."""

import json
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from io import StringIO
from typing import IO, TYPE_CHECKING

from pipeline.models import AttemptRecord, BatchRecord
from pipeline.published import as_json
from pipeline.sanitize import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

WIDE = 10_000  # characters: where nobody looks, no line is ever folded
GAP = 2  # characters between two columns
NARROWEST_LAST = 30  # characters of the last column

MILLISECOND = 1_000  # all in microseconds
SECOND = 1_000 * MILLISECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

MOST_IN_MEMORY = 16 * 2**20  # characters of one answer; the rest of it waits in a file

NOT_FLAT = ("timings", "request", "contract")  # of an attempt: in rows of their own

# Words of ours and the colour each is shown in, in every shape of an answer that has colours.
STYLES = {
    "ok": "green",
    "collected": "green",
    "ran": "green",
    "up": "green",
    "partial": "yellow",
    "deferred": "yellow",
    "late": "yellow",
    "skipped": "yellow",
    "warning": "yellow",
    "running": "cyan",
    "note": "cyan",
    "failed": "red",
    "interrupted": "red",
    "cancelled": "red",
    "missed": "red",
    "down": "red",
    "error": "red",
}


class OutputError(Exception):
    """stdout takes no more, for the ``reason`` that the system gives."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(exc) from exc


def write(text: str) -> None:
    """Write *text* and a line end; a closed stdout takes nothing.

    Raises:
        OutputError: the disk behind stdout is full, or nobody reads any more.
    """
    if sys.stdout is not None:
        with _output_errors():
            sys.stdout.write(f"{text}\n")


def flush() -> None:
    """Make sure that all has arrived.

    Raises:
        OutputError: it has not.
    """
    if sys.stdout is not None:
        with _output_errors():
            sys.stdout.flush()


@contextmanager
def spooled() -> Iterator[IO[str]]:
    """Take text while the block runs, and write it to stdout when it has ended.

    So that the store can be closed before a slow reader is waited for, however long the answer.

    Raises:
        OutputError: neither stdout nor the folder for temporary files takes it.
    """
    from shutil import copyfileobj
    from tempfile import SpooledTemporaryFile

    with (
        _output_errors(),
        SpooledTemporaryFile(MOST_IN_MEMORY, "w+", encoding="utf-8", newline="") as spool,
    ):
        yield spool
        spool.seek(0)
        if sys.stdout is not None:
            copyfileobj(spool, sys.stdout)


def show_duration(us: int | None) -> str:
    """Write microseconds as a person would: ``0.34 ms``, ``1.03 s``, ``2 min 5 s``."""
    if us is None:
        return "-"
    if us < SECOND - MILLISECOND // 2:  # above, three digits of it would be 1e+03
        return f"{us / MILLISECOND:.3g} ms"
    if us < MINUTE:
        return f"{us / SECOND:.3g} s"
    if us < HOUR:
        return f"{us // MINUTE} min {us % MINUTE // SECOND} s"
    return f"{us // HOUR} h {us % HOUR // MINUTE} min"


def show_time(moment: datetime | None) -> str:
    """Write a moment in UTC, to the second, and say so with a Z."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def style_of(text: str) -> str:
    """Name the colour of a cell that begins with a word of ours, or nothing."""
    return STYLES.get(text.partition(":")[0], "")


def speaks_unicode() -> bool:
    """Tell whether stdout can encode whatever we draw with."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().startswith("utf")


def new_console() -> "Console":
    """Give a console that knows what the terminal behind stdout can show; ``draw`` with it."""
    from rich.console import Console

    # On paper and not on stdout: rich would end the process when nobody reads any more.
    is_watched = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=StringIO(), force_terminal=is_watched, highlight=False)
    if not is_watched:
        console.width = WIDE
    return console


def draw(console: "Console", *drawings: "RenderableType") -> str:
    """Draw one below the other, without blanks at the ends of the lines."""
    with console.capture() as paper:
        for drawing in drawings:
            console.print(drawing)
    return "\n".join(line.rstrip() for line in paper.get().splitlines())


def render_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, to_the_right: Container[int] = ()
) -> str:
    """Draw a table; verdicts in colour where there is a terminal.

    Numbers stand at the right, and so do the columns *to_the_right*, counted from 0. A cell that
    is a ``rich`` text is drawn as it is.
    """
    from rich.box import ASCII, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console = new_console()
    box = SIMPLE_HEAD if speaks_unicode() else ASCII
    table = Table(box=box, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    listed = list(rows)
    heads = [Text(printable(column)) for column in columns]
    texts = [[_as_text(cell) for cell in row] for row in listed]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    for index, head in enumerate(heads):
        is_number = all(isinstance(row[index], int | float | None) for row in listed)
        table.add_column(
            head,
            justify="right" if is_number or index in to_the_right else "left",
            overflow="fold",
            min_width=widths[index] if index < len(heads) - 1 else None,
        )
    # Only the last column is folded, as far as there is room: a number or a date that is broken
    # in two cannot be read. What is wider than the terminal even so, the terminal folds.
    narrowest = sum(widths[:-1]) + GAP * len(heads) + min(widths[-1], NARROWEST_LAST)
    console.width = max(console.width, narrowest)
    for row_texts in texts:
        table.add_row(*row_texts)
    return draw(console, table)


def _as_text(cell: object) -> "Text":
    from rich.text import Text

    if isinstance(cell, Text):
        return cell
    text = printable("-" if cell is None else str(cell))
    return Text(text, style_of(text))


def _dump(value: object) -> str:
    return json.dumps(value, default=as_json, ensure_ascii=True)


def batch_json(batch: BatchRecord) -> dict[str, object]:
    """Make of a batch what is published of it: its name is added, its packed numbers left out."""
    published = {"name": batch.name}
    published |= {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "packed"}
    return published | {"digest": batch.digest and batch.digest.hex()}


def attempt_json(record: AttemptRecord) -> dict[str, object]:
    """Make one flat object of an attempt; ``evidence`` is the digest of the answer kept."""
    attempt = record.attempt
    published = {"id": record.id, "run_id": record.run_id}
    flat = (f.name for f in fields(attempt) if f.name not in NOT_FLAT)
    published |= {name: getattr(attempt, name) for name in flat}
    published |= {f.name: getattr(attempt.timings, f.name) for f in fields(attempt.timings)}
    return published | {"evidence": record.evidence}


def json_lines(head: Mapping[str, object], **lists: Iterable[object]) -> Iterator[str]:
    """Make one JSON object: the keys of *head*, then each of *lists*, an element a line.

    Values look as ``as_json`` has them. The lists are walked over as the lines are, so that a long
    history takes no memory.
    """
    yield "{" + ", ".join(f"{_dump(key)}: {_dump(value)}" for key, value in head.items())
    for name, elements in lists.items():
        yield f", {_dump(name)}: ["
        comma = "  "
        for element in elements:
            yield f"{comma}{_dump(element)}"
            comma = ", "
        yield "]"
    yield "}"
