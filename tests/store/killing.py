"""Kill a writer again and again, and look at what it leaves; run by ``test_crash.py``.

A process of its own, because it forks: importing everything anew for each victim would take a
hundred times as long as the victim lives.
"""

import os
import random
import signal
import sqlite3
import sys
from contextlib import closing
from itertools import count
from pathlib import Path
from time import sleep
from typing import NoReturn

from pipeline.store.db import open_store
from pipeline.store.queries import batches_of_run, recent_runs
from pipeline.store.writes import interrupt_dead_runs, order_batches, save_results
from tests.store.makers import (
    NOON,
    begin,
    is_intact,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_failed_attempt,
)

GROUP = 20
LONGEST_GRACE = 0.02  # seconds; some commits, or the making of a database


def write_for_ever(url: str, acknowledge: int) -> NoReturn:
    """Save group after group, and say so after each commit."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        with store.write() as session:
            run_id = begin(session)
        for group in count():
            batches = [make_batch(number) for number in range(group * GROUP, (group + 1) * GROUP)]
            attempts = [make_attempt(batch.number) for batch in batches[1:]]
            evidence = make_evidence(os.urandom(5_000))
            attempts.append(make_failed_attempt(batches[0].number, evidence=evidence))
            with store.write() as session:
                order_batches(session, run_id=run_id, batches=batches)
                save_results(
                    session,
                    run_id=run_id,
                    attempts=attempts,
                    outcomes=[make_collected(batch) for batch in batches[1:]],
                    keep_numbers=True,
                )
            os.write(acknowledge, b".")
    raise AssertionError


def kill_a_writer(url: str, commits: int, grace: float) -> int:
    """Kill a writer some seconds after it has announced so many commits; count them all."""
    heard, acknowledge = os.pipe()
    victim = os.fork()
    if victim == 0:
        write_for_ever(url, acknowledge)
    os.close(acknowledge)
    with os.fdopen(heard, "rb", buffering=0) as acknowledged:
        announced = sum(len(acknowledged.read(1)) for _ in range(commits))
        sleep(grace)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        return announced + len(acknowledged.read())


def check(url: str, path: Path, commits: int) -> None:
    """Hold the database to all that was promised of it, and bury the dead run."""
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        with store.write() as session:
            interrupt_dead_runs(session, ended_at=NOON)
        with store.read() as session:
            for run in recent_runs(session, limit=1):
                batches = list(batches_of_run(session, run_id=run.id, with_numbers=True))
                assert run.ordered == len(batches) >= commits * GROUP
                assert len(batches) % GROUP == 0
                assert run.collected == len(batches) // GROUP * (GROUP - 1)
                assert all(map(is_intact, batches))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    url = f"sqlite:///{path}"
    chance = random.Random(sys.argv[2])
    for kill in range(int(sys.argv[3])):
        commits = kill_a_writer(url, kill % 5, chance.uniform(0, LONGEST_GRACE))
        if path.exists():  # the first ones may die before they have made it
            check(url, path, commits)
