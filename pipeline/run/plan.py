"""Work out what a run would ask now, and when the rules allow it; nothing is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Self

from sqlmodel import Session

from pipeline.pacing import MARGIN, Moment, Pace, Quota, Rules, left, mend, next_moment, take
from pipeline.run.upstreams import Upstream, make_upstreams
from pipeline.settings import Settings
from pipeline.store import permissions

DAY = timedelta(days=1)
SHORT_SECONDS = 600  # a longer distance is told in whole minutes
MONTH = timedelta(days=31)  # the longest, so that no month is promised too much


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often runs come.

    Attributes:
        name: as a complaint says it: ``every 10m``.
        per_day: the most of them in a day, ``per_month`` in a month.
    """

    name: str
    per_day: int
    per_month: int

    @classmethod
    def of(cls, every: timedelta) -> Self:
        """Describe runs at an even distance."""
        return cls(
            name=f"every {_interval(every)}",
            per_day=ceil(DAY / every),
            per_month=ceil(MONTH / every),
        )


def _interval(every: timedelta) -> str:
    """Write a distance of whole seconds as an option takes it, in the largest unit that fits."""
    seconds = round(every.total_seconds())
    sizes = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    return next(f"{seconds // size}{unit}" for unit, size in sizes if seconds % size == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFetch:
    """One request that a run would make.

    Attributes:
        batches: the names of those it serves.
        at: the earliest moment at which it may go, by what is known now.
        why: what it has to wait for; empty if it may go at once.
        is_deferred: whether that is after the run's deadline.
    """

    source: str
    fetch: int
    batches: tuple[str, ...]
    n: int
    at: datetime
    why: str
    is_deferred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLeft:
    """How much of an allowance is left to a source before this run."""

    source: str
    unit: str
    period: str
    amount: int
    left: int


def plan_upstreams(settings: Settings) -> list[Upstream]:
    """Make the enabled sources ready as a run would; a sandbox of our own is not started.

    Raises:
        ConfigError: a source cannot serve what is ordered from it, or the sandbox of our own is to
            have a fault that there is not.
    """
    if any(source.is_sandbox for source in settings.enabled_sources.values()):
        # Imported here: real upstreams need none of it.
        from pipeline.sandbox.imitations import choose_faults  # noqa: PLC0415

        choose_faults(settings.sandbox.faults)
    return make_upstreams(settings, lambda upstream: f"http://127.0.0.1:1/{upstream}")


def find_paces(
    session: Session | None, upstreams: Sequence[Upstream], *, now: datetime
) -> dict[str, Pace]:
    """Look up what is known of each upstream, mended as a run would; without a store nothing is."""
    found: dict[str, Pace] = {}
    for upstream in upstreams:
        pace = Pace()
        if session is not None and upstream.is_remembered:
            pace = permissions.find_pace(session, upstream=upstream.key)
        found[upstream.key], _ = mend(pace, upstream.rules, now=now)
    return found


def plan_fetches(
    upstreams: Sequence[Upstream], paces: Mapping[str, Pace], *, now: datetime, deadline: datetime
) -> Iterator[PlannedFetch]:
    """Walk over the requests of a run that starts *now*, in the order of the sources."""
    known = dict(paces)
    for upstream in upstreams:
        for fetch in upstream.order.fetches():
            bits = upstream.source.cost_bits(fetch)
            moment = next_moment(known[upstream.key], upstream.rules, now=now, bits=bits)
            is_deferred = moment.at > deadline
            if not is_deferred:
                known[upstream.key] = take(
                    known[upstream.key], upstream.rules, at=moment.at, bits=bits
                )
            yield PlannedFetch(
                source=fetch.source,
                fetch=fetch.number,
                batches=tuple(batch.name for batch in fetch.batches),
                n=fetch.n,
                at=moment.at,
                why=moment.why or _breaker(upstream, paces[upstream.key]),
                is_deferred=is_deferred,
            )


def quotas_left(
    upstreams: Sequence[Upstream], paces: Mapping[str, Pace], *, now: datetime
) -> list[QuotaLeft]:
    """Tell what is left of each source's allowances."""
    return [
        QuotaLeft(
            source=upstream.order.source,
            unit=quota.unit,
            period=quota.period,
            amount=quota.amount,
            left=left(paces[upstream.key], quota, now),
        )
        for upstream in upstreams
        for quota in upstream.rules.quotas
    ]


def _breaker(upstream: Upstream, pace: Pace) -> str:
    """Say that a run would ask once and see, if the upstream has failed too often in a row."""
    if not 0 < upstream.breaker <= pace.failures:
        return ""
    return f"a probe goes first: {pace.failures} failures in a row"


def obstacles(
    upstreams: Sequence[Upstream], paces: Mapping[str, Pace], *, now: datetime
) -> dict[str, Moment]:
    """Tell which sources cannot simply be asked now: until when not, or what stands in the way."""
    found: dict[str, Moment] = {}
    for upstream in upstreams:
        pace = paces[upstream.key]
        bits = upstream.source.cost_bits(next(upstream.order.fetches()))
        moment = next_moment(pace, upstream.rules, now=now, bits=bits)
        why = moment.why or _breaker(upstream, pace)
        if why:
            found[upstream.order.source] = Moment(at=moment.at, why=why)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What one run asks of one upstream."""

    requests: int
    bits: int

    def of(self, quota: Quota) -> int:
        return self.requests if quota.unit == "requests" else self.bits


def _demand(upstreams: Sequence[Upstream]) -> _Demand:
    """Add up what one run asks of one upstream through all its sources."""
    requests = bits = 0
    for upstream in upstreams:
        for fetch in upstream.order.fetches():
            requests, bits = requests + 1, bits + upstream.source.cost_bits(fetch)
    return _Demand(requests=requests, bits=bits)


def find_impossible(
    upstreams: Sequence[Upstream],
    *,
    deadline_seconds: float,
    rhythms: Mapping[str, Rhythm] | None = None,
) -> list[str]:
    """Find what the rules will never allow, however long one waits; one line each.

    The runs of a day and a month are held against them for the sources whose name is in *rhythms*.
    """
    return [
        f"{', '.join(f'sources.{source}' for source in sources)}: {reason}"
        for sources, reason in find_misfits(
            upstreams, deadline_seconds=deadline_seconds, rhythms=rhythms
        )
    ]


def find_misfits(
    upstreams: Sequence[Upstream],
    *,
    deadline_seconds: float,
    rhythms: Mapping[str, Rhythm] | None = None,
) -> Iterator[tuple[list[str], str]]:
    """Find the same, as the sources of one upstream and what is wrong with their order."""
    for key in dict.fromkeys(upstream.key for upstream in upstreams):
        same = [upstream for upstream in upstreams if upstream.key == key]
        rules = same[0].rules
        if rules.rate is None and not rules.quotas:
            continue
        demand = _demand(same)
        found = [*_too_slow(demand, rules, deadline_seconds), *_too_much(demand, rules)]
        if not found:
            found = list(_too_often(same, rules, rhythms or {}))
        for reason in found:
            yield [upstream.order.source for upstream in same], reason


def _too_slow(demand: _Demand, rules: Rules, deadline_seconds: float) -> Iterator[str]:
    if rules.rate is None:
        return
    needed_seconds = rules.rate.interval.total_seconds() * (demand.requests - 1)
    if needed_seconds > deadline_seconds:
        yield (
            f"{demand.requests} requests at {rules.rate} take {needed_seconds:.0f} s, the deadline"
            f" is {deadline_seconds:g} s; set merge = true, order less or raise deadline_seconds"
        )


def _too_much(demand: _Demand, rules: Rules) -> Iterator[str]:
    for quota in rules.quotas:
        if demand.of(quota) > quota.amount:
            yield (
                f"one run costs {demand.of(quota)} {quota.unit}, the quota is {quota.amount} per"
                f" {quota.period}; order less"
            )


def _fitting(requests: int, most: float) -> str:
    """Give the shortest distance of runs with so many *requests*, of which *most* fit in a day."""
    seconds = DAY.total_seconds() / (int(most / requests) + 1)  # the last one has the night
    step = 1 if seconds < SHORT_SECONDS else 60
    return _interval(timedelta(seconds=ceil(seconds / step) * step))


def _too_often(
    upstreams: Sequence[Upstream], rules: Rules, rhythms: Mapping[str, Rhythm]
) -> Iterator[str]:
    """Hold all runs of one upstream's sources against its rules; some may run more often."""
    demands = [
        (_demand([upstream]), rhythm)
        for upstream in upstreams
        if (rhythm := rhythms.get(upstream.order.source))
    ]
    name = ", ".join(dict.fromkeys(rhythm.name for _, rhythm in demands))
    # A day's, not those between two runs: these may lie close together and the next ones far off.
    # One run less: of a day's runs at an even distance, the last one may have the night to follow.
    wanted = sum(demand.requests * (rhythm.per_day - 1) for demand, rhythm in demands)
    if rules.rate is not None and wanted > (most := DAY / rules.rate.interval):
        requests = sum(demand.requests for demand, _ in demands)
        yield (
            f"runs {name} make about {wanted} requests per day, the rate allows {most:.0f}:"
            f" they are spaced {MARGIN - 1:.0%} wider than {rules.rate};"
            f" every {_fitting(requests, most)} or slower fits"
        )
    for quota in rules.quotas:
        is_daily = quota.period == "day"
        wanted = sum(
            demand.of(quota) * (rhythm.per_day if is_daily else rhythm.per_month)
            for demand, rhythm in demands
        )
        if wanted > quota.amount:
            fitting = quota.amount // sum(demand.of(quota) for demand, _ in demands)
            yield (
                f"runs {name} cost {wanted} {quota.unit} per {quota.period}, the quota is"
                f" {quota.amount}: enough for {fitting} per {quota.period}"
            )
