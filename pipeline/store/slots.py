"""The ledger of slots in the store: who has which, what became of it, and what is on record.

As everywhere in the store, the caller owns the transaction. A slot is free while it has no row, or
one that says that nobody ran it; a row without a fate is a slot whose run goes on.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from itertools import islice
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlmodel import Session

from pipeline.models import Fate, RunSummary, SlotClaim, SlotDay, SlotRecord
from pipeline.store.inserting import insert_into
from pipeline.store.tables import RUNS, SLOTS
from pipeline.store.window import within

CHUNK = 1_000  # rows per statement

_KEY = ("schedule", "due_at")
_NEWEST_FIRST = select(SLOTS).order_by(SLOTS.c.due_at.desc(), SLOTS.c.schedule)


def claim(session: Session, *, slot: SlotClaim, host: str, now: datetime) -> bool:
    """Take a slot if it is free, in one statement: of all who try, one is told True."""
    taking = insert_into(session, SLOTS).values(
        schedule=slot.schedule, due_at=slot.due_at, host=host, claimed_at=now
    )
    # A missed slot that is run after all (the clock had been wrong, or to catch up) was not missed.
    taking = taking.on_conflict_do_update(
        index_elements=_KEY,
        set_={"fate": None, "host": host, "claimed_at": now},
        where=SLOTS.c.fate == Fate.MISSED.value,
    )
    # Not its rowcount: of an INSERT nobody promises one, and psycopg's is -1.
    taken = session.connection().execute(taking.returning(SLOTS.c.due_at))
    return taken.first() is not None


def book_missed(
    session: Session, *, schedule: str, due: Iterable[datetime], host: str, now: datetime
) -> None:
    """Put on record that nobody ran the slots *due*; what is on record already stays."""
    booking = insert_into(session, SLOTS).on_conflict_do_nothing(index_elements=_KEY)
    rows = (
        {
            "schedule": schedule,
            "due_at": due_at,
            "fate": Fate.MISSED.value,
            "host": host,
            "claimed_at": now,
        }
        for due_at in due
    )
    while chunk := list(islice(rows, CHUNK)):
        session.connection().execute(booking, chunk)


def begin(session: Session, *, slots: Iterable[SlotClaim], run: RunSummary) -> None:
    """Write down that *run* has begun for *slots*, and how late."""
    for slot in slots:
        late_us = slot.late_us(run.started_at)
        session.connection().execute(_of(slot).values(run_id=run.id, late_us=late_us))


def settle(session: Session, *, slots: Iterable[SlotClaim], run: RunSummary) -> None:
    """Write down what became of *slots* now that their *run* has ended."""
    for slot in slots:
        session.connection().execute(_of(slot).values(fate=slot.fate(run).value))


def _of(slot: SlotClaim) -> Any:  # noqa: ANN401 - SQLAlchemy's Update does not say what it is of
    return update(SLOTS).where(SLOTS.c.schedule == slot.schedule, SLOTS.c.due_at == slot.due_at)


def interrupt_dead(session: Session, *, host: str) -> None:
    """End the slots of *host* whose run goes on, also those that never came to have one.

    The caller vouches that their processes are dead (``lock.presence``), as for runs.
    """
    session.connection().execute(
        update(SLOTS)
        .where(SLOTS.c.fate.is_(None), SLOTS.c.host == host)
        .values(fate=Fate.INTERRUPTED.value)
    )


def newest_due(session: Session, *, schedule: str, before: datetime) -> datetime | None:
    """Find the newest slot on record that was due *before* a moment."""
    query = select(func.max(SLOTS.c.due_at)).where(
        SLOTS.c.schedule == schedule, SLOTS.c.due_at < before
    )
    newest: datetime | None = session.connection().execute(query).scalar()
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


def recent_slots(session: Session, *, schedule: str, limit: int) -> list[SlotRecord]:
    """List the newest *limit* slots of a schedule, newest first."""
    query = _NEWEST_FIRST.where(SLOTS.c.schedule == schedule).limit(limit)
    return [_record(row) for row in session.connection().execute(query)]


def slot_lines(
    session: Session,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    limit: int | None = None,
) -> Iterator[SlotRecord]:
    """Read the slots due from *since* to before *until*, newest first, as few as *limit*."""
    query = _NEWEST_FIRST.where(*within(SLOTS.c.due_at, since, until)).limit(limit)
    options = {"yield_per": CHUNK}
    return map(_record, session.connection().execute(query, execution_options=options))


def slot_days(
    session: Session, since: datetime | None = None, until: datetime | None = None
) -> list[SlotDay]:
    """Count the fates of the slots due from *since* to before *until*, by schedule and UTC day."""
    day = func.date(SLOTS.c.due_at)
    counts = [func.count().filter(SLOTS.c.fate == fate.value).label(fate.value) for fate in Fate]
    running = func.count().filter(SLOTS.c.fate.is_(None)).label("running")
    query = (
        select(
            SLOTS.c.schedule,
            day.label("day"),
            *counts,
            running,
            func.max(SLOTS.c.late_us).label("late_us"),
        )
        .where(*within(SLOTS.c.due_at, since, until))
        .group_by(SLOTS.c.schedule, day)
        .order_by(SLOTS.c.schedule, day)
    )
    rows = session.connection().execute(query)
    return [SlotDay(**(row._asdict() | {"day": date.fromisoformat(str(row.day))})) for row in rows]


def _record(row: Row[*tuple[Any, ...]]) -> SlotRecord:
    return SlotRecord(**(row._asdict() | {"fate": row.fate and Fate(row.fate)}))
