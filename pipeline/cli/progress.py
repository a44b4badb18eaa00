"""A bar on stderr for what may take long; where nobody looks, nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how much is done, and of how much; the bar goes with the block.

    It appears when there is something to say, so what is done at once never shows one.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_interactive:  # TERM=dumb: it could not take the bar away again
        yield lambda _done, _all: None
        return
    columns = (TextColumn(doing), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(doing, total=None)

    def show(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if done < total:
            with suppress(OSError):  # a terminal that was closed is no reason to stop
                bar.start()

    try:
        yield show
    finally:
        with suppress(OSError):
            if bar.live.is_started:
                bar.stop()
