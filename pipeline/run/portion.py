"""A run in portions: cut when ordered, each carried out by whichever worker has it, ended once.

A worker needs the configuration of the run: what a source's requests look like is not in the store.
What is to be asked is, so a portion can be carried out again by another worker: it asks for what
has no outcome yet.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, takewhile
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import anyio
from sqlmodel import Session

from pipeline.errors import ConfigError, ErrorName, StoreError, ungrouped
from pipeline.lock import host_identity
from pipeline.models import Attempt, Fetch, Outcome, RunStatus, RunSummary, Verdict
from pipeline.pacing import Moment, next_moment
from pipeline.run.breaker import RetryBudget
from pipeline.run.limiter import Route
from pipeline.run.limiters import Limiters
from pipeline.run.limits import limits_of
from pipeline.run.observer import MOST_KNOWN, ExchangeObserver
from pipeline.run.opening import spool_path
from pipeline.run.order import Order
from pipeline.run.queue import Queue, find_obstacles
from pipeline.run.recorder import Recorder
from pipeline.run.upstreams import Upstream, make_upstreams, remind
from pipeline.settings import Settings
from pipeline.store import portions, slots, spool, writes
from pipeline.store.db import Store
from pipeline.store.freshness import find_earlier
from pipeline.store.integrity import chain as seals
from pipeline.store.permissions import find_pace
from pipeline.store.portions import Portion, Standing
from pipeline.store.queries import find_limits, get_run
from pipeline.store.shared_clock import SharedClock, read_clock

PORTION_SECONDS = 30.0  # that a portion is worth at its source's rate
LOOK_SECONDS = 2.0  # between two looks whether another worker has it
UNLIMITED_FETCHES = 500  # of a source without rate


def refuse_sandbox(kind: str) -> NoReturn:
    """Refuse a source that only the process which plays it can ask."""
    raise ConfigError(
        f"sandbox.{kind} is played by the process that asks it, so other machines cannot: start"
        " `pipeline sandbox`, and name its url"
    )


def cut(run_id: int, upstreams: Sequence[Upstream]) -> Iterator[Portion]:
    """Cut the orders of a run into stretches of about so many seconds of their source's rate.

    The first stretches of all sources go before the second ones of any.
    """
    for upstream in upstreams:
        rate = upstream.rules.rate
        size = UNLIMITED_FETCHES
        if rate is not None:
            size = max(1, int(PORTION_SECONDS * rate.requests / rate.period_seconds))
        is_one = rate is not None or upstream.rules.is_exclusive
        fetches = replace(upstream.order, turns=()).fetches()
        rank = 0
        while stretch := list(islice(fetches, size)):
            yield Portion(
                run_id=run_id,
                source=upstream.order.source,
                first=stretch[0].batches[0].number,
                last=stretch[-1].batches[-1].number,
                lock=upstream.key if is_one else None,
                rank=rank,
            )
            rank += 1


@dataclass
class _Hold:
    """Whether a portion is still this worker's: another may have it after a pause of this one."""

    portion: Portion
    is_to_go: Callable[[], bool]
    is_lost: bool = False
    watching: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def is_ours(self) -> bool:
        """Tell whether to go on."""
        return not self.is_lost and not self.is_to_go()


class _OrderOfPortion(Order):
    """An order whose fetches end when the portion is no longer this worker's."""

    is_ours: Callable[[], bool]

    def fetches(self) -> Iterator[Fetch]:
        """Walk over the fetches that are still to be carried out."""
        return takewhile(lambda _: self.is_ours(), super().fetches())


@dataclass(kw_only=True)
class Hands:
    """What a worker carries portions out with.

    Attributes:
        is_to_go: whether it is to leave what it has not begun to others.
        member: the worker, once it has joined.
    """

    settings: Settings
    store: Store
    state_folder: Path
    is_to_go: Callable[[], bool]
    member: int | None = None
    _limits: dict[int, dict[str, Any]] = field(default_factory=dict, init=False)
    _mine: set[tuple[int, int]] = field(default_factory=set, init=False)
    _looked_at: float = field(default=float("-inf"), init=False)
    _looking: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def carry_out(self, run_id: int, first: int) -> None:
        """Carry out the portion that begins with batch *first*, and end the run if it was the last.

        Nothing is done if it is done already, or its run has ended.

        Raises:
            ConfigError: the configuration here has no such source, or would ask it otherwise.
            StoreError: the server failed.
        """
        found = None
        if not self.is_to_go():
            found = await self.store.patiently(self._begin, run_id, first)
        if found is None:
            return
        portion, standing = found
        obstacle = None
        if standing.undecided:
            obstacle = await self._ask(portion, standing)
        if await self.store.commit(portions.end, portion, obstacle=obstacle):
            await self.store.patiently(partial(end_run, self.store, self.settings, run_id))

    def _begin(self, run_id: int, first: int) -> tuple[Portion, Standing] | None:
        host, pid = host_identity(), os.getpid()
        with self.store.write() as session:
            portion = portions.find_portion(session, run_id=run_id, first=first)
            if portion is None:
                return None
            limits = self._limits.get(run_id)
            if limits is None:
                found = find_limits(session, run_id=run_id) or {}
                limits = found.get("sources", {})
                self._limits = {run_id: limits}  # of a thousand sources they are long
            try:
                self._refuse_others(portion, limits.get(portion.source, {}))
            except ConfigError as exc:
                refusal = exc
                portions.refuse(session, portion, why=f"{host} pid {pid}: {exc}")
            else:
                return portion, portions.begin(session, portion, host=host, pid=pid)
        raise refusal

    def _refuse_others(self, portion: Portion, limits: Mapping[str, object]) -> None:
        """Refuse a portion of a source that has other rules here than where it was ordered."""
        upstream = self._upstream(portion)
        ours = limits_of(upstream)
        other = [name for name, limit in limits.items() if ours.get(name) != limit]
        if portion.lock not in (None, upstream.key):
            other.insert(0, "url")
        if other:
            raise ConfigError(
                f"source {portion.source} has another {', '.join(other)} in {self.settings.named};"
                " left to workers with the configuration of the run"
            )

    def _upstream(self, portion: Portion) -> Upstream:
        source = self.settings.enabled_sources.get(portion.source)
        if source is None:
            raise ConfigError(
                f"no source {portion.source} is enabled in {self.settings.named}; left to workers"
                " with the configuration of the run"
            )
        narrowed = replace(self.settings, sources={portion.source: source})
        [upstream] = make_upstreams(narrowed, refuse_sandbox)
        return upstream

    async def _ask(self, portion: Portion, standing: Standing) -> Moment | None:
        """Ask for what has no outcome, and tell what the rules kept until the deadline."""
        hold = _Hold(portion, self.is_to_go)
        upstream = self._upstream_of(portion, standing, hold)
        clock = SharedClock()
        limiters = Limiters(
            store=self.store,
            url=self.settings.store.url,
            state_folder=self.state_folder,
            clock=clock,
        )
        limiter = (await self.store.patiently(limiters.open, [upstream]))[upstream.key]
        observer = await self.store.patiently(self._make_observer, portion, upstream)
        seconds_left = (standing.until - clock.now()).total_seconds()
        scope = anyio.CancelScope(deadline=anyio.current_time() + seconds_left)
        budget = RetryBudget(upstream.retry_budget)
        route = Route(limiter=limiter, budget=budget, give_up_at=scope.deadline)
        queue = Queue(upstream, route, observer)
        recorder = self._make_recorder(portion, standing)
        try:
            with ungrouped():
                await self._work(queue, recorder, scope, hold)
        except StoreError as exc:
            # Others may have met it first, but only the recorder knows what became of the numbers.
            if recorder.failure in (None, exc):
                raise
            raise recorder.failure from exc
        if not hold.is_ours():
            return None
        return (await find_obstacles([queue], is_stopped=False)).get(portion.source)

    async def _work(
        self, queue: Queue, recorder: Recorder, scope: anyio.CancelScope, hold: _Hold
    ) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.run)
            tasks.start_soon(self._watch, hold)
            try:
                with scope:
                    async with anyio.create_task_group() as lanes:
                        for _ in range(queue.workers):
                            lanes.start_soon(queue.work, recorder)
            finally:
                recorder.close()
                hold.watching.cancel()

    async def _watch(self, hold: _Hold) -> None:
        """Look now and then whether another worker has the portion."""
        portion = hold.portion
        with hold.watching:
            while not hold.is_lost:
                await anyio.sleep(LOOK_SECONDS)
                with suppress(StoreError):  # who has to write is told
                    await self._look()
                    hold.is_lost = (portion.run_id, portion.first) not in self._mine

    async def _look(self) -> None:
        """Find out what is ours: one of those who watch does so for all, not long ago."""
        async with self._looking:
            if anyio.current_time() - self._looked_at > LOOK_SECONDS / 2:
                began = anyio.current_time()
                self._mine = await self.store.in_thread(self._find_mine)
                self._looked_at = began

    def _find_mine(self) -> set[tuple[int, int]]:
        with self.store.read() as session:
            return portions.held_by(session, host=host_identity(), pid=os.getpid())

    def _upstream_of(self, portion: Portion, standing: Standing, hold: _Hold) -> Upstream:
        upstream = self._upstream(portion)
        batches = standing.batches
        order = _OrderOfPortion(
            source=portion.source,
            sizes=[batch.n for batch in batches],
            min=batches[0].min,
            max=batches[0].max,
            first=portion.first,
            max_numbers=upstream.order.max_numbers,
            is_merged=upstream.order.is_merged,
            turns=[number - portion.first for number in sorted(standing.undecided)],
        )
        object.__setattr__(order, "is_ours", hold.is_ours)
        share = ceil(upstream.retry_budget * len(batches) / len(upstream.order.sizes))
        return replace(upstream, order=order, retry_budget=share)

    def _make_observer(self, portion: Portion, upstream: Upstream) -> ExchangeObserver:
        with self.store.read() as session:
            remind(session, upstream)
            return ExchangeObserver(
                run_id=portion.run_id,
                secrets=upstream.policy.secrets,
                variable=upstream.policy.variable,
                member=self.member,
                earlier=find_earlier(
                    session,
                    source=portion.source,
                    low=upstream.order.min,
                    high=upstream.order.max,
                    limit=MOST_KNOWN,
                ),
            )

    def _make_recorder(self, portion: Portion, standing: Standing) -> Recorder:
        keep_numbers = self.settings.store.keep_numbers

        def set_aside(attempts: Sequence[Attempt], outcomes: Sequence[Outcome]) -> Path:
            # The server is gone, and other portions of the run set theirs aside as well.
            name = f"{standing.uid}-{portion.first}"
            path = spool_path(self.settings.store, name, self.state_folder)
            spool.set_aside(
                path,
                uid=standing.uid,
                attempts=attempts,
                outcomes=[each for each in outcomes if each.verdict is not Verdict.CANCELLED],
                keep_numbers=keep_numbers,
            )
            return path

        return Recorder(
            self.store,
            run_id=portion.run_id,
            ordered=len(standing.undecided),
            keep_numbers=keep_numbers,
            on_progress=lambda _: None,
            set_aside=set_aside,
            save=partial(portions.save_results, first=portion.first),
        )


def end_run(
    store: Store, settings: Settings, run_id: int, *, status: RunStatus | None = None
) -> RunSummary:
    """End a run that machines share, unless another has: what has no outcome gets one.

    That is deferred if the rules kept it until the deadline, failed if they did not.
    """
    upstreams = [] if status else make_upstreams(settings, refuse_sandbox)
    with store.write() as session:
        seals.lock_chain(session.connection())  # whoever is second waits here, and finds it ended
        run = get_run(session, run_id=run_id)
        if run.status is RunStatus.RUNNING:
            now = read_clock(session.connection())
            writes.finish_run(
                session,
                run_id=run_id,
                ended_at=datetime.now(UTC),
                clock_us=max(0, int((now - run.started_at) / timedelta(microseconds=1))),
                status=status,
                rest=ErrorName.CANCELLED if status else ErrorName.DEADLINE,
                rules={each.order.source: each.rules for each in upstreams},
                obstacles=_kept_back(session, upstreams, now),
            )
            run = get_run(session, run_id=run_id)
            slots.settle_rest(session, run=run)
    return run


def _kept_back(session: Session, upstreams: Sequence[Upstream], now: datetime) -> dict[str, Moment]:
    """Tell of the sources that have rules until when these forbid to ask for more."""
    found: dict[str, Moment] = {}
    for upstream in upstreams:
        pace = find_pace(session, upstream=upstream.key)
        moment = next_moment(pace, upstream.rules, now=now, bits=1)
        if moment.why or upstream.rules.rate is not None:
            found[upstream.order.source] = replace(
                moment, why=moment.why or f"rate: {upstream.rules.rate}"
            )
    return found
