"""What is still to be fetched from one source, and the workers that share it."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from pipeline.models import Fetch
from pipeline.pacing import Moment
from pipeline.run.fetcher import Fetcher, FetchResult
from pipeline.run.limiter import Limiter, Route
from pipeline.run.observer import ExchangeObserver
from pipeline.run.recorder import Recorder
from pipeline.run.upstreams import Upstream
from pipeline.sources.http import open_client


class Queue:
    """The fetches of one source in one run, and how far its workers have come with them."""

    def __init__(self, upstream: Upstream, route: Route, observer: ExchangeObserver) -> None:
        order = upstream.order
        self.source = order.source
        self.limiter: Limiter = route.limiter
        # No fetch costs less: if the limiter is closed for this one, it is so for all.
        self.cheapest = upstream.source.cost_bits(order.smallest_fetch())
        self.workers = min(upstream.in_flight, len(order.sizes))
        self._upstream, self._route, self._observer = upstream, route, observer
        self._fetches = order.fetches()
        self._undecided = 0  # of those that were begun

    async def work(self, recorder: Recorder) -> None:
        """Carry out fetches until none is left, or none that may go before the deadline."""
        upstream = self._upstream
        async with open_client(
            upstream.policy.limits,
            upstream.ssl_context,
            is_public=upstream.is_public,
            proxy=upstream.proxy,
            leniency=upstream.leniency,
        ) as client:
            fetcher = Fetcher(upstream.source, client, upstream.policy, self._route, self._observer)
            for fetch in self._fetches:
                run_id = self._observer.run_id
                result = FetchResult(Fetch(number=fetch.number, batches=fetch.batches, run=run_id))
                try:
                    await fetcher.carry_out(result)
                finally:
                    self._undecided += not result.outcomes
                    recorder.keep(result)
                await recorder.room()
                if self.limiter.closed(self.cheapest):
                    return

    def count_left(self) -> int:
        """Count the fetches without an outcome, once nobody works on them any more."""
        return self._undecided + sum(1 for _ in self._fetches)


async def find_obstacles(queues: Sequence[Queue], *, is_stopped: bool) -> dict[str, Moment]:
    """Tell of the sources that have something left until when the rules forbid it, if they do.

    In a run that was stopped nobody knows what they would have allowed until its deadline.
    """
    obstacles: dict[str, Moment] = {}
    by_gate = attrgetter("limiter.upstream")
    for _, group in groupby(sorted(queues, key=by_gate), key=by_gate):
        left = {queue: n for queue in group if (n := queue.count_left())}
        for queue in left:
            limiter, bits = queue.limiter, queue.cheapest
            moment = (
                limiter.closed(bits)
                if is_stopped
                else await limiter.holds_back(sum(left.values()), bits)
            )
            if moment:
                obstacles[queue.source] = moment
    return obstacles
