"""What an answer holds, before anybody decides how it looks: text, Markdown, CSV or HTML.

The cells are raw values and the column says what they are, so that a person reads ``1.03 s`` where
a sheet has ``1034000`` below ``clock_us``. JSON is not made here: programs get the records whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import TypeAlias

from pipeline.cli.options import Shape
from pipeline.cli.render import show_duration, show_time
from pipeline.errors import Phase

NOTHING = "none"  # stands where a table or a chart has nothing to show
ALMOST_ALL = 0.9999  # a share is shown as 100 % only if nothing is missing

Cell: TypeAlias = str | int | float | datetime | None


class Kind(StrEnum):
    """What the values of a column or of a chart are."""

    TEXT = "text"
    NUMBER = "number"
    MOMENT = "moment"  # an aware datetime
    DURATION = "duration"  # microseconds
    SHARE = "share"  # from 0 to 1


class Mark(StrEnum):
    """What a chart is drawn with: a line per series, or bars that stand on each other."""

    LINE = "line"
    BARS = "bars"


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column, in lower case, and what its cells are (or None)."""

    name: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows below columns.

    Attributes:
        title: empty where the document's own says it all.
        rows: walked over once, as they are written; a cell for each column.
    """

    title: str = ""
    columns: Sequence[Column]
    rows: Iterable[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Series:
    """One thing measured at each of a chart's moments; None: it was not."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What became of some measures over time.

    Attributes:
        kind: of all values: ``NUMBER``, ``DURATION`` or ``SHARE``.
        moments: ascending; where the values of each series stand.
    """

    title: str
    kind: Kind
    moments: Sequence[datetime]
    series: Sequence[Series]
    mark: Mark = Mark.LINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One attempt.

    Attributes:
        begin_us: since the run began.
        segments: the phases it reached, in order, and how long each took in microseconds.
        error: what went wrong; empty if nothing did.
    """

    label: str
    begin_us: int
    segments: Sequence[tuple[Phase, int]]
    error: str = ""

    @property
    def took_us(self) -> int:
        """Add the phases up."""
        return sum(us for _, us in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """What a run waited for: a bar per attempt on a scale from 0 to ``clock_us``."""

    title: str
    clock_us: int
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """What became of one moment after the other, in a word each: a row of coloured cells."""

    title: str
    cells: Sequence[tuple[datetime, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Lines of prose, each a paragraph; or, verbatim, a block such as a command or a body.

    Attributes:
        is_ours: nothing in it came from outside, so what stands between backticks is code.
    """

    title: str = ""
    lines: Sequence[str]
    is_verbatim: bool = False
    is_ours: bool = False


Part: TypeAlias = Table | Chart | Waterfall | Strip | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One answer.

    Attributes:
        facts: what a person must know who reads no further, a sentence each.
        parts: the most important table first: a sheet holds only that one.
    """

    title: str
    facts: Sequence[str] = ()
    parts: Sequence[Part] = ()


def show_cell(cell: Cell, kind: Kind) -> str:
    """Write a cell for a person; what is not known is a hyphen. It may still hold foreign text."""
    match kind, cell:
        case _, None:
            return "-"
        case Kind.DURATION, int() | float():
            return show_duration(round(cell))
        case Kind.SHARE, int() | float():
            return f"{cell if cell >= 1 else min(cell, ALMOST_ALL):.2%}"
        case _, datetime():
            return show_time(cell)
        case _, float():
            return f"{cell:.4g}"
        case _:
            return str(cell)


def tabulate_chart(chart: Chart) -> Table:
    """Make a row of each moment, a column of each series."""
    values = zip(*(series.values for series in chart.series), strict=True)
    return Table(
        title=chart.title,
        columns=(
            Column("time", Kind.MOMENT),
            *(Column(series.name, chart.kind) for series in chart.series),
        ),
        rows=(
            [(moment, *row) for moment, row in zip(chart.moments, values, strict=True)]
            if chart.series
            else [(moment,) for moment in chart.moments]
        ),
    )


def tabulate_waterfall(waterfall: Waterfall) -> Table:
    """Make a row of each bar, a column of each phase; a phase that was not reached is None."""
    return Table(
        title=waterfall.title,
        columns=(
            Column("attempt"),
            Column("begin", Kind.DURATION),
            *(Column(phase, Kind.DURATION) for phase in Phase),
            Column("error"),
        ),
        rows=[
            (bar.label, bar.begin_us, *map(dict(bar.segments).get, Phase), bar.error or None)
            for bar in waterfall.bars
        ],
    )


def tabulate_strip(strip: Strip) -> Table:
    """Make a row of each stretch of moments with the same word."""
    stretches = (
        (word, [moment for moment, _ in cells])
        for word, cells in groupby(strip.cells, key=lambda cell: cell[1])
    )
    return Table(
        title=strip.title,
        columns=(
            Column("from", Kind.MOMENT),
            Column("to", Kind.MOMENT),
            Column("outcome"),
            Column("n", Kind.NUMBER),
        ),
        rows=[(moments[0], moments[-1], word, len(moments)) for word, moments in stretches],
    )


def longest_bars(waterfall: Waterfall, most: int) -> Waterfall:
    """Keep what a person looks for: the bars that failed, then the longest; in their order."""
    if len(waterfall.bars) <= most:
        return waterfall
    ranked = sorted(waterfall.bars, key=lambda bar: (not bar.error, -bar.took_us))
    kept = sorted(ranked[:most], key=lambda bar: bar.begin_us)
    title = (
        f"{waterfall.title} ({most} of {len(waterfall.bars):,} attempts:"
        " those that failed, then the longest)"
    )
    return Waterfall(title=title, clock_us=waterfall.clock_us, bars=kept)


def render(document: Document, shape: Shape) -> Iterator[str]:
    """Write *document* line by line, without line ends, in any shape but JSON.

    A sheet (CSV) holds the document's first table, or, without one, its first chart as a table.

    Raises:
        UsageError: it has charts, HTML was wanted, and plotly is not installed.
    """
    match shape:
        case Shape.TEXT:
            from pipeline.cli.terminal import render_text as render_shape
        case Shape.MARKDOWN:
            from pipeline.cli.markdown import render_markdown as render_shape
        case Shape.CSV:
            from pipeline.cli.sheet import render_sheet as render_shape
        case Shape.HTML:
            from pipeline.cli.html import render_html as render_shape
        case Shape.JSON:
            raise NotImplementedError("JSON is made from the records, not from a document")
    return render_shape(document)
