"""One run: ask all sources at once, store what arrives, and account for every batch."""

import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from time import monotonic
from uuid import uuid4

import anyio
from sqlmodel import Session

import pipeline
from pipeline.clock import middle_offset
from pipeline.errors import ErrorName, LockHeld, StoreError, ungrouped
from pipeline.lock import host_identity
from pipeline.models import Attempt, Outcome, Overlap, RunStatus, RunSummary, SlotClaim
from pipeline.pacing import Moment
from pipeline.run.breaker import RetryBudget
from pipeline.run.collected import Collected
from pipeline.run.limiter import Route
from pipeline.run.limiters import Limiters
from pipeline.run.limits import describe_limits
from pipeline.run.observer import ExchangeObserver
from pipeline.run.opening import give_signs_of_life, spool_path
from pipeline.run.queue import Queue, find_obstacles, make_observers
from pipeline.run.recorder import Progress, Recorder
from pipeline.run.turns import Turn, turn_of
from pipeline.run.upstreams import Upstream, make_upstreams, put_in_turn
from pipeline.settings import Settings
from pipeline.store import heartbeats, slots, spool, writes
from pipeline.store.configurations import save_limits
from pipeline.store.db import Store
from pipeline.store.integrity.chain import lock_chain
from pipeline.store.queries import get_run

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TWICE_SECONDS = 0.2  # timeout(1) sends each signal twice at once, to the process and to its group


async def watch_signals(scope: anyio.CancelScope, caught: list[int]) -> None:
    """Cancel *scope* at the first signal; at the second leave at once, which the store survives."""
    # What is ignored from the start (SIGHUP under nohup) is to stay ignored.
    watched = [signum for signum in STOP_SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    insists_at = 0.0
    with anyio.open_signal_receiver(*watched) as signals:
        async for signum in signals:
            if caught and monotonic() > insists_at:
                os._exit(128 + signum)
            if not caught:
                insists_at = monotonic() + TWICE_SECONDS
                caught.append(signum)
                scope.cancel()


@asynccontextmanager
async def _sandbox_if_wanted(settings: Settings) -> AsyncIterator[Callable[[str], str]]:
    """Serve the upstreams of ``sandbox.*`` sources from this process, while the run needs them."""
    if not any(source.is_sandbox for source in settings.enabled_sources.values()):
        yield lambda upstream: upstream
        return
    # Imported here: real upstreams need none of it.
    from pipeline.sandbox.options import SandboxOptions  # noqa: PLC0415
    from pipeline.sandbox.server import serving  # noqa: PLC0415

    options = SandboxOptions(
        latency_seconds=settings.sandbox.latency_seconds,
        faults=settings.sandbox.faults,
        rules=settings.sandbox.rules,
    )
    async with serving(options) as sandbox:
        yield sandbox.url


@dataclass(kw_only=True)
class Run:
    """One run, from its first row to its last.

    Attributes:
        store: open for writing, as ``open_for_runs`` gives it.
        state_folder: holds the locks of a store that is no file.
        on_begin: told the run's uid once it is on the books.
        claims: the slots that the run is for.
        is_missed: whether they were missed, and are still to be claimed: see ``claim``.
        meanwhile: done in a thread while the first answers are waited for, if they take time.
    """

    settings: Settings
    store: Store
    state_folder: Path
    overlap: Overlap = Overlap.SKIP
    on_begin: Callable[[str], object] = lambda _: None
    claims: tuple[SlotClaim, ...] = ()
    is_missed: bool = False
    meanwhile: Callable[[], object] = lambda: None
    _began: float = field(default=0.0, init=False)
    _began_at: datetime = field(default_factory=lambda: datetime.now(UTC), init=False)
    _ended_at: datetime | None = field(default=None, init=False)
    _offsets: dict[str, deque[int]] = field(default_factory=dict, init=False)
    _caught: list[int] = field(default_factory=list, init=False)
    _uid: str = field(default="", init=False)
    _recorder: Recorder | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        url = self.settings.store.url
        self._limiters = Limiters(store=self.store, url=url, state_folder=self.state_folder)

    @property
    def loss(self) -> StoreError | None:
        """Say why not all that was collected is in the store, and where it is."""
        return None if self._recorder is None else self._recorder.failure

    def claim(self) -> bool:
        """Take the slots that were missed, unless another machine has been first."""
        host, now = host_identity(), datetime.now(UTC)
        with self.store.write() as session:
            return all(slots.claim(session, slot=s, host=host, now=now) for s in self.claims)

    async def carry_out(self, turn: Turn, on_progress: Callable[[Progress], object]) -> Collected:
        """Order, ask, record, and write down how it ended."""
        self._began, self._began_at = monotonic(), datetime.now(UTC)
        scope = anyio.CancelScope()
        with ungrouped():
            async with self.store.heeding_time(), anyio.create_task_group() as tasks:
                tasks.start_soon(watch_signals, scope, self._caught)
                async with _sandbox_if_wanted(self.settings) as sandbox_url:
                    upstreams = make_upstreams(self.settings, sandbox_url)
                    limits = partial(describe_limits, self.settings, upstreams)
                    upstreams = [replace(each, order=each.order.drawn()) for each in upstreams]
                    run_id = await self.store.in_thread(self._start, upstreams, limits)
                    tasks.start_soon(give_signs_of_life, self.store, run_id, turn)
                    recorder, queues = await self._ask(run_id, upstreams, scope, on_progress)
                is_stopped = bool(self._caught)
                obstacles = await find_obstacles(queues, is_stopped=is_stopped)
                finish = partial(self._finish, run_id, upstreams, obstacles, is_stopped=is_stopped)
                summary = await self.store.patiently(finish)
                tasks.cancel_scope.cancel()
        is_cut = summary.status is RunStatus.INTERRUPTED  # else the signal came after the end
        stopped_by = self._caught[0] if is_cut else None
        return Collected(
            summary=summary,
            stopped_by=stopped_by,
            losses=tuple((*cause, n) for cause, n in recorder.losses.most_common()),
            has_bug=recorder.has_bug,
            remarks=tuple(self._limiters.mended),
        )

    async def _ask(
        self,
        run_id: int,
        upstreams: Sequence[Upstream],
        scope: anyio.CancelScope,
        on_progress: Callable[[Progress], object],
    ) -> tuple[Recorder, list[Queue]]:
        self._recorder = recorder = Recorder(
            self.store,
            run_id=run_id,
            ordered=sum(len(upstream.order.sizes) for upstream in upstreams),
            keep_numbers=self.settings.store.keep_numbers,
            on_progress=on_progress,
            set_aside=self._set_aside,
        )
        seconds_left = self.settings.collect.deadline_seconds - (monotonic() - self._began)
        scope.deadline = give_up_at = anyio.current_time() + seconds_left
        self.store.may_wait = lambda: not self._caught and anyio.current_time() < give_up_at
        limiters = await self.store.patiently(self._limiters.open, upstreams)
        upstreams = await self.store.patiently(self._put_in_turn, run_id, upstreams)
        observers = await self.store.patiently(self._make_observers, run_id, upstreams)
        self._offsets = {
            upstream.order.source: observer.offsets
            for upstream, observer in zip(upstreams, observers, strict=True)
            if upstream.is_remembered  # else it is this process: our own clock
        }
        of_run = RetryBudget(self.settings.collect.retry_budget)
        queues: list[Queue] = []
        for upstream, observer in zip(upstreams, observers, strict=True):
            budget = RetryBudget(upstream.retry_budget, of_run)
            route = Route(limiter=limiters[upstream.key], budget=budget, give_up_at=give_up_at)
            queues.append(Queue(upstream, route, observer))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.run)
            tasks.start_soon(recorder.prepare, self.meanwhile)
            try:
                with scope:
                    async with anyio.create_task_group() as workers:
                        for queue in queues:
                            for _ in range(queue.workers):
                                workers.start_soon(queue.work, recorder)
            finally:
                recorder.close()
        return recorder, queues

    def _set_aside(self, attempts: Sequence[Attempt], outcomes: Sequence[Outcome]) -> Path:
        path = spool_path(self.settings.store, self._uid, self.state_folder)
        spool.set_aside(
            path,
            uid=self._uid,
            attempts=attempts,
            outcomes=outcomes,
            keep_numbers=self.settings.store.keep_numbers,
        )
        return path

    def _put_in_turn(self, run_id: int, upstreams: Sequence[Upstream]) -> list[Upstream]:
        with self.store.read() as session:
            return put_in_turn(session, upstreams, before=run_id)

    def _make_observers(self, run_id: int, upstreams: Sequence[Upstream]) -> list[ExchangeObserver]:
        with self.store.read() as session:
            return make_observers(session, self.settings, run_id, upstreams)

    def _start(self, upstreams: Sequence[Upstream], limits: Callable[[], object]) -> int:
        with self.store.write() as session:
            run = self._begin(session)
            save_limits(
                session,
                config_digest=self.settings.digest,
                version=pipeline.__version__,
                describe=limits,
            )
            batches = chain.from_iterable(upstream.order.batches() for upstream in upstreams)
            writes.order_batches(session, run_id=run.id, batches=batches)
            self._cut(session, run.id, upstreams)
            deadline = timedelta(seconds=self.settings.collect.deadline_seconds)
            heartbeats.begin(session, run_id=run.id, until=run.started_at + deadline)
        self._uid = run.uid
        self.on_begin(run.uid)
        return run.id

    def _cut(self, session: Session, run_id: int, upstreams: Sequence[Upstream]) -> None:
        """Cut what was ordered into portions, if others are to share it."""

    def _begin(self, session: Session) -> RunSummary:
        settings = self.settings
        run_id = writes.start_run(
            session,
            uid=uuid4().hex,
            host=host_identity(),
            pid=os.getpid(),
            version=pipeline.__version__,
            config_digest=settings.digest,
            config_path=str(settings.path or ""),
            is_sandbox=any(source.is_sandbox for source in settings.enabled_sources.values()),
            started_at=self._began_at,
        )
        run = get_run(session, run_id=run_id)
        slots.begin(session, slots=self.claims, run=run)
        return run

    def _finish(
        self,
        run_id: int,
        upstreams: Sequence[Upstream],
        obstacles: dict[str, Moment],
        *,
        is_stopped: bool,
    ) -> RunSummary:
        with self.store.write() as session:
            if self._has_ended(session, run_id):
                return get_run(session, run_id=run_id)
            self._ended_at = datetime.now(UTC)
            writes.finish_run(
                session,
                run_id=run_id,
                ended_at=self._ended_at,
                clock_us=int((monotonic() - self._began) * 1_000_000),
                status=RunStatus.INTERRUPTED if is_stopped else None,
                rest=ErrorName.CANCELLED if is_stopped else ErrorName.DEADLINE,
                rules={upstream.order.source: upstream.rules for upstream in upstreams},
                obstacles=obstacles,
                clock_offset_us=middle_offset(self._offsets),
            )
            return self._settle(session, run_id)

    def _has_ended(self, session: Session, run_id: int) -> bool:
        """Tell whether the try before has ended the run, and the connection was lost after it."""
        if self._ended_at is None:
            return False
        lock_chain(session.connection())  # that try may still go on
        return get_run(session, run_id=run_id).ended_at == self._ended_at

    def skip(self) -> int:
        """Put on the books that the run was skipped; give its number."""
        self._began_at = now = datetime.now(UTC)
        status = RunStatus.SKIPPED
        with self.store.write() as session:
            run_id = self._begin(session).id
            writes.finish_run(session, run_id=run_id, status=status, ended_at=now, clock_us=0)
            return self._settle(session, run_id).id

    def _settle(self, session: Session, run_id: int) -> RunSummary:
        """Write down what became of the slots of a run that has ended."""
        run = get_run(session, run_id=run_id)
        slots.settle(session, slots=self.claims, run=run)
        return run


def _turn_of(run: Run) -> AbstractContextManager[Turn]:
    """Take the turn of the configuration: only two runs of the same one would collide."""
    if run.overlap is Overlap.ALLOW:
        return nullcontext(Turn())
    is_patient = run.overlap is Overlap.WAIT
    patience_seconds = run.settings.collect.deadline_seconds if is_patient else 0.0
    return turn_of(run.settings, run.store, run.state_folder, patience_seconds=patience_seconds)


def collect(run: Run, on_progress: Callable[[Progress], object] = lambda _: None) -> Collected:
    """Carry out *run*; *on_progress* is called after each group of results that is on disk.

    Raises:
        ConfigError: a source cannot serve what is ordered from it.
        LockHeld: another run of the same configuration is going on; this one is stored as skipped.
        StoreBusy: others held the database; the text says in which file what was fetched waits.
        StoreError: the database failed; the text says what was fetched and is not stored.
    """
    try:
        with _turn_of(run) as turn:
            return anyio.run(run.carry_out, turn, on_progress)
    except StoreError as exc:
        # Others may have met it first, but only the recorder knows what became of the numbers.
        if run.loss in (None, exc):
            raise
        raise run.loss from exc
    except LockHeld as exc:
        raise LockHeld(f"run {run.skip()} skipped: {exc}") from exc
