"""Figures of a stretch of time, or of one run: how long, what failed, which numbers, by whom."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from math import sqrt

from sqlmodel import Session

from pipeline.errors import ERRORS, ErrorName, Phase, Whose
from pipeline.histogram import Histogram
from pipeline.models import RunSummary
from pipeline.pacing import Embargo
from pipeline.store import history
from pipeline.store.history import MEASURED, RangeTotals, SourceTotals, Window
from pipeline.store.permissions import standing_embargoes
from pipeline.store.summaries import EXCHANGE

RANKS = (0.5, 0.9, 0.99)
FAR_OFF = 4.0  # standard errors: by chance, one fair source in 16,000 is so far off


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the figures are of: a window, or the one *run*; of all sources, or of one."""

    window: Window
    source: str | None = None
    run: RunSummary | None = None

    @property
    def run_id(self) -> int | None:
        """Name the run, if it is one."""
        return None if self.run is None else self.run.id


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingLine:
    """How long one phase of the attempts at one source took.

    Attributes:
        phase: or ``exchange``: all of an attempt but its wait.
        n: how many attempts reached it.
        share: of all the time of the source's attempts.
    """

    source: str
    phase: str
    n: int
    p50_us: int | None
    p90_us: int | None
    p99_us: int | None
    max_us: int
    total_us: int
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingReport:
    """The timings, by source and then in the order of the phases.

    Attributes:
        is_exact: whether every attempt was looked at; else percentiles are those of buckets.
        window: what was really read.
    """

    lines: tuple[TimingLine, ...]
    is_exact: bool
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPoint:
    """How long the exchanges with one source took in the hour or day that began then."""

    began_at: datetime
    source: str
    n: int
    p50_us: int | None
    p90_us: int | None
    p99_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLine:
    """What was lost at one source to one error in one phase.

    Attributes:
        phase: None if the batches were lost without asking anybody.
        share: of all attempts at the source; None if there were none.
        last_attempt: the newest, as ``audit show`` takes it.
    """

    source: str
    error: ErrorName
    phase: Phase | None
    whose: Whose
    attempts: int
    batches: int
    share: float | None
    first_at: datetime
    last_at: datetime
    last_attempt: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberLine:
    """What the numbers of one source in one range add up to.

    Attributes:
        expected_mean: of a fair source, whose numbers are equally likely.
        z: how many standard errors the mean is off; None where the range holds one number.
    """

    source: str
    min: int
    max: int
    batches: int
    numbers: int
    sum: int
    mean: float
    expected_mean: float
    z: float | None

    @property
    def is_far_off(self) -> bool:
        """Tell whether chance hardly explains the mean."""
        return self.z is not None and abs(self.z) > FAR_OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """What one source was worth.

    Attributes:
        runs: in which it was wanted.
        share: of the batches ordered, those that were collected.
        success: of the attempts, those that brought numbers; None without attempts.
        p50_us: of the exchange, all of an attempt but its wait; so are the other two.
        last_good_at: when the newest run started that got a batch from it.
        last_bad_at: when the newest run started that lost a batch or an attempt.
        embargo_until: until when it must not be asked, None if it may be.
    """

    source: str
    runs: int
    ordered: int
    collected: int
    share: float | None
    numbers: int
    attempts: int
    failed_attempts: int
    retries: int
    success: float | None
    p50_us: int | None
    p90_us: int | None
    p99_us: int | None
    last_good_at: datetime | None
    last_bad_at: datetime | None
    embargo_until: datetime | None
    embargo_why: str | None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rank(histogram: Histogram) -> dict[str, int | None]:
    p50, p90, p99 = histogram.percentiles(*RANKS)
    return {"p50_us": p50, "p90_us": p90, "p99_us": p99}


def timing_report(
    session: Session, scope: Scope, *, phases: Collection[str] = MEASURED
) -> TimingReport:
    """Tell how long the *phases* took, and how that is known."""
    found = history.percentiles(
        session, scope.window, source=scope.source, run_id=scope.run_id, phases=phases
    )
    lines = (
        line for source in sorted(found.of) for line in _timing_lines(source, found.of[source])
    )
    return TimingReport(lines=tuple(lines), is_exact=found.is_exact, window=found.window)


def _timing_lines(source: str, of: dict[str, Histogram]) -> Iterator[TimingLine]:
    whole_us = sum(of[phase].total_us for phase in Phase if phase in of)
    for phase in (*Phase, EXCHANGE):
        if histogram := of.get(phase):
            yield TimingLine(
                source=source,
                phase=str(phase),
                n=histogram.n,
                **_rank(histogram),
                max_us=histogram.max_us,
                total_us=histogram.total_us,
                share=_share(histogram.total_us, whole_us),
            )


def timing_points(session: Session, scope: Scope) -> Iterator[TimingPoint]:
    """Walk over the exchanges of each hour or day and source, in the order of time."""
    steps = history.timings_by_step(session, scope.window, source=scope.source, phases={EXCHANGE})
    for began_at, source, histograms in steps:
        if exchange := histograms.get(EXCHANGE):
            yield TimingPoint(began_at=began_at, source=source, n=exchange.n, **_rank(exchange))


def error_lines(session: Session, scope: Scope) -> list[ErrorLine]:
    """Add up what was lost by source, error and phase, most attempts first."""
    attempts = Counter({totals.source: totals.attempts for totals in _totals(session, scope)})
    losses = history.loss_totals(session, scope.window, source=scope.source, run_id=scope.run_id)
    return [
        ErrorLine(
            source=loss.source,
            error=loss.error,
            phase=loss.phase,
            whose=ERRORS[loss.error].whose,
            attempts=loss.attempts,
            batches=loss.batches,
            share=_share(loss.attempts, attempts[loss.source]),
            first_at=loss.first_at,
            last_at=loss.last_at,
            last_attempt=loss.last_attempt,
        )
        for loss in losses
    ]


def _totals(session: Session, scope: Scope) -> list[SourceTotals]:
    return history.source_totals(session, scope.window, source=scope.source, run_id=scope.run_id)


def number_lines(session: Session, scope: Scope) -> list[NumberLine]:
    """Add up the numbers by source and range, and hold their mean to that of a fair source."""
    totals = history.range_totals(session, scope.window, source=scope.source, run_id=scope.run_id)
    return [
        NumberLine(
            source=total.source,
            min=total.min,
            max=total.max,
            batches=total.batches,
            numbers=total.numbers,
            sum=total.sum,
            mean=total.sum / total.numbers,
            expected_mean=(total.min + total.max) / 2,
            z=_z(total),
        )
        for total in totals
    ]


def _z(total: RangeTotals) -> float | None:
    """Say how many standard errors the mean is off.

    The discrete uniform distribution over k numbers has the variance (k² - 1) / 12, and the mean
    of n of them that divided by n.
    """
    k = total.max - total.min + 1
    if k == 1:
        return None
    # The difference is taken of integers: two means near 2**53 could not be told apart.
    off_by = 2 * total.sum - total.numbers * (total.min + total.max)
    return off_by / 2 / sqrt(total.numbers * (k * k - 1) / 12)


def source_lines(
    session: Session, scope: Scope, timings: TimingReport, *, now: datetime
) -> list[SourceLine]:
    """Put together what each source was worth, by name; its percentiles are those of *timings*."""
    exchanges = {line.source: line for line in timings.lines if line.phase == EXCHANGE}
    embargoes = standing_embargoes(session, now=now)
    return [
        _source_line(totals, exchanges.get(totals.source), embargoes.get(totals.source))
        for totals in _totals(session, scope)
    ]


def _source_line(
    totals: SourceTotals, exchange: TimingLine | None, embargo: Embargo | None
) -> SourceLine:
    return SourceLine(
        source=totals.source,
        runs=totals.runs,
        ordered=totals.ordered,
        collected=totals.collected,
        share=_share(totals.collected, totals.ordered),
        numbers=totals.numbers,
        attempts=totals.attempts,
        failed_attempts=totals.failed_attempts,
        retries=totals.retries,
        success=_share(totals.attempts - totals.failed_attempts, totals.attempts),
        p50_us=None if exchange is None else exchange.p50_us,
        p90_us=None if exchange is None else exchange.p90_us,
        p99_us=None if exchange is None else exchange.p99_us,
        last_good_at=totals.last_good_at,
        last_bad_at=totals.last_bad_at,
        embargo_until=None if embargo is None else embargo.until,
        embargo_why=None if embargo is None else embargo.why,
    )
