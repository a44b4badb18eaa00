"""When an upstream may be asked again, by its rules and by what it said. Pure: time is an argument.

The rate is kept by the generic cell rate algorithm (ITU-T I.371, "virtual scheduling") without a
burst: of each upstream one moment is known, the earliest of its next request, and whoever takes
that moment moves it on by one interval. A number that small can lie in the store, so any number of
processes obey one limit, and a process that dies takes with it the moments that it waits for.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Literal

from pipeline.clock import DAY, is_future, show_distance

# Requests are spaced a little wider than the rule says. The upstream counts when they arrive, and
# the network delays one more than the next: at the rule's own pace a window would overflow.
MARGIN = 1.06

# Why an upstream is left alone that refused and did not say until when.
OUR_PAUSE = "refused without a readable word until when; a pause of our own"
LONGEST_PAUSE = timedelta(hours=1)
LONGEST_RUN = DAY  # no deadline is longer, so no moment of a rate is taken further ahead

Unit = Literal["requests", "bits"]
Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most *requests* in any *period_seconds*."""

    requests: int
    period_seconds: float

    def __str__(self) -> str:
        """Write it as people read it."""
        return f"{self.requests} per {self.period_seconds:g} s"

    @property
    def interval(self) -> timedelta:
        """Give the distance between two requests, never rounded down."""
        return timedelta(microseconds=ceil(self.period_seconds * 1e6 / self.requests * MARGIN))

    @property
    def tolerance(self) -> timedelta:
        """Say how late a request may go without crowding those that come after it."""
        return timedelta(seconds=self.period_seconds * (MARGIN - 1) * 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """At most *amount* of *unit* per calendar day or month in UTC."""

    unit: Unit
    amount: int
    period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one upstream allows all of our processes together.

    Attributes:
        is_exclusive: whether requests in flight are counted over all processes.
    """

    rate: Rate | None = None
    quotas: tuple[Quota, ...] = ()
    is_exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Embargo:
    """Not before *until*, and why; *said_at* is when that was heard, where it matters."""

    until: datetime
    why: str
    said_at: datetime | None = field(default=None, compare=False)

    @property
    def is_our_pause(self) -> bool:
        """Tell whether nobody asked for it: it is ours, and over with the next success."""
        return self.why == OUR_PAUSE


def lengthen(known: Embargo | None, pause: Embargo, said_at: datetime) -> Embargo:
    """Make *pause*, our own, twice as long as the one before, if that did not help.

    While one goes on it is not changed: what is refused meanwhile was let go before it.
    """
    if known is None or not known.is_our_pause or known.said_at is None:
        return pause
    if known.until > said_at:
        return known
    length = min(2 * (known.until - known.said_at), LONGEST_PAUSE)
    return replace(pause, until=max(pause.until, said_at + length))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """How much of a quota is used in the period that is named, ``2026-11`` or ``2026-11-22``.

    Names sort by time.
    """

    period: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the store knows of one upstream.

    Attributes:
        next_at: the earliest moment by its rate, None if it was never asked.
        taken_at: what the clock showed when that was worked out; None if nobody knows.
        spent: of its quotas, by unit.
        failures: attempts in a row that failed for reasons of the path or the upstream.
    """

    next_at: datetime | None = None
    taken_at: datetime | None = None
    embargo: Embargo | None = None
    spent: dict[Unit, Spent] = field(default_factory=dict)
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the next request may go, and what it had to wait for; ``why`` is empty for nothing.

    Attributes:
        bits: what a request costs at least that has to wait so long: a cheaper one may go earlier.
    """

    at: datetime
    why: str = ""
    bits: int = 0


def period_name(moment: datetime, period: Period) -> str:
    """Name the calendar day or month in UTC that *moment* falls into."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def period_end(moment: datetime, period: Period) -> datetime:
    """Give the first moment after the calendar day or month in UTC that *moment* falls into."""
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def _period_begin(name: str) -> datetime:
    return datetime.fromisoformat(f"{name}-01"[:10]).replace(tzinfo=UTC)


def left(pace: Pace, quota: Quota, at: datetime) -> int:
    """Count what is left of *quota* at the moment *at*."""
    spent = pace.spent.get(quota.unit)
    if spent is None or spent.period < period_name(at, quota.period):
        return quota.amount
    return quota.amount - spent.amount


def _earliest(pace: Pace, quota: Quota, at: datetime, cost: int) -> datetime:
    """Give the first moment from *at* on whose period has enough left.

    Once a period is being spent, nobody goes in an earlier one: that was used up.
    """
    spent = pace.spent.get(quota.unit)
    if spent is not None:
        at = max(at, _period_begin(spent.period))
    return at if left(pace, quota, at) >= cost else period_end(at, quota.period)


def _cost(quota: Quota, bits: int) -> int:
    return 1 if quota.unit == "requests" else bits


def next_moment(pace: Pace, rules: Rules, *, now: datetime, bits: int) -> Moment:
    """Say when a request that costs *bits* may go."""
    moment = Moment(at=now)
    if rules.rate is not None and pace.next_at is not None and pace.next_at > moment.at:
        moment = Moment(at=pace.next_at, why=f"rate: {rules.rate}")
    if pace.embargo is not None and pace.embargo.until > moment.at:
        moment = Moment(at=pace.embargo.until, why=pace.embargo.why)
    for quota in rules.quotas:
        earliest = _earliest(pace, quota, moment.at, _cost(quota, bits))
        if earliest > moment.at:
            why = f"quota: {quota.amount} {quota.unit} per {quota.period}"
            moment = Moment(at=earliest, why=why, bits=bits if quota.unit == "bits" else 0)
    return moment


def take(pace: Pace, rules: Rules, *, at: datetime, bits: int) -> Pace:
    """Give what is known of the upstream once a request that costs *bits* goes at *at*."""
    spent = dict(pace.spent)
    for quota in rules.quotas:
        used = quota.amount - left(pace, quota, at) + _cost(quota, bits)
        spent[quota.unit] = Spent(period=period_name(at, quota.period), amount=used)
    next_at = pace.next_at if rules.rate is None else at + rules.rate.interval
    return replace(pace, next_at=next_at, spent=spent)


def mend(pace: Pace, rules: Rules, *, now: datetime) -> tuple[Pace, list[str]]:
    """Take back what no right clock can have laid so far ahead of *now*; say what that was.

    What remains is as if it had been laid now: a clock that was ahead does not tell how long ago
    it was, and to wait once more for as long breaks no rule.
    """
    said: list[str] = []
    interval = timedelta(0) if rules.rate is None else rules.rate.interval
    next_at, taken_at = pace.next_at, pace.taken_at
    if rules.rate is not None and next_at is not None and next_at > now:
        is_ahead = taken_at is not None and is_future(taken_at, now)
        if is_ahead or next_at - now > LONGEST_RUN + interval:
            ahead = taken_at - now if is_ahead and taken_at else next_at - now - interval
            wait = min(next_at - now - ahead, LONGEST_RUN + interval)
            pace = replace(pace, next_at=now + wait, taken_at=now)
            said.append(f"its rate ({show_distance(ahead)})")
    embargo = pace.embargo
    if embargo is not None and embargo.said_at is not None and is_future(embargo.said_at, now):
        length = embargo.until - embargo.said_at
        pace = replace(pace, embargo=replace(embargo, until=now + length, said_at=now))
        said.append(f"its embargo ({show_distance(embargo.said_at - now)})")
    for unit, spent in pace.spent.items():
        period: Period = "day" if spent.period.count("-") > 1 else "month"
        if is_future(_period_begin(spent.period), now):
            current = replace(spent, period=period_name(now, period))
            pace = replace(pace, spent=pace.spent | {unit: current})
            said.append(f"its quota of {unit} ({spent.period})")
    return pace, said
