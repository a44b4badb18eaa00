"""Documents as text: tables, sparklines, rows of cells; letters where there are no colours."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from pipeline.cli.document import (
    NOTHING,
    Bar,
    Chart,
    Document,
    Kind,
    Part,
    Strip,
    Table,
    Text,
    Waterfall,
    longest_bars,
    show_cell,
)
from pipeline.cli.palette import PHASE_COLOURS, PHASE_LETTERS, TONE_COLOURS
from pipeline.cli.render import (
    NARROWEST_LAST,
    draw,
    new_console,
    render_table,
    show_duration,
    show_time,
    speaks_unicode,
    style_of,
)
from pipeline.cli.sparkline import summarize
from pipeline.errors import Phase
from pipeline.sanitize import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text as Drawn

MOST_BARS = 40
MOST_CELLS = 96  # characters of a drawing, however wide the terminal is
FEWEST_CELLS = 20  # and however narrow
BESIDE_TREND = 64  # characters that the other columns take
BESIDE_BAR = 19  # the longest duration and the gaps; labels and errors differ
BESIDE_STRIP = 24

Ink: TypeAlias = tuple[str, str]  # a letter and its style: who sees no colours sees the letter

SPARE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789#"


def _room(console: "Console", beside: int) -> int:
    """Count the cells that fit on a line next to so many characters."""
    return max(min(console.width - beside, MOST_CELLS), FEWEST_CELLS)


def _bold(console: "Console", text: str) -> str:
    from rich.text import Text as Drawn

    return draw(console, Drawn(printable(text), "bold"))


def _legend(console: "Console", inks: Mapping[str, Ink]) -> str:
    """Say what each letter or colour means."""
    from rich.text import Text as Drawn

    names = (Drawn.assemble(ink, f" {printable(name)}") for name, ink in inks.items())
    return draw(console, Drawn("   ").join(names))


def _text_of_table(table: Table) -> str:
    kinds = [column.kind for column in table.columns]
    rows = [
        [show_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True)] for row in table.rows
    ]
    numeric = (Kind.NUMBER, Kind.DURATION, Kind.SHARE)
    to_the_right = [index for index, kind in enumerate(kinds) if kind in numeric]
    names = [column.name for column in table.columns]
    return render_table(names, rows, to_the_right=to_the_right) if rows else NOTHING


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
    colour = PHASE_COLOURS[phase]
    return PHASE_LETTERS[phase], f"{colour} on {colour}"


def _text_of_waterfall(waterfall: Waterfall, console: "Console") -> Iterator[str]:
    from rich.text import Text as Drawn

    def drawn(bar: Bar) -> "Drawn":
        phases = _phases_of_cells(bar, waterfall.clock_us, width)
        return Drawn.assemble(*(" " if phase is None else _phase_ink(phase) for phase in phases))

    labels = max(len("attempt"), *(len(bar.label) for bar in waterfall.bars))
    errors = max(len("error"), *(len(bar.error) for bar in waterfall.bars))
    width = _room(console, labels + min(errors, NARROWEST_LAST) + BESIDE_BAR)
    clock = show_duration(waterfall.clock_us)
    yield render_table(
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


def _text_of_strip(strip: Strip, console: "Console") -> Iterator[str]:
    from rich.text import Text as Drawn

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


def _shown(part: Part, console: "Console") -> Part:
    """Make of a part what a terminal has room for."""
    match part:
        case Chart():
            return summarize(
                part, width=_room(console, BESIDE_TREND), is_ascii=not speaks_unicode()
            )
        case Waterfall():
            return longest_bars(part, MOST_BARS)
        case _:
            return part


def _text_of(part: Part, console: "Console") -> Iterator[str]:
    match part:
        case Table():
            yield _text_of_table(part)
        case Waterfall(bars=[_, *_]):
            yield from _text_of_waterfall(part, console)
        case Strip(cells=[_, *_]):
            yield from _text_of_strip(part, console)
        case Text():
            yield from map(printable, part.lines)
        case _:
            yield NOTHING


def render_text(document: Document) -> Iterator[str]:
    """Write *document* for the terminal behind stdout, or for a pipe, where no line is folded.

    Its title is left out: who typed the command knows what was asked.
    """
    console = new_console()
    yield from map(printable, document.facts)
    parts = [part for part in document.parts if not _is_a_moment(part)]
    for index, part in enumerate(parts):
        if index or document.facts:
            yield ""
        shown = _shown(part, console)
        if shown.title:
            yield _bold(console, shown.title)
        yield from _text_of(shown, console)
