"""Write documents as GitHub's Markdown, for tickets and mails; foreign text is escaped."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from pipeline.rendering.document import (
    NOTHING,
    WORDS,
    Cell,
    Chart,
    Column,
    Document,
    Kind,
    Lanes,
    Part,
    SourceName,
    Table,
    Text,
    Waterfall,
    longest_bars,
    show_cell,
)
from pipeline.rendering.figures import summarize_lanes, tabulate_part
from pipeline.rendering.sparkline import summarize
from pipeline.sanitize import printable

MOST_BARS = 40
TREND_WIDTH = 40

# Letters and digits, and signs only where they begin nothing: no list, no emphasis, no
# link (a bare `www.` is one), no :emoji:, no @mention, no #123, no $formula$.
_HARMLESS = re.compile(
    r"""(?!\d+[.)](?:\s|$)) (?!.*www\.) [^\W_(]
        (?: [^\W_] | [ .,;()/%'?…-] | (?<=[^\W_])_(?=[^\W_]) | (?<=\d)[:](?=\d) | :(?=\ ) )*""",
    re.VERBOSE | re.IGNORECASE,
)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _code(text: str) -> str:
    """Put *text* between backticks, where only a run of as many of them has a meaning."""
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def escape(text: str) -> str:
    """Make *text* one line that means nothing but itself: as it is, or as code."""
    safe = printable(text)
    return safe if not safe or _HARMLESS.fullmatch(safe) else _code(safe)


@lru_cache(maxsize=1_000)  # a column says the same again and again
def _escape_cell(text: str) -> str:
    # Backslashes before a pipe are doubled: GitHub takes two of them for one and no escape.
    return re.sub(r"(\\*)\|", r"\1\1\\|", escape(text))


def _cell(cell: Cell, column: Column) -> str:
    shown = show_cell(cell, column)
    return _escape_cell(shown) if isinstance(cell, str | SourceName) else shown


def _line(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_of_table(table: Table) -> Iterator[str]:
    rows = iter(table.rows)
    first = next(rows, None)
    if first is None:
        yield NOTHING
        return
    yield _line(_escape_cell(column.head) for column in table.columns)
    yield _line(
        "---" if column.kind in (*WORDS, Kind.MOMENT) else "---:" for column in table.columns
    )
    for row in chain([first], rows):
        yield _line(map(_cell, row, table.columns))


def _markdown_of_text(text: Text) -> Iterator[str]:
    if text.is_verbatim:
        lines = [printable(line) for line in text.lines]
        fence = "`" * max(3, _longest_run("\n".join(lines)) + 1)
        yield from (fence, *lines, fence)
        return
    for index, line in enumerate(text.lines):
        if index:
            yield ""
        yield line if text.is_ours else escape(line)


def _shown(part: Part) -> Table | Text:
    """Make of a part what Markdown knows."""
    match part:
        case Chart():
            return summarize(part, width=TREND_WIDTH)
        case Waterfall():
            return tabulate_part(longest_bars(part, MOST_BARS))
        case Lanes():
            return summarize_lanes(part)
        case _:
            return tabulate_part(part)


def render_markdown(document: Document) -> Iterator[str]:
    """Write *document* as headings, paragraphs, tables and code."""
    yield f"# {escape(document.title)}"
    if document.verdict is not None:
        yield from ("", f"**{escape(document.verdict[1])}**")
    for fact in document.facts:
        yield from ("", escape(fact))
    for part in map(_shown, document.parts):
        if part.title:
            yield from ("", f"## {escape(part.title)}")
        yield ""
        if isinstance(part, Table):
            yield from _markdown_of_table(part)
        else:
            yield from _markdown_of_text(part)
