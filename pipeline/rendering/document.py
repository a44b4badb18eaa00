"""The parts of an answer, before it is written as text, Markdown, CSV or HTML.

Cells hold raw values, and the column says what they are: a person reads ``1.03 s`` where a sheet
has ``1034000`` below ``clock_us``. JSON is made from the records instead (see ``records.py``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from pipeline.errors import Phase
from pipeline.rendering.words import show_duration, show_step, show_time

NOTHING = "none"  # stands where a table or a chart has nothing to show
ALMOST_ALL = 0.9999  # a share is shown as 100 % only if nothing is missing


@dataclass(frozen=True, slots=True)
class SourceName:
    """A source, and whether the sandbox played it (None: at times), as a cell."""

    name: str
    is_sandbox: bool | None

    def __str__(self) -> str:
        if self.is_sandbox is False:
            return self.name
        return f"{self.name} ({'sandbox' if self.is_sandbox else 'partly sandbox'})"


Cell: TypeAlias = str | int | float | date | datetime | SourceName | None


class Kind(StrEnum):
    """What the values of a column or of a chart are."""

    TEXT = "text"
    SOURCE = "source"  # a SourceName
    NUMBER = "number"
    MOMENT = "moment"  # an aware datetime
    DURATION = "duration"  # microseconds
    SHARE = "share"  # from 0 to 1


WORDS = (Kind.TEXT, Kind.SOURCE)


class Mark(StrEnum):
    """What a chart is drawn with: a line per series, or bars that stand on each other."""

    LINE = "line"
    BARS = "bars"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: as programs read it, in the head of a sheet: ``last_attempt_id``.
        kind: what its cells are, unless None.
        title: for people; empty: derived from the name.
        nothing: what people read where a cell is None.
    """

    name: str
    kind: Kind = Kind.TEXT
    title: str = ""
    nothing: str = "-"

    @property
    def head(self) -> str:
        """Name the column to a person: ``last attempt``."""
        if self.title or self.name == "attempt_number":
            return self.title or "try"
        name = self.name.removeprefix("is_")
        for suffix in ("_us", "_at", "_id", "_share"):
            name = name.removesuffix(suffix)
        return name.replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows below columns.

    Attributes:
        title: empty where the document's own says it all.
        rows: walked over once, as they are written; a cell for each column.
        anchor: what a row is of, by its first cell: then links on a page lead to it.
    """

    title: str = ""
    columns: Sequence[Column]
    rows: Iterable[Sequence[Cell]]
    anchor: str = ""


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
        step: from each moment to the next, if they are evenly spaced.
    """

    title: str
    kind: Kind
    moments: Sequence[datetime]
    series: Sequence[Series]
    mark: Mark = Mark.LINE
    step: timedelta | None = None

    @property
    def heading(self) -> str:
        """Name it to a person, with its step: ``Numbers collected per hour``."""
        return self.title if self.step is None else f"{self.title} per {show_step(self.step)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One attempt.

    Attributes:
        begin_us: since the run began.
        segments: the phases it reached, in order, and how long each took in microseconds.
        error: what went wrong; empty if nothing did.
        attempt_id: as ``audit show`` takes it.
    """

    label: str
    begin_us: int
    segments: Sequence[tuple[Phase, int]]
    error: str = ""
    attempt_id: int | None = None

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
class Lane:
    """What became of one thing, stretch of time by stretch of time.

    Attributes:
        words: one for each moment.
        notes: the figures behind each of the words, for a person.
        state: how it is now, in a word.
        sum: what all of them add up to, for a person.
    """

    name: str
    words: Sequence[str]
    notes: Sequence[str]
    state: str
    sum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Strips below each other on one scale of time: a lane per thing, a cell per moment."""

    title: str
    step: timedelta
    moments: Sequence[datetime]
    lanes: Sequence[Lane]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing that wants attention.

    Attributes:
        word: how bad it is.
        target: the row of a table that tells more; ``finding-1``.
        command: that shows more.
    """

    word: str
    text: str
    detail: str = ""
    target: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """What wants attention, the most urgent first."""

    title: str
    notices: Sequence[Notice]


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


Part: TypeAlias = Table | Chart | Waterfall | Strip | Lanes | Notices | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an answer comes from: a page that was kept must say it.

    Attributes:
        store: its address, without a password.
        version: of this program.
        refresh_seconds: after which a browser is to load it again; None: not by itself.
    """

    store: str
    host: str
    version: str
    window: str
    written_at: datetime
    refresh_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One answer.

    Attributes:
        verdict: a word, and the one sentence for who reads no further.
        facts: what a person must know besides, a sentence each.
        parts: the most important table first: a sheet holds only that one.
    """

    title: str
    verdict: tuple[str, str] | None = None
    facts: Sequence[str] = ()
    parts: Sequence[Part] = ()
    origin: Origin | None = None


def show_cell(cell: Cell, column: Column) -> str:
    """Write a cell for a person. It may still hold foreign text."""
    match column.kind, cell:
        case _, None:
            return column.nothing
        case Kind.DURATION, int() | float():
            return show_duration(round(cell))
        case Kind.SHARE, int() | float():
            return f"{cell if cell >= 1 else min(cell, ALMOST_ALL):.2%}"
        case _, datetime():
            return show_time(cell)
        case _, float():
            return f"{cell:.4g}"
        case _:
            return {True: "yes", False: "no"}[cell] if isinstance(cell, bool) else str(cell)


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
