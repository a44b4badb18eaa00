"""Carry out tasks on a store in several processes, each with connections of its own.

A process is started afresh and not forked, for a connection to SQLite must not be taken over. It
shares a pipe with the one that it works for and nothing else: whichever ends, the other learns it.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from pipeline.errors import PipelineError, StoreError, as_ours
from pipeline.store.db import Store, open_store

T = TypeVar("T")
Tell: TypeAlias = Callable[[int], None]  # is told how much more is done
Task: TypeAlias = Callable[[Store, Tell], T]


class Submit(Protocol):
    """Takes a task, and gives a function that waits for what comes of it."""

    def __call__(self, task: Task[T], /) -> Callable[[], T]:
        """Have *task* carried out."""


@contextmanager
def workers(store: Store, count: int, watch: Tell) -> Iterator[Submit]:
    """Give what takes tasks, for *count* processes; with one, for this one.

    *watch* is told how much is done in all. Nothing is done before a result is asked for.
    """
    total = 0

    def tell(more: int) -> None:
        nonlocal total
        total += more
        watch(total)

    if count == 1:
        yield lambda task: partial(task, store, tell)
        return
    team = _Team(store, count, tell)
    try:
        yield team.submit
    finally:
        team.end()


class _Team:
    """Processes that take the next task whenever they have done one."""

    def __init__(self, store: Store, count: int, tell: Tell) -> None:
        self._tell = tell
        self._waiting: deque[tuple[int, Task[Any]]] = deque()
        self._results: dict[int, Any] = {}
        self._number = 0
        context = multiprocessing.get_context("spawn")
        self._processes = []
        self._idle: list[Connection] = []
        self._busy: dict[Connection, int] = {}
        # Ctrl-C is for this process alone: the others inherit that it is ignored. To ignore it when
        # they have begun is too late: until then each answers it with a traceback. To block it here
        # is of no use, since multiprocessing lifts that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, *store.address), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._idle.append(ours)
        finally:
            signal.signal(signal.SIGINT, before)

    def submit(self, task: Task[T]) -> Callable[[], T]:
        """Put *task* behind those that wait."""
        self._number += 1
        self._waiting.append((self._number, task))
        return partial(self._result, self._number)

    def end(self) -> None:
        """End all processes, whatever they do."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _result(self, number: int) -> Any:  # noqa: ANN401 - whatever comes of a task
        while number not in self._results:
            while self._idle and self._waiting:
                self._hand_out(self._idle.pop())
            for pipe in wait(list(self._busy)):
                self._hear(cast("Connection", pipe))
        return self._results.pop(number)

    def _hand_out(self, pipe: Connection) -> None:
        self._busy[pipe], task = self._waiting.popleft()
        with suppress(BrokenPipeError):  # who has ended is not heard, and that is found
            pipe.send(task)

    def _hear(self, pipe: Connection) -> None:
        try:
            is_done, said = pipe.recv()
        except (EOFError, ConnectionError) as exc:
            raise StoreError("a process that verified was ended; nothing is known yet") from exc
        if isinstance(said, PipelineError):
            raise said
        if is_done:
            self._results[self._busy.pop(pipe)] = said
            self._idle.append(pipe)
        else:
            self._tell(said)


def _work(pipe: Connection, url: str, busy_seconds: float) -> None:
    """Carry out what comes, until nobody is there any more."""
    with suppress(EOFError, ConnectionError):
        while True:
            task = pipe.recv()
            try:
                with open_store(url, busy_seconds=busy_seconds, for_writing=False) as store:
                    said = task(store, lambda more: pipe.send((False, more)))
            except Exception as exc:  # noqa: BLE001 - what it means is said by the one who waits
                said = as_ours(exc)
            pipe.send((True, said))
