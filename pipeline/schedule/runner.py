"""The scheduler in the foreground: start a run for each slot.

Every run is a process of its own, which finds its slot in the store by itself: so a run that
leaks, hangs or dies does no harm to the next, and a scheduler that is killed loses nothing.

The next slot is worked out anew from the wall clock after each short sleep. So errors do not add
up, and a clock that is set is noticed within ``LONGEST_SLEEP_SECONDS``.
"""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process, TaskGroup

from pipeline.errors import ConfigError, ungrouped
from pipeline.models import Overlap
from pipeline.schedule.booking import find_possible_schedules
from pipeline.schedule.install import run_command
from pipeline.schedule.ledger import Schedule
from pipeline.schedule.sd_notify import ServiceManager
from pipeline.settings import Settings

LONGEST_SLEEP_SECONDS = 30.0
CLOCK_IS_SET = timedelta(seconds=LONGEST_SLEEP_SECONDS)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Clock, sleep, runs and messages of the scheduler; a test puts its own in their place.

    Attributes:
        now: the wall clock, UTC.
        sleep: waits for so many seconds.
        start_run: carries out one run, to its end.
        say: tells a person one line.
    """

    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[object]]
    start_run: Callable[[], Coroutine[Any, Any, object]]
    say: Callable[[str], object]


class Scheduler:
    """Starts a run whenever a slot of one of its schedules is due."""

    def __init__(
        self, schedules: Sequence[Schedule], world: World, manager: ServiceManager
    ) -> None:
        self._schedules = schedules
        self._world = world
        self._manager = manager
        self._seen = world.now()  # slots up to here are dealt with
        beat = manager.watchdog_seconds
        self._longest = min(LONGEST_SLEEP_SECONDS, beat / 2) if beat else LONGEST_SLEEP_SECONDS

    @property
    def status(self) -> str:
        """Say what is waited for."""
        return f"the next slot is due at {self._next_at():%Y-%m-%d %H:%M:%SZ}"

    def replace(self, schedules: Sequence[Schedule]) -> None:
        """Go by other schedules from now on."""
        now = self._world.now()
        if self._next_at() > now:  # else a slot is due that nobody has come round to yet
            self._seen = now
        self._schedules = schedules

    async def run(self, tasks: TaskGroup) -> None:
        """Start runs in *tasks* when they are due, until cancelled."""
        if any(schedule.missed != "skip" for schedule in self._schedules):
            tasks.start_soon(self._world.start_run)  # what was missed while nobody was here
        while True:
            self._check_clock()
            next_at, now = self._next_at(), self._world.now()
            if next_at <= now:
                tasks.start_soon(self._world.start_run)
                self._seen = now
                next_at = self._next_at()
            self._manager.alive(self.status)
            wait_seconds = max(0.0, (next_at - now).total_seconds())
            await self._world.sleep(min(wait_seconds, self._longest))

    def _check_clock(self) -> None:
        now = self._world.now()
        if now < self._seen - CLOCK_IS_SET:
            self._world.say(f"the clock was set back by {self._seen - now}")
            self._seen = now

    def _next_at(self) -> datetime:
        return min(next(schedule.cron.after(self._seen)) for schedule in self._schedules)


class Runs:
    """The processes of the runs that go on now."""

    def __init__(self, command: Sequence[str], say: Callable[[str], object]) -> None:
        self._command = command
        self._say = say
        self._going_on: set[Process] = set()

    async def start(self) -> None:
        """Carry out one run in a process of its own, and wait for its end."""
        try:  # the run says itself what goes wrong, and the ledger how it ended
            process = await anyio.open_process(
                self._command, stdin=subprocess.DEVNULL, stdout=None, stderr=None
            )
        except OSError as exc:
            self._say(f"a run cannot be started: {exc.strerror or exc}")
            return
        self._going_on.add(process)
        try:
            code = await process.wait()
        finally:
            self._going_on.discard(process)
        if code < 0:  # it could not say so itself
            self._say(f"a run was ended by signal {-code}")

    def leave(self) -> None:
        """End them at once: what they wait for is carried out by others."""
        for process in self._going_on:
            with suppress(ProcessLookupError):
                process.kill()

    def stop(self) -> None:
        """Ask all of them to end and keep what they have."""
        for process in self._going_on:
            with suppress(ProcessLookupError):  # it has ended, and nobody has taken note yet
                process.terminate()


async def run_schedule(
    load: Callable[[], Sequence[Schedule]],
    world: World,
    manager: ServiceManager,
    *,
    stop_runs: Callable[[], object],
    drain_seconds: float,
) -> None:
    """Start runs as the schedules say until SIGTERM or SIGINT, then wait for those that go on.

    *load* reads the schedules, again at each SIGHUP; if it raises a ConfigError then, the old ones
    stay. Runs that go on *drain_seconds* later are told to end, by *stop_runs*; a second signal
    ends this process at once.

    Raises:
        ConfigError: *load* raised it at the start.
    """
    scheduler = Scheduler(load(), world, manager)
    ticking = anyio.CancelScope()

    async def drain() -> None:
        await world.sleep(drain_seconds)
        stop_runs()

    async def obey(signals: AsyncIterator[signal.Signals], others: TaskGroup) -> None:
        async for signum in signals:
            if signum == signal.SIGHUP:
                _reload(scheduler, load, world, manager)
            elif ticking.cancel_called:
                stop_runs()
                os._exit(128 + signum)
            else:
                manager.stopping("waiting for the runs that go on")
                ticking.cancel()
                others.start_soon(drain)

    with ungrouped(), anyio.open_signal_receiver(*SIGNALS) as signals:
        async with anyio.create_task_group() as others:
            others.start_soon(obey, signals, others)
            world.say(scheduler.status)
            manager.ready(scheduler.status)
            async with anyio.create_task_group() as runs:
                with ticking:
                    await scheduler.run(runs)
            others.cancel_scope.cancel()


def _reload(
    scheduler: Scheduler,
    load: Callable[[], Sequence[Schedule]],
    world: World,
    manager: ServiceManager,
) -> None:
    manager.reloading()
    try:
        scheduler.replace(load())
    except ConfigError as exc:
        world.say(f"{exc}\nthe configuration is wrong, so the old one stays")
    else:
        world.say(f"the configuration was read again; {scheduler.status}")
    manager.ready(scheduler.status)


def keep_schedule(
    settings: Settings,
    overlap: Overlap,
    log_format: str,
    *,
    read_again: Callable[[Path | None], Settings],
    drain_seconds: float,
    say: Callable[[str], object],
) -> None:
    """Start a run in each slot of the *settings*, until SIGTERM; SIGHUP reads them again."""
    given = iter([find_possible_schedules(settings)])  # runs get the very file that was read

    def load() -> Sequence[Schedule]:
        return next(given, None) or find_possible_schedules(read_again(settings.path))

    runs = Runs(run_command(settings, overlap, log_format), say)
    world = World(now=lambda: datetime.now(UTC), sleep=anyio.sleep, start_run=runs.start, say=say)
    manager = ServiceManager(os.environ)
    anyio.run(
        partial(
            run_schedule, load, world, manager, stop_runs=runs.stop, drain_seconds=drain_seconds
        )
    )
