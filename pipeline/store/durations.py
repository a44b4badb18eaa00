"""How long exchanges took in a window: from the attempts, or from the sums of hours to months."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Select, Table, select, type_coerce
from sqlmodel import Session

from pipeline.histogram import Histogram
from pipeline.models import Step
from pipeline.store.columns import PHASE_COLUMNS, unpack_parts
from pipeline.store.history import source_totals
from pipeline.store.rollups import closed_months, day_after, gaps
from pipeline.store.summaries import EXCHANGE, period_begin
from pipeline.store.tables import ATTEMPTS, MONTHS, RUNS, SEALS, TIMINGS
from pipeline.store.window import EVERYTHING, LENGTHS, Window, of_source, within

FEW_ATTEMPTS = 20_000  # in a window: their percentiles are read from the attempts themselves
MEASURED = frozenset({*map(str, PHASE_COLUMNS), EXCHANGE})

Distribution = dict[str, dict[str, Histogram]]  # by source, then by phase or ``exchange``


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


def percentiles(
    session: Session,
    window: Window = EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    phases: Collection[str] = MEASURED,
) -> Percentiles:
    """Distribute the durations of a window, or of one run, by source and phase.

    Few attempts are looked at one by one. Many come from the summaries, of whole months as far as
    possible, then of whole days and hours; and so do those of runs that were pruned. Phases that
    are not among *phases* are left out.
    """
    if run_id is not None or _is_small(session, window):
        runs = select(RUNS.c.id).where(*within(RUNS.c.started_at, window))
        if run_id is not None:
            runs = runs.where(RUNS.c.id == run_id)
        of = _distribute_attempts(session, runs, source, phases)
        return Percentiles(of=of, is_exact=True, window=window)
    wide = _widened(window)
    of = defaultdict(lambda: defaultdict(Histogram))
    for table, step, part in _pieces(session, wide, window.step):
        chosen = _chosen(table, step, part, source)
        for _, name, histograms in _stored_timings(session, table, chosen, phases):
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
    chosen = _chosen(TIMINGS, window.step, wide, source)
    return _stored_timings(session, TIMINGS, chosen, phases)


def _pieces(
    session: Session, window: Window, step: Step
) -> Iterator[tuple[Table, Step | None, Window]]:
    """Cut a window of whole hours or days into the longest periods whose durations are stored."""
    if step is Step.HOUR:
        since, until = window.since and day_after(window.since), window.until
        days = Window(since=since, until=until and period_begin(until, Step.DAY))
        whole = [] if days.is_empty else [days]
        yield from ((TIMINGS, Step.DAY, part) for part in whole)
    else:
        whole = closed_months(session.connection(), window)
        yield from ((MONTHS, None, part) for part in whole)
    for gap in gaps(whole, window):
        yield TIMINGS, step, gap


def _chosen(
    table: Table, step: Step | None, window: Window, source: str | None
) -> list[ColumnElement[bool]]:
    of_step = [] if step is None else [table.c.step == step]
    return [*within(table.c.began_at, window), *of_step, *of_source(table.c.source, source)]


def _widened(window: Window) -> Window:
    """Widen a window to whole hours or days, as the summaries have them."""
    since = window.since and period_begin(window.since, window.step)
    until = window.until and period_begin(window.until, window.step)
    if until is not None and until != window.until:
        until += LENGTHS[window.step]
    return Window(since=since, until=until)


def _is_small(session: Session, window: Window) -> bool:
    """Tell whether the attempts of a window are few, and all still there."""
    if sum(of.attempts for of in source_totals(session, window)) > FEW_ATTEMPTS:
        return False
    pruned = select(SEALS.c.position).join(RUNS, RUNS.c.id == SEALS.c.run_id)
    pruned = pruned.where(*within(RUNS.c.started_at, window), SEALS.c.pruned_by.is_not(None))
    return session.connection().scalar(pruned.limit(1)) is None


def _distribute_attempts(
    session: Session, runs: Select[Any], source: str | None, phases: Collection[str]
) -> Distribution:
    query = select(ATTEMPTS.c.source, *(ATTEMPTS.c[name] for name in PHASE_COLUMNS.values()))
    query = query.where(ATTEMPTS.c.run_id.in_(runs), *of_source(ATTEMPTS.c.source, source))
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
    session: Session, table: Table, chosen: Collection[ColumnElement[bool]], phases: Collection[str]
) -> Iterator[tuple[datetime, str, dict[str, Histogram]]]:
    columns = table.c.began_at, table.c.source, type_coerce(table.c.phases, LargeBinary)
    query = select(*columns).where(*chosen)
    rows = session.connection().execute(query.order_by(table.c.began_at, table.c.source))
    for began_at, name, packed in rows:
        stored = unpack_parts(packed, phases)
        yield began_at, name, {phase: Histogram.from_json(of) for phase, of in stored.items()}
