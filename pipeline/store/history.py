"""Questions about a stretch of time, answered from the summaries that each run left behind.

A run counts where it started: in a window if ``since <= started_at < until``. Nothing here reads
the batches or attempts of a whole history, so the answers come as quickly after years.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, String, Table, func, select, type_coerce
from sqlalchemy.engine.row import Row
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.histogram import Histogram
from pipeline.models import ContractSpan, Loss, Step, Tally
from pipeline.store.contracts import make_span
from pipeline.store.queries import add_up
from pipeline.store.summaries import EXCHANGE, period_begin
from pipeline.store.tables import (
    ATTEMPTS,
    CONTRACTS,
    LOSSES,
    PHASE_COLUMNS,
    RUNS,
    SEALS,
    TALLIES,
    TIMINGS,
)
from pipeline.store.window import within

FEW_ATTEMPTS = 20_000  # in a window: their percentiles are read from the attempts themselves
CHUNK = 1_000  # values in one statement; databases take no number of them
FEW_HOURS = 15 * 24  # a longer window is read by days
LENGTHS = {Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1)}
MEASURED = frozenset({*map(str, PHASE_COLUMNS), EXCHANGE})

Distribution = dict[str, dict[str, Histogram]]  # by source, then by phase or ``exchange``


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time in UTC, from ``since`` up to but without ``until``; None: without end."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def step(self) -> Step:
        """Say how wide the columns of a chart over this window are."""
        if self.since is None:
            return Step.DAY
        end = self.until or datetime.now(UTC)
        is_short = end - self.since <= timedelta(hours=FEW_HOURS)
        return Step.HOUR if is_short else Step.DAY


_EVERYTHING = Window()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTotals:
    """All tallies of one source (and of one hour or day, if ``began_at`` is set), added up.

    Attributes:
        runs: in which it was wanted.
        answered: those of them that brought at least one batch.
        last_good_at: when the newest of these started, UTC.
        last_bad_at: when the newest run started that lost a batch or an attempt.
    """

    source: str
    began_at: datetime | None
    runs: int
    answered: int
    collected: int
    failed: int
    deferred: int
    cancelled: int
    numbers: int
    attempts: int
    failed_attempts: int
    retries: int
    retries_helped: int
    wait_us: int
    exchange_us: int
    last_good_at: datetime | None
    last_bad_at: datetime | None

    @property
    def ordered(self) -> int:
        """Count the batches that were wanted."""
        return self.collected + self.failed + self.deferred + self.cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTotals:
    """All losses of one source, error and phase (and hour or day), added up.

    Attributes:
        phase: None where nobody was asked; of all phases together if grouped by time.
    """

    source: str
    error: ErrorName
    phase: Phase | None
    began_at: datetime | None
    attempts: int
    batches: int
    first_at: datetime
    last_at: datetime
    last_attempt: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTotals:
    """All numbers of one source in one range, added up exactly."""

    source: str
    min: int
    max: int
    batches: int
    numbers: int
    sum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """How the durations of a window are distributed.

    Attributes:
        is_exact: whether every attempt was looked at; else they are those of buckets.
        window: what was read: widened to whole hours or days if it is not exact.
    """

    of: Distribution
    is_exact: bool
    window: Window


def _chosen(
    table: Table, window: Window, source: str | None, run_id: int | None = None
) -> list[ColumnElement[bool]]:
    """Choose the rows of a window, of one source and of one run, each if it is given."""
    conditions = within(table.c.started_at, window.since, window.until)
    if source is not None:
        conditions.append(table.c.source == source)
    if run_id is not None:
        # Its start comes first in the key; without it, all the runs would be walked over.
        started_at = select(RUNS.c.started_at).where(RUNS.c.id == run_id).scalar_subquery()
        conditions += [table.c.started_at == started_at, table.c.run_id == run_id]
    return conditions


def tallies(session: Session, window: Window, *, source: str | None = None) -> Iterator[Tally]:
    """Walk over what each run got from each source, in the order of time."""
    query = select(TALLIES).where(*_chosen(TALLIES, window, source)).order_by(*TALLIES.primary_key)
    for row in session.connection().execute(query, execution_options={"yield_per": 1000}):
        yield _tally(row)


def losses(session: Session, window: Window, *, source: str | None = None) -> Iterator[Loss]:
    """Walk over what each run lost at each source, in the order of time."""
    query = select(LOSSES).where(*_chosen(LOSSES, window, source)).order_by(*LOSSES.primary_key)
    for row in session.connection().execute(query, execution_options={"yield_per": 1000}):
        words = {"error": ErrorName(row.error), "phase": Phase(row.phase) if row.phase else None}
        yield Loss(**(row._asdict() | words))


def tallies_of_run(session: Session, *, run_id: int) -> list[Tally]:
    """List what one run got from each source, by its name."""
    query = select(TALLIES).where(*_chosen(TALLIES, _EVERYTHING, None, run_id))
    return list(map(_tally, session.connection().execute(query.order_by(TALLIES.c.source))))


def _tally(row: Row[*tuple[Any, ...]]) -> Tally:
    return Tally(**(row._asdict() | {"sum": int(row.sum)}))


def retries_by_run(session: Session, *, run_ids: Sequence[int]) -> dict[int, int]:
    """Count the attempts after the first of a fetch in each of the runs, those that ended only."""
    query = (
        select(TALLIES.c.run_id, func.sum(TALLIES.c.retries))
        .join(RUNS, (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id))
        .group_by(TALLIES.c.run_id)
    )
    found: dict[int, int] = {}
    for first in range(0, len(run_ids), CHUNK):
        chunk = query.where(RUNS.c.id.in_(run_ids[first : first + CHUNK]))
        found |= {run_id: int(n) for run_id, n in session.connection().execute(chunk)}
    return found


def find_pruning(session: Session, *, run_id: int) -> datetime | None:
    """Tell when the batches and attempts of a run were pruned; None if they were not."""
    pruning = SEALS.alias()
    query = (
        select(pruning.c.sealed_at)
        .join(SEALS, SEALS.c.pruned_by == pruning.c.position)
        .where(SEALS.c.run_id == run_id)
    )
    return session.connection().scalar(query)


def oldest_attempt_after_pruning(session: Session) -> int | None:
    """Give the id of the oldest attempt that is left; None if no run was ever pruned."""
    connection = session.connection()
    pruned = select(SEALS.c.position).where(SEALS.c.pruned_by.is_not(None)).limit(1)
    if connection.scalar(pruned) is None:
        return None
    oldest: int | None = connection.scalar(select(func.min(ATTEMPTS.c.id)))
    return oldest


def contract_spans(
    session: Session, *, source: str | None = None, since: datetime | None = None
) -> list[ContractSpan]:
    """List what answers looked like from when to when, by source and aspect, oldest first.

    With *since* each list begins with the newest span of before: a source whose answers never look
    the same for long has a span for every few attempts.
    """
    query = select(CONTRACTS).order_by(CONTRACTS.c.source, CONTRACTS.c.aspect, CONTRACTS.c.id)
    if source is not None:
        query = query.where(CONTRACTS.c.source == source)
    if since is not None:
        before = (
            select(func.max(CONTRACTS.c.id))
            .where(CONTRACTS.c.first_at < since)
            .group_by(CONTRACTS.c.source, CONTRACTS.c.aspect)
        )
        query = query.where((CONTRACTS.c.first_at >= since) | CONTRACTS.c.id.in_(before))
    return list(map(make_span, session.connection().execute(query)))


def _period(session: Session, column: ColumnElement[Any], step: Step) -> ColumnElement[Any]:
    """Name the hour or day of a moment, so that rows can be grouped by it."""
    if session.connection().dialect.name == "sqlite":
        length = len("2026-11-22T06") if step is Step.HOUR else len("2026-11-22")
        return func.substr(type_coerce(column, String), 1, length)
    return func.date_trunc(step.value, column)


def _began_at(period: str | datetime) -> datetime:
    if isinstance(period, datetime):
        return period.astimezone(UTC)
    return datetime.fromisoformat(f"{period}:00" if "T" in period else period).replace(tzinfo=UTC)


_COUNTS = ("collected", "failed", "deferred", "cancelled", "numbers", "attempts")
_MORE_COUNTS = ("failed_attempts", "retries", "retries_helped", "wait_us", "exchange_us")


def source_totals(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    step: Step | None = None,
) -> list[SourceTotals]:
    """Add up the tallies by source, and by hour or day if there is a *step*; in that order."""
    names = (*_COUNTS, *_MORE_COUNTS)
    is_good = TALLIES.c.collected > 0
    is_bad = TALLIES.c.failed + TALLIES.c.cancelled + TALLIES.c.failed_attempts > 0
    columns: list[ColumnElement[Any]] = [
        TALLIES.c.source,
        func.count().label("runs"),
        func.count().filter(is_good).label("answered"),
        func.max(TALLIES.c.started_at).filter(is_good).label("last_good_at"),
        func.max(TALLIES.c.started_at).filter(is_bad).label("last_bad_at"),
        *(add_up(TALLIES.c[name]).label(name) for name in names),
    ]
    groups: list[ColumnElement[Any]] = [TALLIES.c.source]
    if step is not None:
        groups.append(_period(session, TALLIES.c.started_at, step).label("period"))
    query = (
        select(*columns, *groups[1:])
        .where(*_chosen(TALLIES, window, source, run_id))
        .group_by(*groups)
        .order_by(*groups)
    )
    return [
        SourceTotals(
            source=row.source,
            began_at=None if step is None else _began_at(row.period),
            runs=row.runs,
            answered=row.answered,
            last_good_at=row.last_good_at,
            last_bad_at=row.last_bad_at,
            **{name: int(getattr(row, name)) for name in names},
        )
        for row in session.connection().execute(query)
    ]


def loss_totals(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    step: Step | None = None,
) -> list[LossTotals]:
    """Add up the losses by source, error and phase, most attempts first.

    With a *step* they are added up by source, error and hour or day, in the order of time.
    """
    attempts, batches = func.sum(LOSSES.c.attempts), func.sum(LOSSES.c.batches)
    groups: list[ColumnElement[Any]] = [LOSSES.c.source, LOSSES.c.error]
    if step is None:
        groups.append(LOSSES.c.phase)
        order: list[ColumnElement[Any]] = [attempts.desc(), batches.desc(), *groups]
    else:
        groups.append(_period(session, LOSSES.c.started_at, step).label("period"))
        order = [groups[-1], *groups[:-1]]
    query = (
        select(
            *groups,
            attempts.label("attempts"),
            batches.label("batches"),
            func.min(LOSSES.c.first_at).label("first_at"),
            func.max(LOSSES.c.last_at).label("last_at"),
            func.max(LOSSES.c.last_attempt).label("last_attempt"),
        )
        .where(*_chosen(LOSSES, window, source, run_id))
        .group_by(*groups)
        .order_by(*order)
    )
    return [_loss_totals(row, step) for row in session.connection().execute(query)]


def _loss_totals(row: Row[*tuple[Any, ...]], step: Step | None) -> LossTotals:
    return LossTotals(
        source=row.source,
        error=ErrorName(row.error),
        phase=Phase(row.phase) if step is None and row.phase else None,
        began_at=None if step is None else _began_at(row.period),
        attempts=int(row.attempts),
        batches=int(row.batches),
        first_at=row.first_at,
        last_at=row.last_at,
        last_attempt=row.last_attempt,
    )


def range_totals(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
) -> list[RangeTotals]:
    """Add up the numbers by source and range; the sums are exact however large."""
    columns = [TALLIES.c[name] for name in ("source", "min", "max", "collected", "numbers", "sum")]
    chosen = _chosen(TALLIES, window, source, run_id)
    query = select(*columns).where(*chosen, TALLIES.c.collected > 0)
    found: defaultdict[tuple[str, int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, low, high, batches, numbers, total in session.connection().execute(query):
        of = found[name, low, high]
        of[0] += batches
        of[1] += numbers
        of[2] += int(total)  # not added up by the database: it would overflow, or round
    return [
        RangeTotals(source=name, min=low, max=high, batches=batches, numbers=numbers, sum=total)
        for (name, low, high), (batches, numbers, total) in sorted(found.items())
    ]


def percentiles(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    phases: Collection[str] = MEASURED,
) -> Percentiles:
    """Distribute the durations of a window, or of one run, by source and phase.

    Few attempts are looked at one by one. Many come from the summaries, by whole hours or days,
    and so do those of runs that were pruned. Phases that are not among *phases* are left out.
    """
    if run_id is not None or _is_small(session, window):
        runs = select(RUNS.c.id).where(*within(RUNS.c.started_at, window.since, window.until))
        if run_id is not None:
            runs = runs.where(RUNS.c.id == run_id)
        of = _distribute_attempts(session, runs, source, phases)
        return Percentiles(of=of, is_exact=True, window=window)
    wide = _widened(window)
    of = defaultdict(lambda: defaultdict(Histogram))
    stored = _stored_timings(session, wide, source=source, step=window.step, phases=phases)
    for _, name, histograms in stored:
        for phase, histogram in histograms.items():
            of[name][phase].merge(histogram)
    return Percentiles(of=of, is_exact=False, window=wide)


def timings_by_step(
    session: Session,
    window: Window,
    *,
    source: str | None = None,
    phases: Collection[str] = MEASURED,
) -> Iterator[tuple[datetime, str, dict[str, Histogram]]]:
    """Walk over the durations of each hour or day and source, in the order of time."""
    wide = _widened(window)
    return _stored_timings(session, wide, source=source, step=window.step, phases=phases)


def _widened(window: Window) -> Window:
    """Widen a window to whole hours or days, as the summaries have them."""
    since = window.since and period_begin(window.since, window.step)
    until = window.until and period_begin(window.until, window.step)
    if until is not None and until != window.until:
        until += LENGTHS[window.step]
    return Window(since=since, until=until)


def _is_small(session: Session, window: Window) -> bool:
    """Tell whether the attempts of a window are few, and all still there."""
    chosen = within(RUNS.c.started_at, window.since, window.until)
    attempts = select(func.sum(RUNS.c.attempts)).where(*chosen)
    if (session.connection().scalar(attempts) or 0) > FEW_ATTEMPTS:
        return False
    pruned = (
        select(SEALS.c.position)
        .join(RUNS, RUNS.c.id == SEALS.c.run_id)
        .where(*chosen, SEALS.c.pruned_by.is_not(None))
        .limit(1)
    )
    return session.connection().scalar(pruned) is None


def _distribute_attempts(
    session: Session, runs: Select[Any], source: str | None, phases: Collection[str]
) -> Distribution:
    query = select(ATTEMPTS.c.source, *(ATTEMPTS.c[name] for name in PHASE_COLUMNS.values())).where(
        ATTEMPTS.c.run_id.in_(runs)
    )
    if source is not None:
        query = query.where(ATTEMPTS.c.source == source)
    of: Distribution = defaultdict(lambda: defaultdict(Histogram))
    for name, *durations in session.connection().execute(query):
        reached = [us for us in durations if us is not None]
        if EXCHANGE in phases:
            of[name][EXCHANGE].add(sum(reached) - (durations[0] or 0))
        for phase, us in zip(PHASE_COLUMNS, durations, strict=True):
            if us is not None and phase in phases:
                of[name][phase].add(us)
    return of


def _stored_timings(
    session: Session, window: Window, *, source: str | None, step: Step, phases: Collection[str]
) -> Iterator[tuple[datetime, str, dict[str, Histogram]]]:
    query = (
        select(TIMINGS.c.began_at, TIMINGS.c.source, TIMINGS.c.phases)
        .where(TIMINGS.c.step == step.value)
        .where(*within(TIMINGS.c.began_at, window.since, window.until))
        .order_by(TIMINGS.c.began_at, TIMINGS.c.source)
    )
    if source is not None:
        query = query.where(TIMINGS.c.source == source)
    for began_at, name, stored in session.connection().execute(query):
        yield (
            began_at,
            name,
            {
                phase: Histogram.from_json(facts)
                for phase, facts in json.loads(stored).items()
                if phase in phases
            },
        )


def known_sources(session: Session) -> list[str]:
    """List the sources that were ever asked, by name."""
    # The days alone: their index answers, and years of them are a few thousand entries.
    query = select(TIMINGS.c.source).where(TIMINGS.c.step == Step.DAY.value).distinct()
    return sorted(session.connection().scalars(query))
