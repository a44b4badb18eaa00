"""The chain of seals: what it is made of, and how it begins in a database that had none."""

import hashlib
import json
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from pipeline.store.db import Store, connect_to_migrate, migrate, open_store
from pipeline.store.schema import migrations_folder
from pipeline.store.seals import read_seals
from pipeline.store.verification import verify
from tests.store.histories import record_history, record_mixed_run, tamper

EVIDENCE = "e.status, e.headers, e.body_bytes, e.first_seen_at"


def hash_of(*rows: tuple[object, ...]) -> str:
    """Hash rows as the module's docstring says, with nothing of ours in between."""
    plain = [[cell.hex() if isinstance(cell, bytes) else cell for cell in row] for row in rows]
    text = "".join(json.dumps(row, separators=(",", ":")) + "," for row in plain)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sorted_by_json(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Sort as the module's docstring says."""
    return sorted(rows, key=lambda row: json.dumps(row, separators=(",", ":")))


def test_a_seal_is_what_its_documentation_says(store: Store, path: Path) -> None:
    """Whoever mistrusts the program needs sqlite3, hashlib and json to do it all again."""
    run_id = record_mixed_run(store)
    with closing(sqlite3.connect(path)) as raw:
        run, tallies, losses = (
            raw.execute(f"SELECT * FROM {table} WHERE {key} = ?", (run_id,)).fetchall()
            for table, key in (("runs", "id"), ("tallies", "run_id"), ("losses", "run_id"))
        )
        batches = raw.execute("SELECT * FROM batches ORDER BY run_id, number").fetchall()
        attempts = raw.execute(
            f"SELECT a.*, {EVIDENCE}, r.digest FROM attempts a"
            " LEFT JOIN evidence e ON e.digest = a.evidence"
            " LEFT JOIN requests r ON r.id = a.request ORDER BY fetch, number"
        ).fetchall()
        (seal,) = raw.execute("SELECT * FROM seals").fetchall()

    position, kind, of_run, sealed_at, record, contents, chain, pruned_by = seal
    lengths = [(*batch[:-1], batch[-1] and len(batch[-1])) for batch in batches]

    assert (position, kind, of_run, pruned_by) == (1, "run", run_id, None)
    assert record == hash_of(*run, *sorted_by_json(tallies), *sorted_by_json(losses))
    assert contents == hash_of(*lengths, *attempts)
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


# ---- A database from before there were seals ----

OLD_ROWS = """
INSERT INTO runs VALUES
(1, 'aa', 'h', 1, '1', 'c', '/c', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:09.000000Z',
 'partial', 9000000, 3, 2, 1, 0, 0, 5, 3, 330),
(2, 'bb', 'h', 1, '1', 'c', '/c', '2026-01-02T00:00:00.000000Z', NULL,
 'running', NULL, 0, 0, 0, 0, 0, 0, 0, 0),
(3, 'cc', 'h', 1, '1', 'c', '/c', '2026-01-03T00:00:00.000000Z', '2026-01-03T00:00:01.000000Z',
 'skipped', 1, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO evidence VALUES
('{answer}', 503, '[["A", "b"]]', x'6e6f', 2, '2026-01-01T00:00:00.000000Z');
INSERT INTO attempts (id, run_id, fetch, number, source, began_at, wait_us, first_byte_us,
                      is_reused, status, error, phase, evidence) VALUES
(1, 1, 0, 1, 'dice', '2026-01-01T00:00:00.000000Z', 0, 110, 0, 200, NULL, NULL, NULL),
(2, 1, 1, 1, 'dice', '2026-01-01T00:00:01.000000Z', 5, 110, 1, 200, NULL, NULL, NULL),
(3, 1, 2, 1, 'coin', '2026-01-01T00:00:02.000000Z', 5, 110, 1, 503, 'http_5xx', 'check',
 '{answer}');
INSERT INTO batches (run_id, number, source, n, min, max, verdict, fetch, attempt, "offset", sum,
                     digest, error, numbers) VALUES
(1, 0, 'dice', 2, 1, 6, 'collected', 0, 1, 0, 7, {first}, NULL, x'0005'),
(1, 1, 'dice', 3, 1, 6, 'collected', 1, 1, 0, 18, {second}, NULL, x'050505'),
(1, 2, 'coin', 3, 0, 1, 'failed', 2, 1, NULL, NULL, NULL, 'http_5xx', NULL),
(2, 0, 'dice', 3, 1, 6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"""


def digest_of(packed: bytes) -> str:
    """Hash a batch of dice as 0001 did, as a literal of SQL."""
    head = b"".join(number.to_bytes(8, "little") for number in (len(packed), 1, 6))
    return f"x'{hashlib.sha256(head + packed).hexdigest()}'"


@pytest.fixture
def old(url: str, path: Path) -> Path:
    """Leave a database behind as the first version did."""
    with connect_to_migrate(url) as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(migrations_folder()))
        command.upgrade(config, "0001")
    answer = hashlib.sha256(b'[503, [["A", "b"]]]\nno').hexdigest()
    digests = {"first": digest_of(b"\0\5"), "second": digest_of(b"\5\5\5")}
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(OLD_ROWS.format(answer=answer, **digests))
    return path


def rows_of(path: Path) -> dict[str, list[dict[str, object]]]:
    """Read all that the first version knew."""
    with closing(sqlite3.connect(path)) as raw:
        raw.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in raw.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
            for table in ("runs", "batches", "attempts", "evidence")
        }


def test_an_upgrade_changes_no_row(url: str, old: Path) -> None:
    """The numbers of years are worth more than any new feature."""
    before = rows_of(old)

    migrate(url, busy_seconds=1)

    after = rows_of(old)
    assert [attempt.pop("request") for attempt in after["attempts"]] == [None, None, None]
    assert after == before


def test_an_upgrade_sums_up_and_seals_the_runs_that_ended(url: str, old: Path) -> None:
    """Reports and the chain must not begin on the day of the upgrade."""
    open_store(url, busy_seconds=1, for_writing=True).close()

    with closing(sqlite3.connect(old)) as raw:
        seals = raw.execute("SELECT position, run_id FROM seals").fetchall()
        tallies = raw.execute("SELECT source, collected, failed, sum FROM tallies").fetchall()
        losses = raw.execute("SELECT source, error, phase, batches FROM losses").fetchall()
        timings = raw.execute("SELECT count(*) FROM timings").fetchone()
    assert seals == [(1, 1), (2, 3)]
    assert sorted(tallies) == [("coin", 0, 1, "0"), ("dice", 2, 0, "25")]
    assert losses == [("coin", "http_5xx", "check", 1)]
    assert timings == (4,)


def test_an_upgraded_database_verifies(url: str, old: Path) -> None:
    """And a bit that flips in the old numbers is found from then on."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        sound = verify(store)
    assert (sound.problems, sound.runs) == ((), 3)
    tamper(old, "UPDATE batches SET numbers = x'0105' WHERE run_id = 1 AND number = 0")

    with open_store(url, busy_seconds=1, for_writing=False) as store:
        found = verify(store)

    assert [problem.text for problem in found.problems] == [
        "run 1 w0: its numbers are not those collected"
    ]
