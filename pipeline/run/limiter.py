"""Rate limits, quotas, embargo and circuit breaker of one upstream, across all processes.

What must hold for every process lies in the store (``store/permissions.py``) or is a lock that the
kernel frees; what is kept here is only this run's copy.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from time import monotonic

import anyio

from pipeline.errors import Phase
from pipeline.models import Attempt, Timings
from pipeline.pacing import Embargo, Moment, Pace, Rules, lengthen, next_moment, period_name
from pipeline.run.breaker import Breaker, RetryBudget
from pipeline.run.desk import Desk
from pipeline.run.moments import Moments, Wish
from pipeline.run.places import Place
from pipeline.sources.base import Hint
from pipeline.store import permissions
from pipeline.store.db import Store
from pipeline.store.permissions import Delay
from pipeline.store.shared_clock import SharedClock

GIVE_UP_SECONDS = 0.2  # before the deadline: who has no place by then is deferred, not cut off
EMBARGO_RECHECK_SECONDS = 1.0  # between two looks for an embargo laid by another process
AT_ONCE = nullcontext()
LOOK_BEFORE = timedelta(seconds=0.5)  # so that the moment is not over when the store has answered
FORGET = 0.9  # of a slow answer, with each that is quicker
SLOW = "rate: the store here was too slow for its moments"
_taken: ContextVar[Moment | None] = ContextVar("taken", default=None)  # by this task, at last
FAR = timedelta(days=365_000)  # datetime ends in the year 9999; a hint may reach further


def _seconds_until(moment: float) -> float:
    """Count the seconds until *moment* on the event loop's clock."""
    return moment - anyio.current_time()


# What comes between the permission and the request's first byte, and then the rest.
CONNECTING = attrgetter(*(f"{phase}_us" for phase in (Phase.DNS, Phase.CONNECT, Phase.TLS)))
EXCHANGE = attrgetter(*(f"{phase}_us" for phase in Phase if phase is not Phase.WAIT))


def _took_us(timings: Timings, phases: Callable[[Timings], tuple[int | None, ...]]) -> int:
    return sum(filter(None, phases(timings)))


class Limiter:
    """Rate limits, embargo and circuit breaker of one upstream, for all sources that ask it.

    Without a *store* nothing outlives the run: that is for the sandbox which the run itself starts.
    The limiters of one process ask it at one *desk*.
    """

    def __init__(
        self,
        upstream: str,
        rules: Rules,
        breaker: Breaker,
        *,
        pace: Pace,
        store: Store | None,
        new_place: Callable[[], Place] | None = None,
        clock: SharedClock | None = None,
        desk: Desk | None = None,
    ) -> None:
        self.upstream = upstream
        self.rules = rules
        self.breaker = breaker
        self._clock = clock or SharedClock()
        if desk is None and store is not None:
            desk = Desk(store, self._clock)
        self._moments = Moments(upstream, rules, pace, store=store, clock=self._clock, desk=desk)
        self._store, self._desk = store, desk
        self._new_place = new_place if rules.is_exclusive else None
        self._is_free = rules == Rules()
        # Of an upstream that other machines ask as well, the server counts the failures in a row.
        self._is_counted_there = store is not None and store.is_server and breaker.limit > 0
        self._has_answered = False
        self._checked_at = monotonic()
        self._answers_take_us = 0.0
        self._closed: Moment | None = None
        self._is_contended = False
        self._went_late_at: datetime | None = None
        self._free_at = self._clock.now()
        self._unused = timedelta(0)

    def closed(self, bits: int) -> Moment | None:
        """Give the moment after the deadline at which a request that costs *bits* may go.

        None as long as nobody has been told so. What holds for one holds for all that cost as much.
        """
        return self._closed if self._closed and bits >= self._closed.bits else None

    def permission(
        self, bits: int, give_up_at: float
    ) -> AbstractAsyncContextManager[Moment | None]:
        """Wait until a request may go; give None then, and be sure of the place within the block.

        If it may only go after *give_up_at* (on the event loop's clock), give the moment at once.
        """
        if self._is_free and self._embargo is None and not self._is_check_due:
            return AT_ONCE
        return self._permission(bits, give_up_at)

    @asynccontextmanager
    async def _permission(self, bits: int, give_up_at: float) -> AsyncIterator[Moment | None]:
        if self._is_free:
            await self._look()
        if self._is_free and not self._is_forbidden:
            yield None
            return
        if moment := self.closed(bits):
            yield moment
            return
        async with self._place() as place:
            async with self._moments.waiting:
                moment = self.closed(bits) or await self._wait(bits, give_up_at, place)
            self._closed = moment or self._closed
            yield moment

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[Place | None]:
        if self._new_place is None:
            yield None
            return
        async with self._new_place() as place:
            yield place

    def _latest(self, give_up_at: float) -> datetime:
        return self._clock.now() + timedelta(seconds=_seconds_until(give_up_at))

    def _engaged(self, give_up_at: float) -> Moment:
        why = "one request in flight: it is another process's turn"
        return Moment(at=self._latest(give_up_at), why=why)

    async def _wait(self, bits: int, give_up_at: float, place: Place | None) -> Moment | None:
        rules, ahead = self.rules, timedelta(0)
        instead_of: datetime | None = None
        while True:
            latest = self._latest(give_up_at)
            await self._look()
            # Who has to wait so long that the deadline would come before the answer need not ask.
            in_time = latest - timedelta(microseconds=self._answers_take_us)
            wish = Wish(rules=rules, bits=bits, latest=in_time, ahead=ahead, instead_of=instead_of)
            moment = await self._take(wish, give_up_at, place)
            if moment is not None and moment.at > wish.latest and not moment.why:
                wish = replace(wish, latest=latest)
                moment = await self._take(wish, give_up_at, place)
            if moment is None:
                return self._engaged(give_up_at)
            if moment.at > wish.latest:
                return moment if moment.why else replace(moment, why=SLOW)
            self._count_unused(moment)
            if moment.at - self._clock.now() > LOOK_BEFORE:
                await self._sleep_until(moment.at - LOOK_BEFORE)
                await self._look()
            await self._sleep_until(moment.at)
            if await self._may_go(moment, place):
                _taken.set(moment)
                return None
            # Once more, and what is counted is not counted again. Where it takes long to come back
            # with a moment (a slow disk), ask for one that is far enough ahead, or all would pass;
            # but a pause looks the same once, so that grows only while it does not help.
            rules, instead_of = self._unpaid(moment.at), moment.at
            ahead += self._moments.delay

    async def _sleep_until(self, moment: datetime) -> None:
        await anyio.sleep(max(0.0, (moment - self._clock.now()).total_seconds()))

    async def _take(self, wish: Wish, give_up_at: float, place: Place | None) -> Moment | None:
        """Take a moment, and the only place as soon as it is free; None: it is not in time."""
        self._is_contended = False
        while (moment := await self._moments.take(wish, place)) is None:
            self._is_contended = True
            if place is None or _seconds_until(give_up_at) <= GIVE_UP_SECONDS:
                return None
            await anyio.sleep(place.look_again_seconds)
        return moment

    async def _may_go(self, moment: Moment, place: Place | None) -> bool:
        """Look once more, now that the *moment* has come, whether all still holds."""
        if self._is_forbidden or self._is_crowded or self._moments.is_too_late(moment):
            return False
        return place is None or await place.is_still_ours()

    def _count_unused(self, moment: Moment) -> None:
        """Add up the time in which the rate would have let a request go and there was none."""
        if self.rules.rate is not None:
            if not moment.why:
                self._unused += max(moment.at - self._free_at, timedelta(0))
            self._free_at = moment.at + self.rules.rate.interval

    async def holds_back(self, fetches: int, bits: int) -> Moment | None:
        """Tell whether at the deadline it is the rules that so many *fetches* still wait for.

        *bits* is what the cheapest of them costs. None: the rules would have let all of them go.
        """
        if moment := self.closed(bits):
            return moment
        if self._is_contended:
            return self._engaged(anyio.current_time())
        pace, now = self._moments.pace, self._clock.now()
        if self._store is not None and not self._is_free:
            pace = await self._store.patiently(self._find_pace, self._store)
        moment = next_moment(pace, replace(self.rules, rate=None), now=now, bits=bits)
        rate = self.rules.rate
        if moment.why or rate is None:
            return moment if moment.why else None
        unused = self._unused + max(now - self._free_at, timedelta(0))
        if fetches * rate.interval <= unused:
            return None
        return Moment(at=max(now, pace.next_at or now), why=f"rate: {rate}")

    def _unpaid(self, paid_at: datetime) -> Rules:
        """Give the rules without the quotas that a moment has been counted in already."""
        embargo = self._embargo
        goes_at = self._clock.now() if embargo is None else max(self._clock.now(), embargo.until)
        unpaid = tuple(
            quota
            for quota in self.rules.quotas
            if period_name(goes_at, quota.period) != period_name(paid_at, quota.period)
        )
        return replace(self.rules, quotas=unpaid)

    @property
    def _is_check_due(self) -> bool:
        is_long_ago = monotonic() - self._checked_at > EMBARGO_RECHECK_SECONDS
        return self._store is not None and is_long_ago

    @property
    def _is_crowded(self) -> bool:
        """Tell whether one of ours went so late that the next one, whose moment was known, waits.

        Where a rule is a distance it would break it; of many in a period the margin takes it.
        """
        rate, went_at = self.rules.rate, self._went_late_at
        if rate is None or went_at is None or rate.requests > 1:
            return False
        return self._clock.now() - went_at < timedelta(seconds=rate.period_seconds)

    async def _look(self) -> None:
        """Look now and then whether an embargo was laid in another process."""
        if self._desk is not None and self._is_check_due:
            self._checked_at = monotonic()
            embargo, failures = await self._desk.find_standing(self.upstream)
            self._learn(embargo)
            await self._hear_of(failures)

    @property
    def _is_forbidden(self) -> bool:
        return self._embargo is not None and self._embargo.until > self._clock.now()

    async def _hear_of(self, failures: int) -> None:
        """Take in how often the upstream failed, whoever asked; what we got breaks the row."""
        if self._store is None or not self._is_counted_there or not failures:
            return
        if self._has_answered:
            self._has_answered = False
            await self._store.commit(permissions.save_failures, upstream=self.upstream, failures=0)
        else:
            self.breaker.failures = max(self.breaker.failures, failures)

    @property
    def _embargo(self) -> Embargo | None:
        return self._moments.pace.embargo

    def _find_pace(self, store: Store) -> Pace:
        with store.read() as session:
            return permissions.find_pace(session, upstream=self.upstream)

    def _learn(self, embargo: Embargo | None) -> None:
        known = self._embargo
        if embargo is not None and (known is None or known.until < embargo.until):
            self._moments.pace = replace(self._moments.pace, embargo=embargo)

    async def apply_hint(self, hint: Hint, source: str) -> None:
        """Turn what an answer said into an embargo for this and later runs, even if stopped."""
        said_at = self._clock.now()
        wait_seconds = min(hint.wait_seconds, FAR.total_seconds())
        until = said_at + timedelta(seconds=wait_seconds)
        embargo = Embargo(until=until, why=hint.why, said_at=said_at)
        if hint.is_ours:
            embargo = lengthen(self._embargo, embargo, said_at)
        self._learn(embargo)
        if self._store is not None:
            with anyio.CancelScope(shield=True):
                await self._store.commit(
                    permissions.lay_embargo,
                    upstream=self.upstream,
                    source=source,
                    embargo=embargo,
                    said_at=said_at,
                )

    async def _end_our_pause(self, embargo: Embargo) -> None:
        """Forget the pause of our own that is over: after a success the next one is short again."""
        if not embargo.is_our_pause or embargo.until > self._clock.now():
            return
        self._moments.pace = replace(self._moments.pace, embargo=None)
        if self._store is not None:
            with anyio.CancelScope(shield=True):
                await self._store.commit(
                    permissions.forget_embargo, upstream=self.upstream, until=embargo.until
                )

    async def note(self, attempt: Attempt) -> None:
        """Take in how an attempt went; the upstream's health and pace outlive the run."""
        failures = self.breaker.failures
        is_news = self.breaker.note(attempt.error)
        if attempt.error is None:
            self._has_answered = True
            took_us = _took_us(attempt.timings, EXCHANGE)
            self._answers_take_us = max(took_us, FORGET * self._answers_take_us)
            if self._embargo is not None:
                await self._end_our_pause(self._embargo)
        may_be_news = is_news or self._is_counted_there or self.rules.rate is not None
        if self._store is None or self._desk is None or not may_be_news:
            return
        with anyio.CancelScope(shield=True):
            if self._is_counted_there and self.breaker.failures > failures:
                self._has_answered = False
                counted = await self._store.commit(
                    permissions.count_failure, upstream=self.upstream
                )
                self.breaker.failures = max(self.breaker.failures, counted)
            elif is_news or (self._is_counted_there and failures > self.breaker.failures):
                await self._store.commit(
                    permissions.save_failures,
                    upstream=self.upstream,
                    failures=self.breaker.failures,
                )
            # It went out when the connection stood, and its moment may have been over before.
            late = timedelta(microseconds=_took_us(attempt.timings, CONNECTING))
            before = timedelta(microseconds=attempt.timings.wait_us or 0) + late
            sent_at = self._clock.shown_at(attempt.began_at + before)
            if (moment := _taken.get()) is not None:
                late = max(late, sent_at - moment.at)
            if self.rules.rate is not None and late > self.rules.rate.tolerance:
                self._went_late_at = sent_at
                interval = self.rules.rate.interval
                delay = Delay(upstream=self.upstream, late=late, sent_at=sent_at, interval=interval)
                await self._desk.put_off(delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What the fetches of one source have to respect in this run.

    Attributes:
        give_up_at: the run's deadline on the event loop's clock.
    """

    limiter: Limiter
    budget: RetryBudget
    give_up_at: float
