"""Find what belongs to no run, runs that are gone, and prunings that are not those that were."""

from collections.abc import Iterator
from itertools import groupby

from sqlalchemy import Connection, Select, Table, exists, func, select, text

from pipeline.store.integrity.chain import PRUNING, hash_pruning, pruned_seals, unsealed_runs
from pipeline.store.integrity.checks import Problem
from pipeline.store.integrity.noted import Noted
from pipeline.store.tables import ATTEMPTS, BATCHES, LOSSES, RUNS, SEALS, TALLIES


def find_strays(
    connection: Connection, *, position: int, removed: set[int], noted: Noted | None = None
) -> Iterator[Problem]:
    """Find what belongs to no run, and what the walk along the chain to *position* could not meet.

    *removed*: runs that are known to be gone. Of what was *noted* as verified nothing is looked at.
    """
    first_run = noted.first_run if noted else 1
    for run_id in unsealed_runs(connection, first=first_run):
        line = f"run {run_id}: is not in the chain; it was inserted, or its seal was removed"
        yield Problem(text=line, run=run_id)
    if connection.dialect.name == "sqlite":  # a server skips an id whenever a start fails
        yield from _missing_runs(connection, removed, first_run)
        newest = _last_given(connection, SEALS)
        if newest > position:
            yield missing_seals(range(position + 1, newest + 1))
    for table in (BATCHES, ATTEMPTS):
        for run_id in connection.scalars(_runs_only_in(table, first_run)):
            if run_id not in removed:
                line = f"run {run_id}: is not there, but {table.name} has rows of it"
                yield Problem(text=line, run=run_id)
    for table in (TALLIES, LOSSES):
        for run_id in connection.scalars(_rows_of_no_run(table, first_run)):
            line = f"run {run_id}: {table.name} has a row that is not its own"
            yield Problem(text=line, run=run_id)
    yield from _wrong_prunings(connection, noted.head.position if noted else 0)


def missing_seals(gap: range) -> Problem:
    """Say that the seals of these positions are not there."""
    seals = "the seal was" if len(gap) == 1 else f"the seals to position {gap[-1]} were"
    return Problem(text=f"position {gap[0]}: {seals} removed", position=gap[0])


def _missing_runs(connection: Connection, removed: set[int], first: int) -> Iterator[Problem]:
    before = func.lag(RUNS.c.id, 1, first - 1).over(order_by=RUNS.c.id)
    pairs = select(before.label("before"), RUNS.c.id).where(RUNS.c.id >= first).subquery()
    query = select(pairs.c.before, pairs.c.id).where(pairs.c.id > pairs.c.before + 1)
    gaps = [range(before + 1, run_id) for before, run_id in connection.execute(query)]
    newest = max(connection.scalar(select(func.max(RUNS.c.id))) or 0, first - 1)
    for gap in (*gaps, range(newest + 1, _last_given(connection, RUNS) + 1)):
        if gap and not removed.issuperset(gap[: len(removed) + 1]):
            runs = f"run {gap[0]}: was" if len(gap) == 1 else f"runs {gap[0]} to {gap[-1]}: were"
            yield Problem(text=f"{runs} removed", run=gap[0])


def _last_given(connection: Connection, table: Table) -> int:
    query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    return connection.scalar(query, {"name": table.name}) or 0


def _runs_only_in(table: Table, first: int) -> Select[int]:
    """Ask for the runs that *table* has rows of, jumping from run to run along its key."""
    start = select(func.min(table.c.run_id).label("id")).where(table.c.run_id >= first)
    ids = start.cte("ids", recursive=True)
    following = select(func.min(table.c.run_id)).where(table.c.run_id > ids.c.id)
    ids = ids.union_all(select(following.scalar_subquery()).where(ids.c.id.is_not(None)))
    is_known = exists().where(RUNS.c.id == ids.c.id)
    return select(ids.c.id).where(ids.c.id.is_not(None), ~is_known)


def _rows_of_no_run(table: Table, first: int) -> Select[int]:
    run = (RUNS.c.id == table.c.run_id) & (RUNS.c.started_at == table.c.started_at)
    query = select(table.c.run_id).where(table.c.run_id >= first, ~exists().where(run))
    return query.order_by(table.c.run_id)


def _wrong_prunings(connection: Connection, after: int) -> Iterator[Problem]:
    query = select(SEALS.c.position, SEALS.c.record, SEALS.c.contents)
    rows = connection.execute(query.where(SEALS.c.kind == PRUNING, SEALS.c.position > after))
    prunings = {position: (record, contents) for position, record, contents in rows}
    marked = groupby(pruned_seals(connection, after=after), key=lambda seal: seal.pruned_by)
    wrong = {at for at, seals in marked if prunings.pop(at or 0, None) != hash_pruning(seals)}
    for position in sorted(wrong | set(prunings)):
        line = f"position {position}: the runs marked as pruned there are not those that were"
        yield Problem(text=line, position=position)
