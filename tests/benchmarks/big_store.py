"""How long a default report or audit takes after years.

    python -m tests.benchmarks.big_store FOLDER [--few 100000] [--many 10000000] [--rounds 5]

Two databases are filled, with few attempts and with many, all else alike: a run every five minutes
of 28 batches from five sources, two attempts in a hundred in vain, up to a midnight long after this
program was made: what is older it takes for the time of a wrong clock. The commands believe that it
is six hours later. One day goes in as real runs would; SQLite multiplies it, shifted by days; then
each run is sealed, its numbers tested and the days closed by the program's own functions, so that
both stores verify. Each command is timed as a whole process against either, in CPU seconds, medians
over rounds in which they take turns; the baseline is `pipeline --version`. The targets: a week
within a second over it, a year within two, and many at most 1.5 times as long as few. Last both are
verified, once. Nothing passes or fails here. The many need about 3 GB, and half an hour to be made.
"""

import argparse
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from sqlalchemy import delete, insert, select

from pipeline.audit.closing import close_some
from pipeline.clock import MADE_AT
from pipeline.errors import ErrorName, Phase
from pipeline.models import Attempt, Batch, Outcome, Timings
from pipeline.pacing import Rate, Rules
from pipeline.store import health
from pipeline.store.db import Store, open_store
from pipeline.store.integrity.chain import Seal, newest_seal, unsealed_runs
from pipeline.store.integrity.checks import check_runs
from pipeline.store.tables import HEALTH, HEALTH_ALARMS, HEALTH_BLOCKS, RUNS, SEALS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.stopped import stop_the_clock
from tests.store.makers import (
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_lost,
)

SOURCES = [f"source_{number}" for number in range(5)]
ERRORS = {
    ErrorName.HTTP_5XX: Phase.CHECK,
    ErrorName.READ_TIMEOUT: Phase.FIRST_BYTE,
    ErrorName.RATE_LIMITED: Phase.CHECK,
    ErrorName.DNS: Phase.DNS,
}
RULES = {source: Rules(rate=Rate(requests=50, period_seconds=1.0)) for source in SOURCES}
MIDNIGHT = MADE_AT + timedelta(days=10 * 365)  # what is older was recorded by a wrong clock
NOW = MIDNIGHT + timedelta(hours=6)
RUNS_A_DAY = 288
BATCHES = 28
IN_VAIN = 0.02
RUNS_AT_ONCE = 500  # that are sealed in a transaction
GROUP = 250  # about what a run saves at once

# What a copy of a day adds to the columns of the day, by table; a copy is :copy days later.
MOMENT = "{0} + :copy * 86400000000"
RUN, ATTEMPT = "{0} + :copy * :runs", "{0} + :copy * :attempts"
CHANGES = {
    "runs": {"id": RUN, "uid": "lower(hex(randomblob(16)))", "started_at": MOMENT}
    | {"ended_at": MOMENT},
    "batches": {"run_id": RUN},
    "attempts": {"id": ATTEMPT, "run_id": RUN, "began_at": MOMENT},
    "tallies": {"run_id": RUN, "started_at": MOMENT, "fastest_attempt": ATTEMPT}
    | {"first_sent_at": MOMENT, "last_sent_at": MOMENT},
    "losses": {"run_id": RUN, "started_at": MOMENT, "first_at": MOMENT, "last_at": MOMENT}
    | {"first_attempt": ATTEMPT, "last_attempt": ATTEMPT},
    "timings": {"began_at": MOMENT},
}

SLOTS = """
INSERT INTO slots (schedule, due_at, fate, run_id, host, claimed_at, late_us)
SELECT 'default', started_at, 'ran', id, host, started_at, 0 FROM runs
"""

COMMANDS = [
    "--version",
    "report",
    "report --run last",
    "report runs -s source_1",
    "report batches",
    "report batches -s source_1",
    "report timings",
    "report timings --run last",
    "report errors",
    "report numbers",
    "report sources",
    "report slots",
    "report health",
    "report --format markdown",
    "report --format html",
    "audit",
    "audit --format html",
    "audit show 1",
    "audit dossier source_1",
    "db stats",
    *(
        f"{command} --since 365d"
        for command in (
            "report timings",
            "report sources",
            "report errors",
            "report numbers",
            "report slots",
            "report health",
            "report --format html",
            "audit",
            "audit dossier source_1",
        )
    ),
]


def _attempt(chance: random.Random, batch: Batch, number: int, began_at: datetime) -> Attempt:
    timings = Timings(
        wait_us=int(chance.expovariate(1 / 20_000)),
        dns_us=int(chance.expovariate(1 / 3_000)),
        connect_us=int(chance.gauss(30_000, 3_000)),
        tls_us=int(chance.gauss(60_000, 5_000)),
        send_us=int(chance.expovariate(1 / 200)),
        first_byte_us=int(chance.lognormvariate(12, 0.6)),
        body_us=int(chance.expovariate(1 / 2_000)),
        check_us=int(chance.expovariate(1 / 100)),
    )
    is_vain = number == 1 and chance.random() < IN_VAIN
    error = chance.choice(list(ERRORS)) if is_vain else None
    return Attempt(
        fetch=batch.number,
        number=number,
        source=batch.source,
        began_at=began_at,
        timings=timings,
        status=None if error in (ErrorName.DNS, ErrorName.READ_TIMEOUT) else 503 if error else 200,
        body_bytes=400,
        error=error,
        phase=ERRORS[error] if error else None,
        detail="something went wrong" if error else None,
        evidence=make_evidence() if error is ErrorName.HTTP_5XX else None,
    )


def _draw(chance: random.Random, batch: Batch) -> list[int]:
    return chance.choices(range(batch.min, batch.max + 1), k=batch.n)


def _run(store: Store, chance: random.Random, started_at: datetime) -> None:
    """Record a run: a batch whose first attempt was in vain is lost or comes with the second."""
    batches = [make_batch(number, SOURCES[number % 5], n=16) for number in range(BATCHES)]
    attempts: list[Attempt] = []
    outcomes: list[Outcome] = []
    for batch in batches:
        attempts.append(first := _attempt(chance, batch, 1, started_at))
        if first.error is None:
            outcomes.append(make_collected(batch, _draw(chance, batch)))
        elif chance.random() < 0.5:
            attempts.append(_attempt(chance, batch, 2, started_at + timedelta(seconds=1)))
            outcomes.append(make_collected(batch, _draw(chance, batch), attempt=2))
        else:
            outcomes.append(replace(make_lost(batch), error=first.error))
    with store.write() as session:
        run_id = begin(session, started_at=started_at)
        order_batches(session, run_id=run_id, batches=batches)
        save_results(
            session, run_id=run_id, attempts=attempts, outcomes=outcomes, keep_numbers=True
        )
        finish_run(
            session,
            run_id=run_id,
            ended_at=started_at + timedelta(seconds=3),
            clock_us=3_000_000,
            rules=RULES,
        )


def fill(path: Path, attempts: int) -> None:
    """Record at least *attempts* attempts, day by day, up to ``MIDNIGHT``."""
    day = timedelta(days=1)
    days = -(-attempts // (RUNS_A_DAY * BATCHES))
    chance = random.Random(1)
    with open_store(f"sqlite:///{path}", busy_seconds=5, for_writing=True) as store:
        for number in range(RUNS_A_DAY):
            _run(store, chance, MIDNIGHT - days * day + number * day / RUNS_A_DAY)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Nobody minds if a crash ruins it.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        _multiply(connection, days)
        connection.execute(SLOTS)
    with open_store(f"sqlite:///{path}", busy_seconds=5, for_writing=True) as store:
        _seal(store)
        _test(store)
        while close_some(store):
            pass


def add_runs(path: Path, count: int) -> None:
    """Record *count* runs more, after ``MIDNIGHT``."""
    with open_store(f"sqlite:///{path}", busy_seconds=5, for_writing=True) as store:
        for number in range(count):
            _run(store, random.Random(number), MIDNIGHT + timedelta(seconds=number))


def _seal(store: Store) -> None:
    """Seal the copied runs as their ends would have, many at a time."""
    with store.read() as session:
        runs = unsealed_runs(session.connection())
        ended = dict(session.connection().execute(select(RUNS.c.id, RUNS.c.ended_at)).all())
    for first in range(0, len(runs), RUNS_AT_ONCE):
        with store.write() as session:
            connection = session.connection()
            newest = newest_seal(connection)
            assert newest is not None
            seals: list[Seal] = []
            position, chain = newest.position, newest.chain
            some = dict.fromkeys(runs[first : first + RUNS_AT_ONCE], False)
            for check in check_runs(connection, some):
                assert not check.problems
                position += 1
                of_run = (position, "run", check.run_id, ended[check.run_id])
                seal = Seal(*of_run, check.record, check.contents, "", None)
                chain = seal.link(chain)
                seals.append(seal._replace(chain=chain))
            connection.execute(insert(SEALS), [seal._asdict() for seal in seals])


def _test(store: Store) -> None:
    """Test the numbers of all days as the ends of their runs would have."""
    with store.write() as session:
        connection = session.connection()
        for table in (HEALTH_ALARMS, HEALTH_BLOCKS, HEALTH):
            connection.execute(delete(table))
        health.examine_all(connection)


def _multiply(connection: sqlite3.Connection, days: int) -> None:
    """Copy the one day that is there to all others, table by table, in the order of time."""
    (made,) = connection.execute("SELECT max(id) FROM attempts").fetchone()
    statements = []
    for table, changes in CHANGES.items():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        values = ", ".join(
            changes.get(name, "{0}").format(f'"{name}"') + f' AS "{name}"' for name in columns
        )
        connection.execute(f"CREATE TEMP TABLE day_of_{table} AS SELECT * FROM {table}")
        statements.append(f"INSERT INTO main.{table} SELECT {values} FROM day_of_{table}")
    connection.execute("BEGIN")
    for copy in range(1, days):
        for statement in statements:
            numbers = {"copy": copy, "runs": RUNS_A_DAY, "attempts": made}
            connection.execute(statement, numbers)
    connection.execute("COMMIT")


def sizes(path: Path) -> Iterator[tuple[str, float]]:
    """Tell how many bytes each table and index takes for an attempt with its batch."""
    query = """
        SELECT name, 1.0 * sum(pgsize) / (SELECT count(*) FROM attempts) AS size FROM dbstat
        GROUP BY name ORDER BY size DESC
    """
    with closing(sqlite3.connect(path)) as connection:
        yield from connection.execute(query)


def time_saving(path: Path, batches: int = 10_000) -> float:
    """Record a run in a new database, and tell the CPU time for an attempt and its outcome, µs."""
    wanted = [make_batch(number, n=16) for number in range(batches)]
    attempts = [make_attempt(number) for number in range(batches)]
    outcomes = [make_collected(batch) for batch in wanted]
    with open_store(f"sqlite:///{path}", busy_seconds=5, for_writing=True) as store:
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


def time_command(path: Path, command: str) -> float:
    """Run a command as a process of its own, and tell how long it took in seconds of CPU."""
    environment = os.environ | {"PIPELINE_STORE_URL": f"sqlite:///{path}"}
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "tests.stopped", NOW.isoformat(), *command.split()],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(few: Path, many: Path, rounds: int) -> None:
    """Time each command against both databases, and print the medians."""
    print(f"{'':38} {'few':>8} {'many':>8} {'over --version':>15} {'times':>7} {'ratio':>6}")
    version = 0.0
    for command in COMMANDS:
        took: dict[Path, list[float]] = {few: [], many: []}
        for _ in range(rounds):
            for path, times in took.items():
                times.append(time_command(path, command))
        small, large = median(took[few]), median(took[many])
        version = version or large
        print(
            f"{command:38} {small:7.2f}s {large:7.2f}s {large - version:14.2f}s"
            f" {large / version:6.1f}x {large / small:6.2f}"
        )
    small, large = (time_command(path, "audit verify --all") for path in (few, many))
    print(f"{'audit verify --all, once':38} {small:7.2f}s {large:7.2f}s")


def main() -> None:
    """Fill what is not there yet, and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--few", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    stop_the_clock(NOW)
    paths = []
    for attempts in (options.few, options.many):
        path = (options.folder / f"{attempts}.db").resolve()
        if not path.exists():
            began = perf_counter()
            fill(path, attempts)
            parts = dict(sizes(path))
            print(
                f"{attempts} attempts in {perf_counter() - began:.0f} s,"
                f" {sum(parts.values()):.1f} bytes for an attempt with its batch:",
                ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 1),
            )
        paths.append(path)
    with TemporaryDirectory() as folder:
        took = time_saving(Path(folder, "new.db"))
    print(f"{took:.1f} µs of CPU to save an attempt and its outcome")
    compare(paths[0], paths[1], options.rounds)


if __name__ == "__main__":
    main()
