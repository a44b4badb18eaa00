"""The chain of seals: what it is made of."""

import hashlib
import json
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.store.db import Store
from pipeline.store.integrity.chain import read_seals
from tests.store.histories import join, record_history, record_mixed_run

VERDICTS = {1: "collected", 2: "failed", 3: "deferred", 4: "cancelled"}
EVIDENCE = "e.status, e.headers, e.body_bytes, e.first_seen_at"


def hash_of(*rows: tuple[object, ...]) -> str:
    """Hash rows as the module's docstring says, with nothing of ours in between."""
    plain = [[cell.hex() if isinstance(cell, bytes) else cell for cell in row] for row in rows]
    text = "".join(json.dumps(row, separators=(",", ":")) + "," for row in plain)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def published(found: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """Read rows, their times as the texts that the module's docstring names."""
    names = [column[0] for column in found.description]
    return [
        tuple(
            text_of(cell) if name.endswith("_at") or name == "not_before" else cell
            for name, cell in zip(names, row, strict=True)
        )
        for row in found
    ]


def worded(found: sqlite3.Cursor, sources: dict[int, str]) -> list[tuple[Any, ...]]:
    """Read rows that have numbers for sources and verdicts, as the docstring says."""
    names = [column[0] for column in found.description]
    words = {"source": sources, "verdict": VERDICTS}
    return [
        tuple(
            words[name].get(cell) if name in words else cell
            for name, cell in zip(names, row, strict=True)
        )
        for row in published(found)
    ]


def text_of(us: int | None) -> str | None:
    """Write the time that is so many microseconds after 1970."""
    moment = us and datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z" if moment else None


def hashed_batch(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put the whole digest in the place of its first bytes, and the length for the numbers."""
    *facts, numbers = row
    if numbers is None:
        return (*facts, None)
    whole = hashlib.sha256(struct.pack("<3q", *facts[4:7]) + numbers).digest()
    return (*(whole if cell == whole[:8] else cell for cell in facts), len(numbers))


def hashed_attempt(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put the worker last, if there is one."""
    at = len(row) - len(("member", *EVIDENCE.split(), "digest", "host", "pid"))
    *rest, host, pid = row[:at] + row[at + 1 :]
    return (*rest, *((row[at], host, pid) if row[at] else ()))


def sorted_by_json(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Sort as the module's docstring says."""
    return sorted(rows, key=lambda row: json.dumps(row, separators=(",", ":")))


def test_a_seal_is_what_its_documentation_says(store: Store, path: Path) -> None:
    """Whoever mistrusts the program needs sqlite3, hashlib and json to do it all again."""
    run_id = record_mixed_run(store, member=join(store))
    with closing(sqlite3.connect(path)) as raw:
        run, tallies, losses = (
            published(raw.execute(f"SELECT * FROM {table} WHERE {key} = ?", (run_id,)))
            for table, key in (("runs", "id"), ("tallies", "run_id"), ("losses", "run_id"))
        )
        sources = dict(raw.execute("SELECT id, name FROM sources").fetchall())
        found = raw.execute("SELECT * FROM batches ORDER BY run_id, number")
        batches = worded(found, sources)
        attempts = worded(
            raw.execute(
                f"SELECT a.*, {EVIDENCE}, r.digest, m.host, m.pid FROM attempts a"
                " LEFT JOIN evidence e ON e.digest = a.evidence"
                " LEFT JOIN requests r ON r.id = a.request"
                " LEFT JOIN members m ON m.id = a.member ORDER BY fetch, number"
            ),
            sources,
        )
        (seal,) = published(raw.execute("SELECT * FROM seals"))

    position, kind, of_run, sealed_at, *digests, pruned_by = seal
    record, contents, chain = (bytes.hex(digest) for digest in digests)
    hashed = [hashed_batch(batch) for batch in batches]

    assert (position, kind, of_run, pruned_by) == (1, "run", run_id, None)
    assert record == hash_of(*run, *sorted_by_json(tallies), *sorted_by_json(losses))
    assert contents == hash_of(*hashed, *map(hashed_attempt, attempts))
    assert chain == hash_of(("", position, kind, run_id, sealed_at, record, contents))


def test_each_seal_builds_on_the_one_before(store: Store) -> None:
    """So that a seal cannot be taken out without changing all that follow."""
    record_history(store)

    with store.read() as session:
        seals = read_seals(session.connection(), after=0, limit=10)

    assert [seal.run_id for seal in seals] == [1, 2, 3]
    for before, seal in pairwise(seals):
        assert seal.chain == seal.link(before.chain)


def test_the_chain_may_be_read_in_parts(store: Store) -> None:
    """A chain of a million seals is never in memory at once."""
    record_history(store)

    with store.read() as session:
        seals = read_seals(session.connection(), after=1, limit=1)

    assert [seal.position for seal in seals] == [2]
