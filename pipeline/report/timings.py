"""The report of timings: percentiles of the phases, their trend, the waterfall of one run."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from pipeline.errors import Phase
from pipeline.histogram import PRECISION, Histogram
from pipeline.models import AttemptRecord, RunSummary, Step
from pipeline.rendering.document import Bar, Chart, Document, Kind, Part, Waterfall
from pipeline.rendering.output import json_lines
from pipeline.rendering.records import inside, picks
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of
from pipeline.report.question import Question, facts, head, write_document
from pipeline.report.trends import Buckets, make_buckets, trend
from pipeline.scope import show_window, window_json
from pipeline.store import durations, history, queries
from pipeline.store.columns import PHASE_COLUMNS
from pipeline.store.durations import MEASURED, Percentiles
from pipeline.store.summaries import EXCHANGE
from pipeline.store.window import Window

MICROSECOND = timedelta(microseconds=1)
RANKS = (0.5, 0.9, 0.99)  # drawn

TIMING = (
    "source is_sandbox phase "
    + inside("durations", "attempts=n p50_us p90_us p99_us max_us total_us")
    + " share"
)
TABLE = TIMING.replace(" total_us=durations.total_us", "")
POINT = "began_at source " + inside("durations", "attempts=n p50_us p90_us p99_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingLine:
    """How long one phase of the attempts at one source took.

    Attributes:
        phase: or ``exchange``: all of an attempt but its wait.
        durations: of the attempts that reached it.
        source_us: all the time of the source's attempts.
    """

    source: str
    is_sandbox: bool | None
    phase: str
    durations: Histogram
    source_us: int

    @property
    def share(self) -> float | None:
        """Give the share of the source's time; None if that is nothing."""
        return self.durations.total_us / self.source_us if self.source_us else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPoint:
    """How long the exchanges with one source took in the hour or day that began then."""

    began_at: datetime
    source: str
    durations: Histogram


def lines(session: Session, question: Question) -> Iterator[str]:
    """Write the timings."""
    found = find_timings(session, question)
    listed = timing_lines(session, question, found)
    points = [] if question.run is not None else timing_points(session, question)
    if question.shape is Shape.JSON:
        read = {"is_exact": found.is_exact, "read": window_json(found.window)}
        return json_lines(
            head("pipeline.timings/1", question) | read,
            timings=picks(listed, TIMING),
            trend=picks(points, POINT),
        )
    said = facts(session, question)
    if listed or question.run is None:
        said.append(how_known(found, question.window.step))
    document = Document(
        title="Timings",
        facts=said,
        parts=[tabulate(TimingLine, listed, TABLE), *_drawings(session, question, points)],
    )
    return write_document(document, question)


def find_timings(
    session: Session, question: Question, *, phases: Collection[str] = MEASURED
) -> Percentiles:
    """Distribute the durations by source and phase."""
    return durations.percentiles(
        session, question.window, source=question.source, run_id=question.run_id, phases=phases
    )


def timing_lines(session: Session, question: Question, found: Percentiles) -> list[TimingLine]:
    """List the timings by source and then in the order of the phases."""
    sandbox = history.played_by_sandbox(
        session, found.window, source=question.source, run_id=question.run_id
    )
    return [
        TimingLine(
            source=source,
            is_sandbox=sandbox.get(source),
            phase=phase,
            durations=of[phase],
            source_us=sum(of[part].total_us for part in Phase if part in of),
        )
        for source, of in sorted(found.of.items())
        for phase in (*map(str, Phase), EXCHANGE)
        if phase in of
    ]


def timing_points(session: Session, question: Question) -> Iterator[TimingPoint]:
    """Walk over the exchanges of each hour or day and source, in the order of time."""
    steps = durations.timings_by_step(
        session, question.window, source=question.source, phases={EXCHANGE}
    )
    for began_at, source, histograms in steps:
        if exchange := histograms.get(EXCHANGE):
            yield TimingPoint(began_at=began_at, source=source, durations=exchange)


def how_known(found: Percentiles, step: Step) -> str:
    """Say what was looked at, and how far off a percentile may be."""
    if found.is_exact:
        n = sum(of[EXCHANGE].n for of in found.of.values())
        return f"Timings are exact: {count_of(n, 'attempt')} looked at one by one."
    return (
        f"Percentiles are those of buckets, off by {PRECISION:.1%} at most."
        f" {show_window(found.window)}, read by whole {step}s."
    )


def _drawings(
    session: Session, question: Question, points: Iterable[TimingPoint]
) -> Iterator[Part]:
    if question.run is None:
        yield from charts_of_exchanges(list(points), question.window)
    elif (drawn := waterfall(session, question.run, source=question.source)).bars:
        yield drawn


def charts_of_rank(
    points: Sequence[TimingPoint], buckets: Buckets | None, rank: float
) -> list[Chart]:
    """Draw the course of what such a share of the exchanges took at most, by source."""
    drawn = [(point.began_at, point.source, (rank, point.durations)) for point in points]
    return trend(f"Exchanges, p{rank * 100:g}", Kind.DURATION, buckets, drawn, _rank)


def charts_of_exchanges(points: Sequence[TimingPoint], window: Window) -> Iterator[Chart]:
    """Draw the course of the exchanges, a chart for each source."""
    buckets = make_buckets((point.began_at for point in points), window)
    for source in sorted({point.source for point in points}):
        ranked = [
            (point.began_at, f"p{rank * 100:g}", (rank, point.durations))
            for point in points
            if point.source == source
            for rank in RANKS
        ]
        yield from trend(f"Exchanges with {source}", Kind.DURATION, buckets, ranked, _rank)


def _rank(ranked: Sequence[tuple[float, Histogram]]) -> float | None:
    """Merge the durations of several hours or days, and give one percentile of them."""
    merged = Histogram()
    for _, each in ranked:
        merged.merge(each)
    return merged.percentiles(ranked[0][0])[0]


def waterfall(session: Session, run: RunSummary, *, source: str | None = None) -> Waterfall:
    """Draw each attempt of a run as a bar, those that began first on top."""
    made = [
        record
        for record in queries.attempts_of_run(session, run_id=run.id)
        if source in (None, record.attempt.source)
    ]
    made.sort(key=lambda record: (record.attempt.began_at, record.id))
    bars = [_bar(record, run) for record in made]
    ends = (bar.begin_us + bar.took_us for bar in bars)
    return Waterfall(
        title="What the run waited for",
        clock_us=max(run.clock_us or 0, *ends, 0),
        bars=bars,
    )


def _bar(record: AttemptRecord, run: RunSummary) -> Bar:
    attempt = record.attempt
    durations = ((phase, getattr(attempt.timings, name)) for phase, name in PHASE_COLUMNS.items())
    return Bar(
        label=f"w{attempt.fetch} try {attempt.number} {attempt.source}",
        begin_us=max((attempt.began_at - run.started_at) // MICROSECOND, 0),
        segments=[(phase, us) for phase, us in durations if us is not None],
        error=attempt.error or "",
        attempt_id=record.id,
    )
