"""Questions about a period of time, answered from the sums of days and of single runs.

A run counts where it started: in a window if ``since <= started_at < until``. Nothing here reads
the batches or attempts of a whole history, so the answers come as quickly after years.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Table, func, literal_column, select
from sqlmodel import Session

from pipeline.clock import TOLERANCE
from pipeline.models import Loss, RunSummary, Step, Tally, Totals
from pipeline.store.columns import add_up
from pipeline.store.rollups import split
from pipeline.store.rows import columns_of, of_runs, record, records, stream
from pipeline.store.summaries import period_begin
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    DAY_LOSSES,
    DAYS,
    LOSSES,
    RUNS,
    SEALS,
    TALLIES,
    TIMINGS,
)
from pipeline.store.totals import LossTotals, RangeTotals, RuleTotals, SourceTotals, add_alike
from pipeline.store.window import EVERYTHING, Window, of_source, period_of, within

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_IS_OF_RUN = (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id)

T = TypeVar("T")


def _chosen(
    table: Table, window: Window, source: str | None, run_id: int | None = None
) -> list[ColumnElement[bool]]:
    """Choose the rows of a window, of one source and of one run, each if it is given."""
    conditions = within(_moment_of(table), window) + of_source(table.c.source, source)
    if run_id is not None:
        # Its start comes first in the key; without it, all the runs would be walked over.
        started_at = select(RUNS.c.started_at).where(RUNS.c.id == run_id).scalar_subquery()
        conditions += [table.c.started_at == started_at, table.c.run_id == run_id]
    return conditions


def tallies(session: Session, window: Window, *, source: str | None = None) -> Iterator[Tally]:
    """Walk over what each run got from each source, in the order of time."""
    query = select(TALLIES).where(*_chosen(TALLIES, window, source)).order_by(*TALLIES.primary_key)
    return (record(Tally, row) for row in stream(session, query))


def newest_tallies(
    session: Session, *, source: str, limit: int, until: datetime | None = None
) -> list[Tally]:
    """List what the last *limit* runs before *until* got from *source*, in the order of time."""
    newest = select(TALLIES).where(*_chosen(TALLIES, Window(until=until), source))
    query = newest.order_by(TALLIES.c.started_at.desc()).limit(limit)
    return records(session, Tally, query)[::-1]


def losses_of_run(session: Session, *, run: RunSummary) -> list[Loss]:
    """List what one run lost, the most batches first."""
    is_its = (LOSSES.c.started_at == run.started_at) & (LOSSES.c.run_id == run.id)
    query = select(LOSSES).where(is_its).order_by(LOSSES.c.batches.desc(), *LOSSES.primary_key)
    return records(session, Loss, query)


def losses(session: Session, window: Window, *, source: str | None = None) -> Iterator[Loss]:
    """Walk over what each run lost at each source, in the order of time."""
    query = select(LOSSES).where(*_chosen(LOSSES, window, source)).order_by(*LOSSES.primary_key)
    return (record(Loss, row) for row in stream(session, query))


def sources_of(session: Session, *, run_ids: Sequence[int]) -> dict[int, list[str]]:
    """List whom each of the runs wanted something from; by name, those that ended only."""
    query = select(TALLIES.c.run_id, TALLIES.c.source).join(RUNS, _IS_OF_RUN)
    found: defaultdict[int, list[str]] = defaultdict(list)
    for run_id, source in of_runs(session, query.order_by(TALLIES.c.source), run_ids, by=RUNS.c.id):
        found[run_id].append(source)
    return dict(found)


def days_of(session: Session, *, run_ids: Sequence[int]) -> set[datetime]:
    """List the days in which the runs started."""
    rows = of_runs(session, select(RUNS.c.started_at), run_ids, by=RUNS.c.id)
    return {period_begin(row.started_at, Step.DAY) for row in rows}


def fast_tallies(session: Session, window: Window, *, source: str, below_us: int) -> list[Tally]:
    """List what runs got from *source* whose fastest answer took less, in the order of time."""
    query = select(TALLIES).where(
        *_chosen(TALLIES, window, source), TALLIES.c.fastest_us < below_us
    )
    return records(session, Tally, query.order_by(*TALLIES.primary_key))


def tallies_of_run(session: Session, *, run_id: int) -> list[Tally]:
    """List what one run got from each source, by its name."""
    query = select(TALLIES).where(*_chosen(TALLIES, EVERYTHING, None, run_id))
    return records(session, Tally, query.order_by(TALLIES.c.source))


def retries_by_run(session: Session, *, run_ids: Sequence[int]) -> dict[int, int]:
    """Count the attempts after the first of a fetch in each of the runs, those that ended only."""
    query = select(RUNS.c.id, add_up(TALLIES.c.retries)).join(TALLIES, _IS_OF_RUN)
    return dict(map(tuple, of_runs(session, query.group_by(RUNS.c.id), run_ids, by=RUNS.c.id)))


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


def _parts(
    session: Session,
    window: Window,
    run_id: int | None,
    step: Step | None = None,
    tables: tuple[Table, Table] = (DAYS, TALLIES),
) -> Iterator[tuple[Table, Window]]:
    """Cut a window into what is read from the sums of closed days, and what from those of runs."""
    of_days, of_each = tables
    if run_id is not None or step is Step.HOUR:
        yield of_each, window
        return
    days, runs = split(session, window)
    yield from ((of_each, part) for part in runs)
    if days is not None:
        yield of_days, days


def _sum_up(
    parts: Iterable[tuple[Table, Window]],
    read: Callable[[Table, Window], Iterable[T]],
    key: Callable[[T], Any],
) -> list[T]:
    """Add up what is *read* from all *parts* where the *key* is the same, in the order of keys."""
    found = chain.from_iterable(read(*part) for part in parts)
    return sorted(add_alike(found, key).values(), key=key)


def source_totals(
    session: Session,
    window: Window = EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    step: Step | None = None,
) -> list[SourceTotals]:
    """Add up the tallies by source, and by hour or day if there is a *step*; in that order."""

    def read(table: Table, part: Window) -> Iterator[SourceTotals]:
        # Not the column itself: SQLite would walk over all of its index, to group as it goes.
        name = table.c.source.concat(literal_column("''")).label("source")
        columns = [name, *_figures(table)]
        groups: list[ColumnElement[Any]] = [name]
        if step is not None:
            groups.append(period_of(session, _moment_of(table), step).label("began_at"))
        more: dict[str, Any] = {"began_at": None} if step is None else {}
        query = select(*columns, *groups[1:]).where(*_chosen(table, part, source, run_id))
        for row in session.connection().execute(query.group_by(*groups)):
            yield record(SourceTotals, row, **more)

    def key(of: SourceTotals) -> tuple[str, datetime]:
        return of.source, of.began_at or _BEFORE_ALL

    return _sum_up(_parts(session, window, run_id, step), read, key)


def _moment_of(table: Table) -> Column[datetime]:
    return table.c.started_at if table in (TALLIES, LOSSES) else table.c.began_at


def _figures(table: Table) -> Iterator[ColumnElement[Any]]:
    """Add up what tallies, or closed days, say of their sources."""
    if table is DAYS:
        yield from (add_up(DAYS.c[name]).label(name) for name in ("runs", "answered"))
        yield from (func.max(DAYS.c[name]).label(name) for name in ("last_good_at", "last_bad_at"))
    else:
        is_good = TALLIES.c.collected > 0
        is_bad = TALLIES.c.failed + TALLIES.c.cancelled + TALLIES.c.failed_attempts > 0
        has_been = TALLIES.c.started_at <= datetime.now(UTC) + TOLERANCE  # a clock that was right
        yield func.count().label("runs")
        yield func.count().filter(is_good).label("answered")
        yield func.max(TALLIES.c.started_at).filter(is_good & has_been).label("last_good_at")
        yield func.max(TALLIES.c.started_at).filter(is_bad & has_been).label("last_bad_at")
    yield from (add_up(column).label(column.name) for column in columns_of(table, Totals))


def loss_totals(
    session: Session,
    window: Window = EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    step: Step | None = None,
) -> list[LossTotals]:
    """Add up the losses by source, error and phase, most attempts first.

    With a *step* they are added up by source, error and hour or day, in the order of time.
    """

    def read(table: Table, part: Window) -> Iterator[LossTotals]:
        groups: list[ColumnElement[Any]] = [table.c.source, table.c.error]
        if step is None:
            groups.append(table.c.phase)
        else:
            groups.append(period_of(session, _moment_of(table), step).label("began_at"))
        query = select(
            *groups,
            add_up(table.c.attempts).label("attempts"),
            add_up(table.c.batches).label("batches"),
            func.min(table.c.first_at).label("first_at"),
            func.max(table.c.last_at).label("last_at"),
            func.max(table.c.last_attempt).label("last_attempt"),
        ).where(*_chosen(table, part, source, run_id))
        for row in session.connection().execute(query.group_by(*groups)):
            if step is None:
                yield record(LossTotals, row, began_at=None)
            else:
                yield record(LossTotals, row, phase=None)

    def key(of: LossTotals) -> tuple[object, ...]:
        return of.began_at or _BEFORE_ALL, of.source, of.error, of.phase or ""

    parts = _parts(session, window, run_id, step, (DAY_LOSSES, LOSSES))
    added = _sum_up(parts, read, key)
    if step is None:
        added.sort(key=lambda of: (-of.attempts, -of.batches))
    return added


def range_totals(
    session: Session,
    window: Window = EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
) -> list[RangeTotals]:
    """Add up the numbers by source and range; the sums are exact however large."""

    def read(table: Table, part: Window) -> Iterator[RangeTotals]:
        names = ("source", "is_sandbox", "min", "max", "numbers", "sum")
        # Not added up by the database: the sums would overflow, or be rounded.
        query = select(*(table.c[name] for name in names), table.c.collected.label("batches"))
        chosen = _chosen(table, part, source, run_id)
        rows = session.connection().execute(query.where(*chosen, table.c.collected > 0))
        return (record(RangeTotals, row) for row in rows)

    def key(of: RangeTotals) -> tuple[object, ...]:
        return of.source, of.min, of.max, of.is_sandbox

    return _sum_up(_parts(session, window, run_id), read, key)


def rule_totals(session: Session, window: Window, *, source: str) -> list[RuleTotals]:
    """Tell how each rule of *source* was kept, that of most requests first."""

    def read(table: Table, part: Window) -> Iterator[RuleTotals]:
        rule = func.nullif(table.c.rule, "").label("rule")
        is_judged = DAYS.c.is_judged if table is DAYS else TALLIES.c.violations.is_not(None)
        runs = add_up(DAYS.c.asked) if table is DAYS else func.count()
        query = select(
            rule,
            is_judged.label("is_judged"),
            runs.label("runs"),
            add_up(table.c.attempts).label("attempts"),
            add_up(table.c.violations).label("n"),
        ).where(*_chosen(table, part, source), table.c.attempts > 0)
        for row in session.connection().execute(query.group_by(rule, is_judged)):
            yield record(RuleTotals, row, violations=row.n if row.is_judged else None)

    def key(of: RuleTotals) -> tuple[str, bool]:
        return of.rule or "", of.violations is not None

    added = _sum_up(_parts(session, window, None), read, key)
    return sorted(added, key=lambda of: -of.attempts)


def played_by_sandbox(
    session: Session,
    window: Window = EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
) -> dict[str, bool | None]:
    """Tell of each source whether the sandbox played it; None: in some of the runs."""
    goes_on = select(RUNS.c.id).where(RUNS.c.status == literal_column("'running'"))
    if run_id is not None:
        goes_on = goes_on.where(RUNS.c.id == run_id)
    has_no_tally: ColumnElement[bool] = BATCHES.c.run_id.in_(goes_on)
    known = [(BATCHES, [has_no_tally])]
    parts = _parts(session, window, run_id)
    known += ((table, _chosen(table, part, source, run_id)) for table, part in parts)
    found: defaultdict[str, set[bool]] = defaultdict(set)
    for table, chosen in known:
        query = select(table.c.source, table.c.is_sandbox).distinct().where(*chosen)
        for name, is_sandbox in session.connection().execute(query):
            found[name].add(is_sandbox)
    return {name: flags.pop() if len(flags) == 1 else None for name, flags in found.items()}


def known_sources(session: Session) -> list[str]:
    """List the sources that were ever asked, by name."""
    # The days alone: their index answers, and years of them are a few thousand entries.
    query = select(TIMINGS.c.source).where(TIMINGS.c.step == Step.DAY).distinct()
    return sorted(session.connection().scalars(query))
