"""Documents as text: tables, sparklines, rows of cells; letters where there are no colours."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

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
    from rich.text import Text as Cells

MOST_BARS = 40
MOST_CELLS = 96  # characters of a drawing, however wide the terminal is
FEWEST_CELLS = 20  # and however narrow
BESIDE_TREND = 64  # characters that the other columns take
BESIDE_BAR = 42
BESIDE_STRIP = 24

SPARE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789#"


class Ink:
    """Draws cells: as colours where the terminal has them, else as letters."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.has_colours = console.color_system is not None and not console.no_color

    def cell(self, letter: str, colour: str) -> "Cells":
        """Draw one cell."""
        from rich.text import Text

        return Text(" ", f"on {colour}") if self.has_colours else Text(letter)

    def legend(self, inks: Mapping[str, tuple[str, str]]) -> str:
        """Say what each letter or colour means."""
        from rich.text import Text

        words = (
            Text.assemble(self.cell(*ink), f" {printable(name)}") for name, ink in inks.items()
        )
        return self.draw(Text("   ").join(words))

    def heading(self, text: str) -> str:
        """Write *text* so that it stands out."""
        from rich.text import Text

        return self.draw(Text(printable(text), "bold"))

    def draw(self, *lines: "Cells") -> str:
        """Draw one line below the other."""
        return draw(self.console, *lines)

    def room(self, beside: int) -> int:
        """Count the cells that fit on a line next to so many characters."""
        return max(min(self.console.width - beside, MOST_CELLS), FEWEST_CELLS)


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


def _text_of_waterfall(waterfall: Waterfall, ink: Ink) -> Iterator[str]:
    from rich.text import Text

    def drawn(bar: Bar) -> "Cells":
        phases = _phases_of_cells(bar, waterfall.clock_us, width)
        return Text("").join(
            Text(" ") if phase is None else ink.cell(PHASE_LETTERS[phase], PHASE_COLOURS[phase])
            for phase in phases
        )

    width = ink.room(BESIDE_BAR)
    clock = show_duration(waterfall.clock_us)
    yield render_table(
        ("attempt", f"0{clock:>{width - 1}}", "took", "error"),
        ((bar.label, drawn(bar), show_duration(bar.took_us), bar.error) for bar in waterfall.bars),
        to_the_right=[2],
    )
    reached = {phase for bar in waterfall.bars for phase, _ in bar.segments}
    yield ink.legend(
        {phase: (PHASE_LETTERS[phase], PHASE_COLOURS[phase]) for phase in Phase if phase in reached}
    )


def _letters_of(words: Sequence[str]) -> dict[str, str]:
    """Choose a letter for each word, if it can be one of its own."""
    letters: dict[str, str] = {}
    for word in words:
        taken = letters.values()
        candidates = (c for c in (*word.lower(), *SPARE_LETTERS) if c.isascii() and c.isalnum())
        letters[word] = next((c for c in candidates if c not in taken), "#")
    return letters


def _text_of_strip(strip: Strip, ink: Ink) -> Iterator[str]:
    from rich.text import Text

    counts = Counter(word for _, word in strip.cells)
    inks = {
        word: (letter, TONE_COLOURS[style_of(word)])
        for word, letter in _letters_of(list(counts)).items()
    }
    width = ink.room(BESIDE_STRIP)
    for begin in range(0, len(strip.cells), width):
        line = strip.cells[begin : begin + width]
        cells = (ink.cell(*inks[word]) for _, word in line)
        yield ink.draw(Text.assemble(show_time(line[0][0]), "  ", *cells))
    yield ink.legend({f"{word} {counts[word]}": drawn for word, drawn in inks.items()})


def _shown(part: Part, ink: Ink) -> Part:
    """Make of a part what a terminal has room for."""
    match part:
        case Chart():
            return summarize(part, width=ink.room(BESIDE_TREND), is_ascii=not speaks_unicode())
        case Waterfall():
            return longest_bars(part, MOST_BARS)
        case _:
            return part


def _text_of(part: Part, ink: Ink) -> Iterator[str]:
    match part:
        case Table():
            yield _text_of_table(part)
        case Waterfall(bars=[_, *_]):
            yield from _text_of_waterfall(part, ink)
        case Strip(cells=[_, *_]):
            yield from _text_of_strip(part, ink)
        case Text():
            yield from map(printable, part.lines)
        case _:
            yield NOTHING


def render_text(document: Document) -> Iterator[str]:
    """Write *document* for the terminal behind stdout, or for a pipe, where no line is folded.

    Its title is left out: who typed the command knows what was asked.
    """
    ink = Ink(new_console())
    yield from map(printable, document.facts)
    for index, part in enumerate(document.parts):
        if index or document.facts:
            yield ""
        shown = _shown(part, ink)
        if shown.title:
            yield ink.heading(shown.title)
        yield from _text_of(shown, ink)
