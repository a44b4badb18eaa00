"""The portions of the runs that several machines share, and the workers that carry them out.

A portion is a stretch of one source's batches, by their numbers. It may be handed out more than
once: whoever has it asks for what has no outcome yet, and the first outcome of a batch stays.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from sqlalchemy import ColumnElement, exists, func, insert, select, update
from sqlmodel import Session

from pipeline.models import Attempt, Batch, Member, Outcome, PortionRecord, RunStatus, Verdict
from pipeline.pacing import Moment
from pipeline.sanitize import one_line
from pipeline.store import late, writes
from pipeline.store.columns import id_of
from pipeline.store.heartbeats import SILENCE
from pipeline.store.rows import AnyRow, as_row, as_rows, columns_of, execute_many, record
from pipeline.store.shared_clock import read_clock
from pipeline.store.tables import BATCHES, HEARTBEATS, MEMBERS, PORTIONS, RUNS

FORGOTTEN = timedelta(hours=1)  # so long a worker that fell silent is listed

_UNDECIDED = BATCHES.c.verdict.is_(None)
_IS_WITHIN = (
    (BATCHES.c.run_id == PORTIONS.c.run_id)
    & (BATCHES.c.source == id_of(PORTIONS.c.source))
    & BATCHES.c.number.between(PORTIONS.c.first, PORTIONS.c.last)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """The batches of one source in one run from *first* to *last*, by their numbers.

    Attributes:
        lock: of those with the same one only one goes on at a time; None: any number.
        rank: the lowest goes first.
    """

    run_id: int
    source: str
    first: int
    last: int
    lock: str | None = None
    rank: int = 0


# The name of the source comes with the batches.
_OF_PORTION = [PORTIONS.c[name] for name in Portion.__slots__ if name != "source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a portion stands that somebody is about to carry out.

    Attributes:
        uid: of its run.
        until: the run's deadline.
        batches: all of the portion's.
        undecided: the numbers of those that have no outcome yet.
    """

    portion: Portion
    uid: str
    until: datetime
    batches: Sequence[Batch]
    undecided: frozenset[int]


def order(session: Session, portions: Iterable[Portion]) -> None:
    """Write down what is to be carried out."""
    execute_many(session, insert(PORTIONS), (as_row(PORTIONS, portion) for portion in portions))


def begin(
    session: Session, *, run_id: int, firsts: Collection[int], host: str, pid: int
) -> list[Standing]:
    """Say who carries out the portions that begin with these batches, and tell how each stands.

    Those that are done are left out, and all if the run is.
    """
    connection = session.connection()
    are_they = (PORTIONS.c.run_id == run_id) & PORTIONS.c.first.in_(firsts)
    began = {"began_at": read_clock(connection), "host": host, "pid": pid, "refusal": None}
    taking = update(PORTIONS).where(are_they, PORTIONS.c.ended_at.is_(None), _goes_on())
    taken = connection.scalars(taking.values(began).returning(PORTIONS.c.first)).all()
    rows = connection.execute(
        select(
            RUNS.c.uid,
            HEARTBEATS.c.until,
            BATCHES.c.verdict,
            *_OF_PORTION,
            *columns_of(BATCHES, Batch),
        )
        .join_from(PORTIONS, BATCHES, _IS_WITHIN)
        .join(RUNS, RUNS.c.id == PORTIONS.c.run_id)
        .join(HEARTBEATS, HEARTBEATS.c.run_id == RUNS.c.id)
        .where(PORTIONS.c.run_id == run_id, PORTIONS.c.first.in_(taken))
        .order_by(PORTIONS.c.first, BATCHES.c.number)
    )
    return [_standing(list(its)) for _, its in groupby(rows, key=attrgetter("first"))]


def _standing(rows: Sequence[AnyRow]) -> Standing:
    return Standing(
        portion=record(Portion, rows[0]),
        uid=rows[0].uid,
        until=rows[0].until,
        batches=[record(Batch, row) for row in rows],
        undecided=frozenset(row.number for row in rows if row.verdict is None),
    )


def refuse(session: Session, portion: Portion, *, why: str) -> None:
    """Say why somebody who was given *portion* leaves it to others."""
    is_it = (PORTIONS.c.run_id == portion.run_id) & (PORTIONS.c.first == portion.first)
    refusing = update(PORTIONS).where(is_it)
    session.connection().execute(refusing.values(refusal=one_line(why), host=None, pid=None))


def held_by(session: Session, *, host: str, pid: int) -> set[tuple[int, int]]:
    """Find the portions, by run and first batch, that a process was given last, of all at once."""
    query = select(PORTIONS.c.run_id, PORTIONS.c.first).where(
        PORTIONS.c.host == host, PORTIONS.c.pid == pid, PORTIONS.c.ended_at.is_(None), _goes_on()
    )
    return set(map(tuple, session.connection().execute(query)))


def save_results(
    session: Session,
    *,
    run_id: int,
    attempts: Sequence[Attempt],
    outcomes: Sequence[Outcome],
    keep_numbers: bool,
) -> None:
    """Record results of any portions of a run: a batch's first outcome stays.

    All attempts are kept, numbered on where another process has asked for the same, and beside the
    run if that has ended. A batch that this process was told to leave has no outcome yet.
    """
    wanted = [each for each in outcomes if each.verdict is not Verdict.CANCELLED]
    numbers = {each.batch.number for each in wanted} | {each.fetch for each in attempts}
    undecided = _hold(session, run_id, numbers)
    if undecided is None:
        rows = as_rows(writes.outcome_columns(run_id, wanted, keep_numbers))
        late.keep(
            session, run_id=run_id, attempts=attempts, outcomes=rows, keep_numbers=keep_numbers
        )
        return
    kept, renumbered = writes.number_on(session, run_id=run_id, attempts=attempts)
    decided = [
        replace(each, attempt=_renumbered(each, renumbered))
        for each in wanted
        if each.batch.number in undecided
    ]
    writes.save_results(
        session, run_id=run_id, attempts=kept, outcomes=decided, keep_numbers=keep_numbers
    )


def _hold(session: Session, run_id: int, numbers: Collection[int]) -> set[int] | None:
    """Keep out who would save results of the same batches, and the end of their run.

    Gives those without an outcome; None if the run has ended. A fetch bears the number of its first
    batch, so whoever holds that is the only one who adds attempts of it. All take them in one
    order, and after the run, as whoever ends it does: so none waits for who waits for it.
    """
    connection = session.connection()
    status = select(RUNS.c.status).where(RUNS.c.id == run_id).with_for_update(read=True)
    if connection.scalar(status) != RunStatus.RUNNING:
        return None
    query = select(BATCHES.c.number, BATCHES.c.verdict).where(
        BATCHES.c.run_id == run_id, BATCHES.c.number.in_(numbers)
    )
    rows = connection.execute(query.order_by(BATCHES.c.number).with_for_update(key_share=True))
    return {number for number, verdict in rows if verdict is None}


def _renumbered(outcome: Outcome, numbers: writes.Numbers) -> int | None:
    if outcome.attempt is None or outcome.fetch is None:
        return outcome.attempt
    return numbers[outcome.fetch, outcome.attempt]


def end(session: Session, *, run_id: int, obstacles: Mapping[Portion, Moment | None]) -> bool:
    """Say which of these portions are done; put off what an obstacle keeps; tell if all is done.

    That is: whether no batch of the run is without an outcome.
    """
    connection = session.connection()
    for portion, obstacle in obstacles.items():
        if obstacle is not None:
            is_its = BATCHES.c.number.between(portion.first, portion.last)
            of_it = (is_its, BATCHES.c.source == portion.source)
            writes.defer_open_batches(session, run_id, obstacle, *of_it)
    firsts = {portion.first for portion in obstacles}
    are_done = (PORTIONS.c.run_id == run_id) & PORTIONS.c.first.in_(firsts)
    are_done &= ~exists().where(_IS_WITHIN, _UNDECIDED)
    connection.execute(update(PORTIONS).where(are_done).values(ended_at=read_clock(connection)))
    of_run = exists().where(BATCHES.c.run_id == run_id, _UNDECIDED)
    return not connection.scalar(select(of_run))


def find_overdue_runs(session: Session) -> list[int]:
    """List the shared runs that go on and whose deadline is over."""
    connection = session.connection()
    query = (
        select(RUNS.c.id)
        .join(HEARTBEATS, HEARTBEATS.c.run_id == RUNS.c.id)
        .where(RUNS.c.status == RunStatus.RUNNING, HEARTBEATS.c.until <= read_clock(connection))
        .where(exists().where(PORTIONS.c.run_id == RUNS.c.id))
    )
    return list(connection.scalars(query))


def find_undecided(session: Session, *, run_id: int) -> set[str]:
    """Name the sources that have batches without an outcome."""
    query = select(BATCHES.c.source).where(BATCHES.c.run_id == run_id, _UNDECIDED).distinct()
    return set(session.connection().scalars(query))


def count_outcomes(session: Session, *, run_id: int) -> tuple[int, int]:
    """Count the batches of a run that were collected, and those that were not."""
    is_collected = BATCHES.c.verdict == Verdict.COLLECTED.value
    query = select(
        func.count().filter(is_collected), func.count().filter(~is_collected, ~_UNDECIDED)
    ).where(BATCHES.c.run_id == run_id)
    collected, lost = session.connection().execute(query).one()
    return collected, lost


# ---- Who is here ----


def join(session: Session, *, host: str, pid: int, version: str, lanes: int) -> int:
    """Say that a worker is here, and give its number."""
    now = func.clock_timestamp()
    joining = insert(MEMBERS).values(
        host=host, pid=pid, version=version, lanes=lanes, since=now, seen_at=now
    )
    return int(session.connection().execute(joining.returning(MEMBERS.c.id)).scalar_one())


def stay(session: Session, *, member: int) -> None:
    """Say that a worker is here, and the shared runs go on."""
    connection = session.connection()
    now = func.clock_timestamp()
    connection.execute(update(MEMBERS).where(MEMBERS.c.id == member).values(seen_at=now))
    going_on = select(PORTIONS.c.run_id).where(PORTIONS.c.ended_at.is_(None))
    connection.execute(
        update(HEARTBEATS)
        .where(HEARTBEATS.c.run_id.in_(going_on))
        .values(seen_at=now, suspected_at=None)
    )


def leave(session: Session, *, member: int) -> None:
    """Say that a worker goes."""
    leaving = update(MEMBERS).where(MEMBERS.c.id == member)
    session.connection().execute(leaving.values(left_at=func.clock_timestamp()))


def find_members(session: Session) -> list[Member]:
    """List the workers that are here, or fell silent within the last hour, the oldest first."""
    connection = session.connection()
    now = read_clock(connection)
    at_it = (
        select(func.count())
        .where(PORTIONS.c.host == MEMBERS.c.host, PORTIONS.c.pid == MEMBERS.c.pid)
        .where(PORTIONS.c.ended_at.is_(None), PORTIONS.c.refusal.is_(None), _goes_on())
        .scalar_subquery()
    )
    query = (
        select(MEMBERS, at_it.label("portions"))
        .where(MEMBERS.c.left_at.is_(None), MEMBERS.c.seen_at >= now - FORGOTTEN)
        .order_by(MEMBERS.c.since, MEMBERS.c.id)
    )
    return [
        record(Member, row, member_id=row.id, is_alive=now - row.seen_at <= SILENCE)
        for row in connection.execute(query)
    ]


def find_open_portions(session: Session) -> list[PortionRecord]:
    """List the portions that are not done, of the runs that go on, in the order of their ranks."""
    undecided = select(func.count()).where(_IS_WITHIN, _UNDECIDED).scalar_subquery()
    query = (
        select(PORTIONS, undecided.label("undecided"))
        .where(PORTIONS.c.ended_at.is_(None), _goes_on())
        .order_by(PORTIONS.c.run_id, PORTIONS.c.rank, PORTIONS.c.first)
    )
    rows = session.connection().execute(query).all()
    taken = {row.lock for row in rows if _is_taken(row)}
    return [record(PortionRecord, row, why=_why(row, taken)) for row in rows]


def _is_taken(row: AnyRow) -> bool:
    return row.host is not None and row.refusal is None


def _why(row: AnyRow, taken: set[str | None]) -> str:
    if _is_taken(row):
        return ""
    if row.refusal is not None:
        return f"a worker with the configuration of the run; {row.refusal}"
    if row.lock is not None and row.lock in taken:
        return "another portion of the same upstream"
    return "a worker with a free lane"


def _goes_on() -> ColumnElement[bool]:
    return exists().where(RUNS.c.id == PORTIONS.c.run_id, RUNS.c.status == RunStatus.RUNNING)
