"""How long the phases took: percentiles, their course over time, the waterfall of one run."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from pipeline import report as core
from pipeline.cli.asking import show_window, window_json
from pipeline.cli.document import (
    Bar,
    Chart,
    Column,
    Document,
    Kind,
    Part,
    Table,
    Waterfall,
    render,
)
from pipeline.cli.options import Shape
from pipeline.cli.render import json_lines
from pipeline.cli.report.answers import facts, head
from pipeline.cli.report.question import Question
from pipeline.cli.report.trends import trend
from pipeline.cli.words import count_of
from pipeline.histogram import PRECISION
from pipeline.store.summaries import EXCHANGE
from pipeline.store.tables import PHASE_COLUMNS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlmodel import Session

    from pipeline.models import AttemptRecord, RunSummary, Step
    from pipeline.report import TimingPoint, TimingReport
    from pipeline.store.history import Window

MICROSECOND = timedelta(microseconds=1)


def lines(session: "Session", scope: core.Scope, question: Question) -> Iterator[str]:
    """Write the timings."""
    found = core.timing_report(session, scope)
    points = [] if scope.run is not None else core.timing_points(session, scope)
    if question.shape is Shape.JSON:
        read = {"is_exact": found.is_exact, "read": window_json(found.window)}
        return json_lines(
            head("pipeline.timings/1", scope) | read, timings=found.lines, trend=points
        )
    said = facts(session, scope)
    if found.lines or scope.run is None:
        said.append(how_known(found, scope.window.step))
    document = Document(
        title="Timings",
        facts=said,
        parts=[table_of_timings(found), *_drawings(session, scope, points)],
    )
    return render(document, question.shape)


def how_known(found: "TimingReport", step: "Step") -> str:
    """Say what was looked at, and how far off a percentile may be."""
    if found.is_exact:
        n = sum(line.n for line in found.lines if line.phase == EXCHANGE)
        return f"Timings are exact: {count_of(n, 'attempt')} looked at one by one."
    return (
        f"Percentiles are those of buckets, off by {PRECISION:.1%} at most."
        f" {show_window(found.window)}, read by whole {step}s."
    )


def table_of_timings(found: "TimingReport", *, title: str = "") -> Table:
    """Make a row of each source and phase."""
    return Table(
        title=title,
        columns=(
            Column("source"),
            Column("phase"),
            Column("n", Kind.NUMBER),
            Column("p50", Kind.DURATION),
            Column("p90", Kind.DURATION),
            Column("p99", Kind.DURATION),
            Column("max", Kind.DURATION),
            Column("share", Kind.SHARE),
        ),
        rows=[
            (
                line.source,
                line.phase,
                line.n,
                line.p50_us,
                line.p90_us,
                line.p99_us,
                line.max_us,
                line.share,
            )
            for line in found.lines
        ],
    )


def _drawings(
    session: "Session", scope: core.Scope, points: Iterable["TimingPoint"]
) -> Iterator[Part]:
    if scope.run is None:
        yield from charts_of_exchanges(points, scope.window)
    elif (drawn := waterfall(session, scope.run, source=scope.source)).bars:
        yield drawn


def chart_of_medians(points: Iterable["TimingPoint"], window: "Window") -> list[Chart]:
    """Draw the course of what half of the exchanges took at most, by source."""
    medians = [(point.began_at, point.source, point.p50_us) for point in points]
    return trend("Exchanges, p50", Kind.DURATION, window, medians)


def charts_of_exchanges(points: Iterable["TimingPoint"], window: "Window") -> Iterator[Chart]:
    """Draw the course of the exchanges, a chart for each source."""
    by_source: defaultdict[str, list[tuple[datetime, str, float | None]]] = defaultdict(list)
    for point in points:
        for rank in ("p50", "p90", "p99"):
            by_source[point.source].append((point.began_at, rank, getattr(point, f"{rank}_us")))
    for source in sorted(by_source):
        title = f"Exchanges with {source}"
        yield from trend(title, Kind.DURATION, window, by_source[source])


def waterfall(session: "Session", run: "RunSummary", *, source: str | None = None) -> Waterfall:
    """Draw each attempt of a run as a bar, those that began first on top."""
    made = sorted(
        core.attempts(session, run, source=source),
        key=lambda record: (record.attempt.began_at, record.id),
    )
    bars = [_bar(record, run) for record in made]
    ends = (bar.begin_us + bar.took_us for bar in bars)
    return Waterfall(
        title="What the run waited for",
        clock_us=max(run.clock_us or 0, *ends, 0),
        bars=bars,
    )


def _bar(record: "AttemptRecord", run: "RunSummary") -> Bar:
    attempt = record.attempt
    durations = ((phase, getattr(attempt.timings, name)) for phase, name in PHASE_COLUMNS.items())
    return Bar(
        label=f"w{attempt.fetch} try {attempt.number} {attempt.source}",
        begin_us=max((attempt.began_at - run.started_at) // MICROSECOND, 0),
        segments=[(phase, us) for phase, us in durations if us is not None],
        error=attempt.error or "",
    )
