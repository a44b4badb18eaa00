"""The desk at which the limiters of one process ask the store: all who want something at once.

A thousand slow sources in one worker would else keep the store busy with a thousand questions.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from pipeline.pacing import Embargo, Moment, Rate
from pipeline.run.together import Together
from pipeline.store import permissions
from pipeline.store.db import Store
from pipeline.store.permissions import Delay
from pipeline.store.shared_clock import SharedClock

# How long the store is taken to need for an answer at most: a pause of the whole process, or of
# the server, looks the same once.
LONGEST_DELAY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Order:
    upstream: str  # a statement has each only once
    rate: Rate = field(compare=False)
    ahead: timedelta = field(compare=False)
    latest: datetime = field(compare=False)
    count: int = field(compare=False)
    instead_of: datetime | None = field(compare=False)


class Desk:
    """Asks one store, by the *clock* of all who share it."""

    def __init__(self, store: Store, clock: SharedClock) -> None:
        self._store, self._clock = store, clock
        self._delay = timedelta(0)  # how long the last who asked for moments waited for them
        self._moments = Together(self._take_moments)
        self._standings = Together(self._find_standings)
        self._delays = Together(self._put_off)

    async def take_moments(
        self,
        upstream: str,
        rate: Rate,
        *,
        ahead: timedelta,
        latest: datetime,
        count: int,
        instead_of: datetime | None,
    ) -> list[Moment]:
        """Take so many moments by a *rate* from a server, as ``take_at_once`` does.

        None if the last of them would come after *latest*, or after that of others who ask now. If
        an answer takes so long that the moment could be over by then, they begin later.
        """
        if 2 * self._delay > rate.tolerance:
            ahead = max(ahead, self._delay)
        order = _Order(upstream, rate, ahead, latest, count, instead_of)
        began = monotonic()
        moments = await self._moments.ask(order) or []
        self._delay = min(timedelta(seconds=monotonic() - began), LONGEST_DELAY)
        return moments

    async def find_standing(self, upstream: str) -> tuple[Embargo | None, int]:
        """Look up the embargo on *upstream*, and how many attempts in a row failed there."""
        return await self._standings.ask(upstream) or (None, 0)

    async def put_off(self, delay: Delay) -> None:
        """Move the next moment of an upstream on, as the store does."""
        await self._delays.ask(delay)

    async def _put_off(self, delays: Sequence[Delay]) -> Mapping[Delay, None]:
        await self._store.commit(permissions.put_off, delays)
        return {}

    async def _take_moments(self, orders: Sequence[_Order]) -> Mapping[_Order, list[Moment]]:
        alike: defaultdict[tuple[Rate, timedelta, int], list[_Order]] = defaultdict(list)
        for order in orders:
            alike[order.rate, order.ahead, order.count].append(order)
        taken: dict[str, list[Moment]] = {}
        for (rate, ahead, count), group in alike.items():
            taken |= await self._store.commit(
                permissions.take_at_once,
                upstreams={order.upstream: order.instead_of for order in group},
                rate=rate,
                clock=self._clock,
                ahead=ahead,
                latest=min(order.latest for order in group),
                count=count,
            )
        return {order: taken.get(order.upstream, []) for order in orders}

    async def _find_standings(
        self, upstreams: Sequence[str]
    ) -> Mapping[str, tuple[Embargo | None, int]]:
        return await self._store.patiently(self._read_standings, upstreams)

    def _read_standings(self, upstreams: Sequence[str]) -> Mapping[str, tuple[Embargo | None, int]]:
        with self._store.read() as session:
            return permissions.standing_of(session, upstreams=upstreams)
