"""When runs started by their numbers: that shows which clocks were wrong."""

from datetime import datetime, timedelta
from operator import lt

from sqlalchemy import func, select
from sqlmodel import Session

from pipeline.clock import MADE_AT, TOLERANCE, Stamp
from pipeline.store.columns import MICROSECOND
from pipeline.store.rows import records
from pipeline.store.tables import RUNS
from pipeline.store.window import Window, within

_STAMPS = select(
    RUNS.c.id.label("run_id"), RUNS.c.started_at, RUNS.c.clock_offset_us.label("offset_us")
).order_by(RUNS.c.id)


def stamps(
    session: Session,
    *,
    first: int,
    later: datetime | None = None,
    least_offset: timedelta = timedelta(0),
) -> list[Stamp]:
    """List when the runs from number *first* on started, in the order of their numbers.

    With *later* those before them as well that started later than that: in the future. With a
    *least_offset* only those whose clock was farther off by the answers.
    """
    is_wanted = RUNS.c.id >= first
    if later is not None:
        is_wanted |= RUNS.c.started_at > later
    if least_offset:
        is_wanted &= func.abs(RUNS.c.clock_offset_us) > least_offset // MICROSECOND
    return records(session, Stamp, _STAMPS.where(is_wanted))


def last_stamps(session: Session) -> list[Stamp]:
    """List when the last two runs started, the newest last."""
    newest_first = _STAMPS.order_by(None).order_by(RUNS.c.id.desc())
    return records(session, Stamp, newest_first.limit(2))[::-1]


def first_run(session: Session, window: Window) -> int:
    """Find the first run of a window, or the newest of all: that may have a time of its own."""
    first = select(func.min(RUNS.c.id)).where(*within(RUNS.c.started_at, window)).scalar_subquery()
    newest = select(func.max(RUNS.c.id)).scalar_subquery()
    return int(session.connection().scalar(select(func.coalesce(first, newest, 0))) or 0)


def first_run_at(session: Session) -> datetime | None:
    """Tell when the first run of all started, by a clock that was set."""
    begin: datetime | None = session.connection().scalar(
        select(func.min(RUNS.c.started_at)).where(RUNS.c.started_at >= MADE_AT)
    )
    return begin


def is_in_order(session: Session, *, first: int, earliest: datetime) -> bool:
    """Tell whether the runs from number *first* on started one after the other, not too early."""
    # From the index of the moments alone: the rows are ten times as long, and may be a year's.
    connection = session.connection()
    begin = connection.scalar(select(RUNS.c.started_at).where(RUNS.c.id == first))
    if begin is None:
        return True
    numbers = select(RUNS.c.id).where(RUNS.c.id >= first)
    if begin < earliest or connection.scalar(numbers.where(RUNS.c.started_at < begin).limit(1)):
        return False
    later = numbers.where(RUNS.c.started_at >= begin).order_by(RUNS.c.started_at, RUNS.c.id)
    in_time = connection.scalars(later).all()
    return all(map(lt, in_time, in_time[1:]))


def count_runs(session: Session, window: Window) -> int:
    """Count the runs that started in *window*."""
    query = select(func.count()).select_from(RUNS).where(*within(RUNS.c.started_at, window))
    return session.connection().scalar(query) or 0


def count_future(session: Session, *, now: datetime) -> tuple[int, int]:
    """Count all runs, and those that started later than *now*."""
    count = select(func.count()).select_from(RUNS)
    is_later = RUNS.c.started_at > now + TOLERANCE  # by the index: there are few or none
    connection = session.connection()
    return connection.scalar(count) or 0, connection.scalar(count.where(is_later)) or 0
