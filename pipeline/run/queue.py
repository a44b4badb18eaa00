"""What is still to be fetched from one source, and the workers that share it."""

from collections.abc import Callable, Sequence
from itertools import groupby, takewhile
from operator import attrgetter

from sqlmodel import Session

from pipeline.pacing import Moment
from pipeline.run.fetcher import Fetcher, FetchResult
from pipeline.run.limiter import Limiter, Route
from pipeline.run.observer import MOST_KNOWN, ExchangeObserver
from pipeline.run.recorder import Recorder
from pipeline.run.upstreams import Upstream, remind
from pipeline.settings import Settings
from pipeline.sources.http import open_client
from pipeline.store.freshness import Earlier, find_earlier, sources_with_history


def make_observers(
    session: Session,
    settings: Settings,
    run_id: int,
    upstreams: Sequence[Upstream],
    *,
    member: int | None = None,
) -> list[ExchangeObserver]:
    """Make an observer for each source, which knows what it brought in earlier runs.

    *member* is the worker that asks, if several share the run.
    """
    known = sources_with_history(session, {upstream.order.source for upstream in upstreams})
    observers = []
    for upstream in upstreams:
        order, earlier = upstream.order, Earlier()
        remind(session, upstream)
        if order.source in known:
            earlier = find_earlier(
                session, source=order.source, low=order.min, high=order.max, limit=MOST_KNOWN
            )
        api = settings.sources[order.source].api
        observer = ExchangeObserver(
            run_id=run_id,
            secrets=upstream.policy.secrets,
            variable=upstream.policy.variable,
            member=member,
            earlier=earlier,
            measured=() if api is None else api.measures,
        )
        observers.append(observer)
    return observers


class Queue:
    """The fetches of one source in one run, and how far its workers have come with them.

    It ends early once they are no longer ours.
    """

    def __init__(
        self,
        upstream: Upstream,
        route: Route,
        observer: ExchangeObserver,
        *,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        order = upstream.order
        self.source = order.source
        self.limiter: Limiter = route.limiter
        # No fetch costs less: if the limiter is closed for this one, it is so for all.
        self.cheapest = upstream.source.cost_bits(order.smallest_fetch())
        self.workers = min(upstream.in_flight, len(order.sizes))
        self._upstream, self._route, self._observer = upstream, route, observer
        self._fetches = takewhile(lambda _: is_ours(), order.fetches(observer.run_id))
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
                result = FetchResult(fetch)
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
