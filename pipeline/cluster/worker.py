"""A worker: it takes part in the runs of a store, and keeps the schedule, until it is told to go.

While the server is not there it waits and comes back by itself. SIGTERM drains: what is under way
is finished and stored, what was not begun is left to others.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
from procrastinate import App

import pipeline
from pipeline.cluster.engine import Engine
from pipeline.errors import ConfigError, StoreError, ungrouped
from pipeline.lock import host_identity, name_holder
from pipeline.run.opening import bury_the_silent, open_for_runs
from pipeline.run.portion import Hands
from pipeline.run.shared import end_run
from pipeline.schedule.ledger import find_schedules
from pipeline.schedule.runner import Runs, Scheduler, World
from pipeline.schedule.sd_notify import ServiceManager
from pipeline.settings import Settings
from pipeline.store import leases, portions
from pipeline.store.db import Store
from pipeline.store.heartbeats import BEAT_SECONDS

SWITCH_SECONDS = 0.001  # that the event loop may keep the store's threads waiting
LOOK_SECONDS = 1.0  # between two looks for what nobody was given
BACK_SECONDS = 1.0  # until a worker that lost the server tries again
SWEEP = "sweep"
SWEEPERS_SILENCE = timedelta(seconds=5)  # until another worker takes its place


@dataclass(kw_only=True)
class Worker:
    """One worker.

    Attributes:
        lanes: how many portions it carries out at once.
        drain_seconds: how long it waits for what is under way, once it is told to go.
        command: starts a run that is shared, for a slot of the schedule.
        say: tells a person one line.
    """

    settings: Settings
    state_folder: Path
    lanes: int
    drain_seconds: float
    command: Sequence[str]
    say: Callable[[str], object]
    _is_to_go: bool = field(default=False, init=False)
    _is_lost: bool = field(default=False, init=False)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; a second one ends it at once.

        Raises:
            ConfigError: the store is no server's.
            StoreError: the server is not there, or not ours, to begin with.
        """
        if not self.settings.store.url.startswith("postgresql"):
            raise ConfigError(
                f"{self.settings.named}: store.url is a file of this machine, and workers share a"
                " server's: set it to a PostgreSQL server"
            )
        with open_for_runs(self.settings.store, self.state_folder) as store:
            for note in store.notes:
                self.say(note)
            store.may_wait = lambda: not self._is_to_go
            # A thread that the store has answered would wait for a busy loop 5 ms each time.
            sys.setswitchinterval(SWITCH_SECONDS)
            anyio.run(self._live, store)

    async def _live(self, store: Store) -> None:
        stopping = asyncio.Event()
        with ungrouped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._obey, stopping)
                hands = Hands(
                    settings=self.settings,
                    store=store,
                    state_folder=self.state_folder,
                    is_to_go=lambda: self._is_to_go,
                    say=self.say,
                )
                tasks.start_soon(hands.watch)
                engine = Engine(self.settings.store.url, hands.carry_out)
                await anyio.to_thread.run_sync(engine.create_schema)
                hands.member = member = await store.commit(
                    portions.join,
                    host=host_identity(),
                    pid=os.getpid(),
                    version=pipeline.__version__,
                    lanes=self.lanes,
                )
                tasks.start_soon(self._give_signs, store, member)
                runs = Runs(self.command, self.say)
                tasks.start_soon(self._keep_schedule, runs)
                await self._work_on(engine, hands, stopping)
                runs.leave()
                tasks.cancel_scope.cancel()
        with suppress(StoreError):
            await store.commit(portions.leave, member=member)

    async def _keep_schedule(self, runs: Runs) -> None:
        """Start a run in each slot; of all workers that do, one gets it."""
        schedules = find_schedules(self.settings)
        if not schedules:
            return
        world = World(
            now=lambda: datetime.now(UTC), sleep=anyio.sleep, start_run=runs.start, say=self.say
        )
        async with anyio.create_task_group() as tasks:
            await Scheduler(schedules, world, ServiceManager({})).run(tasks)

    async def _obey(self, stopping: asyncio.Event) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for signum in signals:
                if self._is_to_go:
                    os._exit(128 + signum)
                self._is_to_go = True
                stopping.set()

    async def _work_on(self, engine: Engine, hands: Hands, stopping: asyncio.Event) -> None:
        """Work, and come back whenever the server does, with all stored that came before."""
        while not stopping.is_set():
            async with anyio.create_task_group() as hands.books.tasks:
                try:
                    async with engine.opened() as app, anyio.create_task_group() as tasks:
                        tasks.start_soon(self._sweep, engine, app, hands)
                        await engine.work(
                            app, stopping, lanes=self.lanes, drain_seconds=self.drain_seconds
                        )
                        tasks.cancel_scope.cancel()
                except* StoreError as group:
                    self._tell_once(str(group.exceptions[0]))
            if not stopping.is_set():
                await anyio.sleep(BACK_SECONDS)

    def _tell_once(self, text: str) -> None:
        if not self._is_lost:
            self.say(f"{text}; tried again until it is back")
        self._is_lost = True

    async def _sweep(self, engine: Engine, app: App, hands: Hands) -> None:
        """One worker at a time: hand out what nobody was given, and end what is overdue."""
        store = hands.store
        mine = {"name": SWEEP, "holder": name_holder()}
        while True:
            if await store.commit(leases.take, **mine, lasts=SWEEPERS_SILENCE):
                await engine.hand_out(app, store)
                for run_id in await store.commit(portions.find_overdue_runs):
                    await store.patiently(partial(end_run, store, hands.upstreams, run_id))
            self._is_lost = False
            await anyio.sleep(LOOK_SECONDS)

    async def _give_signs(self, store: Store, member: int) -> None:
        def beat() -> None:
            with suppress(StoreError):
                with store.write() as session:
                    portions.stay(session, member=member)
                bury_the_silent(store)

        while True:
            await anyio.sleep(BEAT_SECONDS / 2)
            await anyio.to_thread.run_sync(beat)
