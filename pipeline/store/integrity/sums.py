"""Make the sums of closed days and months once more, and find those that lie.

They have no seal, and need none: what they are made of, tallies and losses, is sealed and stays.
Of the durations of a day so much is known from its tallies as how many exchanges there were, and
how long all of them took; the rest is held to the hours, which nothing but attempts vouches for.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table, select
from sqlmodel import Session

from pipeline.models import Step
from pipeline.store.columns import add_up
from pipeline.store.db import Store
from pipeline.store.integrity.checks import Problem
from pipeline.store.integrity.processes import Tell
from pipeline.store.rollups import (
    DAY,
    Examine,
    closed_months,
    month_begin,
    month_timings,
    open_days,
    rows_of_day,
)
from pipeline.store.rows import as_row
from pipeline.store.summaries import EXCHANGE, merge_timings, period_begin
from pipeline.store.tables import DAY_LOSSES, DAYS, MONTHS, SHEETS, TALLIES, TIMINGS
from pipeline.store.totals import sum_day, sum_losses
from pipeline.store.window import Window, within

DAYS_AT_ONCE = 7  # in a transaction, so that a run which collects need not wait

Check: TypeAlias = Callable[[Session], Iterable[Problem]]


def plan_checks(
    connection: Connection, examine: Examine, since: datetime | None
) -> tuple[list[Problem], list[Check]]:
    """List the checks of days and months, of those that end after *since*; and sums of no day."""
    from_day = since and period_begin(since, Step.DAY)
    days = _begins(connection, SHEETS, from_day)
    problems = [
        _problem(day, f"{table.name} has sums of a day that is not closed")
        for table in (DAYS, DAY_LOSSES)
        for day in sorted(set(_begins(connection, table, from_day)) - set(days))
    ]
    timed = select(TIMINGS.c.began_at).where(
        TIMINGS.c.step == Step.DAY, *within(TIMINGS.c.began_at, Window(since=from_day))
    )
    months = closed_months(connection, Window(since=from_day and month_begin(from_day)))
    checks: list[Check] = [partial(_check_day, examine=examine, day=day) for day in days]
    checks += [partial(_check_durations, day=day) for day in connection.scalars(timed.distinct())]
    checks += [partial(_check_month, month=month.since) for month in months if month.since]
    return problems, checks


def check_sums(store: Store, _tell: Tell, *, checks: list[Check]) -> list[Problem]:
    """Carry out *checks*."""
    problems: list[Problem] = []
    for first in range(0, len(checks), DAYS_AT_ONCE):
        with store.read() as session:
            for check in checks[first : first + DAYS_AT_ONCE]:
                problems += check(session)
    return problems


def first_open_day(connection: Connection) -> datetime | None:
    """Give the day before which all that have runs are closed; None if none is closed."""
    days = _begins(connection, SHEETS)
    end = days[-1] + DAY if days else None
    return end and next(open_days(connection, before=end), end)


def _problem(begin: datetime, text: str) -> Problem:
    return Problem(text=f"{begin:%Y-%m-%d}: {text}")


def _begins(connection: Connection, table: Table, since: datetime | None = None) -> list[datetime]:
    query = select(table.c.began_at).where(*within(table.c.began_at, Window(since=since)))
    return list(connection.scalars(query.distinct().order_by(table.c.began_at)))


def _check_day(session: Session, *, day: datetime, examine: Examine) -> Iterator[Problem]:
    connection = session.connection()
    stored = connection.execute(select(SHEETS).where(SHEETS.c.began_at == day)).first()
    if stored is None:  # opened again meanwhile: a run ended late
        return
    tallies, losses = rows_of_day(session, day)
    days = [as_row(DAYS, of) for of in sum_day(day, tallies)]
    lost = [as_row(DAY_LOSSES, of) for of in sum_losses(day, losses)]
    for table, rows in ((DAYS, days), (DAY_LOSSES, lost)):
        query = select(table).where(table.c.began_at == day).order_by(*table.primary_key)
        if _sorted(dict(row._mapping) for row in connection.execute(query)) != _sorted(rows):  # noqa: SLF001 - its public name
            yield _problem(day, f"the sums in {table.name} are not those of the runs of that day")
    if not tallies or stored.facts != json.loads(json.dumps(examine(tallies, losses))):
        yield _problem(day, "its sheet does not say what the runs of that day do")


def _sorted(rows: Iterable[dict[str, object]]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


def _check_durations(session: Session, *, day: datetime) -> Iterator[Problem]:
    connection = session.connection()
    of_day = Window(since=day, until=day + DAY)
    timed = within(TIMINGS.c.began_at, of_day)
    known: dict[str, Any] = {}
    hours: defaultdict[str, list[Any]] = defaultdict(list)
    query = select(TIMINGS.c.step, TIMINGS.c.source, TIMINGS.c.phases).where(*timed)
    for step, source, phases in connection.execute(query):
        if step is Step.DAY:
            known[source] = phases
        else:
            hours[source].append(phases)
    if known != {source: merge_timings(of) for source, of in hours.items()}:
        yield _problem(day, "the durations of the day are not those of its hours")
    exchanges = select(TALLIES.c.source, add_up(TALLIES.c.attempts), add_up(TALLIES.c.exchange_us))
    exchanges = exchanges.where(*within(TALLIES.c.started_at, of_day))
    of_runs = {
        source: [n, us]
        for source, n, us in connection.execute(exchanges.group_by(TALLIES.c.source))
        if n
    }
    if {source: of.get(EXCHANGE, [])[:2] for source, of in known.items()} != of_runs:
        yield _problem(day, "the durations of the day are not as many, or as long, as its runs'")


def _check_month(session: Session, *, month: datetime) -> Iterator[Problem]:
    connection = session.connection()
    of_month = select(MONTHS.c.source, MONTHS.c.phases).where(MONTHS.c.began_at == month)
    found = dict(connection.execute(of_month).all())
    if found and found != month_timings(connection, month):
        yield _problem(month, "the durations of the month are not those of its days")
