"""Delete the batches and attempts of old runs, and keep their totals.

Of a pruned run its row, tallies, losses and seal stay. First a seal is added to the chain that
names the runs, and theirs say so; only then are their batches and attempts deleted, whole runs at
a time, so that a run that collects need not wait for long. Killed in between it leaves runs that
are marked and still whole, which verify as before, and which the next pruning deletes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
)
from sqlmodel import Session

from pipeline.clock import TOLERANCE, Stamp
from pipeline.models import RunStatus
from pipeline.store import health
from pipeline.store.columns import add_up
from pipeline.store.db import Store
from pipeline.store.integrity.chain import seal_pruning
from pipeline.store.rows import records
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    EVIDENCE,
    LATE_ATTEMPTS,
    MEASURES,
    PORTIONS,
    PROOFS,
    REQUESTS,
    RUNS,
    SEALS,
)

ROWS_PER_TRANSACTION = 20_000  # batches and attempts in one transaction, if no run has more
RUNS_AT_ONCE = 500
STILL_NEAR = timedelta(days=7)  # so long ago the newest run may be: some are started once a week


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """What a pruning would delete.

    Attributes:
        newest_at: when the newest of the runs started; None if there is none.
        oldest_kept_at: when the oldest run that would be left whole started; None if none is.
    """

    runs: int
    batches: int
    numbers: int
    attempts: int
    newest_at: datetime | None
    oldest_kept_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was deleted."""

    runs: int = 0
    batches: int = 0
    attempts: int = 0
    requests: int = 0
    evidence: int = 0


def _is_prunable(before: datetime, now: datetime) -> ColumnElement[bool]:
    """Choose runs that have ended, are sealed and not empty; never the one with the newest attempt.

    Numbers of attempts are for ever, since somebody may have written them down; and SQLite gives
    that of the newest a second time once it is gone. What looks old and has a number among those
    that are kept was recorded by a clock that was behind, so it is kept with them.
    """
    kept = RUNS.alias()
    is_kept = kept.c.started_at.between(before, now + TOLERANCE)
    first_kept = select(func.min(kept.c.id)).where(is_kept).scalar_subquery()
    newest = select(func.max(ATTEMPTS.c.id)).scalar_subquery()
    in_use = select(ATTEMPTS.c.run_id).where(ATTEMPTS.c.id == newest).scalar_subquery()
    return (
        (RUNS.c.started_at < before)
        & (RUNS.c.id < func.coalesce(first_kept, RUNS.c.id + 1))
        & (RUNS.c.status != RunStatus.RUNNING)
        & (func.coalesce(in_use, 0) != RUNS.c.id)
        & or_(RUNS.c.ordered > 0, RUNS.c.attempts > 0)
        & exists().where(SEALS.c.run_id == RUNS.c.id, SEALS.c.pruned_by.is_(None))
    )


def find_prunable(session: Session, *, before: datetime, now: datetime) -> Prunable:
    """Add up what the runs that started *before* hold; looks at the runs alone."""
    is_prunable = _is_prunable(before, now)
    kept = select(func.min(RUNS.c.started_at)).where(RUNS.c.started_at >= before)
    figures = select(
        func.count().label("runs"),
        add_up(RUNS.c.ordered).label("batches"),
        add_up(RUNS.c.numbers).label("numbers"),
        add_up(RUNS.c.attempts).label("attempts"),
        func.max(RUNS.c.started_at).label("newest_at"),
        kept.scalar_subquery().label("oldest_kept_at"),
    )
    (found,) = records(session, Prunable, figures.where(is_prunable))
    return found


def why_not(
    found: Prunable, *, before: datetime, keep: timedelta, newest_run: Stamp | None = None
) -> str | None:
    """Say why not to prune: by a wrong clock too many runs would look old.

    If this machine's clock is far ahead, then no run at all has started within *keep*; or some
    have, with the same wrong clock, and there is a hole of that length before them. If it is ahead
    by less, or behind, the newest run is far off.
    """
    if found.newest_at is None:
        return None
    if found.oldest_kept_at is None:
        return f"no run has started since {_show(before)}, so nothing would be left whole"
    if found.oldest_kept_at - found.newest_at > keep:
        return f"no run started between {_show(found.newest_at)} and {_show(found.oldest_kept_at)}"
    now = before + keep
    if newest_run is None or abs(now - newest_run.started_at) <= (
        TOLERANCE if newest_run.started_at > now else STILL_NEAR
    ):
        return None
    last = f"the newest run, {newest_run.run_id}, started at {_show(newest_run.started_at)}"
    return f"{last}, and the clock here shows {_show(now)}"


def _show(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%MZ}"


def prune(
    store: Store,
    *,
    before: datetime,
    now: datetime,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Pruned:
    """Delete what runs that started *before* consist of, and what earlier prunings left behind.

    *watch* is told how many runs are done, and how many there are. On a server no run should go
    on meanwhile: one that has just found an answer in the store cannot refer to it when it is gone.

    Raises:
        StoreError: the store failed; what is deleted is deleted, the next pruning does the rest.
    """
    runs = select(RUNS.c.id).where(_is_prunable(before, now))
    with store.write() as session:
        if session.connection().scalar(runs.limit(1)) is not None:
            seal_pruning(session, runs=runs, sealed_at=now)
    with store.read() as session:
        portions = _portions(session.connection())
    done: Counter[str] = Counter()
    for run_ids in portions:
        with store.write() as session:
            health.leave_behind(session.connection(), run_ids=run_ids)
            done.update(_delete(session.connection(), run_ids))
        watch(done["runs"], sum(map(len, portions)))
    with store.read() as session:
        newest, unused = unused_requests(session.connection())
    return Pruned(**done, requests=delete_requests(store, newest, unused))


def _portions(connection: Connection) -> list[list[int]]:
    """List the runs that are marked and not deleted yet, by transaction, in the order of seals."""
    is_left = (
        exists().where(table.c.run_id == RUNS.c.id) for table in (BATCHES, ATTEMPTS, LATE_ATTEMPTS)
    )
    query = (
        select(RUNS.c.id, RUNS.c.ordered + RUNS.c.attempts)
        .join(SEALS, SEALS.c.run_id == RUNS.c.id)
        .where(SEALS.c.pruned_by.is_not(None), or_(*is_left))
        .order_by(SEALS.c.position)
    )
    portions: list[list[int]] = []
    room = 0
    for run_id, rows in connection.execute(query):
        if not portions or rows > room or len(portions[-1]) == RUNS_AT_ONCE:
            portions.append([])
            room = ROWS_PER_TRANSACTION
        portions[-1].append(run_id)
        room -= rows
    return portions


def _delete(connection: Connection, runs: list[int]) -> dict[str, int]:
    """Delete what *runs* consist of, and count it."""
    kept = ATTEMPTS.c.evidence
    answers = select(kept).where(ATTEMPTS.c.run_id.in_(runs), kept.is_not(None)).distinct()
    rows = [{"unused": digest} for digest in connection.scalars(answers)]
    deleted = {
        table.name: connection.execute(delete(table).where(table.c.run_id.in_(runs))).rowcount
        for table in (MEASURES, PROOFS, PORTIONS, LATE_ATTEMPTS, BATCHES, ATTEMPTS)
    }
    is_used = exists().where(kept == EVIDENCE.c.digest)
    statement = delete(EVIDENCE).where(EVIDENCE.c.digest == bindparam("unused"), ~is_used)
    evidence = connection.execute(statement, rows).rowcount if rows else 0
    counted = {name: deleted[name] for name in ("batches", "attempts")}
    return {"runs": len(runs), "evidence": evidence, **counted}


def is_unused(reference: Column[object]) -> ColumnElement[bool]:
    """Choose what no attempt refers to: in one walk over all attempts, however much it is."""
    (key,) = reference.foreign_keys
    return key.column.not_in(select(reference).where(reference.is_not(None)))


def unused_requests(connection: Connection) -> tuple[int, Sequence[int]]:
    """List the requests that no attempt refers to, behind the id of the newest attempt there is.

    No index finds the attempts of a request, which are most often all of a source: it would take
    more room than what it answers.
    """
    newest = connection.scalar(select(func.max(ATTEMPTS.c.id))) or 0
    unused = connection.scalars(select(REQUESTS.c.id).where(is_unused(ATTEMPTS.c.request)))
    return newest, unused.all()


def delete_requests(store: Store, newest: int, unused: Sequence[int]) -> int:
    """Delete the requests that were *unused* and still are, and count them.

    Only attempts after the *newest* one can have sent one of them again.
    """
    came_back = exists().where(ATTEMPTS.c.id > newest, ATTEMPTS.c.request == REQUESTS.c.id)
    statement = delete(REQUESTS).where(REQUESTS.c.id == bindparam("unused"), ~came_back)
    count = 0
    for first in range(0, len(unused), ROWS_PER_TRANSACTION):
        rows = [{"unused": each} for each in unused[first : first + ROWS_PER_TRANSACTION]]
        with store.write() as session:
            count += session.connection().execute(statement, rows).rowcount
    return count
