"""A run in portions: cut when ordered, each carried out by whichever worker has it, ended once.

A worker needs the configuration of the run: what a source's requests look like is not in the store.
What is to be asked is, so a portion can be carried out again by another worker: it asks for what
has no outcome yet.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn, TypeAlias

import anyio
from anyio.abc import TaskGroup
from sqlmodel import Session

from pipeline.errors import ConfigError, ErrorName, StoreError, ungrouped
from pipeline.lock import host_identity
from pipeline.models import Attempt, Outcome, RunStatus, RunSummary, Verdict
from pipeline.pacing import Moment, next_moment
from pipeline.run.breaker import RetryBudget
from pipeline.run.limiter import Limiter, Route
from pipeline.run.limiters import Limiters
from pipeline.run.limits import limits_of
from pipeline.run.observer import ExchangeObserver
from pipeline.run.opening import spool_path
from pipeline.run.order import Order
from pipeline.run.queue import Queue, find_obstacles, make_observers
from pipeline.run.recorder import Recorder
from pipeline.run.together import Together
from pipeline.run.upstreams import Upstream, make_upstreams
from pipeline.settings import Settings
from pipeline.store import portions, slots, spool, writes
from pipeline.store.db import Store
from pipeline.store.integrity import chain as seals
from pipeline.store.permissions import find_pace
from pipeline.store.portions import Portion, Standing
from pipeline.store.queries import find_limits, get_run
from pipeline.store.shared_clock import read_clock

PORTION_SECONDS = 30.0  # that a portion is worth at its source's rate
LOOK_SECONDS = 2.0  # between two looks whether another worker has it
UNLIMITED_FETCHES = 500  # of a source without rate
PAUSE_SECONDS = 2.0  # before what failed here is handed out again

_Key: TypeAlias = tuple[int, int]  # of a portion: its run and its first batch


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


@dataclass(frozen=True, slots=True)
class _Ended:
    portion: Portion
    obstacle: Moment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A portion that is this worker's, with all that it takes to ask for what is left of it."""

    portion: Portion
    standing: Standing
    upstream: Upstream
    limiter: Limiter
    observer: ExchangeObserver


@dataclass(slots=True, kw_only=True, eq=False)
class _Books:
    """What records the results of all portions of one run that are in hand."""

    recorder: Recorder
    in_hand: int = 0
    failed: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)


@dataclass(kw_only=True)
class Hands:
    """What a worker carries portions out with, many at once.

    Portions are opened and ended together with those that come at about the same time, and the
    results of a run are recorded in groups, whichever portions they are of: a source that has one
    request in five seconds costs no more than one of a thousand requests in that time.

    Attributes:
        is_to_go: whether it is to leave what it has not begun to others.
        say: tells a person one line.
        tasks: outlive the portions: what came of these is stored, even if they are given up.
        member: the worker, once it has joined.
    """

    settings: Settings
    store: Store
    state_folder: Path
    is_to_go: Callable[[], bool]
    say: Callable[[str], object]
    tasks: TaskGroup
    member: int | None = None
    _limits: dict[int, dict[str, Any]] = field(default_factory=dict, init=False)
    _upstreams: dict[str, Upstream] = field(default_factory=dict, init=False)
    _books: dict[int, _Books] = field(default_factory=dict, init=False)
    _unsettled: set[_Books] = field(default_factory=set, init=False)
    _told: set[str] = field(default_factory=set, init=False)
    _mine: set[_Key] = field(default_factory=set, init=False)
    _looked_at: float = field(default=float("-inf"), init=False)
    _looking: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    def __post_init__(self) -> None:
        self._limiters = Limiters(
            store=self.store, url=self.settings.store.url, state_folder=self.state_folder
        )
        self._opening = Together(self._open)
        self._ending = Together(self._end)

    async def carry_out(self, run_id: int, first: int) -> None:
        """Carry out the portion that begins with batch *first*, and end the run if it was the last.

        Nothing is done if it is done already, or its run has ended. If it fails a line says why,
        and somebody else may try.
        """
        try:
            await self._carry_out(run_id, first)
        except (ConfigError, StoreError) as exc:
            self._tell(f"run {run_id}, from batch {first} on: ", exc)
            await anyio.sleep(PAUSE_SECONDS)  # others may know better

    def _tell(self, where: str, exc: Exception) -> None:
        if str(exc) not in self._told:
            self._told.add(str(exc))
            self.say(f"{where}{exc}")

    async def _carry_out(self, run_id: int, first: int) -> None:
        opened = None if self.is_to_go() else await self._opening.ask((run_id, first))
        if isinstance(opened, ConfigError):
            raise opened
        if opened is not None:
            obstacle = await self._ask(opened) if opened.standing.undecided else None
            await self._ending.ask(_Ended(opened.portion, obstacle))

    async def settle(self) -> None:
        """Wait until all that came of portions that were given up is stored, or set aside."""
        while self._unsettled:
            await next(iter(self._unsettled)).ended.wait()

    # ---- Opening ----

    async def _open(self, keys: Sequence[_Key]) -> Mapping[_Key, _Opened | ConfigError]:
        return await self.store.patiently(self._open_all, keys)

    def _open_all(self, keys: Sequence[_Key]) -> Mapping[_Key, _Opened | ConfigError]:
        found: dict[_Key, tuple[Portion, Standing] | ConfigError] = {}
        with self.store.write() as session:
            for run_id, firsts in _by_run(keys).items():
                found |= self._begin(session, run_id, firsts)
        upstreams: dict[_Key, Upstream] = {}
        for key, it in found.items():
            if not isinstance(it, ConfigError):
                try:
                    upstreams[key] = self._upstream_of(*it)
                except ConfigError as exc:  # that must not keep the others
                    found[key] = exc
        limiters = self._limiters.open(list(upstreams.values()))
        observers: dict[_Key, ExchangeObserver] = {}
        with self.store.read() as session:
            for run_id in _by_run(upstreams):
                its = {key: upstream for key, upstream in upstreams.items() if key[0] == run_id}
                made = make_observers(
                    session, self.settings, run_id, list(its.values()), member=self.member
                )
                observers |= zip(its, made, strict=True)
        return {
            key: it
            if isinstance(it, ConfigError)
            else _Opened(
                portion=it[0],
                standing=it[1],
                upstream=upstreams[key],
                limiter=limiters[upstreams[key].key],
                observer=observers[key],
            )
            for key, it in found.items()
        }

    def _begin(
        self, session: Session, run_id: int, firsts: Collection[int]
    ) -> dict[_Key, tuple[Portion, Standing] | ConfigError]:
        """Begin with those that are not done, if the configuration here is right for them."""
        ours: dict[int, Portion] = {}
        found: dict[_Key, tuple[Portion, Standing] | ConfigError] = {}
        host, pid = host_identity(), os.getpid()
        for first, portion in portions.find_portions(session, run_id=run_id, firsts=firsts).items():
            try:
                self._refuse_others(portion, self._limits_of(session, run_id))
                ours[first] = portion
            except ConfigError as exc:
                found[run_id, first] = exc
                portions.refuse(session, portion, why=f"{host} pid {pid}: {exc}")
        if ours:
            begun = portions.begin(session, run_id=run_id, firsts=ours, host=host, pid=pid)
            found |= {(run_id, first): (ours[first], begun[first]) for first in ours}
        return found

    def _limits_of(self, session: Session, run_id: int) -> Mapping[str, Mapping[str, object]]:
        limits = self._limits.get(run_id)
        if limits is None:
            limits = (find_limits(session, run_id=run_id) or {}).get("sources", {})
            self._limits = {run_id: limits}  # of a thousand sources they are long
        return limits

    def _refuse_others(self, portion: Portion, limits: Mapping[str, Mapping[str, object]]) -> None:
        """Refuse a portion of a source that has other rules here than where it was ordered."""
        upstream = self._upstream(portion.source)
        ours = limits_of(upstream)
        theirs = limits.get(portion.source, {})
        other = [name for name, limit in theirs.items() if ours.get(name) != limit]
        if portion.lock not in (None, upstream.key):
            other.insert(0, "url")
        if other:
            raise ConfigError(
                f"source {portion.source} has another {', '.join(other)} in {self.settings.named};"
                " left to workers with the configuration of the run"
            )

    def _upstream(self, name: str) -> Upstream:
        """Make a source ready, once."""
        if name not in self._upstreams:
            source = self.settings.enabled_sources.get(name)
            if source is None:
                raise ConfigError(
                    f"no source {name} is enabled in {self.settings.named}; left to workers"
                    " with the configuration of the run"
                )
            narrowed = replace(self.settings, sources={name: source})
            [self._upstreams[name]] = make_upstreams(narrowed, refuse_sandbox)
        return self._upstreams[name]

    def _upstream_of(self, portion: Portion, standing: Standing) -> Upstream:
        upstream = self._upstream(portion.source)
        batches = standing.batches
        order = Order(
            source=portion.source,
            sizes=[batch.n for batch in batches],
            min=batches[0].min,
            max=batches[0].max,
            first=portion.first,
            max_numbers=upstream.order.max_numbers,
            is_merged=upstream.order.is_merged,
            turns=[number - portion.first for number in sorted(standing.undecided)],
        )
        share = ceil(upstream.retry_budget * len(batches) / len(upstream.order.sizes))
        return replace(upstream, order=order, retry_budget=share)

    # ---- Asking ----

    async def _ask(self, opened: _Opened) -> Moment | None:
        """Ask for what has no outcome, and tell what the rules kept until the deadline."""
        portion, standing, upstream = opened.portion, opened.standing, opened.upstream
        hold = _Hold(portion, self.is_to_go)
        seconds_left = (standing.until - self._limiters.clock.now()).total_seconds()
        scope = anyio.CancelScope(deadline=anyio.current_time() + seconds_left)
        budget = RetryBudget(upstream.retry_budget)
        route = Route(limiter=opened.limiter, budget=budget, give_up_at=scope.deadline)
        queue = Queue(upstream, route, opened.observer, is_ours=hold.is_ours)
        books = self._open_books(portion.run_id, standing.uid)
        try:
            with ungrouped():
                await self._work(queue, books, scope, hold)
        finally:
            self._leave(books)
        await books.recorder.on_disk()
        if not hold.is_ours():
            return None
        return (await find_obstacles([queue], is_stopped=False)).get(portion.source)

    async def _work(
        self, queue: Queue, books: _Books, scope: anyio.CancelScope, hold: _Hold
    ) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, hold, books)
            try:
                with scope:
                    async with anyio.create_task_group() as lanes:
                        for _ in range(queue.workers):
                            lanes.start_soon(queue.work, books.recorder)
            finally:
                hold.watching.cancel()

    async def _watch(self, hold: _Hold, books: _Books) -> None:
        """Look now and then whether another worker has the portion, until the books fail."""
        portion = hold.portion
        with hold.watching:
            while not hold.is_lost:
                with anyio.move_on_after(LOOK_SECONDS):
                    await books.failed.wait()
                if books.recorder.failure is not None:
                    raise books.recorder.failure
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

    def _find_mine(self) -> set[_Key]:
        with self.store.read() as session:
            return portions.held_by(session, host=host_identity(), pid=os.getpid())

    # ---- Recording ----

    def _open_books(self, run_id: int, uid: str) -> _Books:
        """Begin to record a run, or go on; to be left when all that came has been handed in."""
        books = self._books.get(run_id)
        if books is None:
            recorder = Recorder(
                self.store,
                run_id=run_id,
                ordered=0,
                keep_numbers=self.settings.store.keep_numbers,
                on_progress=lambda _: None,
                set_aside=partial(self._set_aside, uid),
                save=portions.save_results,
            )
            books = self._books[run_id] = _Books(recorder=recorder)
            self._unsettled.add(books)
            self.tasks.start_soon(self._keep_books, run_id, books)
        books.in_hand += 1
        return books

    def _leave(self, books: _Books) -> None:
        books.in_hand -= 1
        if not books.in_hand:
            self._forget(books)
            books.recorder.close()

    def _forget(self, books: _Books) -> None:
        self._books = {run: each for run, each in self._books.items() if each is not books}

    async def _keep_books(self, run_id: int, books: _Books) -> None:
        try:
            await books.recorder.run()
        except StoreError as exc:
            self._tell(f"run {run_id}: ", exc)
            books.failed.set()
        finally:
            self._forget(books)
            self._unsettled.discard(books)
            books.ended.set()

    def _set_aside(
        self, uid: str, attempts: Sequence[Attempt], outcomes: Sequence[Outcome]
    ) -> Path:
        # The server is gone, and others here, or we before, have set results of the run aside: a
        # name that is taken would lose these.
        path = spool_path(self.settings.store, f"{uid}-{token_hex(4)}", self.state_folder)
        spool.set_aside(
            path,
            uid=uid,
            attempts=attempts,
            outcomes=[each for each in outcomes if each.verdict is not Verdict.CANCELLED],
            keep_numbers=self.settings.store.keep_numbers,
        )
        return path

    # ---- Ending ----

    async def _end(self, ended: Sequence[_Ended]) -> Mapping[_Ended, None]:
        """Say that portions are done, and end the runs of which all is."""
        for run_id in {each.portion.run_id for each in ended}:
            obstacles = {
                each.portion: each.obstacle for each in ended if each.portion.run_id == run_id
            }
            if await self.store.commit(portions.end, run_id=run_id, obstacles=obstacles):
                await self.store.patiently(partial(end_run, self.store, self.settings, run_id))
        return {}


def _by_run(keys: Iterable[_Key]) -> dict[int, set[int]]:
    found: defaultdict[int, set[int]] = defaultdict(set)
    for run_id, first in keys:
        found[run_id].add(first)
    return found


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
