"""Write documents as text: tables, sparklines, rows of cells; letters where no colours are."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from rich.console import Console
from rich.text import Text as Drawn

from pipeline.errors import Phase
from pipeline.rendering.columns import GAP, NARROWEST_TEXT
from pipeline.rendering.console import (
    draw,
    draw_table,
    fold_prose,
    is_watched,
    new_console,
    speaks_unicode,
)
from pipeline.rendering.document import (
    NOTHING,
    WORDS,
    Bar,
    Cell,
    Chart,
    Column,
    Document,
    Kind,
    Lanes,
    Notices,
    Part,
    Strip,
    Table,
    Text,
    Waterfall,
    longest_bars,
    show_cell,
)
from pipeline.rendering.figures import summarize_lanes, tabulate_notices
from pipeline.rendering.palette import PHASES, TONE_COLOURS, style_of
from pipeline.rendering.sparkline import summarize
from pipeline.rendering.words import show_ago, show_duration, show_time
from pipeline.sanitize import printable

MOST_BARS = 40
MOST_CELLS = 96  # characters of a drawing, however wide the terminal is
FEWEST_CELLS = 20  # and however narrow
TREND = 1  # the place of the line in the summary of a chart
BESIDE_BAR = 19  # the longest duration and the gaps; labels and errors differ
BESIDE_STRIP = 24
BETWEEN = 3  # characters from one entry of a legend to the next

Ink: TypeAlias = tuple[str, str]  # a letter and its style: who sees no colours sees the letter

SPARE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789#"


def _room(console: Console, beside: int) -> int:
    """Count the cells that fit on a line next to so many characters."""
    return max(min(console.width - beside, MOST_CELLS), FEWEST_CELLS)


def _legend(console: Console, inks: Mapping[str, Ink]) -> str:
    """Say what each letter or colour means."""
    lines: list[Drawn] = []
    for name, ink in inks.items():
        item = Drawn.assemble(ink, f" {printable(name)}")
        if lines and len(lines[-1]) + len(item) + BETWEEN <= console.width:
            lines[-1].append_text(Drawn(" " * BETWEEN)).append_text(item)
        else:
            lines.append(item)
    return draw(console, *lines)


def _shown_rows(table: Table) -> list[list[str]]:
    """Write the cells; on a terminal times of about now as how long ago that was."""
    now = datetime.now(UTC) if is_watched() else None

    def show(cell: Cell, column: Column) -> str:
        if now is not None and isinstance(cell, datetime):
            return show_ago(cell, now)
        return show_cell(cell, column)

    return [list(map(show, row, table.columns)) for row in table.rows]


def text_of_table(table: Table) -> str:
    """Draw a table for the terminal behind stdout, or for a pipe."""
    columns = table.columns
    rows = _shown_rows(table)
    numeric = (Kind.NUMBER, Kind.DURATION, Kind.SHARE)
    to_the_right = [index for index, column in enumerate(columns) if column.kind in numeric]
    heads = [column.head for column in columns]
    if not rows:
        return NOTHING
    ends_in_text = columns[-1].kind in WORDS
    return draw_table(heads, rows, to_the_right=to_the_right, ends_in_text=ends_in_text)


def _phase_within(bar: Bar, begin_us: float, end_us: float) -> Phase:
    """Name the phase that took most of this stretch of time."""
    overlaps: dict[Phase, float] = {}
    at = bar.begin_us
    for phase, us in bar.segments:
        overlaps[phase] = min(at + us, end_us) - max(at, begin_us)
        at += us
    return max(overlaps, key=overlaps.__getitem__)


def _phases_of_cells(bar: Bar, clock_us: int, width: int) -> Iterator[Phase | None]:
    """Say of each cell which phase it shows; None before the attempt began."""
    us_per_cell = max(clock_us, 1) / width
    first = min(int(bar.begin_us / us_per_cell), width - 1)
    last = min(max(round((bar.begin_us + bar.took_us) / us_per_cell) - 1, first), width - 1)
    yield from [None] * first
    if bar.segments:
        for cell in range(first, last + 1):
            yield _phase_within(bar, cell * us_per_cell, (cell + 1) * us_per_cell)


def _phase_ink(phase: Phase) -> Ink:
    colour, letter = PHASES[phase]
    return letter, f"{colour} on {colour}"


def _text_of_waterfall(waterfall: Waterfall, console: Console) -> Iterator[str]:
    def drawn(bar: Bar) -> Drawn:
        phases = _phases_of_cells(bar, waterfall.clock_us, width)
        return Drawn.assemble(*(" " if phase is None else _phase_ink(phase) for phase in phases))

    labels = max(len("attempt"), *(len(bar.label) for bar in waterfall.bars))
    errors = max(len("error"), *(len(bar.error) for bar in waterfall.bars))
    width = _room(console, labels + min(errors, NARROWEST_TEXT) + BESIDE_BAR)
    clock = show_duration(waterfall.clock_us)
    yield draw_table(
        ("attempt", f"0{clock:>{width - 1}}", "took", "error"),
        ((bar.label, drawn(bar), show_duration(bar.took_us), bar.error) for bar in waterfall.bars),
        to_the_right=[2],
    )
    reached = {phase for bar in waterfall.bars for phase, _ in bar.segments}
    yield _legend(console, {phase: _phase_ink(phase) for phase in Phase if phase in reached})


def _letters_of(words: Iterable[str]) -> dict[str, str]:
    """Choose a letter for each word, if it can be one of its own."""
    letters: dict[str, str] = {}
    for word in words:
        taken = letters.values()
        candidates = (c for c in (*word.lower(), *SPARE_LETTERS) if c.isascii() and c.isalnum())
        letters[word] = next((c for c in candidates if c not in taken), "#")
    return letters


def _text_of_strip(strip: Strip, console: Console) -> Iterator[str]:
    counts = Counter(word for _, word in strip.cells)
    inks = {
        word: (letter, f"black on {TONE_COLOURS[style_of(word)]}")
        for word, letter in _letters_of(counts).items()
    }
    width = _room(console, BESIDE_STRIP)
    for begin in range(0, len(strip.cells), width):
        line = strip.cells[begin : begin + width]
        yield draw(
            console,
            Drawn.assemble(show_time(line[0][0]), "  ", *(inks[word] for _, word in line)),
        )
    yield _legend(console, {f"{word} {counts[word]}": ink for word, ink in inks.items()})


def _is_a_moment(part: Part) -> bool:
    """Tell whether *part* is a trend of a single moment, which says what the table has said."""
    return isinstance(part, Chart) and bool(part.series) and len(part.moments) == 1


def _summary(chart: Chart, console: Console) -> Table:
    """Make of a chart a table in which the lines take the room that the rest leaves."""
    is_ascii = not speaks_unicode()
    table = summarize(chart, width=1, is_ascii=is_ascii)
    heads = [len(column.head) for column in table.columns]
    shown = [list(map(len, row)) for row in _shown_rows(table)]
    widths = [max(cells) for cells in zip(heads, *shown, strict=True)]
    others = sum(width + GAP for place, width in enumerate(widths) if place != TREND)
    return summarize(chart, width=_room(console, others), is_ascii=is_ascii)


def _shown(part: Part, console: Console) -> Part:
    """Make of a part what a terminal has room for."""
    match part:
        case Chart():
            return _summary(part, console)
        case Waterfall():
            return longest_bars(part, MOST_BARS)
        case Lanes():
            return summarize_lanes(part)
        case Notices():
            return tabulate_notices(part)
        case _:
            return part


def _text_of(part: Part, console: Console) -> Iterator[str]:
    match part:
        case Table():
            yield text_of_table(part)
        case Waterfall(bars=[_, *_]):
            yield from _text_of_waterfall(part, console)
        case Strip(cells=[_, *_]):
            yield from _text_of_strip(part, console)
        case Text():
            yield from fold_prose(part.lines, console)
        case _:
            yield NOTHING


def render_text(document: Document) -> Iterator[str]:
    """Write *document* for the terminal behind stdout, or for a pipe, where no line is folded.

    Its title is left out: who typed the command knows what was asked.
    """
    console = new_console()
    yield from fold_prose([*(document.verdict or ())[1:], *document.facts], console)
    parts = [part for part in document.parts if not _is_a_moment(part)]
    for index, part in enumerate(parts):
        if index or document.facts:
            yield ""
        shown = _shown(part, console)
        if shown.title:
            yield draw(
                console, *(Drawn(line, "bold") for line in fold_prose([shown.title], console))
            )
        yield from _text_of(shown, console)
