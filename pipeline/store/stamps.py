"""What shows which clocks were wrong: when runs started by their numbers, and certificates."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import lt

from sqlalchemy import func, select
from sqlmodel import Session

from pipeline.clock import MADE_AT, TOLERANCE, Stamp
from pipeline.errors import CLOCK_DOUBT, ErrorName
from pipeline.store.columns import MICROSECOND
from pipeline.store.rows import of_runs, records
from pipeline.store.tables import ATTEMPTS, LOSSES, RUNS, TALLIES
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


def runs_without_tls(session: Session, window: Window, *, fewest: int) -> list[int]:
    """List the runs in which TLS failed with several sources: *fewest* of them, or more."""
    query = (
        select(LOSSES.c.run_id)
        .where(*within(LOSSES.c.started_at, window), LOSSES.c.error == ErrorName.TLS)
        .group_by(LOSSES.c.run_id)
        .having(func.count(LOSSES.c.source.distinct()) >= fewest)
        .order_by(LOSSES.c.run_id)
    )
    return list(session.connection().scalars(query))


def sources_asked(session: Session, *, run_ids: Sequence[int]) -> dict[int, int]:
    """Count the sources that were sent requests in each of the runs that ended."""
    of_run = (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id)
    query = select(RUNS.c.id, func.count()).join(TALLIES, of_run).where(TALLIES.c.attempts > 0)
    return dict(map(tuple, of_runs(session, query.group_by(RUNS.c.id), run_ids, by=RUNS.c.id)))


def doubtful_certificates(session: Session, *, run_ids: Sequence[int]) -> dict[int, set[str]]:
    """Find the sources whose certificate was out of date by our clock, by run."""
    is_doubtful = ATTEMPTS.c.detail.contains(CLOCK_DOUBT, autoescape=True)
    query = select(ATTEMPTS.c.run_id, ATTEMPTS.c.source).distinct()
    query = query.where(ATTEMPTS.c.error == ErrorName.TLS, is_doubtful)
    found: defaultdict[int, set[str]] = defaultdict(set)
    for run_id, source in of_runs(session, query, run_ids, by=ATTEMPTS.c.run_id):
        found[run_id].add(source)
    return dict(found)
