"""Write the results of a run to the store, in groups: one transaction for many results."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import anyio

from pipeline.errors import LACK, ErrorName, StoreBusy, StoreError
from pipeline.models import Attempt, Outcome, Verdict
from pipeline.run.fetcher import FetchResult
from pipeline.store import writes
from pipeline.store.db import Store
from pipeline.store.rehearsal import rehearse

MOST_WAITING = 1024  # results in memory, before the workers have to wait for the disk
GROUP_SIZE = 256  # results that are worth a transaction of their own
MOST_CAUSES = 3  # of lost batches, in a line about all that could not be stored
AT_ONCE_SECONDS = 0.1  # within which answers leave no time to do anything else
LINGER_SECONDS = 0.05  # how long the first result of a group waits for company
LONGEST_LINGER = 0.5  # where the group before it took long to save


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come, counting only what is on disk."""

    ordered: int
    collected: int = 0
    lost: int = 0


class Recorder:
    """Takes results from the workers and puts them on disk in groups.

    Taking is not an await, so no cancellation can come between a result and the books. While
    others hold the database, or its server is away, it waits as long as the store may; what it
    cannot store even then it hands to *set_aside*, which tells where it is.

    Attributes:
        failure: why not all is on disk, once that is sure; ``run`` has raised it.
    """

    def __init__(
        self,
        store: Store,
        *,
        run_id: int,
        ordered: int,
        on_progress: Callable[[Progress], object],
        keep_numbers: bool,
        set_aside: Callable[[Sequence[Attempt], Sequence[Outcome]], Path],
        save: Callable[..., None] | None = None,
    ) -> None:
        self.losses: Counter[tuple[str, ErrorName]] = Counter()
        self.has_bug = False
        self._store = store
        self._run_id, self._keep_numbers = run_id, keep_numbers
        self._save_shared = save
        self._is_doubtful = False  # whether the last try may have stored what it could not say
        self._set_aside = set_aside
        self.failure: StoreError | None = None
        self._progress = Progress(ordered=ordered)
        self._on_progress = on_progress
        self._waiting: list[FetchResult] = []
        self._left: list[FetchResult] = []  # taken from those, and not on disk
        self._arrived = anyio.Event()
        self._hurry = anyio.Event()
        self._saved = anyio.Event()
        self._taken = self._on_disk = 0
        self._news = anyio.Event()
        self._is_closed = False

    def keep(self, result: FetchResult) -> None:
        """Take *result*; it is on disk when the progress counts it."""
        self._waiting.append(result)
        self._taken += 1
        self._arrived.set()
        if len(self._waiting) >= GROUP_SIZE:
            self._hurry.set()

    async def room(self) -> None:
        """Wait until the disk has caught up with the network."""
        while len(self._waiting) >= MOST_WAITING:
            await self._saved.wait()

    async def on_disk(self) -> None:
        """Wait until all that was taken by now is on disk.

        Raises:
            StoreError: it cannot be; ``run`` has raised it as well.
        """
        taken = self._taken
        if self._on_disk < taken:
            self._hurry.set()
        while self.failure is None and self._on_disk < taken:
            await self._news.wait()
        if self.failure is not None:
            raise self.failure

    async def prepare(self, meanwhile: Callable[[], object]) -> None:
        """Get ready for the end of the run, and do *meanwhile*, if its first answers take time."""
        with anyio.move_on_after(AT_ONCE_SECONDS):
            await self._arrived.wait()
            return
        await anyio.to_thread.run_sync(meanwhile)
        if not self._store.is_server:  # others would have to wait
            with suppress(StoreError):  # whoever is in the way now may be gone by then
                await self._store.in_thread(_prepare, self._store)

    def close(self) -> None:
        """Say that nothing more will come."""
        self._is_closed = True
        self._arrived.set()
        self._hurry.set()

    async def run(self) -> None:
        """Save group after group until closed.

        Raises:
            StoreError: a group could not be saved; the text says how many batches that cost, or
                where they are.
        """
        with anyio.CancelScope(shield=True):  # what came is written down, whoever failed
            self._on_progress(self._progress)
            try:
                await self._save_all()
            except StoreError as exc:
                self.failure = self._give_up(exc)
                raise self.failure from exc
            finally:
                self._news.set()

    async def _save_all(self) -> None:
        is_patient, took = True, 0.0
        while self._waiting or not self._is_closed:
            await self._arrived.wait()
            # A busy store, or machine, has less to do for fewer groups that are larger.
            with anyio.move_on_after(max(LINGER_SECONDS, min(4 * took, LONGEST_LINGER))):
                await self._hurry.wait()
            group, self._waiting = self._waiting, []
            self._saved, saved = anyio.Event(), self._saved
            if not self._is_closed:
                self._arrived, self._hurry = anyio.Event(), anyio.Event()
            self._left += group
            is_last, began = self._is_closed, monotonic()
            if is_patient:
                try:
                    await self._put_on_disk()
                except StoreBusy:  # waited for as long as may be; once more when all has come
                    if is_last:
                        raise
                    is_patient = False
            took = monotonic() - began
            saved.set()
        if self._left:
            await self._put_on_disk()

    async def _put_on_disk(self) -> None:
        await self._store.patiently(self._save, self._left)
        group, self._left = self._left, []
        self._on_disk += len(group)
        self._news.set()
        self._news = anyio.Event()
        self._count(group)

    def _save(self, group: Sequence[FetchResult]) -> None:
        attempts = [attempt for result in group for attempt in result.attempts]
        outcomes = [outcome for result in group for outcome in result.outcomes]
        save = writes.save_missing if self._is_doubtful else writes.save_results
        if self._save_shared is not None:
            save = self._save_shared
        self._is_doubtful = True
        with self._store.write() as session:
            save(
                session,
                run_id=self._run_id,
                attempts=attempts,
                outcomes=outcomes,
                keep_numbers=self._keep_numbers,
            )
        self._is_doubtful = False

    def _give_up(self, exc: StoreError) -> StoreError:
        """Set aside what others keep us from storing, and say what became of it."""
        results = self._left + self._waiting
        outcomes = [each for result in results for each in result.outcomes]
        fate = _not_stored(outcomes)
        if isinstance(exc, StoreBusy) or self._store.is_server:
            attempts = [each for result in results for each in result.attempts]
            try:
                path = self._set_aside(attempts, outcomes)
                n = sum(outcome.verdict is Verdict.COLLECTED for outcome in outcomes)
                fate = f"{n} collected batches are set aside in {path}; the next run stores them"
            except StoreError as failure:
                fate += f"; {failure}"
        return type(exc)(f"{exc}; {fate}")

    def _count(self, group: Sequence[FetchResult]) -> None:
        self.has_bug |= any(_shows_bug(each) for result in group for each in result.attempts)
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


def _not_stored(outcomes: Sequence[Outcome]) -> str:
    unsaved = sum(outcome.verdict is Verdict.COLLECTED for outcome in outcomes)
    lost = Counter(f"{each.error} ({each.batch.source})" for each in outcomes if each.error)
    causes = ", ".join(f"{n} {cause}" for cause, n in lost.most_common(MOST_CAUSES))
    return f"NOT stored, though collected: {unsaved} batches" + (causes and f"; lost: {causes}")


def _shows_bug(attempt: Attempt) -> bool:
    return attempt.error is ErrorName.INTERNAL and not (attempt.detail or "").startswith(LACK)


def _prepare(store: Store) -> None:
    with store.write() as session:
        rehearse(session)
        session.rollback()
