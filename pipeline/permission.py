"""May this upstream be asked now? Its rules, its embargoes and its health, over all processes.

What must hold for every process lies in the store (``store/permissions.py``) or is a lock that the
kernel frees; what is kept here is only this run's copy.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import anyio

from pipeline.errors import ERRORS, ErrorName, Whose
from pipeline.lock import place
from pipeline.models import Attempt, Timings
from pipeline.pacing import Embargo, Moment, Pace, Rules, next_moment, period_name, take
from pipeline.sources.base import Hint
from pipeline.store import permissions
from pipeline.store.db import Store

LOOK_AGAIN_SECONDS = 0.02  # how often a taken place is tried again: flock cannot be awaited
GIVE_UP_SECONDS = 0.2  # before the deadline: who still has no place then says so, and is not cut
HEARSAY_SECONDS = 1.0  # how long what other processes were told may be news to this one
FAR = timedelta(days=365_000)  # datetime ends in the year 9999; a hint may reach further


def _now() -> datetime:
    return datetime.now(UTC)


def _latest(give_up_at: float) -> datetime:
    return _now() + timedelta(seconds=_seconds_until(give_up_at))


def _seconds_until(moment: float) -> float:
    """Count the seconds until *moment* on the event loop's clock."""
    return moment - anyio.current_time()


def _engaged(give_up_at: float) -> Moment:
    why = "one request in flight: it is another process's turn"
    return Moment(at=_latest(give_up_at), why=why)


def _connecting(timings: Timings) -> timedelta:
    """Add up what came between the permission and the request's first byte."""
    phases = (timings.dns_us, timings.connect_us, timings.tls_us)
    return timedelta(microseconds=sum(us for us in phases if us is not None))


def _is_failure(error: ErrorName) -> bool:
    # The limit of an attempt is ours, but it was the upstream that did not keep to it.
    return error is ErrorName.DEADLINE or ERRORS[error].whose in (Whose.PATH, Whose.UPSTREAM)


class Breaker:
    """Leaves an upstream alone that fails again and again, and lets one probe through next time.

    Only failures of the path and of the upstream count: any other answer shows that it lives.
    """

    def __init__(self, limit: int, failures: int) -> None:
        self._limit = limit
        self._probe = anyio.Lock()
        self._must_probe = 0 < limit <= failures
        self.failures = failures
        self.last_error: ErrorName | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether the upstream is to be left alone for the rest of the run."""
        return not self._must_probe and 0 < self._limit <= self.failures

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Say whether to ask; while a probe is out, the others wait here for what it finds."""
        if self._must_probe:
            async with self._probe:
                if self._must_probe:
                    yield True
                    return
        yield not self.is_open

    def note(self, error: ErrorName | None) -> bool:
        """Take in how an attempt ended, and tell whether that changed what is to be remembered."""
        if error in (ErrorName.CANCELLED, ErrorName.INTERNAL):
            return False
        was_broken = self.is_open or self._must_probe
        if error is not None and _is_failure(error):
            self.failures += 1
            self.last_error = error
        else:
            self.failures = 0
        self._must_probe = False
        return self.is_open or was_broken


class Gate:
    """The way to one upstream, for all sources that ask it.

    Without a *store* nothing outlives the run: that is for the sandbox which the run itself starts.
    """

    def __init__(
        self,
        upstream: str,
        rules: Rules,
        breaker: Breaker,
        *,
        pace: Pace,
        store: Store | None,
        place_path: Path | None,
    ) -> None:
        self.upstream = upstream
        self.rules = rules
        self.breaker = breaker
        self._pace = pace
        self._store = store
        self._place_path = place_path if rules.is_exclusive else None
        self._is_free = rules == Rules()
        self._heard_at = monotonic()
        # Whoever waits has taken a moment already. No more of them than fit into one period: so
        # much is lost with a process that dies.
        most_waiting = 1 if rules.rate is None else rules.rate.requests
        self._waiting = anyio.Semaphore(most_waiting, fast_acquire=True)

    @asynccontextmanager
    async def permission(self, bits: int, give_up_at: float) -> AsyncIterator[Moment | None]:
        """Wait until a request may go; give None then, and be sure of the place within the block.

        If it may only go after *give_up_at* (on the event loop's clock), give the moment at once.
        """
        if self._is_free and not await self._is_forbidden():
            yield None
            return
        async with self._place(give_up_at) as is_ours:
            if is_ours:
                async with self._waiting:
                    moment = await self._wait(bits, give_up_at)
            else:
                moment = _engaged(give_up_at)
            yield moment

    @asynccontextmanager
    async def _place(self, give_up_at: float) -> AsyncIterator[bool]:
        """Take the only place, and tell whether it could be had in time."""
        if self._place_path is None:
            yield True
            return
        with place(self._place_path) as is_taken:
            is_ours = is_taken()
            while not is_ours and _seconds_until(give_up_at) > GIVE_UP_SECONDS:
                await anyio.sleep(LOOK_AGAIN_SECONDS)  # the kernel tells nobody of a free lock
                is_ours = is_taken()
            yield is_ours

    async def _wait(self, bits: int, give_up_at: float) -> Moment | None:
        rules, ahead = self.rules, timedelta(0)
        while True:
            latest = _latest(give_up_at)
            moment = await self._take(rules, bits, latest, ahead)
            if moment.at > latest:
                return moment
            await anyio.sleep(max(0.0, (moment.at - _now()).total_seconds()))
            is_forbidden = await self._is_forbidden()
            late = _now() - moment.at
            if not is_forbidden and not self._is_too_late(late):
                return None
            # Once more, and what is counted is not counted again. Where it takes long to come back
            # with a moment (a slow disk), ask for one that is far enough ahead, or all would pass.
            rules = self._unpaid(moment.at)
            ahead = max(2 * late, timedelta(0))

    def _unpaid(self, paid_at: datetime) -> Rules:
        """Give the rules without the quotas that a moment has been counted in already."""
        embargo = self._pace.embargo
        goes_at = _now() if embargo is None else max(_now(), embargo.until)
        unpaid = tuple(
            quota
            for quota in self.rules.quotas
            if period_name(goes_at, quota.period) != period_name(paid_at, quota.period)
        )
        return replace(self.rules, quotas=unpaid)

    def _is_too_late(self, late: timedelta) -> bool:
        """Tell whether a request would crowd the window of those that go in time."""
        return self.rules.rate is not None and late > self.rules.rate.tolerance

    async def _is_forbidden(self) -> bool:
        """Look whether an embargo came during the wait, here or in another process."""
        if self._store is not None and monotonic() - self._heard_at > HEARSAY_SECONDS:
            self._heard_at = monotonic()
            self._learn(await self._store.in_thread(self._find_embargo, self._store))
        return self._pace.embargo is not None and self._pace.embargo.until > _now()

    def _find_embargo(self, store: Store) -> Embargo | None:
        with store.read() as session:
            found = permissions.embargoes_of(session, upstreams=[self.upstream])
        return found.get(self.upstream)

    def _learn(self, embargo: Embargo | None) -> None:
        known = self._pace.embargo
        if embargo is not None and (known is None or known.until < embargo.until):
            self._pace = replace(self._pace, embargo=embargo)

    async def _take(self, rules: Rules, bits: int, latest: datetime, ahead: timedelta) -> Moment:
        def clock() -> datetime:
            return _now() + ahead

        is_kept = self.rules.rate is not None or self.rules.quotas
        if self._store is not None and is_kept:
            return await self._store.commit(
                permissions.take_permission,
                upstream=self.upstream,
                rules=rules,
                clock=clock,
                latest=latest,
                bits=bits,
            )
        moment = next_moment(self._pace, rules, now=clock(), bits=bits)
        if moment.at <= latest:
            self._pace = take(self._pace, rules, at=moment.at, bits=bits)
        return moment

    async def heed(self, hint: Hint, source: str) -> None:
        """Remember what an answer said, for this run and all that follow, even if it is stopped."""
        said_at = _now()
        wait_seconds = min(hint.wait_seconds, FAR.total_seconds())
        embargo = Embargo(until=said_at + timedelta(seconds=wait_seconds), why=hint.why)
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

    async def note(self, attempt: Attempt) -> None:
        """Take in how an attempt went; the upstream's health and pace outlive the run."""
        is_news = self.breaker.note(attempt.error)
        late = _connecting(attempt.timings)
        if self._store is None:
            return
        with anyio.CancelScope(shield=True):
            if is_news:
                await self._store.commit(
                    permissions.save_failures,
                    upstream=self.upstream,
                    failures=self.breaker.failures,
                )
            # Its moment was that of the permission; it went out when the connection stood.
            if self._is_too_late(late):
                await self._store.commit(permissions.put_off, upstream=self.upstream, by=late)


class RetryBudget:
    """How many retries are left to a source, within how many are left to the run."""

    def __init__(self, left: int, run: "RetryBudget | None" = None) -> None:
        self._left = left
        self._run = run

    def take(self) -> bool:
        """Take one retry, if there is one."""
        if self._left <= 0 or (self._run is not None and not self._run.take()):
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What stands between one source and its upstream in this run.

    Attributes:
        give_up_at: the run's deadline on the event loop's clock.
    """

    gate: Gate
    budget: RetryBudget
    give_up_at: float
