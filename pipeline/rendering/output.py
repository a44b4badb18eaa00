"""Write answers to stdout; make JSON of them line by line."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import IO

from pipeline.rendering.records import as_json

MOST_IN_MEMORY = 16 * 2**20  # characters of one answer; the rest of it waits in a file


class OutputError(Exception):
    """stdout takes no more, for the ``reason`` that the system gives."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = self.__cause__ = reason


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(exc) from exc


def write(text: str) -> None:
    """Write *text* and a line end; a closed stdout takes nothing.

    Raises:
        OutputError: the disk behind stdout is full, or its reader has gone.
    """
    if sys.stdout is not None:
        with _output_errors():
            sys.stdout.write(f"{text}\n")


def prose(*lines: str) -> Iterator[str]:
    """Give lines to a person: for a terminal they are broken between words where they must be."""
    from pipeline.rendering.console import fold_prose

    return fold_prose(lines)


def write_prose(*lines: str) -> None:
    """Write lines as ``prose`` gives them."""
    write("\n".join(prose(*lines)))


def flush() -> None:
    """Make sure that all has arrived."""
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
    with (
        _output_errors(),
        SpooledTemporaryFile(MOST_IN_MEMORY, "w+", encoding="utf-8", newline="") as spool,
    ):
        yield spool
        spool.seek(0)
        if sys.stdout is not None:
            copyfileobj(spool, sys.stdout)


def write_lines(lines: Iterable[str]) -> None:
    """Write lines as they come, all of them or, if one cannot be made, none."""
    with spooled() as paper:
        paper.writelines(f"{line}\n" for line in lines)


def render_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Draw a table, as ``console.draw_table`` does."""
    from pipeline.rendering.console import draw_table

    return draw_table(columns, rows)


def _dump(value: object) -> str:
    return json.dumps(value, default=as_json, ensure_ascii=True)


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
