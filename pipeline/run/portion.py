"""Portions of the runs that machines share, carried out by the worker that was given them."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio

from pipeline.errors import ConfigError, StoreError, ungrouped
from pipeline.lock import host_identity
from pipeline.pacing import Moment
from pipeline.run.books import Books
from pipeline.run.breaker import RetryBudget
from pipeline.run.limiter import Route
from pipeline.run.opener import Opened, Opener
from pipeline.run.queue import Queue, find_obstacles
from pipeline.run.shared import end_run, make_ready
from pipeline.run.together import Together
from pipeline.settings import Settings
from pipeline.store import portions
from pipeline.store.db import Store
from pipeline.store.portions import Portion

LOOK_SECONDS = 2.0  # between two looks whether another worker has what is in hand
PAUSE_SECONDS = 2.0  # before what failed here is handed out again

_Key: TypeAlias = tuple[int, int]  # of a portion: its run and its first batch
_Ended: TypeAlias = tuple[Portion, Moment | None]  # with what kept the rest until the deadline


@dataclass(slots=True, eq=False)
class _Hold:
    """Whether a portion is still this worker's: another may have it after a pause of this one."""

    portion: Portion
    is_lost: bool = False


@dataclass(kw_only=True)
class Hands:
    """What a worker carries portions out with, many at once.

    Portions are opened and ended together with those that come at about the same time.

    Attributes:
        is_to_go: whether it is to leave what it has not begun to others.
        say: tells a person one line.
        books: record what comes of them.
        upstreams: that are known here, by their sources.
        member: the worker, once it has joined.
    """

    settings: Settings
    store: Store
    state_folder: Path
    is_to_go: Callable[[], bool]
    say: Callable[[str], object]
    member: int | None = None
    _told: set[str] = field(default_factory=set, init=False)
    _held: set[_Hold] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        ready = make_ready(self.settings)
        self.upstreams = {
            name: each for name, each in ready.items() if not isinstance(each, ConfigError)
        }
        self._opener = Opener(
            settings=self.settings, store=self.store, state_folder=self.state_folder, ready=ready
        )
        self.books = Books(
            store=self.store,
            settings=self.settings.store,
            state_folder=self.state_folder,
            tell=self._tell,
        )
        self._opening = Together(self._open)
        self._ending = Together(self._end)

    async def carry_out(self, run_id: int, first: int) -> None:
        """Carry out the portion that begins with batch *first*, and end the run if it was the last.

        Nothing is done if it is done already, or its run has ended. If it fails a line says why,
        and somebody else may try.
        """
        try:
            opened = None if self.is_to_go() else await self._opening.ask((run_id, first))
            if isinstance(opened, ConfigError):
                raise opened
            if opened is not None:
                obstacle = await self._ask(opened) if opened.standing.undecided else None
                await self._ending.ask((opened.standing.portion, obstacle))
        except (ConfigError, StoreError) as exc:
            self._tell(f"run {run_id}, from batch {first} on: ", exc)
            await anyio.sleep(PAUSE_SECONDS)  # others may know better

    def _tell(self, where: str, exc: Exception) -> None:
        if str(exc) not in self._told:
            self._told.add(str(exc))
            self.say(f"{where}{exc}")

    async def _open(self, keys: Sequence[_Key]) -> Mapping[_Key, Opened | ConfigError]:
        firsts = defaultdict[int, set[int]](set)
        for run_id, first in keys:
            firsts[run_id].add(first)
        opened: dict[_Key, Opened | ConfigError] = {}
        for run_id, its in firsts.items():
            opening = partial(self._opener.open, run_id, its, member=self.member)
            found = await self.store.patiently(opening)
            opened |= {(run_id, first): each for first, each in found.items()}
        return opened

    async def _ask(self, opened: Opened) -> Moment | None:
        """Ask for what has no outcome, and tell what the rules kept until the deadline."""
        standing, upstream = opened.standing, opened.upstream
        portion = standing.portion
        hold = _Hold(portion)
        seconds_left = (standing.until - self._opener.limiters.clock.now()).total_seconds()
        scope = anyio.CancelScope(deadline=anyio.current_time() + seconds_left)
        budget = RetryBudget(upstream.retry_budget)
        route = Route(limiter=opened.limiter, budget=budget, give_up_at=scope.deadline)

        def is_ours() -> bool:
            return not hold.is_lost and not self.is_to_go()

        queue = Queue(upstream, route, opened.observer, is_ours=is_ours)
        self._held.add(hold)
        try:
            with ungrouped(), self.books.of_run(portion.run_id, standing.uid, scope) as recorder:  # noqa: SIM117 - that is for outside of the scope
                with scope:
                    async with anyio.create_task_group() as lanes:
                        for _ in range(queue.workers):
                            lanes.start_soon(queue.work, recorder)
        finally:
            self._held.discard(hold)
        await recorder.on_disk()
        if not is_ours():
            return None
        return (await find_obstacles([queue], is_stopped=False)).get(portion.source)

    async def watch(self) -> None:
        """Look now and then whether what is in hand has been given to another worker."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            held = tuple(self._held)
            with suppress(StoreError):  # who has to write is told
                mine = await self.store.in_thread(self._find_mine) if held else set()
                for hold in held:
                    hold.is_lost |= (hold.portion.run_id, hold.portion.first) not in mine

    def _find_mine(self) -> set[_Key]:
        with self.store.read() as session:
            return portions.held_by(session, host=host_identity(), pid=os.getpid())

    async def _end(self, ended: Sequence[_Ended]) -> Mapping[_Ended, None]:
        """Say that portions are done, and end the runs of which all is."""
        for run_id in {portion.run_id for portion, _ in ended}:
            its = {each: obstacle for each, obstacle in ended if each.run_id == run_id}
            if await self.store.commit(portions.end, run_id=run_id, obstacles=its):
                await self.store.patiently(partial(end_run, self.store, self.upstreams, run_id))
        return {}
