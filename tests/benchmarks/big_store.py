"""How long the questions take on a large store: ``python -m tests.benchmarks.big_store PATH N``.

Fills a new database with N attempts, every one of them failed, which is the worst case for the
list of failures. One run of a thousand goes in as a real one would; SQLite then multiplies it.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter, process_time

from sqlalchemy import text
from sqlmodel import Session

from pipeline.errors import ErrorName
from pipeline.models import RunStatus
from pipeline.store import queries
from pipeline.store.db import Store, open_store
from pipeline.store.tables import ATTEMPTS, BATCHES, RUNS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.store.makers import (
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
)

PER_RUN = 1_000
GROUP = 250  # about what a run saves at once
SOURCES = [f"source_{number}" for number in range(8)]
ERRORS = [ErrorName.HTTP_5XX, ErrorName.RATE_LIMITED, ErrorName.REFUSED, ErrorName.COUNT]

MULTIPLY = """
WITH RECURSIVE copies (copy) AS (SELECT 2 UNION ALL SELECT copy + 1 FROM copies WHERE copy < :runs)
INSERT INTO {table} ({columns}) SELECT {values} FROM copies CROSS JOIN {table} WHERE {key} = 1
"""


def _failing_run(session: Session) -> None:
    run_id = begin(session)
    batches = [make_batch(number, SOURCES[number % 8], n=16) for number in range(PER_RUN)]
    order_batches(session, run_id=run_id, batches=batches)
    attempts = [
        make_failed_attempt(
            batch.number,
            source=batch.source,
            error=ERRORS[batch.number // 8 % 4],
            began_at=at(batch.number),
        )
        for batch in batches
    ]
    outcomes = [make_lost(batch) for batch in batches]
    save_results(session, run_id=run_id, attempts=attempts, outcomes=outcomes, keep_numbers=True)
    finish_run(session, run_id=run_id, status=RunStatus.FAILED, ended_at=NOON, clock_us=1)


def _multiply(session: Session, table: str, columns: Iterable[str], runs: int, **new: str) -> None:
    names = [name for name in columns if name != "id"]
    statement = MULTIPLY.format(
        table=table,
        columns=", ".join(f'"{name}"' for name in names),
        values=", ".join(new.get(name, f'"{name}"') for name in names),
        key="id" if table == "runs" else "run_id",
    )
    session.connection().execute(text(statement), {"runs": runs})


def fill(store: Store, attempts: int) -> None:
    """Record *attempts* failed attempts, a thousand to a run."""
    runs = attempts // PER_RUN
    with store.write() as session:
        _failing_run(session)
        _multiply(session, "runs", RUNS.c.keys(), runs, uid="lower(hex(randomblob(16)))")
        _multiply(session, "batches", BATCHES.c.keys(), runs, run_id="copy")
        _multiply(session, "attempts", ATTEMPTS.c.keys(), runs, run_id="copy")


def time_saving(store: Store, batches: int = 10_000) -> float:
    """Record a run that collects, and tell the CPU time for an attempt and its outcome, in µs."""
    wanted = [make_batch(number, n=16) for number in range(batches)]
    attempts = [make_attempt(number) for number in range(batches)]
    outcomes = [make_collected(batch) for batch in wanted]
    with store.write() as session:
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=wanted)
    began = process_time()
    for first in range(0, batches, GROUP):
        with store.write() as session:
            save_results(
                session,
                run_id=run_id,
                attempts=attempts[first : first + GROUP],
                outcomes=outcomes[first : first + GROUP],
                keep_numbers=True,
            )
    return (process_time() - began) * 1e6 / batches


def time_questions(store: Store) -> dict[str, float]:
    """Ask every question once and tell how long each took, in ms."""
    questions: dict[str, Callable[[Session], object]] = {
        "recent_runs": lambda s: queries.recent_runs(s, limit=20),
        "recent_runs of no source": lambda s: queries.recent_runs(s, source="none", limit=20),
        "recent_runs since never": lambda s: queries.recent_runs(s, since=at(10**6), limit=20),
        "find_run, the last": lambda s: queries.find_run(s, run_id=None),
        "batches_of_run": lambda s: list(queries.batches_of_run(s, run_id=1)),
        "attempts_of_run": lambda s: list(queries.attempts_of_run(s, run_id=1)),
        "phase_totals": lambda s: queries.phase_totals(s, run_id=1),
        "failures": queries.failures,
        "failures of a source": lambda s: queries.failures(s, source=SOURCES[0]),
        "failures since": lambda s: queries.failures(s, since=at(PER_RUN // 2)),
        "find_attempt": lambda s: queries.find_attempt(s, attempt_id=PER_RUN),
    }
    took = {}
    for name, question in questions.items():
        with store.read() as session:
            began = perf_counter()
            question(session)
            took[name] = (perf_counter() - began) * 1e3
    return took


def main(path: Path, attempts: int) -> None:
    """Fill the database at *path* and print every figure."""
    say = sys.stdout.write
    with open_store(f"sqlite:///{path}", busy_seconds=5, for_writing=True) as store:
        began = perf_counter()
        fill(store, attempts)
        say(f"{attempts} failed attempts filled in {perf_counter() - began:.1f} s\n")
        say(f"{path.stat().st_size / attempts:.0f} bytes for an attempt with its batch\n")
        say(f"{time_saving(store):.1f} µs of CPU to save an attempt and its outcome\n")
    with open_store(f"sqlite:///{path}", busy_seconds=5, for_writing=False) as store:
        for name, milliseconds in time_questions(store).items():
            say(f"{milliseconds:9.1f} ms  {name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
