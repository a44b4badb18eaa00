"""The moments at which one upstream may be asked: taken from the store for all who wait for one.

A store that is far away, or whose disk is slow, is asked by one of them for all, so that the rate
does not depend on how long an answer takes.
"""

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from time import monotonic

import anyio
from sqlmodel import Session

from pipeline.pacing import Moment, Pace, Rules, next_moment, take
from pipeline.run.desk import LONGEST_DELAY, Desk
from pipeline.run.places import Place
from pipeline.store import permissions
from pipeline.store.db import Store
from pipeline.store.shared_clock import SharedClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request needs that is to be sent.

    Attributes:
        latest: the last moment that helps.
        ahead: how far ahead of now the moment must be at least.
        instead_of: a moment that was taken for it and that is over.
    """

    rules: Rules
    bits: int
    latest: datetime
    ahead: timedelta = timedelta(0)
    instead_of: datetime | None = None


class Moments:
    """Takes moments for one run; without a *store* they are kept in memory.

    Those of a mere rate are asked for at the *desk* of a server's store.

    Attributes:
        pace: this run's copy of what is known of the upstream.
        waiting: lets in who is to wait for a moment. That has been taken already, and is lost if
            the process dies. So one at a time, and more only where the store takes longer to give
            a moment than an interval.
        delay: how long the store took last time.
    """

    def __init__(
        self,
        upstream: str,
        rules: Rules,
        pace: Pace,
        *,
        store: Store | None,
        clock: SharedClock,
        desk: Desk | None = None,
    ) -> None:
        self.pace = pace
        self.waiting = anyio.CapacityLimiter(1)
        self.delay = timedelta(0)
        self._upstream, self._rules = upstream, rules
        self._store, self._clock = store, clock
        self._desk = desk
        self._one = anyio.Lock()
        self._seekers = 0
        self._spare: deque[Moment] = deque()

    async def take(self, wish: Wish, place: Place | None = None) -> Moment | None:
        """Take the next moment, and the *place* at an upstream that has only one.

        One after the latest is told and not taken. None: another process has the place.
        """
        store = self._store
        if store is None or not (self._rules.rate or self._rules.quotas or _is_lease(place, store)):
            # A locked file alone needs no transaction, which others could keep us waiting for.
            return self._take_here(wish) if place is None or place.take(None) else None
        self._seekers += 1
        try:
            async with self._one:
                while self._spare and self.is_too_late(self._spare[0]):
                    self._spare.popleft()
                if not self._spare:
                    # Who has to pay out of a quota pays for itself alone.
                    count = 1 if self._rules.quotas or place else self._seekers
                    began = monotonic()
                    self._spare += await self._take_there(store, wish, place, count)
                    self._let_wait(timedelta(seconds=monotonic() - began))
                return self._spare.popleft() if self._spare else None
        finally:
            self._seekers -= 1

    def is_too_late(self, moment: Moment) -> bool:
        """Tell whether a request that goes now would crowd the window of those that go in time."""
        rate = self._rules.rate
        return rate is not None and self._clock.now() - moment.at > rate.tolerance

    def _take_here(self, wish: Wish) -> Moment:
        now, rate = self._clock.now() + wish.ahead, wish.rules.rate
        if rate and wish.instead_of and self.pace.next_at == wish.instead_of + rate.interval:
            self.pace = replace(self.pace, next_at=wish.instead_of)
        moment = next_moment(self.pace, wish.rules, now=now, bits=wish.bits)
        if moment.at <= wish.latest:
            self.pace = take(self.pace, wish.rules, at=moment.at, bits=wish.bits)
        return moment

    async def _take_there(
        self, store: Store, wish: Wish, place: Place | None, count: int
    ) -> list[Moment]:
        rate, desk = wish.rules.rate, self._desk
        if store.is_server and desk and rate and not wish.rules.quotas and place is None:
            for n in dict.fromkeys((count, 1)):
                moments = await desk.take_moments(
                    self._upstream,
                    rate,
                    ahead=wish.ahead,
                    latest=wish.latest,
                    count=n,
                    instead_of=wish.instead_of,
                )
                if moments:
                    return moments
        return await store.commit(self._take_in_turn, wish, place, count)

    def _take_in_turn(
        self, session: Session, wish: Wish, place: Place | None, count: int
    ) -> list[Moment]:
        if place is not None and not place.take(session):
            return []
        moments = permissions.take_moments(
            session,
            upstream=self._upstream,
            rules=wish.rules,
            clock=lambda: self._clock.read(session) + wish.ahead,
            latest=wish.latest,
            bits=wish.bits,
            count=count,
            instead_of=wish.instead_of,
        )
        if place is not None and moments[0].at <= wish.latest:
            place.hold(session, moments[0].at - self._clock.now())
        return moments

    def _let_wait(self, delay: timedelta) -> None:
        """Let so many wait for their moments that the store keeps up with the rate."""
        self.delay = min(delay, LONGEST_DELAY)
        if (rate := self._rules.rate) is not None:
            needed = ceil(2 * self.delay / rate.interval)
            self.waiting.total_tokens = max(1, min(needed, rate.requests))


def _is_lease(place: Place | None, store: Store) -> bool:
    return place is not None and store.is_server
