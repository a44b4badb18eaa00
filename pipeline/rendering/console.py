"""Draw on a terminal, or for a pipe, with rich; foreign text cannot steer the terminal."""

import os
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from io import StringIO

from rich.console import Console
from rich.text import Text

from pipeline.rendering.columns import fold, head_lines, lay_out, row_lines
from pipeline.rendering.palette import style_of
from pipeline.sanitize import printable

WIDE = 10_000  # characters: without a terminal no line is folded
USUAL, NARROWEST = 80, 10


def speaks_unicode() -> bool:
    """Tell whether stdout can encode whatever we draw with."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().startswith("utf")


def is_watched() -> bool:
    """Tell whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def new_console() -> Console:
    """Give a console that knows what the terminal behind stdout can show; ``draw`` with it.

    Elsewhere it has no colours, unless $FORCE_COLOR wants them, and folds no line, unless $COLUMNS
    says how long they are.
    """
    # Not on stdout itself: rich would end the process when the reader has gone.
    wants_colour = is_watched() or bool(os.environ.get("FORCE_COLOR"))
    console = Console(file=StringIO(), force_terminal=wants_colour, highlight=False)
    if not is_watched() and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = WIDE
    elif console.width < NARROWEST:  # COLUMNS=0, say: nobody can mean that
        console.width = USUAL
    return console


def draw(console: Console, *drawings: Text) -> str:
    """Draw one below the other, each as wide as it is, without blanks at the ends of the lines."""
    with console.capture() as paper:
        for drawing in drawings:
            console.print(drawing, soft_wrap=True)
    return "\n".join(line.rstrip() for line in paper.get().splitlines())


def fold_prose(lines: Iterable[str], console: Console | None = None) -> Iterator[str]:
    """Break lines between words, so that they fit the terminal; a pipe gets them as they are."""
    width = (console or new_console()).width
    return (line for text in lines for line in fold(printable(text), width))


def draw_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    to_the_right: Container[int] = (),
    ends_in_text: bool = True,
) -> str:
    """Draw a table that fits the terminal; verdicts in colour where there is one.

    Numbers stand at the right, and so do the columns *to_the_right*, counted from 0. A cell that
    is a ``rich`` text is drawn as it is. *ends_in_text*: the last column may hold long text.
    """
    console = new_console()
    listed = list(rows)
    texts = [[_as_text(cell) for cell in row] for row in listed]
    right = {
        index
        for index in range(len(columns))
        if index in to_the_right
        or all(isinstance(row[index], int | float | None) for row in listed)
    }
    is_text = ends_in_text and len(columns) - 1 not in right
    layout = lay_out(
        list(map(printable, columns)),
        texts,
        console.width,
        ends_in_text=is_text,
    )
    lines = [line for row in texts for line in row_lines(row, layout, right)]
    heads = list(head_lines(layout, right))
    widest = min(max(map(len, (*heads, *lines)), default=0), console.width)
    rule = Text(("\u2500" if speaks_unicode() else "-") * widest)
    return draw(console, *heads, rule, *lines)


def _as_text(cell: object) -> Text:
    if isinstance(cell, Text):
        return cell
    text = printable("-" if cell is None else str(cell))
    return Text(text, style_of(text))
