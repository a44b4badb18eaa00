"""May this upstream be asked now? Its rules, its embargoes and its health, over all processes.

What must hold for every process lies in the store (``store/permissions.py``) or is a lock that the
kernel frees; what is kept here is only this run's copy.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from pipeline.errors import ERRORS, ErrorName, Whose
from pipeline.lock import place
from pipeline.pacing import Embargo, Moment, Pace, Rules, next_moment, take
from pipeline.sources.base import Hint
from pipeline.store import permissions
from pipeline.store.db import Store

LOOK_AGAIN_SECONDS = 0.02  # how often a taken place is tried again: flock cannot be awaited
FAR = timedelta(days=365_000)  # datetime ends in the year 9999; a hint may reach further


def _now() -> datetime:
    return datetime.now(UTC)


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
        if error in (ErrorName.CANCELLED, ErrorName.DEADLINE, ErrorName.INTERNAL):
            return False
        was_broken = self.is_open or self._must_probe
        if error is not None and ERRORS[error].whose in (Whose.PATH, Whose.UPSTREAM):
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

    @asynccontextmanager
    async def permission(self, bits: int, give_up_at: float) -> AsyncIterator[Moment | None]:
        """Wait until a request may go; give None then, and be sure of the place within the block.

        If it may only go after *give_up_at* (on the event loop's clock), give the moment at once.
        """
        async with self._place():
            yield await self._wait(bits, give_up_at)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._place_path is None:
            yield
            return
        with place(self._place_path) as is_taken:
            while not is_taken():  # noqa: ASYNC110 - the kernel tells nobody when a lock gets free
                await anyio.sleep(LOOK_AGAIN_SECONDS)
            yield

    async def _wait(self, bits: int, give_up_at: float) -> Moment | None:
        while True:
            latest = _now() + timedelta(seconds=give_up_at - anyio.current_time())
            moment = await self._take(bits, latest)
            if moment.at > latest:
                return moment
            await anyio.sleep(max(0.0, (moment.at - _now()).total_seconds()))
            if self._is_still_good(moment):
                return None

    def _is_still_good(self, moment: Moment) -> bool:
        """Look again after the wait: an embargo may have come, or a busy machine woke us too late.

        A request that goes late would crowd the window of those that go in time.
        """
        now = _now()
        embargo, rate = self._pace.embargo, self.rules.rate
        if embargo is not None and embargo.until > now:
            return False
        return rate is None or now - moment.at <= rate.tolerance

    async def _take(self, bits: int, latest: datetime) -> Moment:
        is_kept = self.rules.rate is not None or self.rules.quotas
        if self._store is not None and is_kept:
            return await self._store.commit(
                permissions.take_permission,
                upstream=self.upstream,
                rules=self.rules,
                clock=_now,
                latest=latest,
                bits=bits,
            )
        moment = next_moment(self._pace, self.rules, now=_now(), bits=bits)
        if moment.at <= latest:
            self._pace = take(self._pace, self.rules, at=moment.at, bits=bits)
        return moment

    async def heed(self, hint: Hint, source: str) -> None:
        """Remember what an answer said, for this run and all that follow."""
        said_at = _now()
        until = said_at + min(timedelta(seconds=min(hint.wait_seconds, FAR.total_seconds())), FAR)
        embargo = Embargo(until=until, why=hint.why)
        known = self._pace.embargo
        if known is None or known.until < until:
            self._pace = replace(self._pace, embargo=embargo)
        if self._store is not None:
            await self._store.commit(
                permissions.lay_embargo,
                upstream=self.upstream,
                source=source,
                embargo=embargo,
                said_at=said_at,
            )

    async def note(self, error: ErrorName | None) -> None:
        """Take in how an attempt ended; the upstream's health outlives the run."""
        if self.breaker.note(error) and self._store is not None:
            await self._store.commit(
                permissions.save_failures,
                upstream=self.upstream,
                failures=self.breaker.failures,
            )


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
