"""Sums of days and months that are over, so that a report of years reads few rows.

A day is closed by the first run that ends after it: its tallies and losses are added up, and a
sheet says what an audit has to know of it. A run that ends later all the same, or comes from a
file that was set aside, opens its day again. So whoever takes whole closed days from here and all
else from the runs gets the very same. It can always be made anew: tallies and losses stay when a
run is pruned, and ``audit verify`` holds these sums to them.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlmodel import Session

from pipeline.models import Loss, Step, Tally
from pipeline.store.integrity.chain import lock_chain
from pipeline.store.rows import as_row, execute_many, records
from pipeline.store.summaries import merge_timings, period_begin
from pipeline.store.tables import DAY_LOSSES, DAYS, LOSSES, MONTHS, SHEETS, TALLIES, TIMINGS
from pipeline.store.totals import sum_day, sum_losses
from pipeline.store.window import Window, within

DAY = timedelta(days=1)
MOST_PARTS = 20  # of a window are read from the runs; else all of it is
A_MONTH_AT_ONCE = 31  # days that a run closes when it ends: of a long history not all

# Says, in JSON's types, what an audit has to know of the tallies and losses of a day.
Examine = Callable[[Sequence[Tally], Sequence[Loss]], object]


# ---- Closing ----


def close_periods(
    session: Session, *, now: datetime, examine: Examine, most: int = A_MONTH_AT_ONCE
) -> int:
    """Close up to *most* days that are over, and the months if none is left; count the days."""
    connection = session.connection()
    days = list(islice(open_days(connection, before=period_begin(now, Step.DAY)), most))
    months = [] if len(days) == most else list(_open_months(connection, before=now))
    if days or months:
        lock_chain(connection)  # no run may end in them meanwhile
    for day in days:
        _close_day(session, day, examine)
    for month in months:
        _close_month(connection, month)
    return len(days)


def _close_day(session: Session, day: datetime, examine: Examine) -> None:
    tallies, losses = rows_of_day(session, day)
    sheet = {"began_at": day, "facts": examine(tallies, losses)}
    sums = [as_row(DAYS, of) for of in sum_day(day, tallies)]
    lost = [as_row(DAY_LOSSES, of) for of in sum_losses(day, losses)]
    for table, rows in ((SHEETS, [sheet]), (DAYS, sums), (DAY_LOSSES, lost)):
        execute_many(session, insert(table), rows)


def rows_of_day(session: Session, day: datetime) -> tuple[list[Tally], list[Loss]]:
    """Read the tallies and losses of a day in the order of time."""
    of_day = Window(since=day, until=day + DAY)
    tallies, losses = (
        select(table).where(*within(table.c.started_at, of_day)).order_by(*table.primary_key)
        for table in (TALLIES, LOSSES)
    )
    return records(session, Tally, tallies), records(session, Loss, losses)


def _close_month(connection: Connection, month: datetime) -> None:
    rows = [
        {"began_at": month, "source": source, "phases": phases}
        for source, phases in month_timings(connection, month).items()
    ]
    connection.execute(insert(MONTHS), rows)


def month_timings(connection: Connection, month: datetime) -> dict[str, dict[str, Any]]:
    """Merge the durations of the days of a month, by source."""
    query = (
        select(TIMINGS.c.source, TIMINGS.c.phases)
        .where(TIMINGS.c.step == Step.DAY)
        .where(*within(TIMINGS.c.began_at, Window(since=month, until=next_month(month))))
        .order_by(TIMINGS.c.source, TIMINGS.c.began_at)
    )
    by_source: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for source, phases in connection.execute(query):
        by_source[source].append(phases)
    return {source: merge_timings(of) for source, of in by_source.items()}


# ---- What is closed ----


def split(session: Session, window: Window) -> tuple[Window | None, list[Window]]:
    """Take as many closed days of a window as there are: those that begin in the first part.

    The other parts are to be looked up in the runs.
    """
    connection, days = session.connection(), _whole_days(window)
    if not days.is_empty:
        taken = _closed_days(connection, days)
        rest = [gap for gap in gaps(taken, days) if _first_tally(connection, gap)]
        rest += gaps([days], window)
        if len(rest) <= MOST_PARTS:
            return days, rest
    return None, [window]


def sheets(
    session: Session, window: Window, *, without: Collection[datetime] = ()
) -> Iterator[tuple[Window, Any]]:
    """Walk over a window in the order of time: its closed days with their sheets, and the rest.

    The days *without* a sheet that can be relied on are among the rest.
    """
    connection, days = session.connection(), _whole_days(window)
    since = window.since
    query = select(SHEETS).where(*within(SHEETS.c.began_at, days))
    options = {"yield_per": A_MONTH_AT_ONCE}
    rows = connection.execute(query.order_by(SHEETS.c.began_at), execution_options=options)
    for day, facts in (row for row in rows if row.began_at not in without):
        for gap in gaps([], Window(since=since, until=day)):
            if _first_tally(connection, gap) is not None:
                yield gap, None
        since = day + DAY
        yield Window(since=day, until=since), facts
    yield from ((gap, None) for gap in gaps([], Window(since=since, until=window.until)))


def _whole_days(window: Window) -> Window:
    """Give the days that lie in *window* as a whole and are over; it may end before it begins."""
    # By a clock that is ahead a day may have been closed that is still to come.
    end = min(window.until or datetime.max.replace(tzinfo=UTC), datetime.now(UTC))
    since = window.since and day_after(window.since)
    return Window(since=since, until=period_begin(end, Step.DAY))


def day_after(moment: datetime) -> datetime:
    """Give the first midnight in UTC that is not before *moment*."""
    day = period_begin(moment, Step.DAY)
    return day if day == moment else day + DAY


def open_days(connection: Connection, *, before: datetime) -> Iterator[datetime]:
    """Walk over the days before the day *before* that have tallies and are not closed."""
    window = Window(until=before)
    for gap in list(gaps(_closed_days(connection, window), window)):
        since = gap.since
        while first := _first_tally(connection, Window(since=since, until=gap.until)):
            yield (day := period_begin(first, Step.DAY))
            since = day + DAY


def _closed_days(connection: Connection, window: Window) -> list[Window]:
    chosen = within(SHEETS.c.began_at, window)
    query = select(SHEETS.c.began_at).where(*chosen).order_by(SHEETS.c.began_at)
    return [Window(since=day, until=day + DAY) for day in connection.scalars(query)]


def closed_months(connection: Connection, window: Window) -> list[Window]:
    """List the closed months that lie in *window* as a whole."""
    query = select(MONTHS.c.began_at).distinct().where(*within(MONTHS.c.began_at, window))
    begins = connection.scalars(query.order_by(MONTHS.c.began_at))
    months = [month for month in begins if not window.until or next_month(month) <= window.until]
    return [Window(since=month, until=next_month(month)) for month in months]


def count_open_days(session: Session, *, now: datetime) -> int:
    """Count the days that are over, have tallies and are not closed."""
    return sum(1 for _ in open_days(session.connection(), before=period_begin(now, Step.DAY)))


def gaps(taken: Iterable[Window], window: Window) -> Iterator[Window]:
    """Give what of *window* is in none of those *taken*, which lie in it one after the other."""
    since: datetime | None = window.since
    for each in taken:
        if each.since is not None and (since is None or since < each.since):
            yield Window(since=since, until=each.since)
        since = each.until
    if since is None or window.until is None or since < window.until:
        yield Window(since=since, until=window.until)


def _first_tally(connection: Connection, window: Window) -> datetime | None:
    query = select(func.min(TALLIES.c.started_at)).where(*within(TALLIES.c.started_at, window))
    first: datetime | None = connection.scalar(query)
    return first


def month_begin(moment: datetime) -> datetime:
    """Give the first instant of the month in UTC that *moment* falls into."""
    return period_begin(moment, Step.DAY).replace(day=1)


def next_month(month: datetime) -> datetime:
    """Give the first instant of the month after."""
    return month_begin(month + 31 * DAY)


def _open_months(connection: Connection, *, before: datetime) -> Iterator[datetime]:
    """Walk over the months that are over, have durations and are not closed."""
    closed = {month.since for month in closed_months(connection, Window())}
    first = select(func.min(TIMINGS.c.began_at)).where(TIMINGS.c.step == Step.DAY)
    since: datetime | None = None
    while day := connection.scalar(
        first.where(*within(TIMINGS.c.began_at, Window(since=since, until=month_begin(before))))
    ):
        if (month := month_begin(day)) not in closed:
            yield month
        since = next_month(month)
