"""A history with all that can happen in one, and a look at every value of it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import insert

from pipeline.models import Outcome, Request, Verdict
from pipeline.store.db import Store
from pipeline.store.tables import MEMBERS
from tests.store.makers import (
    NOON,
    at,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_failed_attempt,
    make_lost,
    record_results,
)

# What the chain of seals is over; the rest is no history.
SEALED = (
    "runs",
    "batches",
    "attempts",
    "evidence",
    "requests",
    "sources",
    "tallies",
    "losses",
    "seals",
)


def request_for(n: int) -> Request:
    """Ask for *n* rolls of a die."""
    url = f"http://127.0.0.1/dice?n={n}"
    return Request(method="GET", url=url, headers=(("Accept", "application/json"),), body=b"")


def join(store: Store) -> int:
    """Say that a worker is here, as ``portions.join`` does on a server."""
    worker = {"host": "m1", "pid": 7, "version": "1", "lanes": 1, "since": NOON, "seen_at": NOON}
    with store.write() as session:
        joining = insert(MEMBERS).values(worker).returning(MEMBERS.c.id)
        return int(session.connection().execute(joining).scalar_one())


def record_mixed_run(
    store: Store, *, started_at: datetime = NOON, member: int | None = None
) -> int:
    """Record a run that collects w0 and w1, loses w2 and w3, and puts w4 off; two sources.

    A *member* made the first attempt at w1, and the run itself all others.
    """
    batches = [make_batch(number, "dice" if number < 3 else "coins") for number in range(5)]
    evidence = make_evidence(f"down at {started_at}".encode())
    attempts = [
        replace(make_attempt(0, began_at=started_at), request=request_for(3)),
        replace(make_failed_attempt(1, began_at=started_at, evidence=evidence), member=member),
        replace(make_attempt(1, 2, began_at=started_at), request=request_for(4)),
        replace(make_failed_attempt(2, began_at=started_at), request=request_for(3)),
    ]
    outcomes: list[Outcome] = [
        make_collected(batches[0]),
        make_collected(batches[1], attempt=2),
        make_lost(batches[2]),
        make_lost(batches[3]),
        make_lost(batches[4], Verdict.DEFERRED),
    ]
    with store.write() as session:
        return record_results(session, *outcomes, attempts=attempts, started_at=started_at)


def start_endless_run(store: Store, *, started_at: datetime = NOON) -> int:
    """Start a run that has one batch and leaves one open."""
    batches = [make_batch(0), make_batch(1)]
    with store.write() as session:
        return record_results(
            session,
            make_collected(batches[0]),
            attempts=[make_attempt(0, began_at=started_at)],
            batches=batches,
            started_at=started_at,
            is_over=False,
        )


def record_history(store: Store, *, runs: int = 3) -> None:
    """Record some runs a day apart, and one more that has not ended."""
    for day in range(runs):
        record_mixed_run(store, started_at=at(24 * 60 * day))
    start_endless_run(store, started_at=at(24 * 60 * runs))


def tamper(path: Path, *statements: str) -> None:
    """Change a database behind the program's back, as a fault of the disk would: nothing minds."""
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            raw.execute(statement)


def contents_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Read every value that the chain is over, text as the bytes that lie there."""
    with closing(sqlite3.connect(path)) as raw:
        raw.text_factory = bytes
        # A text that has become a blob is another value, and bytes alone would not tell.
        return {table: _values(raw, table) for table in SEALED}


def _values(raw: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    names = [row[1].decode() for row in raw.execute(f"PRAGMA table_info({table})")]
    columns = ", ".join(f'"{name}", typeof("{name}")' for name in names)
    order = ", ".join(("1", "3", "5")[: len(names)])
    return raw.execute(f"SELECT {columns} FROM {table} ORDER BY {order}").fetchall()
