"""One run: ask all sources at once, keep what arrives, and end with an exact account of it."""

import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from time import monotonic
from uuid import uuid4

import anyio
from sqlmodel import Session

import pipeline
from pipeline.errors import ConfigError, ErrorName, LockHeld, ungrouped
from pipeline.fetching import Fetcher, FetchResult
from pipeline.lock import host_identity, lock_path, presence, turn
from pipeline.models import Fetch, Overlap, RunStatus, RunSummary, SlotClaim
from pipeline.pacing import Embargo, Pace, Rules
from pipeline.permission import Breaker, Gate, RetryBudget, Way
from pipeline.plan import Order
from pipeline.recorder import Progress, Recorder
from pipeline.settings import Settings
from pipeline.sources.http import open_client
from pipeline.store import permissions, slots, writes
from pipeline.store.db import Store, open_store
from pipeline.store.freshness import recent_digests
from pipeline.store.queries import get_run
from pipeline.upstreams import Upstream, make_upstreams
from pipeline.witness import MOST_KNOWN, Witness, is_telling

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


LostBatches = tuple[str, ErrorName, int]  # source, error, how many batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How a run ended.

    Attributes:
        stopped_by: the signal that cut it short, None if none did.
        losses: batches lost by source and error, most first.
    """

    summary: RunSummary
    stopped_by: int | None
    losses: tuple[LostBatches, ...]

    @property
    def has_bug(self) -> bool:
        """Tell whether a batch was lost to an error of this program."""
        return any(error == ErrorName.INTERNAL for _, error, _ in self.losses)


async def _work(
    upstream: Upstream, fetches: Iterator[Fetch], way: Way, witness: Witness, recorder: Recorder
) -> None:
    """Carry out *fetches*, which other workers of the same source share, until none is left."""
    limits, is_public = upstream.manners.limits, upstream.is_public
    async with open_client(limits, upstream.ssl_context, is_public=is_public) as client:
        fetcher = Fetcher(upstream.source, client, upstream.manners, way, witness)
        for fetch in fetches:
            result = FetchResult(fetch)
            try:
                await fetcher.carry_out(result)
            finally:
                recorder.keep(result)
            await recorder.room()


async def _watch_signals(scope: anyio.CancelScope, caught: list[int]) -> None:
    """Cancel *scope* at the first signal; at the second leave at once, which the store survives."""
    # What is ignored from the start (SIGHUP under nohup) is to stay ignored.
    heeded = [signum for signum in STOP_SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*heeded) as signals:
        async for signum in signals:
            if caught:
                os._exit(128 + signum)
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


class _Run:
    """One run from its first row to its last."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        state_folder: Path,
        *,
        on_progress: Callable[[Progress], None],
        claims: Sequence[SlotClaim],
        on_begin: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._claims = claims
        self._on_begin = on_begin
        self._store = store
        self._state_folder = state_folder
        self._on_progress = on_progress
        self._began = monotonic()
        self._caught: list[int] = []

    async def carry_out(self) -> Collected:
        """Order, ask, record, and write down how it ended."""
        scope = anyio.CancelScope()
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch_signals, scope, self._caught)
                async with _sandbox_if_wanted(self._settings) as sandbox_url:
                    upstreams = make_upstreams(self._settings, sandbox_url)
                    run_id = await self._store.in_thread(self._start, upstreams)
                    losses = await self._ask(run_id, upstreams, scope)
                rules = {upstream.order.source: upstream.rules for upstream in upstreams}
                summary = await self._store.in_thread(self._finish, run_id, rules)
                tasks.cancel_scope.cancel()
        is_cut = summary.status is RunStatus.INTERRUPTED  # else the signal came after the end
        stopped_by = self._caught[0] if is_cut else None
        return Collected(summary=summary, stopped_by=stopped_by, losses=losses)

    async def _ask(
        self, run_id: int, upstreams: Sequence[Upstream], scope: anyio.CancelScope
    ) -> tuple[LostBatches, ...]:
        recorder = Recorder(
            self._store,
            run_id=run_id,
            ordered=sum(len(upstream.order.sizes) for upstream in upstreams),
            keep_numbers=self._settings.store.keep_numbers,
            on_progress=self._on_progress,
        )
        gates = await self._store.in_thread(self._open_gates, upstreams)
        witnesses = await self._store.in_thread(self._call_witnesses, run_id, upstreams)
        seconds_left = self._settings.collect.deadline_seconds - (monotonic() - self._began)
        scope.deadline = give_up_at = anyio.current_time() + seconds_left
        of_run = RetryBudget(self._settings.collect.retry_budget)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.run)
            try:
                with scope:
                    async with anyio.create_task_group() as workers:
                        for upstream, witness in zip(upstreams, witnesses, strict=True):
                            way = Way(
                                gate=gates[upstream.key],
                                budget=RetryBudget(upstream.retry_budget, of_run),
                                give_up_at=give_up_at,
                            )
                            fetches = upstream.order.fetches()
                            for _ in range(min(upstream.in_flight, len(upstream.order.sizes))):
                                workers.start_soon(_work, upstream, fetches, way, witness, recorder)
            finally:
                recorder.close()
        return tuple((*cause, n) for cause, n in recorder.losses.most_common())

    def _open_gates(self, upstreams: Sequence[Upstream]) -> dict[str, Gate]:
        """Make the way to each upstream, with what earlier runs and other processes left behind."""
        keys = {upstream.key for upstream in upstreams if upstream.is_remembered}
        embargoes: dict[str, Embargo] = {}
        failures: dict[str, int] = {}
        if keys:
            with self._store.read() as session:
                embargoes = permissions.embargoes_of(session, upstreams=keys)
                failures = permissions.failures_of(session, upstreams=keys)
        return {
            upstream.key: Gate(
                upstream.key,
                upstream.rules,
                Breaker(upstream.breaker, failures.get(upstream.key, 0)),
                pace=Pace(embargo=embargoes.get(upstream.key)),
                store=self._store if upstream.is_remembered else None,
                place_path=self._place_path(upstream.key),
            )
            for upstream in upstreams
        }

    def _call_witnesses(self, run_id: int, upstreams: Sequence[Upstream]) -> list[Witness]:
        """Make a witness for each upstream, who knows what it brought in earlier runs."""
        with self._store.read() as session:
            return [
                Witness(
                    run_id=run_id,
                    secrets=upstream.manners.secrets,
                    variable=upstream.manners.variable,
                    earlier=_earlier_digests(session, upstream.order),
                )
                for upstream in upstreams
            ]

    def _place_path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:12]
        url = self._settings.store.url
        return lock_path(url, f"asks-{name}", state_folder=self._state_folder)

    def _start(self, upstreams: Sequence[Upstream]) -> int:
        with self._store.write() as session:
            run_id = _start_run(session, self._settings, self._claims)
            batches = chain.from_iterable(upstream.order.batches() for upstream in upstreams)
            writes.order_batches(session, run_id=run_id, batches=batches)
            uid = get_run(session, run_id=run_id).uid
        self._on_begin(uid)
        return run_id

    def _finish(self, run_id: int, rules: Mapping[str, Rules]) -> RunSummary:
        is_stopped = bool(self._caught)
        with self._store.write() as session:
            writes.finish_run(
                session,
                run_id=run_id,
                ended_at=datetime.now(UTC),
                clock_us=int((monotonic() - self._began) * 1_000_000),
                status=RunStatus.INTERRUPTED if is_stopped else None,
                rest=ErrorName.CANCELLED if is_stopped else ErrorName.DEADLINE,
                rules=rules,
            )
            run = get_run(session, run_id=run_id)
            slots.settle(session, slots=self._claims, run=run)
        return run


def _earlier_digests(session: Session, order: Order) -> list[tuple[bytes, int, int]]:
    if not is_telling(max(order.sizes), order.min, order.max):
        return []
    return recent_digests(session, source=order.source, limit=MOST_KNOWN)


def _start_run(session: Session, settings: Settings, claims: Sequence[SlotClaim]) -> int:
    run_id = writes.start_run(
        session,
        uid=uuid4().hex,
        host=host_identity(),
        pid=os.getpid(),
        version=pipeline.__version__,
        config_digest=settings.digest,
        config_path=str(settings.path or ""),
        started_at=datetime.now(UTC),
    )
    if claims:
        slots.begin(session, slots=claims, run=get_run(session, run_id=run_id))
    return run_id


def _bury_dead_runs(store: Store) -> None:
    host = host_identity()
    with store.write() as session:
        writes.interrupt_dead_runs(session, host=host, ended_at=datetime.now(UTC))
        slots.interrupt_dead(session, host=host)


@contextmanager
def present(store: Store, url: str, state_folder: Path) -> Iterator[None]:
    """Be one of those who run while the block lasts; the first of them buries the dead."""
    path = lock_path(url, "presence", state_folder=state_folder)
    with presence(path, if_alone=partial(_bury_dead_runs, store)):
        yield


def _turn(settings: Settings, state_folder: Path, overlap: Overlap) -> AbstractContextManager[None]:
    """Take the turn; each configuration has its own: only the same one twice at once collides."""
    if overlap is Overlap.ALLOW:
        return nullcontext()
    key = hashlib.sha256(str(settings.path).encode()).hexdigest()[:8]
    path = lock_path(settings.store.url, f"turn-{key}", state_folder=state_folder)
    patience_seconds = settings.collect.deadline_seconds if overlap is Overlap.WAIT else 0.0
    return turn(path, patience_seconds=patience_seconds)


def collect(
    settings: Settings,
    *,
    state_folder: Path,
    on_progress: Callable[[Progress], None],
    overlap: Overlap = Overlap.SKIP,
    claims: Sequence[SlotClaim] = (),
    on_begin: Callable[[str], None] = lambda _: None,
) -> Collected:
    """Carry out one run of all enabled sources.

    *state_folder* holds the locks of a store that is no file; *on_progress* is called after each
    group of results that is on disk; *claims* are the slots that the run is for; *on_begin* is
    told the run's uid once it is on the books.

    Raises:
        ConfigError: nothing is enabled, or a source cannot serve what is ordered from it.
        LockHeld: another run of the same configuration is going on; this one is stored as skipped.
        StoreError: the database failed; the text says what was fetched and is not stored.
    """
    if not settings.enabled_sources:
        raise ConfigError("no source is enabled; set enabled = true in a [sources.<name>] table")
    url, busy_seconds = settings.store.url, settings.store.busy_seconds
    try:
        with (
            _turn(settings, state_folder, overlap),
            open_store(url, busy_seconds=busy_seconds, for_writing=True) as store,
            present(store, url, state_folder),
        ):
            run = _Run(
                settings,
                store,
                state_folder,
                on_progress=on_progress,
                claims=claims,
                on_begin=on_begin,
            )
            return anyio.run(run.carry_out)
    except LockHeld as exc:
        with open_store(url, busy_seconds=busy_seconds, for_writing=True) as store:
            run_id = _record_skipped(store, settings, claims)
        raise LockHeld(f"run {run_id} skipped: {exc}") from exc


def _record_skipped(store: Store, settings: Settings, claims: Sequence[SlotClaim]) -> int:
    with store.write() as session:
        run_id = _start_run(session, settings, claims)
        writes.finish_run(
            session,
            run_id=run_id,
            status=RunStatus.SKIPPED,
            ended_at=datetime.now(UTC),
            clock_us=0,
        )
        slots.settle(session, slots=claims, run=get_run(session, run_id=run_id))
    return run_id
