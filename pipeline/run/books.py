"""What came of the portions in hand: recorded in groups, whichever portions of a run they are of.

So a source that has one request in five seconds costs no more than one of a thousand in that time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex

import anyio
from anyio.abc import TaskGroup

from pipeline.errors import StoreError
from pipeline.models import Attempt, Outcome, Verdict
from pipeline.run.opening import spool_path
from pipeline.run.recorder import Recorder
from pipeline.settings import StoreSettings
from pipeline.store import portions, spool
from pipeline.store.db import Store


@dataclass(slots=True, kw_only=True, eq=False)
class _Book:
    """The recorder of one run, and the scopes of all that hand results in to it."""

    recorder: Recorder
    scopes: list[anyio.CancelScope] = field(default_factory=list)


@dataclass(kw_only=True)
class Books:
    """The books of the runs that a worker takes part in.

    Attributes:
        tell: is told in which run results could not be stored, and why.
        tasks: outlive the portions: when they have ended, all that came of these is stored, or set
            aside, even if they were given up.
    """

    store: Store
    settings: StoreSettings
    state_folder: Path
    tell: Callable[[str, Exception], None]
    tasks: TaskGroup = field(init=False)
    _open: dict[int, _Book] = field(default_factory=dict, init=False)

    @contextmanager
    def of_run(self, run_id: int, uid: str, scope: anyio.CancelScope) -> Iterator[Recorder]:
        """Record a run, or go on; all results have been handed in when the block ends.

        If they cannot be recorded the *scope* is cancelled.
        """
        book = self._open.get(run_id) or self._begin(run_id, uid)
        book.scopes.append(scope)
        try:
            yield book.recorder
        finally:
            book.scopes.remove(scope)
            if not book.scopes:
                self._forget(run_id, book)
                book.recorder.close()

    def _begin(self, run_id: int, uid: str) -> _Book:
        recorder = Recorder(
            self.store,
            run_id=run_id,
            ordered=0,
            keep_numbers=self.settings.keep_numbers,
            on_progress=lambda _: None,
            set_aside=partial(self.set_aside, uid),
            save=portions.save_results,
        )
        book = self._open[run_id] = _Book(recorder=recorder)
        self.tasks.start_soon(self._keep, run_id, book)
        return book

    def _forget(self, run_id: int, book: _Book) -> None:
        if self._open.get(run_id) is book:
            del self._open[run_id]

    async def _keep(self, run_id: int, book: _Book) -> None:
        try:
            await book.recorder.run()
        except StoreError as exc:
            self.tell(f"run {run_id}: ", exc)
            for scope in book.scopes:
                scope.cancel()
        finally:
            self._forget(run_id, book)

    def set_aside(self, uid: str, attempts: Sequence[Attempt], outcomes: Sequence[Outcome]) -> Path:
        """Keep what the server does not take in a file, and tell where."""
        # Others here, or we before, have set results of the run aside: a name that is taken would
        # lose these.
        path = spool_path(self.settings, f"{uid}-{token_hex(4)}", self.state_folder)
        spool.set_aside(
            path,
            uid=uid,
            attempts=attempts,
            outcomes=[each for each in outcomes if each.verdict is not Verdict.CANCELLED],
            keep_numbers=self.settings.keep_numbers,
        )
        return path
