"""Questions about a period of time, answered from the sums of days and of single runs.

A run counts where it started: in a window if ``since <= started_at < until``. Nothing here reads
the batches or attempts of a whole history, so the answers come as quickly after years.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Table,
    func,
    literal_column,
    select,
)
from sqlmodel import Session

from pipeline.clock import TOLERANCE
from pipeline.errors import CLOCK_DOUBT, ErrorName
from pipeline.models import ContractSpan, Loss, RunSummary, Step, Tally, Totals
from pipeline.store.queries import add_up
from pipeline.store.rollups import split
from pipeline.store.rows import ROWS_AT_ONCE, columns_of, record, stream
from pipeline.store.summaries import period_begin
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    CONTRACTS,
    DAY_LOSSES,
    DAYS,
    LOSSES,
    RUNS,
    SEALS,
    TALLIES,
    TIMINGS,
)
from pipeline.store.totals import LossTotals, RangeTotals, RuleTotals, SourceTotals, add_alike
from pipeline.store.window import Window, period_of, within

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_EVERYTHING = Window()


def _chosen(
    table: Table, window: Window, source: str | None, run_id: int | None = None
) -> list[ColumnElement[bool]]:
    """Choose the rows of a window, of one source and of one run, each if it is given."""
    conditions = within(_moment_of(table), window.since, window.until)
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
    return (record(Tally, row) for row in stream(session, query))


def newest_tallies(
    session: Session, *, source: str, limit: int, until: datetime | None = None
) -> list[Tally]:
    """List what the last *limit* runs before *until* got from *source*, in the order of time."""
    newest = select(TALLIES).where(*_chosen(TALLIES, Window(until=until), source))
    query = newest.order_by(TALLIES.c.started_at.desc()).limit(limit)
    return [record(Tally, row) for row in session.connection().execute(query)][::-1]


def losses_of_run(session: Session, *, run: RunSummary) -> list[Loss]:
    """List what one run lost, the most batches first."""
    is_its = (LOSSES.c.started_at == run.started_at) & (LOSSES.c.run_id == run.id)
    query = select(LOSSES).where(is_its).order_by(LOSSES.c.batches.desc(), *LOSSES.primary_key)
    return [record(Loss, row) for row in session.connection().execute(query)]


def losses(session: Session, window: Window, *, source: str | None = None) -> Iterator[Loss]:
    """Walk over what each run lost at each source, in the order of time."""
    query = select(LOSSES).where(*_chosen(LOSSES, window, source)).order_by(*LOSSES.primary_key)
    return (record(Loss, row) for row in stream(session, query))


def sources_of(session: Session, *, run_ids: Sequence[int]) -> dict[int, list[str]]:
    """List whom each of the runs wanted something from; by name, those that ended only."""
    query = (
        select(TALLIES.c.run_id, TALLIES.c.source)
        .join(RUNS, (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id))
        .order_by(TALLIES.c.source)
    )
    found: dict[int, list[str]] = {}
    for first in range(0, len(run_ids), ROWS_AT_ONCE):
        chunk = query.where(RUNS.c.id.in_(run_ids[first : first + ROWS_AT_ONCE]))
        for run_id, source in session.connection().execute(chunk):
            found.setdefault(run_id, []).append(source)
    return found


def days_of(session: Session, *, run_ids: Sequence[int]) -> set[datetime]:
    """List the days in which the runs started."""
    found: set[datetime] = set()
    for first in range(0, len(run_ids), ROWS_AT_ONCE):
        query = select(RUNS.c.started_at).where(
            RUNS.c.id.in_(run_ids[first : first + ROWS_AT_ONCE])
        )
        found |= {period_begin(at, Step.DAY) for at in session.connection().scalars(query)}
    return found


def runs_without_tls(session: Session, window: Window, *, fewest: int) -> list[int]:
    """List the runs in which TLS failed with several sources: *fewest* of them, or more."""
    query = (
        select(LOSSES.c.run_id)
        .where(*_chosen(LOSSES, window, None), LOSSES.c.error == ErrorName.TLS)
        .group_by(LOSSES.c.run_id)
        .having(func.count(LOSSES.c.source.distinct()) >= fewest)
        .order_by(LOSSES.c.run_id)
    )
    return list(session.connection().scalars(query))


def sources_asked(session: Session, *, run_ids: Sequence[int]) -> dict[int, int]:
    """Count the sources that were sent requests in each of the runs that ended."""
    of_run = (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id)
    query = select(RUNS.c.id, func.count()).join(TALLIES, of_run).where(TALLIES.c.attempts > 0)
    found: dict[int, int] = {}
    for first in range(0, len(run_ids), ROWS_AT_ONCE):
        chunk = query.where(RUNS.c.id.in_(run_ids[first : first + ROWS_AT_ONCE]))
        found |= dict(session.connection().execute(chunk.group_by(RUNS.c.id)).all())
    return found


def fast_tallies(session: Session, window: Window, *, source: str, below_us: int) -> list[Tally]:
    """List what runs got from *source* whose fastest answer took less, in the order of time."""
    query = select(TALLIES).where(
        *_chosen(TALLIES, window, source), TALLIES.c.fastest_us < below_us
    )
    rows = session.connection().execute(query.order_by(*TALLIES.primary_key))
    return [record(Tally, row) for row in rows]


def doubtful_certificates(session: Session, *, run_ids: Sequence[int]) -> dict[int, set[str]]:
    """Find the sources whose certificate was out of date by our clock, by run."""
    is_doubtful = ATTEMPTS.c.detail.contains(CLOCK_DOUBT, autoescape=True)
    query = select(ATTEMPTS.c.run_id, ATTEMPTS.c.source).distinct()
    query = query.where(ATTEMPTS.c.error == ErrorName.TLS, is_doubtful)
    found: dict[int, set[str]] = {}
    for first in range(0, len(run_ids), ROWS_AT_ONCE):
        chunk = query.where(ATTEMPTS.c.run_id.in_(run_ids[first : first + ROWS_AT_ONCE]))
        for run_id, source in session.connection().execute(chunk):
            found.setdefault(run_id, set()).add(source)
    return found


def tallies_of_run(session: Session, *, run_id: int) -> list[Tally]:
    """List what one run got from each source, by its name."""
    query = select(TALLIES).where(*_chosen(TALLIES, _EVERYTHING, None, run_id))
    rows = session.connection().execute(query.order_by(TALLIES.c.source))
    return [record(Tally, row) for row in rows]


def retries_by_run(session: Session, *, run_ids: Sequence[int]) -> dict[int, int]:
    """Count the attempts after the first of a fetch in each of the runs, those that ended only."""
    query = (
        select(TALLIES.c.run_id, func.sum(TALLIES.c.retries))
        .join(RUNS, (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id))
        .group_by(TALLIES.c.run_id)
    )
    found: dict[int, int] = {}
    for first in range(0, len(run_ids), ROWS_AT_ONCE):
        chunk = query.where(RUNS.c.id.in_(run_ids[first : first + ROWS_AT_ONCE]))
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
    return [record(ContractSpan, row) for row in session.connection().execute(query)]


def _parts(
    session: Session, window: Window, run_id: int | None, step: Step | None
) -> Iterator[tuple[bool, Window]]:
    """Cut a window into what is read from closed days (True), and what from the runs."""
    if run_id is not None or step is Step.HOUR:
        yield False, window
        return
    parts = split(session, window)
    yield from ((False, part) for part in parts.runs)
    if parts.days is not None:
        yield True, parts.days


def source_totals(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    step: Step | None = None,
) -> list[SourceTotals]:
    """Add up the tallies by source, and by hour or day if there is a *step*; in that order."""

    def read(is_closed: bool, part: Window) -> Iterator[SourceTotals]:
        table = DAYS if is_closed else TALLIES
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

    found = chain.from_iterable(read(*each) for each in _parts(session, window, run_id, step))

    def key(of: SourceTotals) -> tuple[str, datetime]:
        return of.source, of.began_at or _BEFORE_ALL

    return sorted(add_alike(found, key).values(), key=key)


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
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
    step: Step | None = None,
) -> list[LossTotals]:
    """Add up the losses by source, error and phase, most attempts first.

    With a *step* they are added up by source, error and hour or day, in the order of time.
    """

    def read(is_closed: bool, part: Window) -> Iterator[LossTotals]:
        table = DAY_LOSSES if is_closed else LOSSES
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

    found = chain.from_iterable(read(*each) for each in _parts(session, window, run_id, step))

    def key(of: LossTotals) -> tuple[object, ...]:
        return of.began_at or _BEFORE_ALL, of.source, of.error, of.phase or ""

    added = sorted(add_alike(found, key).values(), key=key)
    if step is None:
        added.sort(key=lambda of: (-of.attempts, -of.batches))
    return added


def range_totals(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
) -> list[RangeTotals]:
    """Add up the numbers by source and range; the sums are exact however large."""

    def read(is_closed: bool, part: Window) -> Iterator[RangeTotals]:
        table = DAYS if is_closed else TALLIES
        names = ("source", "is_sandbox", "min", "max", "numbers", "sum")
        # Not added up by the database: the sums would overflow, or be rounded.
        query = select(*(table.c[name] for name in names), table.c.collected.label("batches"))
        chosen = _chosen(table, part, source, run_id)
        rows = session.connection().execute(query.where(*chosen, table.c.collected > 0))
        return (record(RangeTotals, row) for row in rows)

    found = chain.from_iterable(read(*each) for each in _parts(session, window, run_id, None))

    def key(of: RangeTotals) -> tuple[object, ...]:
        return of.source, of.min, of.max, of.is_sandbox

    return sorted(add_alike(found, key).values(), key=key)


def rule_totals(session: Session, window: Window, *, source: str) -> list[RuleTotals]:
    """Tell how each rule of *source* was kept, that of most requests first."""

    def read(is_closed: bool, part: Window) -> Iterator[RuleTotals]:
        table = DAYS if is_closed else TALLIES
        rule = func.nullif(table.c.rule, "").label("rule")
        is_judged = (DAYS.c.is_judged if is_closed else TALLIES.c.violations.is_not(None)).label(
            "is_judged"
        )
        runs = add_up(DAYS.c.asked) if is_closed else func.count()
        query = select(
            rule,
            is_judged,
            runs.label("runs"),
            add_up(table.c.attempts).label("attempts"),
            add_up(table.c.violations).label("n"),
        ).where(*_chosen(table, part, source), table.c.attempts > 0)
        for row in session.connection().execute(query.group_by(rule, is_judged)):
            yield record(RuleTotals, row, violations=row.n if row.is_judged else None)

    found = chain.from_iterable(read(*each) for each in _parts(session, window, None, None))

    def key(of: RuleTotals) -> tuple[str, bool]:
        return of.rule or "", of.violations is not None

    added = sorted(add_alike(found, key).values(), key=key)
    return sorted(added, key=lambda of: -of.attempts)


def played_by_sandbox(
    session: Session,
    window: Window = _EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
) -> dict[str, bool | None]:
    """Tell of each source whether the sandbox played it; None: in some of the runs."""

    def read(is_closed: bool, part: Window) -> Iterator[tuple[str, bool]]:
        table = DAYS if is_closed else TALLIES
        query = select(table.c.source, table.c.is_sandbox).distinct()
        for row in session.connection().execute(query.where(*_chosen(table, part, source, run_id))):
            yield row.source, row.is_sandbox

    goes_on = select(RUNS.c.id).where(RUNS.c.status == literal_column("'running'"))
    if run_id is not None:
        goes_on = goes_on.where(RUNS.c.id == run_id)
    running = select(BATCHES.c.source, BATCHES.c.is_sandbox).distinct()
    running = running.where(BATCHES.c.run_id.in_(goes_on))  # what goes on has no tally
    found: defaultdict[str, set[bool]] = defaultdict(set)
    for name, is_sandbox in session.connection().execute(running):
        found[name].add(is_sandbox)
    for parts in _parts(session, window, run_id, None):
        for name, is_sandbox in read(*parts):
            found[name].add(is_sandbox)
    return {name: flags.pop() if len(flags) == 1 else None for name, flags in found.items()}


def known_sources(session: Session) -> list[str]:
    """List the sources that were ever asked, by name."""
    # The days alone: their index answers, and years of them are a few thousand entries.
    query = select(TIMINGS.c.source).where(TIMINGS.c.step == Step.DAY).distinct()
    return sorted(session.connection().scalars(query))
