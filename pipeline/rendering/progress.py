"""A bar on stderr for what may take long; where nobody looks, nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol


class Show(Protocol):
    """Is told how much is done, of how much, and what there is to say beside it."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`, with `note` beside it."""


def _show_nothing(done: int, total: int, note: str = "") -> None:
    del done, total, note


@contextmanager
def progress(doing: str, *, counts: bool = False, is_shown: bool = True) -> Iterator[Show]:
    """Give a function that is told how far it is; the bar goes with the block.

    It appears when there is something to say, so what is done at once never shows one. If it
    *counts*, it tells numbers and the time so far, else the time that is left.
    """
    if not is_shown or sys.stderr is None or not sys.stderr.isatty():
        yield _show_nothing
        return
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_interactive:  # TERM=dumb: it could not take the bar away again
        yield _show_nothing
        return
    columns = [rich.TextColumn(doing), rich.BarColumn()]
    if counts:
        note = rich.TextColumn("{task.fields[note]}")
        columns += [rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), note]
    else:
        columns.append(rich.TimeRemainingColumn())
    bar = rich.Progress(*columns, console=console, transient=True)
    task = bar.add_task(doing, total=None, note="")

    def show(done: int, total: int, note: str = "") -> None:
        bar.update(task, completed=done, total=total, note=note)
        if done < total:
            # Only now: it hides the cursor, and a run catches signals from here on, so that
            # somebody brings it back. A terminal that was closed is no reason to stop.
            with suppress(OSError):
                bar.start()

    try:
        yield show
    finally:
        with suppress(OSError):
            if bar.live.is_started:
                bar.stop()
