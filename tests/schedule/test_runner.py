"""The scheduler in the foreground: in virtual time, with real signals, told to a real socket."""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from pipeline.errors import ConfigError, ungrouped
from pipeline.schedule.ledger import Schedule
from pipeline.schedule.runner import Runs, Scheduler, World, run_schedule
from pipeline.schedule.sd_notify import ServiceManager
from tests.processes import wait_for
from tests.schedule.scheduling import make_schedule
from tests.store.makers import NOON, at

SECOND = timedelta(seconds=1)
NOBODY = ServiceManager({})


class Virtual:
    """A clock that moves when somebody sleeps, and runs that take no time.

    Attributes:
        begun: when each run was started.
        said: what a person was told.
        jumps: by how much the clock is set at its n-th reading after a sleep.
    """

    def __init__(self, until: datetime, jumps: dict[int, timedelta] | None = None) -> None:
        self.time = NOON + SECOND
        self.until = until
        self.jumps = jumps or {}
        self.slept = 0
        self.begun: list[datetime] = []
        self.said: list[str] = []
        self.is_over = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        """Move the clock on, once the runs that were started have seen what it shows."""
        await anyio.lowlevel.checkpoint()
        self.slept += 1
        self.time += timedelta(seconds=seconds) + self.jumps.get(self.slept, timedelta(0))
        if self.time > self.until:
            self.is_over.set()
            await anyio.lowlevel.checkpoint()

    async def start_run(self) -> None:
        """Note when."""
        self.begun.append(self.time)

    @property
    def world(self) -> World:
        """Put this clock and these runs around a scheduler."""
        return World(
            now=lambda: self.time, sleep=self.sleep, start_run=self.start_run, say=self.said.append
        )


def tick(virtual: Virtual, *schedules: Schedule) -> None:
    """Let a scheduler run until the virtual time is over."""

    async def go() -> None:
        scheduler = Scheduler(schedules or (make_schedule(),), virtual.world, NOBODY)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run, tasks)
            await virtual.is_over.wait()
            tasks.cancel_scope.cancel()

    anyio.run(go)


def test_each_slot_begins_when_it_is_due() -> None:
    """To the second, after any number of slots: nothing adds up."""
    virtual = Virtual(until=at(24 * 60))

    tick(virtual)

    assert virtual.begun == [at(minutes) for minutes in range(5, 24 * 60 + 1, 5)]


def test_ten_thousand_slots_take_no_memory() -> None:
    """A container may be up for years."""
    virtual = Virtual(until=at(5_001))
    every_half_minute = make_schedule("*/30 * * * * *")
    count = 0
    sizes: list[int] = []

    async def start_run() -> None:
        nonlocal count
        count += 1
        if count in (1_000, 10_000):
            gc.collect()
            sizes.append(len(gc.get_objects()))

    virtual.start_run = start_run  # type: ignore[method-assign] # counts, and keeps nothing

    tick(virtual, every_half_minute)

    assert count >= 10_000
    assert sizes[1] - sizes[0] < 100  # objects, after nine thousand more slots


def test_two_schedules_due_at_once_share_a_start() -> None:
    """The run finds out by itself for which slots it is."""
    virtual = Virtual(until=at(60))

    tick(virtual, make_schedule("*/30 * * * *"), make_schedule("*/20 * * * *", key="other"))

    assert virtual.begun == [at(20), at(30), at(40), at(60)]


def test_a_reload_at_the_very_moment_of_a_slot_loses_none() -> None:
    """A hangup may be heeded before the sleep until the slot has ended."""
    virtual = Virtual(until=at(11))
    schedules = [make_schedule()]
    scheduler = Scheduler(schedules, virtual.world, NOBODY)
    virtual.time = at(5)

    scheduler.replace(schedules)

    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scheduler.run, tasks)
            await virtual.is_over.wait()
            tasks.cancel_scope.cancel()

    anyio.run(go)

    assert virtual.begun == [at(5), at(10)]


def test_what_was_missed_is_looked_for_at_the_start() -> None:
    """The next slot of a daily schedule may be a day away."""
    virtual = Virtual(until=at(10))

    tick(virtual, make_schedule("0 0 * * *", missed="once"))

    assert virtual.begun == [NOON + SECOND]


def test_a_clock_set_back_is_noticed() -> None:
    """Its slots begin again; the ledger knows which of them have had their run."""
    virtual = Virtual(until=at(60), jumps={100: -timedelta(hours=2)})

    tick(virtual)

    assert len(virtual.said) == 1
    assert virtual.said[0].startswith("the clock was set back by")
    assert virtual.begun[-12:] == [at(minutes) for minutes in range(5, 61, 5)]


def test_a_clock_set_ahead_starts_one_run() -> None:
    """Which books what was missed; there is no storm."""
    virtual = Virtual(until=at(24 * 60 + 30), jumps={5: timedelta(days=1)})

    tick(virtual)

    assert len(virtual.begun) == 1 + 6
    assert virtual.said == []


def test_a_small_correction_of_the_clock_repeats_nothing() -> None:
    """As ntpd makes them."""
    virtual = Virtual(until=at(20), jumps={12: -SECOND})

    tick(virtual)

    assert virtual.begun == [at(5), at(10), at(15), at(20)]


# ---- Signals ----


class Played:
    """Plays a scheduler under real signals, in virtual or real time.

    Attributes:
        loads: what reading the configuration gives, one after the other.
        stopped: how often the runs were told to end.
    """

    def __init__(self, *loads: Sequence[Schedule] | ConfigError) -> None:
        self.loads = list(loads)
        self.said: list[str] = []
        self.stopped = 0
        self.running = anyio.Event()
        self.may_end = anyio.Event()

    def load(self) -> Sequence[Schedule]:
        """Read the configuration."""
        loaded = self.loads.pop(0)
        if isinstance(loaded, ConfigError):
            raise loaded
        return loaded

    async def start_run(self) -> None:
        """Go on until it may end."""
        self.running.set()
        await self.may_end.wait()

    def stop_runs(self) -> None:
        """Let it end."""
        self.stopped += 1
        self.may_end.set()

    def play(
        self,
        *script: Callable[[], object],
        notifier: ServiceManager = NOBODY,
        drain_seconds: float = 60,
    ) -> None:
        """Carry out *script* step by step, each a moment after the one before."""

        async def follow() -> None:
            await self.running.wait()
            for step in script:
                step()
                await anyio.sleep(0.02)

        async def go() -> None:
            world = World(
                now=lambda: NOON,
                sleep=anyio.sleep,
                start_run=self.start_run,
                say=self.said.append,
            )
            with ungrouped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(follow)
                    await run_schedule(
                        self.load,
                        world,
                        notifier,
                        stop_runs=self.stop_runs,
                        drain_seconds=drain_seconds,
                    )

        anyio.run(go)


CATCHES_UP = (make_schedule("0 0 * * *", missed="once"),)  # starts a run at once
OTHER = (make_schedule("30 15 * * *"),)


def send(signum: signal.Signals) -> Callable[[], object]:
    """Send this process a signal."""
    return partial(os.kill, os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_goes_on_may_end(signum: signal.Signals) -> None:
    """What it has asked for is worth waiting for."""
    played = Played(CATCHES_UP)

    played.play(send(signum), played.may_end.set)

    assert played.stopped == 0


def test_a_run_that_takes_too_long_is_told_to_end() -> None:
    """Before somebody kills it."""
    played = Played(CATCHES_UP)

    played.play(send(signal.SIGTERM), drain_seconds=0.01)

    assert played.stopped == 1


def test_a_hangup_reads_the_configuration_again() -> None:
    """Without losing the run that goes on."""
    played = Played(CATCHES_UP, OTHER)

    played.play(send(signal.SIGHUP), send(signal.SIGTERM), played.may_end.set)

    assert played.said == [
        "the next slot is due at 2026-03-02 00:00:00Z",
        "the configuration was read again; the next slot is due at 2026-03-01 15:30:00Z",
    ]


def test_a_bad_configuration_keeps_the_old_one() -> None:
    """A typing error must not end what has been running for months."""
    played = Played(CATCHES_UP, ConfigError("config.toml: schedule.cron: is odd"))

    played.play(send(signal.SIGHUP), send(signal.SIGTERM), played.may_end.set)

    assert played.said[1:] == [
        "config.toml: schedule.cron: is odd\nthe configuration is wrong, so the old one stays"
    ]


def test_a_bad_configuration_at_the_start_is_an_error() -> None:
    """There is no old one to keep."""
    with pytest.raises(ConfigError, match="is odd"):
        Played(ConfigError("is odd")).play()


# ---- Processes ----


def test_a_run_is_a_process_that_can_be_told_to_end() -> None:
    """With SIGTERM, so that it keeps what it has."""
    said: list[str] = []
    runs = Runs([sys.executable, "-c", "import time; time.sleep(60)"], said.append)

    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runs.start)
            await anyio.to_thread.run_sync(wait_for, lambda: bool(runs._going_on))
            runs.stop()

    anyio.run(go)

    assert said == ["a run was ended by signal 15"]
    assert not runs._going_on


def test_a_run_may_end_before_it_is_told_to() -> None:
    """Asked at every turn of the loop, it is sure to have ended once when nobody knew."""
    runs = Runs(
        [sys.executable, "-S", "-c", "from signal import *; signal(SIGTERM, SIG_IGN)"], print
    )

    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runs.start)
            while not runs._going_on:
                await anyio.lowlevel.checkpoint()
            while runs._going_on:
                runs.stop()
                await anyio.lowlevel.checkpoint()

    anyio.run(go)

    assert not runs._going_on


def test_a_run_that_was_killed_is_told() -> None:
    """Whoever the kernel kills for want of memory cannot say so, and the journal should."""
    said: list[str] = []
    code = "import os; os.kill(os.getpid(), 9)"

    anyio.run(Runs([sys.executable, "-S", "-c", code], said.append).start)

    assert said == ["a run was ended by signal 9"]


def test_a_run_that_cannot_be_started_is_told() -> None:
    """And the next slot is tried all the same."""
    said: list[str] = []

    anyio.run(Runs(["/nowhere/python"], said.append).start)

    assert said == ["a run cannot be started: No such file or directory"]


# ---- What systemd is told ----


def listen(name: str) -> socket.socket:
    """Be the manager of a service."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(name)
    manager.settimeout(0)
    return manager


def heard(manager: socket.socket) -> list[str]:
    """Read all that the service has said."""
    words = []
    while True:
        try:
            words.append(manager.recv(1000).decode())
        except BlockingIOError:
            return words


def test_the_manager_is_told_how_the_service_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready, alive, reloading, ready again, stopping; an address of its own kind each."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    played = Played(CATCHES_UP, OTHER)
    notifier = ServiceManager({"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "40000"})
    with listen("notify") as manager:
        played.play(
            send(signal.SIGHUP), send(signal.SIGTERM), played.may_end.set, notifier=notifier
        )
        words = heard(manager)

    assert words[0] == "READY=1\nSTATUS=the next slot is due at 2026-03-02 00:00:00Z"
    assert words[1].startswith("WATCHDOG=1\nSTATUS=")
    reloading = next(n for n, word in enumerate(words) if word.startswith("RELOADING=1\nMONO"))
    assert words[reloading + 1] == "READY=1\nSTATUS=the next slot is due at 2026-03-01 15:30:00Z"
    assert words[-1] == "STOPPING=1\nSTATUS=waiting for the runs that go on"


def test_an_abstract_socket_is_one_without_a_file() -> None:
    """Linux's own kind, which systemd may hand out."""
    name = f"pipeline-test-{os.getpid()}"
    with listen(f"\0{name}") as manager:
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).stopping("done")

        assert heard(manager) == ["STOPPING=1\nSTATUS=done"]


def test_a_manager_that_has_gone_is_no_reason_to_stop(tmp_path: Path) -> None:
    """It is told for its own good."""
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("well")


@pytest.mark.parametrize(
    ("pid", "seconds"),
    [(None, 30.0), (str(os.getpid()), 30.0), ("1", None)],
    ids=["for_anybody", "for_us", "for_another"],  # a process id would name the test anew each time
)
def test_a_watchdog_of_another_process_is_not_ours(pid: str | None, seconds: float | None) -> None:
    """The environment is inherited by whoever is started."""
    environ = {"WATCHDOG_USEC": "30000000"} | ({"WATCHDOG_PID": pid} if pid else {})

    assert ServiceManager(environ).watchdog_seconds == seconds
