"""What a flipped bit leaves in a column is named; what we write ourselves never is."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store import sqlite
from pipeline.store.db import Store, open_store
from pipeline.store.integrity.damage import find_damage
from tests.store.makers import (
    make_attempt,
    make_batch,
    make_evidence,
    make_failed_attempt,
    record_run,
)


@pytest.fixture
def filled(store: Store, path: Path) -> Path:
    """Keep a run with an attempt that went well and one that did not."""
    failed = make_failed_attempt(1, evidence=make_evidence())
    with store.write() as session:
        record_run(session, [make_batch(0)], attempts=[make_attempt(0), failed])
    return path


def change(path: Path, statement: str) -> None:
    """Change something behind our back, whatever the rules of the table are."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute(statement)


def damage(path: Path) -> list[str]:
    """Name what is damaged."""
    with (
        open_store(f"sqlite:///{path}", busy_seconds=0.1, for_writing=False) as store,
        store.read() as session,
    ):
        return list(find_damage(session.connection()))


@pytest.mark.parametrize(
    ("change_made", "found"),
    [
        ("runs SET started_at = '2026-02-30T12:00:00.000000Z'", "runs.started_at: 1 row holds"),
        ("runs SET ended_at = x'3230'", "runs.ended_at: 1 row holds"),
        ("runs SET ended_at = 1 << 62", "runs.ended_at: 1 row holds"),
        ("seals SET chain = hex(chain)", "seals.chain: 1 row holds"),
        ("timings SET phases = hex(phases)", "timings.phases: 2 rows hold"),
        ("timings SET phases = CAST(substr(phases, 2) AS BLOB)", "timings.phases: 2 rows hold"),
        ("runs SET status = 'okay'", "runs.status: 1 row holds"),
        ("attempts SET error = ''", "attempts.error: 2 rows hold"),
        ("attempts SET wait_us = 'long'", "attempts.wait_us: 2 rows hold"),
        ("attempts SET is_reused = 7", "attempts.is_reused: 2 rows hold"),
        ("batches SET numbers = 'text'", "batches.numbers: 1 row holds"),
        ("batches SET source = x'ff'", "batches.source: 1 row holds"),
        ("tallies SET sum = '1e3'", "tallies.sum: 1 row holds"),
        ("losses SET phase = 'lunch'", "losses.phase: 1 row holds"),
        ("attempts SET evidence = 'gone' WHERE id = 2", "attempts row 2 refers to a row of evid"),
        ("evidence SET headers = 'text'", "evidence.headers: 1 row holds"),
        ("evidence SET headers = '{}'", "evidence.headers: 1 row holds"),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_named(
    filled: Path, change_made: str, found: str
) -> None:
    """SQLite takes anything anywhere, so nobody else would say it."""
    change(filled, f"UPDATE {change_made}")

    (line,) = damage(filled)

    assert line.startswith(found)


def test_what_we_write_is_sound(filled: Path) -> None:
    """A check that cries wolf is switched off; even the last microsecond of all is a time."""
    change(filled, "UPDATE runs SET ended_at = 253402300799999999")
    change(filled, "UPDATE tallies SET sum = '-123456789012345678901234567890'")

    assert damage(filled) == []


def test_a_surprise_over_a_damaged_database_is_told_as_damage(filled: Path) -> None:
    """Whoever stumbles over a bad value knows neither where it was nor what to do about it."""
    change(filled, "UPDATE runs SET pid = 'ghost'")

    with (
        pytest.raises(StoreError, match=r"damaged \(runs.pid: 1 row holds .* `pipeline db check`"),
        open_store(f"sqlite:///{filled}", busy_seconds=0.1, for_writing=False),
    ):
        raise TypeError


def test_a_surprise_over_a_sound_database_stays_one(filled: Path) -> None:
    """A bug of ours is not to be blamed on the disk."""
    with (
        pytest.raises(TypeError),
        open_store(f"sqlite:///{filled}", busy_seconds=0.1, for_writing=False),
    ):
        raise TypeError


def test_a_damaged_page_stops_a_backup_in_one_line(
    filled: Path, store: Store, tmp_path: Path
) -> None:
    """A copy of damage is no backup; and SQLite says it in two lines, we promise one."""
    store.close()
    with closing(sqlite3.connect(filled)) as raw:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'evidence'"
        (page,) = raw.execute(query).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    with filled.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    with pytest.raises(StoreError, match="damaged; nothing was changed") as caught:
        sqlite.back_up(filled, tmp_path / "copy.db")

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "copy.db").exists()
