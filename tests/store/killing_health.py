"""Kill a run before each of its statements, and see that its numbers' health follows from them.

A process of its own, because it forks; run by ``test_health.py``.
"""

import os
import signal
import sys
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import NoReturn

from sqlalchemy import event

from pipeline.store.db import open_store
from pipeline.store.integrity.verify import verify
from pipeline.store.writes import interrupt_dead_runs
from tests.store.makers import NOON
from tests.store.test_health import record, rolls


def record_until_killed(url: str, statements: int) -> NoReturn:
    """Record a run in this process, which dies when it has made so many statements."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        made = 0

        def die_in_time(*_: object) -> None:
            nonlocal made
            made += 1
            if made > statements:
                os.kill(os.getpid(), signal.SIGKILL)

        with store.read() as session:
            event.listen(session.get_bind(), "before_cursor_execute", die_in_time)
        record(store, rolls(700, seed=5), [4] * 30, rolls(400, seed=6), minute=1)
    os._exit(0)


def is_killed(url: str, statements: int) -> bool:
    """Record a run in another process, and tell whether it was killed before its end."""
    victim = os.fork()
    if victim == 0:
        record_until_killed(url, statements)
    _, status = os.waitpid(victim, 0)
    return os.WIFSIGNALED(status)


def check(url: str) -> None:
    """Verify what is left, before the dead run is buried and after."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        assert verify(store).problems == ()
        with store.write() as session:
            interrupt_dead_runs(session, ended_at=NOON + timedelta(minutes=2))
        assert verify(store).problems == ()


if __name__ == "__main__":
    url = f"sqlite:///{Path(sys.argv[1])}"
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        record(store, rolls(500))
    for statements in count():
        survived = not is_killed(url, statements)
        check(url)
        if survived:
            break
    assert statements > 10
