"""The slots of a schedule in the store: who has claimed which, and what became of it.

As everywhere in the store, the caller owns the transaction. A slot is free while it has no row, or
one that says that nobody ran it; a row without a fate is a slot whose run goes on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import case, exists, func, literal_column, select, true, update
from sqlmodel import Session

from pipeline.models import Fate, Gap, RunStatus, RunSummary, SlotClaim, SlotDay, SlotRecord, Step
from pipeline.store.rows import AnyRow, execute_many, insert_into, record, stream
from pipeline.store.tables import RUNS, SLOTS
from pipeline.store.window import EVERYTHING, Window, period_of, within

AHEAD_OF_TIME = timedelta(minutes=10)  # by so much no machine's clock differs from another's

_KEY = ("schedule", "due_at")
_NEWEST_FIRST = select(SLOTS).order_by(SLOTS.c.due_at.desc(), SLOTS.c.schedule)


def claim(session: Session, *, slot: SlotClaim, host: str, now: datetime) -> bool:
    """Take a slot if it is free, in one statement: of all who try, one is told True."""
    taking = insert_into(session, SLOTS).values(
        schedule=slot.schedule, due_at=slot.due_at, host=host, claimed_at=now
    )
    # A missed slot that is run after all (the clock had been wrong, or to catch up) was not missed;
    # nor was a gap that began with it. And a run whose time has not come has not had its slot.
    before_it = RUNS.c.started_at < slot.due_at - AHEAD_OF_TIME
    # Spelled out: as a column it would bring all slots along into the subquery.
    is_ahead_of_time = exists().where(RUNS.c.id > literal_column("slots.run_id"), before_it)
    taking = taking.on_conflict_do_update(
        index_elements=_KEY,
        set_=dict.fromkeys(("fate", "run_id", "late_us", "last_due_at", "slots"))
        | {"host": host, "claimed_at": now},
        where=(SLOTS.c.fate == Fate.MISSED) | is_ahead_of_time,
    )
    # Not its rowcount: of an INSERT nobody promises one, and psycopg's is -1.
    taken = session.connection().execute(taking.returning(SLOTS.c.due_at))
    return taken.first() is not None


def book_missed(
    session: Session, *, schedule: str, due: Iterable[datetime], host: str, now: datetime
) -> None:
    """Put on record that nobody ran the slots *due*; what is on record already stays."""
    booking = insert_into(session, SLOTS).on_conflict_do_nothing(index_elements=_KEY)
    row = {"schedule": schedule, "fate": Fate.MISSED, "host": host, "claimed_at": now}
    execute_many(session, booking, (row | {"due_at": due_at} for due_at in due))


def book_gap(session: Session, *, gap: Gap, host: str, now: datetime) -> None:
    """Put on record in one row that nobody ran the slots of a *gap*."""
    row = asdict(gap) | {"fate": Fate.MISSED, "host": host, "claimed_at": now}
    booking = insert_into(session, SLOTS).on_conflict_do_nothing(index_elements=_KEY)
    session.connection().execute(booking, row)


def cut_gap(session: Session, *, schedule: str, due_at: datetime, at: datetime) -> None:
    """Leave of the gap that begins with a slot that slot alone, if it reaches to *at* or beyond.

    It was booked by a clock that was ahead: nobody can have missed what is due now or later.
    """
    is_it = (SLOTS.c.schedule == schedule) & (SLOTS.c.due_at == due_at)
    cutting = update(SLOTS).where(is_it, SLOTS.c.last_due_at >= at)
    session.connection().execute(cutting.values(last_due_at=None, slots=None))


def begin(session: Session, *, slots: Iterable[SlotClaim], run: RunSummary) -> None:
    """Write down that *run* has begun for *slots*, and how late, whoever took it for dead."""
    for slot in slots:
        late_us = slot.late_us(run.started_at)
        session.connection().execute(_of(slot).values(run_id=run.id, late_us=late_us, fate=None))


def settle(session: Session, *, slots: Iterable[SlotClaim], run: RunSummary) -> None:
    """Write down what became of *slots* now that their *run* has ended."""
    for slot in slots:
        session.connection().execute(_of(slot).values(fate=slot.fate(run)))


def settle_rest(session: Session, *, run: RunSummary) -> None:
    """Write down what became of the slots of a *run* that another process than their own ended.

    That one says how late they were, if it lives.
    """
    fate = Fate.INTERRUPTED if run.status is RunStatus.INTERRUPTED else Fate.RAN
    is_open = (SLOTS.c.run_id == run.id) & SLOTS.c.fate.is_(None)
    session.connection().execute(update(SLOTS).where(is_open).values(fate=fate))


def _of(slot: SlotClaim) -> Any:  # noqa: ANN401 - SQLAlchemy's Update does not say what it is of
    return update(SLOTS).where(SLOTS.c.schedule == slot.schedule, SLOTS.c.due_at == slot.due_at)


def interrupt_dead(session: Session, *, claimed_before: datetime | None = None) -> None:
    """End the slots whose run does not go on, once the dead runs were ended.

    Also those that never came to have one: all, or those that were claimed *claimed_before*.
    """
    going_on = select(RUNS.c.id).where(RUNS.c.status == RunStatus.RUNNING)
    has_none = SLOTS.c.run_id.is_(None)
    is_old = true() if claimed_before is None else SLOTS.c.claimed_at < claimed_before
    is_dead = (has_none & is_old) | (~has_none & SLOTS.c.run_id.not_in(going_on))
    ending = update(SLOTS).where(SLOTS.c.fate.is_(None), is_dead)
    session.connection().execute(ending.values(fate=Fate.INTERRUPTED))


def newest_due(session: Session, *, schedule: str, before: datetime) -> datetime | None:
    """Find the newest slot on record that was due *before* a moment."""
    due = (SLOTS.c.schedule == schedule) & (SLOTS.c.due_at < before)
    newest: datetime | None = session.connection().scalar(
        select(func.max(SLOTS.c.due_at)).where(due)
    )
    return newest


def find_rival(session: Session, *, slot: SlotClaim, host: str, config_path: str) -> str | None:
    """Find the other configuration of the same machine that has run a slot."""
    query = (
        select(RUNS.c.config_path)
        .join(SLOTS, SLOTS.c.run_id == RUNS.c.id)
        .where(SLOTS.c.schedule == slot.schedule, SLOTS.c.due_at == slot.due_at)
        .where(RUNS.c.host == host, RUNS.c.config_path != config_path)
    )
    rival: str | None = session.connection().execute(query).scalar()
    return rival


def recent_slots(
    session: Session, *, schedule: str, limit: int, until: datetime
) -> list[SlotRecord]:
    """List the newest *limit* slots of a schedule that were due by *until*, newest first."""
    query = _NEWEST_FIRST.where(SLOTS.c.schedule == schedule, SLOTS.c.due_at <= until).limit(limit)
    return list(map(_record, session.connection().execute(query)))


def slot_lines(
    session: Session, window: Window = EVERYTHING, *, limit: int | None = None
) -> Iterator[SlotRecord]:
    """Read the slots that were due in a window, newest first, as few as *limit*."""
    query = _NEWEST_FIRST.where(*within(SLOTS.c.due_at, window)).limit(limit)
    return map(_record, stream(session, query))


def gaps(session: Session, window: Window) -> list[SlotRecord]:
    """List the gaps that reach into a window, oldest first."""
    query = select(SLOTS).where(
        SLOTS.c.last_due_at.is_not(None),
        *within(SLOTS.c.last_due_at, Window(since=window.since)),
        *within(SLOTS.c.due_at, Window(until=window.until)),
    )
    rows = session.connection().execute(query.order_by(SLOTS.c.due_at, SLOTS.c.schedule))
    return list(map(_record, rows))


def slot_days(session: Session, window: Window = EVERYTHING) -> list[SlotDay]:
    """Count the fates of the slots that were due in a window, by schedule and UTC day.

    A gap counts on the day it begins, with all its slots.
    """
    day = period_of(session, SLOTS.c.due_at, Step.DAY)
    slots = func.coalesce(SLOTS.c.slots, 1)
    counts = [
        func.sum(case((SLOTS.c.fate == fate, slots), else_=0)).label(fate.value) for fate in Fate
    ]
    query = select(
        SLOTS.c.schedule,
        day.label("day"),
        *counts,
        func.count().filter(SLOTS.c.fate.is_(None)).label("running"),
        func.max(SLOTS.c.late_us).label("late_us"),
    ).where(*within(SLOTS.c.due_at, window))
    rows = session.connection().execute(
        query.group_by(SLOTS.c.schedule, day).order_by(SLOTS.c.schedule, day)
    )
    return [_slot_day(row) for row in rows]


def _slot_day(row: AnyRow) -> SlotDay:
    counts: dict[str, Any] = {fate.value: int(getattr(row, fate.value)) for fate in Fate}
    return record(SlotDay, row, day=row.day.astimezone(UTC).date(), **counts)


def _record(row: AnyRow) -> SlotRecord:
    return record(SlotRecord, row, slots=row.slots or 1)
