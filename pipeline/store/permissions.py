"""When an upstream may be asked next, shared by all processes: rate, quotas and embargoes.

Permission is taken in one transaction that reads and moves the next moment on, so processes that
ask at once get one after the other, each a moment of its own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Table, delete, select, text, union, update
from sqlmodel import Session

from pipeline.pacing import (
    Embargo,
    Moment,
    Pace,
    Rate,
    Rules,
    Spent,
    mend,
    next_moment,
    period_name,
    take,
)
from pipeline.store.rows import AnyRow, at_once, insert_into, record
from pipeline.store.shared_clock import SharedClock
from pipeline.store.tables import EMBARGOES, QUOTAS, UPSTREAMS

# On a server: the next moments of a rate in one statement, which others wait for, for each of some
# upstreams. All of them, or none if the last is too late. An embargo that is laid meanwhile is met
# as if it came a little later: whoever waits looks again. All who take several do so in one order.
_TAKE = text(
    """
    INSERT INTO upstreams AS known (name, failures, next_at, taken_at)
    SELECT name, 0, clock_timestamp() + :ahead + :whole, clock_timestamp()
    FROM unnest(CAST(:names AS text[])) AS name ORDER BY name
    ON CONFLICT (name) DO UPDATE SET
        next_at = greatest(known.next_at, clock_timestamp() + :ahead,
                           (SELECT until FROM embargoes WHERE upstream = known.name)) + :whole,
        taken_at = clock_timestamp()
    WHERE greatest(known.next_at, clock_timestamp() + :ahead,
                   (SELECT until FROM embargoes WHERE upstream = known.name))
          <= CAST(:latest AS timestamptz) + :interval - :whole
    RETURNING name, next_at - :whole AS first_at, clock_timestamp() AS shown
    """
)
_GIVE_BACK = text(
    """
    WITH held AS MATERIALIZED (
        SELECT known.name
        FROM unnest(CAST(:names AS text[]), CAST(:moments AS timestamptz[])) AS given (name, at)
        JOIN upstreams AS known ON known.name = given.name
            AND known.next_at >= given.at + :interval AND known.next_at < given.at + 2 * :interval
        ORDER BY known.name FOR UPDATE OF known
    )
    UPDATE upstreams SET next_at = next_at - :interval FROM held WHERE upstreams.name = held.name
    """
)

_PUT_OFF = text(
    """
    WITH held AS MATERIALIZED (
        SELECT known.name, said.late, said.sent_at, said.interval
        FROM unnest(CAST(:upstream AS text[]), CAST(:late AS interval[]),
            CAST(:sent_at AS timestamptz[]), CAST(:interval AS interval[]))
            AS said (name, late, sent_at, interval)
        JOIN upstreams AS known USING (name) WHERE known.next_at IS NOT NULL
        ORDER BY known.name FOR UPDATE OF known
    )
    UPDATE upstreams
    SET next_at = least(next_at + held.late, greatest(next_at, held.sent_at) + held.interval)
    FROM held WHERE upstreams.name = held.name
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A request to an *upstream* that went out so *late*, where moments are an *interval* apart."""

    upstream: str  # a statement has each only once
    late: timedelta = field(compare=False)
    sent_at: datetime = field(compare=False)
    interval: timedelta = field(compare=False)


def find_pace(session: Session, *, upstream: str, is_held: bool = False) -> Pace:
    """Look up what is known of *upstream*; an unknown one was never asked.

    If *is_held* nobody else can change it until the transaction ends.
    """
    connection = session.connection()
    query = select(UPSTREAMS).where(UPSTREAMS.c.name == upstream)
    known = connection.execute(query.with_for_update() if is_held else query).first()
    said = connection.execute(select(EMBARGOES).where(EMBARGOES.c.upstream == upstream)).first()
    spent = connection.execute(select(QUOTAS).where(QUOTAS.c.upstream == upstream))
    embargo = None if said is None else record(Embargo, said)
    amounts = {row.unit: Spent(period=row.period, amount=row.spent) for row in spent}
    if known is None:
        return Pace(embargo=embargo, spent=amounts)
    return record(Pace, known, embargo=embargo, spent=amounts)


def take_moments(
    session: Session,
    *,
    upstream: str,
    rules: Rules,
    clock: Callable[[], datetime],
    latest: datetime,
    bits: int,
    count: int = 1,
    instead_of: datetime | None = None,
) -> list[Moment]:
    """Take the next moments at which *upstream* may be asked, as many as *count* up to *latest*.

    *instead_of* is one that was taken and is over: it counts no more, unless somebody has one after
    it, an interval later at least. If the first comes after *latest* it is told alone and not
    taken, so that nobody's wait grows by it. The *clock* is read when it is our turn: who waited
    for the others' transactions must not take a moment in the past.
    """
    _hold(session, upstream)
    before, now = find_pace(session, upstream=upstream, is_held=True), clock()
    pace = before
    if instead_of and rules.rate and before.next_at:
        interval = rules.rate.interval
        if interval <= before.next_at - instead_of < 2 * interval:  # it may have been put off
            pace = replace(before, next_at=before.next_at - interval)
    moments = [next_moment(pace, rules, now=now, bits=bits)]
    while moments[-1].at <= latest:
        pace = take(pace, rules, at=moments[-1].at, bits=bits)
        if len(moments) == count:
            break
        moments.append(next_moment(pace, rules, now=now, bits=bits))
    if pace.next_at != before.next_at:
        _save(session, UPSTREAMS, {"name": upstream}, next_at=pace.next_at, taken_at=now)
    if pace is not before:
        _save_spent(session, upstream, pace)
    return [moment for moment in moments if moment.at <= latest] or moments


def take_at_once(
    session: Session,
    *,
    upstreams: Mapping[str, datetime | None],
    rate: Rate,
    clock: SharedClock,
    ahead: timedelta,
    latest: datetime,
    count: int,
) -> dict[str, list[Moment]]:
    """Take moments of a server's upstreams that have a *rate* and no quota, in one round trip.

    So many of each, from *ahead* of now on; none of one whose last would come after *latest*. The
    *upstreams* are named with the moment that this one is instead of, as in ``take_moments``. What
    is taken is on disk when this returns: there is no transaction to commit.
    """
    connection = at_once(session)
    over = {name: at for name, at in upstreams.items() if at is not None}
    if over:
        back = {"names": list(over), "moments": list(over.values()), "interval": rate.interval}
        connection.execute(_GIVE_BACK, back)
    asked_at = clock.here()
    wanted = {"names": list(upstreams), "ahead": ahead, "latest": latest, "interval": rate.interval}
    taken = connection.execute(_TAKE, wanted | {"whole": count * rate.interval}).all()
    if taken:
        clock.learn(max(row.shown for row in taken), asked_at=asked_at)
    return {row.name: _in_a_row(row, rate, ahead, count) for row in taken}


def _in_a_row(row: AnyRow, rate: Rate, ahead: timedelta, count: int) -> list[Moment]:
    first_at = row.first_at.astimezone(UTC)
    is_free = first_at <= row.shown + ahead
    first = Moment(at=first_at, why="" if is_free else f"rate: {rate}")
    later = (Moment(at=first_at + n * rate.interval, why=f"rate: {rate}") for n in range(1, count))
    return [first, *later]


def _save_spent(session: Session, upstream: str, pace: Pace) -> None:
    for unit, spent in pace.spent.items():
        key = {"upstream": upstream, "unit": unit}
        _save(session, QUOTAS, key, period=spent.period, spent=spent.amount)


def names_ahead(session: Session, *, now: datetime) -> set[str]:
    """Name the upstreams of which anything lies ahead of *now*: only they can need mending."""
    ahead = union(
        select(UPSTREAMS.c.name).where(UPSTREAMS.c.next_at > now),
        select(EMBARGOES.c.upstream).where(EMBARGOES.c.said_at > now),
        select(QUOTAS.c.upstream).where(QUOTAS.c.period > period_name(now, "day")),
    )
    return set(session.connection().scalars(ahead))


def mend_pace(session: Session, *, upstream: str, rules: Rules, now: datetime) -> list[str]:
    """Take back what a clock that was ahead has laid on *upstream*, and say what that was."""
    pace, said = mend(find_pace(session, upstream=upstream, is_held=True), rules, now=now)
    if said:
        key = {"name": upstream}
        _save(session, UPSTREAMS, key, next_at=pace.next_at, taken_at=pace.taken_at)
        _save_spent(session, upstream, pace)
    if said and (embargo := pace.embargo):
        mending = update(EMBARGOES).where(EMBARGOES.c.upstream == upstream)
        mended = {"until": embargo.until, "said_at": embargo.said_at}
        session.connection().execute(mending.values(mended))
    return said


def put_off(session: Session, delays: Sequence[Delay]) -> None:
    """Move the next moments of upstreams on to which a request went out too late.

    By as much, but never beyond what it would be had the request been counted when it went: of
    several that a pause of this process held up none moves it by the whole pause again.
    """
    if session.get_bind().dialect.name == "postgresql":
        names = ("upstream", "late", "sent_at", "interval")
        given = {name: [getattr(delay, name) for delay in delays] for name in names}
        at_once(session).execute(_PUT_OFF, given)
        return
    for delay in delays:
        next_at = find_pace(session, upstream=delay.upstream).next_at
        if next_at is not None:
            latest = max(next_at, delay.sent_at) + delay.interval
            next_at = min(next_at + delay.late, latest)
            _save(session, UPSTREAMS, {"name": delay.upstream}, next_at=next_at)


def lay_embargo(
    session: Session, *, upstream: str, source: str, embargo: Embargo, said_at: datetime
) -> None:
    """Remember until when *upstream* is not to be asked; an embargo is never shortened."""
    _hold(session, upstream)
    known = find_pace(session, upstream=upstream, is_held=True).embargo
    if known is None or known.until < embargo.until:
        said = {"until": embargo.until, "why": embargo.why, "said_at": said_at}
        _save(session, EMBARGOES, {"upstream": upstream}, source=source, **said)


def forget_embargo(session: Session, *, upstream: str, until: datetime) -> None:
    """Forget the embargo on *upstream*, unless another one than that of *until* holds by now."""
    is_that = (EMBARGOES.c.upstream == upstream) & (EMBARGOES.c.until == until)
    session.connection().execute(delete(EMBARGOES).where(is_that))


def standing_embargoes(session: Session, *, now: datetime) -> dict[str, Embargo]:
    """Look up the embargoes that are not over, by the source that was told so."""
    query = select(EMBARGOES).where(EMBARGOES.c.until > now).order_by(EMBARGOES.c.until)
    rows = session.connection().execute(query)
    return {row.source: record(Embargo, row) for row in rows}


def standing_of(
    session: Session, *, upstreams: Collection[str]
) -> dict[str, tuple[Embargo | None, int]]:
    """Look up the embargo on each of *upstreams*, and how many attempts in a row failed there."""
    connection = session.connection()
    said = connection.execute(select(EMBARGOES).where(EMBARGOES.c.upstream.in_(upstreams)))
    embargoes = {row.upstream: record(Embargo, row) for row in said}
    failing = select(UPSTREAMS.c.name, UPSTREAMS.c.failures).where(UPSTREAMS.c.name.in_(upstreams))
    failures = dict(connection.execute(failing).all())
    return {name: (embargoes.get(name), failures.get(name, 0)) for name in upstreams}


def save_failures(session: Session, *, upstream: str, failures: int) -> None:
    """Remember how many attempts in a row failed at *upstream*."""
    _save(session, UPSTREAMS, {"name": upstream}, failures=failures)


def count_failure(session: Session, *, upstream: str) -> int:
    """Count one more attempt that failed at *upstream*, whoever made it; tell how many in a row."""
    failing = insert_into(session, UPSTREAMS).values(name=upstream, failures=1)
    failing = failing.on_conflict_do_update(
        index_elements=["name"], set_={"failures": UPSTREAMS.c.failures + 1}
    )
    counted = at_once(session).execute(failing.returning(UPSTREAMS.c.failures))
    return int(counted.scalar_one())


def release(session: Session, *, upstream: str, now: datetime) -> Embargo | None:
    """Forget the embargo, the next moment and the failures of *upstream*; tell the embargo.

    What is spent of its quotas stays: that is a fact, not a precaution. Unless it was spent in a
    period that has not begun yet: that was a clock which went wrong.
    """
    embargo = find_pace(session, upstream=upstream, is_held=True).embargo
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
    saving = saving.on_conflict_do_update(index_elements=list(key), set_=values)
    session.connection().execute(saving)
