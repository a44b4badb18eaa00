"""One run: ask all sources at once, keep what arrives, and end with an exact account of it."""

import hashlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from socket import gethostname
from ssl import SSLContext
from time import monotonic
from uuid import uuid4

import anyio
from sqlmodel import Session

import pipeline
from pipeline.errors import ConfigError, ErrorName, LockHeld, StoreError, ungrouped
from pipeline.fetching import Fetcher, FetchResult, Manners
from pipeline.lock import lock_path, presence, turn
from pipeline.models import Fetch, RunStatus, RunSummary, Verdict
from pipeline.plan import Order
from pipeline.settings import Settings, SourceSettings
from pipeline.sources.base import Source
from pipeline.sources.http import Limits, make_ssl_context, open_client
from pipeline.sources.registry import KINDS, make_source
from pipeline.store import writes
from pipeline.store.db import Store, open_store
from pipeline.store.queries import get_run

MOST_WAITING = 1024  # results in memory, before the workers have to wait for the disk
GROUP_SIZE = 256  # results that are worth a transaction of their own
LINGER_SECONDS = 0.05  # how long the first result of a group waits for company

# What the sandbox takes for a key and an address: a demo must not need either.
DEMO_KEY = "00000000-0000-4000-8000-000000000000"
DEMO_EMAIL = "demo@example.org"

Loss = tuple[str, ErrorName, int]  # source, error, how many batches

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come, counting only what is on disk."""

    ordered: int
    collected: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How a run ended.

    Attributes:
        stopped_by: the signal that cut it short, None if none did.
        losses: batches lost by source and error, most first.
    """

    summary: RunSummary
    stopped_by: int | None
    losses: tuple[Loss, ...]

    @property
    def has_bug(self) -> bool:
        """Tell whether a batch was lost to an error of this program."""
        return any(error == ErrorName.INTERNAL for _, error, _ in self.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One source, ready to be asked."""

    order: Order
    source: Source
    manners: Manners
    in_flight: int
    ssl_context: SSLContext | None


class Recorder:
    """Takes results from the workers and puts them on disk in groups.

    Taking is not an await, so no cancellation can come between a result and the books.
    """

    def __init__(
        self,
        store: Store,
        *,
        run_id: int,
        ordered: int,
        on_progress: Callable[[Progress], None],
        keep_numbers: bool,
    ) -> None:
        self.losses: Counter[tuple[str, ErrorName]] = Counter()
        self._store = store
        self._save = partial(_save, store, run_id=run_id, keep_numbers=keep_numbers)
        self._progress = Progress(ordered=ordered)
        self._on_progress = on_progress
        self._waiting: list[FetchResult] = []
        self._arrived = anyio.Event()
        self._hurry = anyio.Event()
        self._saved = anyio.Event()
        self._is_closed = False

    def keep(self, result: FetchResult) -> None:
        """Take *result*; it is on disk when the progress counts it."""
        self._waiting.append(result)
        self._arrived.set()
        if len(self._waiting) >= GROUP_SIZE:
            self._hurry.set()

    async def room(self) -> None:
        """Wait until the disk has caught up with the network."""
        while len(self._waiting) >= MOST_WAITING:
            await self._saved.wait()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._is_closed = True
        self._arrived.set()
        self._hurry.set()

    async def run(self) -> None:
        """Save group after group until closed.

        Raises:
            StoreError: a group could not be saved; the text says how many batches that cost.
        """
        self._on_progress(self._progress)
        while self._waiting or not self._is_closed:
            await self._arrived.wait()
            with anyio.move_on_after(LINGER_SECONDS):
                await self._hurry.wait()
            group, self._waiting = self._waiting, []
            self._saved, saved = anyio.Event(), self._saved
            if not self._is_closed:
                self._arrived, self._hurry = anyio.Event(), anyio.Event()
            await self._put_on_disk(group)
            saved.set()

    async def _put_on_disk(self, group: list[FetchResult]) -> None:
        try:
            await self._store.in_thread(self._save, group)
        except StoreError as exc:
            unsaved = sum(len(result.outcomes) for result in group + self._waiting)
            raise type(exc)(
                f"{exc}; {unsaved} batches had been fetched and are NOT stored"
            ) from exc
        outcomes = [outcome for result in group for outcome in result.outcomes]
        collected = sum(outcome.verdict is Verdict.COLLECTED for outcome in outcomes)
        self.losses.update(
            (outcome.batch.source, outcome.error) for outcome in outcomes if outcome.error
        )
        self._progress = Progress(
            ordered=self._progress.ordered,
            collected=self._progress.collected + collected,
            lost=self._progress.lost + len(outcomes) - collected,
        )
        self._on_progress(self._progress)


def _save(store: Store, group: Sequence[FetchResult], *, run_id: int, keep_numbers: bool) -> None:
    with store.write() as session:
        writes.save_results(
            session,
            run_id=run_id,
            attempts=[attempt for result in group for attempt in result.attempts],
            outcomes=[outcome for result in group for outcome in result.outcomes],
            keep_numbers=keep_numbers,
        )


def _make_upstream(
    name: str, settings: SourceSettings, whole: Settings, *, first: int, url: str
) -> Upstream:
    kind = KINDS[settings.upstream]
    secret = None if settings.api_key is None else settings.api_key.get_secret_value()
    email = settings.email
    if settings.is_sandbox:
        secret, email = secret or DEMO_KEY, email or DEMO_EMAIL
    source = make_source(
        settings.upstream, url=url, api_key=secret, email=email, format=settings.format
    )
    low = kind.default_min if settings.min is None else settings.min
    high = kind.default_max if settings.max is None else settings.max
    attempt_seconds = settings.attempt_seconds or kind.attempt_seconds
    return Upstream(
        order=Order(
            source=name,
            sizes=settings.batch_sizes,
            min=low,
            max=high,
            first=first,
            max_numbers=source.max_numbers(low, high),
            is_merged=kind.merge if settings.merge is None else settings.merge,
        ),
        source=source,
        manners=Manners(
            limits=Limits(
                connect_seconds=settings.connect_seconds,
                read_seconds=settings.read_seconds or attempt_seconds,
                attempt_seconds=attempt_seconds,
                max_bytes=whole.collect.max_bytes,
            ),
            retries=settings.retries,
            backoff_seconds=settings.backoff_seconds,
            secrets=() if secret is None else (secret,),
            evidence_bytes=whole.collect.evidence_bytes,
        ),
        in_flight=settings.in_flight or kind.in_flight,
        ssl_context=make_ssl_context(settings.ca_file) if url.startswith("https:") else None,
    )


def make_upstreams(settings: Settings, sandbox_url: Callable[[str], str]) -> list[Upstream]:
    """Make ready what the enabled sources need, their batches numbered in the order of the file.

    Raises:
        ConfigError: a source cannot serve what is ordered from it; one line for each.
    """
    upstreams: list[Upstream] = []
    complaints: list[str] = []
    first = 0
    for name, source in settings.enabled_sources.items():
        url = source.url or KINDS[source.upstream].default_url
        if source.is_sandbox:
            url = sandbox_url(source.upstream)
        try:
            upstreams.append(_make_upstream(name, source, settings, first=first, url=url))
        except ConfigError as exc:
            complaints += [f"sources.{name}: {complaint}" for complaint in exc.complaints]
        first += len(source.batch_sizes)
    if complaints:
        raise ConfigError(*complaints)
    return upstreams


async def _work(
    upstream: Upstream, fetches: Iterator[Fetch], recorder: Recorder, give_up_at: float
) -> None:
    """Carry out *fetches*, which other workers of the same source share, until none is left."""
    async with open_client(upstream.manners.limits, upstream.ssl_context) as client:
        fetcher = Fetcher(upstream.source, client, upstream.manners, give_up_at)
        for fetch in fetches:
            result = FetchResult(fetch)
            try:
                await fetcher.carry_out(result)
            finally:
                recorder.keep(result)
            await recorder.room()


async def _ask_all(upstreams: Sequence[Upstream], recorder: Recorder, give_up_at: float) -> None:
    async with anyio.create_task_group() as tasks:
        for upstream in upstreams:
            fetches = upstream.order.fetches()
            for _ in range(min(upstream.in_flight, len(upstream.order.sizes))):
                tasks.start_soon(_work, upstream, fetches, recorder, give_up_at)


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
        self, settings: Settings, store: Store, on_progress: Callable[[Progress], None]
    ) -> None:
        self._settings = settings
        self._store = store
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
                summary = await self._store.in_thread(self._finish, run_id)
                tasks.cancel_scope.cancel()
        stopped_by = self._caught[0] if self._caught else None
        return Collected(summary=summary, stopped_by=stopped_by, losses=losses)

    async def _ask(
        self, run_id: int, upstreams: Sequence[Upstream], scope: anyio.CancelScope
    ) -> tuple[Loss, ...]:
        recorder = Recorder(
            self._store,
            run_id=run_id,
            ordered=sum(len(upstream.order.sizes) for upstream in upstreams),
            keep_numbers=self._settings.store.keep_numbers,
            on_progress=self._on_progress,
        )
        seconds_left = self._settings.collect.deadline_seconds - (monotonic() - self._began)
        scope.deadline = give_up_at = anyio.current_time() + seconds_left
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.run)
            with scope:
                await _ask_all(upstreams, recorder, give_up_at)
            recorder.close()
        return tuple((*cause, n) for cause, n in recorder.losses.most_common())

    def _start(self, upstreams: Sequence[Upstream]) -> int:
        with self._store.write() as session:
            run_id = _start_run(session, self._settings)
            batches = chain.from_iterable(upstream.order.batches() for upstream in upstreams)
            writes.order_batches(session, run_id=run_id, batches=batches)
        return run_id

    def _finish(self, run_id: int) -> RunSummary:
        is_stopped = bool(self._caught)
        with self._store.write() as session:
            writes.finish_run(
                session,
                run_id=run_id,
                ended_at=datetime.now(UTC),
                clock_us=int((monotonic() - self._began) * 1_000_000),
                status=RunStatus.INTERRUPTED if is_stopped else None,
                rest=ErrorName.CANCELLED if is_stopped else ErrorName.DEADLINE,
            )
            return get_run(session, run_id=run_id)


def _start_run(session: Session, settings: Settings) -> int:
    return writes.start_run(
        session,
        uid=uuid4().hex,
        host=host_identity(),
        pid=os.getpid(),
        version=pipeline.__version__,
        config_digest=settings.digest,
        config_path=str(settings.path or ""),
        started_at=datetime.now(UTC),
    )


def host_identity() -> str:
    """Name this machine the same way every time, and unlike its neighbours where it can be told."""
    with suppress(OSError):
        return f"{gethostname()}/{Path('/etc/machine-id').read_text('ascii').strip()[:8]}"
    return gethostname()


def _bury_dead_runs(store: Store) -> None:
    with store.write() as session:
        writes.interrupt_dead_runs(session, host=host_identity(), ended_at=datetime.now(UTC))


def _turn_path(settings: Settings, state_folder: Path) -> Path:
    """Give each configuration a turn of its own: only the same one twice at once is a mistake."""
    key = hashlib.sha256(str(settings.path).encode()).hexdigest()[:8]
    return lock_path(settings.store.url, f"turn-{key}", state_folder=state_folder)


def collect(
    settings: Settings, *, state_folder: Path, on_progress: Callable[[Progress], None]
) -> Collected:
    """Carry out one run of all enabled sources.

    *state_folder* holds the locks of a store that is no file; *on_progress* is called after each
    group of results that is on disk.

    Raises:
        ConfigError: nothing is enabled, or a source cannot serve what is ordered from it.
        LockHeld: another run of the same configuration is going on; this one is stored as skipped.
        StoreError: the database failed; the text says what was fetched and is not stored.
    """
    if not settings.enabled_sources:
        raise ConfigError("no source is enabled; set enabled = true in a [sources.<name>] table")
    url, busy_seconds = settings.store.url, settings.store.busy_seconds
    presence_path = lock_path(url, "presence", state_folder=state_folder)
    try:
        with (
            turn(_turn_path(settings, state_folder)),
            open_store(url, busy_seconds=busy_seconds, for_writing=True) as store,
            presence(presence_path, if_alone=partial(_bury_dead_runs, store)),
        ):
            return anyio.run(_Run(settings, store, on_progress).carry_out)
    except LockHeld:
        with open_store(url, busy_seconds=busy_seconds, for_writing=True) as store:
            _record_skipped(store, settings)
        raise


def _record_skipped(store: Store, settings: Settings) -> None:
    with store.write() as session:
        run_id = _start_run(session, settings)
        writes.finish_run(
            session,
            run_id=run_id,
            status=RunStatus.SKIPPED,
            ended_at=datetime.now(UTC),
            clock_us=0,
        )
