"""The books of a run: takes what the workers bring, and puts it on disk in groups."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from pipeline.errors import ErrorName, StoreError
from pipeline.fetching import FetchResult
from pipeline.models import Verdict
from pipeline.store import writes
from pipeline.store.db import Store

MOST_WAITING = 1024  # results in memory, before the workers have to wait for the disk
GROUP_SIZE = 256  # results that are worth a transaction of their own
LINGER_SECONDS = 0.05  # how long the first result of a group waits for company


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come, counting only what is on disk."""

    ordered: int
    collected: int = 0
    lost: int = 0


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
        with anyio.CancelScope(shield=True):  # what came is written down, whoever failed
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
            outcomes = [each for result in group + self._waiting for each in result.outcomes]
            unsaved = sum(outcome.verdict is Verdict.COLLECTED for outcome in outcomes)
            raise type(exc)(f"{exc}; NOT stored, though collected: {unsaved} batches") from exc
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
