"""What only one process of all machines may have: held in the store of a server, for a time.

A holder that dies, or is cut off, loses it when that time is over, by the server's clock. So
whoever was stopped meanwhile has to look once more (``keep``) before it relies on what it holds. A
store in a file has no use for leases: there the kernel knows who lives (``lock.py``).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import DateTime, delete, func, select, update
from sqlmodel import Session

from pipeline.store import rows
from pipeline.store.rows import insert_into
from pipeline.store.tables import LEASES

_NOW = func.clock_timestamp(type_=DateTime(timezone=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who holds something, and since when; after *until* anybody may take it."""

    name: str
    held_by: str
    since: datetime
    until: datetime


def take(session: Session, *, name: str, holder: str, lasts: timedelta) -> bool:
    """Take what is free, or hold on to what is ours; of all who try at once one is told True."""
    until = _NOW + lasts
    taking = insert_into(session, LEASES).values(name=name, held_by=holder, since=_NOW, until=until)
    taking = taking.on_conflict_do_update(
        index_elements=["name"],
        set_={"held_by": holder, "since": _NOW, "until": until},
        where=(LEASES.c.held_by == holder) | (LEASES.c.until <= _NOW),
    )
    taken = session.connection().execute(taking.returning(LEASES.c.name))
    return taken.first() is not None


def keep(session: Session, *, name: str, holder: str, lasts: timedelta) -> bool:
    """Hold on to what is ours, and tell whether it still is: nobody took it in between."""
    keeping = update(LEASES).where(LEASES.c.name == name, LEASES.c.held_by == holder)
    kept = keeping.values(until=_NOW + lasts).returning(LEASES.c.name)
    return session.connection().execute(kept).first() is not None


def free(session: Session, *, name: str, holder: str) -> None:
    """Let go of what is ours."""
    is_ours = (LEASES.c.name == name) & (LEASES.c.held_by == holder)
    session.connection().execute(delete(LEASES).where(is_ours))


def find(session: Session, *, name: str) -> Lease | None:
    """Look up who holds something, or held it last."""
    return rows.find(session, Lease, select(LEASES).where(LEASES.c.name == name))
