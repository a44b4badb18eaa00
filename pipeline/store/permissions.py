"""What outlives a process about an upstream: its next moment, allowances, who said "not before".

Permission is taken in one transaction that reads and moves the next moment on, so processes that
ask at once get one after the other, each a moment of its own.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from sqlalchemy import Table, delete, select
from sqlmodel import Session

from pipeline.pacing import Embargo, Moment, Pace, Rules, Spent, next_moment, period_name, take
from pipeline.store.inserting import insert_into
from pipeline.store.tables import EMBARGOES, QUOTAS, UPSTREAMS


def find_pace(session: Session, *, upstream: str) -> Pace:
    """Look up what is known of *upstream*; an unknown one was never asked."""
    connection = session.connection()
    known = connection.execute(
        select(UPSTREAMS.c.next_at, UPSTREAMS.c.failures)
        .where(UPSTREAMS.c.name == upstream)
        .with_for_update()
    ).first()
    said = connection.execute(select(EMBARGOES).where(EMBARGOES.c.upstream == upstream)).first()
    spent = connection.execute(select(QUOTAS).where(QUOTAS.c.upstream == upstream))
    return Pace(
        next_at=None if known is None else known.next_at,
        failures=0 if known is None else known.failures,
        embargo=None if said is None else Embargo(until=said.until, why=said.why),
        spent={row.unit: Spent(period=row.period, amount=row.spent) for row in spent},
    )


def take_permission(
    session: Session,
    *,
    upstream: str,
    rules: Rules,
    clock: Callable[[], datetime],
    latest: datetime,
    bits: int,
) -> Moment:
    """Take the next moment at which *upstream* may be asked, unless it comes after *latest*.

    One after *latest* is told and not taken, so that nobody's wait grows by it. The *clock* is read
    when it is our turn: who waited for the others' transactions must not take a moment in the past.
    """
    _hold(session, upstream)
    pace = find_pace(session, upstream=upstream)
    moment = next_moment(pace, rules, now=clock(), bits=bits)
    if moment.at <= latest:
        after = take(pace, rules, at=moment.at, bits=bits)
        if after.next_at != pace.next_at:
            _save(session, UPSTREAMS, {"name": upstream}, next_at=after.next_at)
        for unit, spent in after.spent.items():
            key = {"upstream": upstream, "unit": unit}
            _save(session, QUOTAS, key, period=spent.period, spent=spent.amount)
    return moment


def put_off(session: Session, *, upstream: str, by: timedelta) -> None:
    """Move the next moment of *upstream* on: a request went out later than it was to."""
    pace = find_pace(session, upstream=upstream)
    if pace.next_at is not None:
        _save(session, UPSTREAMS, {"name": upstream}, next_at=pace.next_at + by)


def lay_embargo(
    session: Session, *, upstream: str, source: str, embargo: Embargo, said_at: datetime
) -> None:
    """Remember until when *upstream* is not to be asked; an embargo is never shortened."""
    _hold(session, upstream)
    known = find_pace(session, upstream=upstream).embargo
    if known is None or known.until < embargo.until:
        _save(
            session,
            EMBARGOES,
            {"upstream": upstream},
            source=source,
            until=embargo.until,
            why=embargo.why,
            said_at=said_at,
        )


def embargoes_of(session: Session, *, upstreams: Collection[str]) -> dict[str, Embargo]:
    """Look up who of *upstreams* is under embargo, past ones included."""
    rows = session.connection().execute(
        select(EMBARGOES).where(EMBARGOES.c.upstream.in_(upstreams))
    )
    return {row.upstream: Embargo(until=row.until, why=row.why) for row in rows}


def standing_embargoes(session: Session, *, now: datetime) -> dict[str, Embargo]:
    """Look up the embargoes that are not over, by the source that was told so."""
    query = select(EMBARGOES).where(EMBARGOES.c.until > now).order_by(EMBARGOES.c.until)
    rows = session.connection().execute(query)
    return {row.source: Embargo(until=row.until, why=row.why) for row in rows}


def failures_of(session: Session, *, upstreams: Collection[str]) -> dict[str, int]:
    """Look up how many attempts in a row failed at each of *upstreams*, those that fail only."""
    rows = session.connection().execute(
        select(UPSTREAMS.c.name, UPSTREAMS.c.failures).where(
            UPSTREAMS.c.name.in_(upstreams), UPSTREAMS.c.failures > 0
        )
    )
    return {row.name: row.failures for row in rows}


def save_failures(session: Session, *, upstream: str, failures: int) -> None:
    """Remember how many attempts in a row failed at *upstream*."""
    _save(session, UPSTREAMS, {"name": upstream}, failures=failures)


def release(session: Session, *, upstream: str, now: datetime) -> Embargo | None:
    """Forget the embargo, the next moment and the failures of *upstream*; tell the embargo.

    What is spent of its quotas stays: that is a fact, not a precaution. Unless it was spent in a
    period that has not begun yet: that was a clock which went wrong.
    """
    embargo = find_pace(session, upstream=upstream).embargo
    connection = session.connection()
    connection.execute(delete(EMBARGOES).where(EMBARGOES.c.upstream == upstream))
    connection.execute(delete(UPSTREAMS).where(UPSTREAMS.c.name == upstream))
    not_begun = QUOTAS.c.period > period_name(now, "day")
    connection.execute(delete(QUOTAS).where(QUOTAS.c.upstream == upstream, not_begun))
    return embargo


def _hold(session: Session, upstream: str) -> None:
    """Make sure that there is a row to hold: on a server what is not there keeps nobody out."""
    holding = insert_into(session, UPSTREAMS).values(name=upstream, failures=0)
    session.connection().execute(holding.on_conflict_do_nothing(index_elements=["name"]))


def _save(session: Session, table: Table, key: dict[str, str], **values: object) -> None:
    """Make the row of *key*, or update it if it is there."""
    defaults = {"failures": 0} if table is UPSTREAMS else {}
    saving = insert_into(session, table).values(defaults | key | values)
    session.connection().execute(
        saving.on_conflict_do_update(index_elements=list(key), set_=values)
    )
