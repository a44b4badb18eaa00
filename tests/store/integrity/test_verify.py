"""What was changed, removed or inserted in a history is named."""

import random
import sqlite3
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store.db import Store, open_store
from pipeline.store.integrity.chain import newest_seal
from pipeline.store.integrity.checks import structure_problems
from pipeline.store.integrity.noted import Mark
from pipeline.store.integrity.verify import verify
from pipeline.store.writes import finish_run
from tests.store.histories import SEALED, contents_of, record_history, record_mixed_run, tamper
from tests.store.makers import at, begin


def problems_of(path: Path, *, expected: Mark | None = None) -> list[str]:
    """Verify the database at *path* and give the lines."""
    with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=False) as store:
        return [problem.text for problem in verify(store, expected=expected).problems]


def head_of(store: Store) -> Mark:
    """Read where the chain ends."""
    with store.read() as session:
        seal = newest_seal(session.connection())
    assert seal is not None
    return Mark(seal.position, seal.chain)


@pytest.fixture
def history(store: Store, path: Path) -> Path:
    """Record three runs with all that can happen, and one that goes on."""
    record_history(store)
    return path


def test_a_sound_history_is_said_to_be_sound(store: Store, history: Path) -> None:
    """And how much was looked at, the run that goes on included."""
    del history

    found = verify(store)

    assert found.problems == ()
    assert (found.runs, found.pruned, found.batches, found.attempts) == (4, 0, 17, 13)
    assert found.numbers == 21
    assert found.head == head_of(store)


INSERT_BATCH = "INSERT INTO batches (run_id, number, source, is_sandbox, n, min, max)"


@pytest.mark.parametrize("look", [1, 2])
def test_a_run_may_end_meanwhile(store: Store, path: Path, look: int) -> None:
    """It is counted once, and its seal is not taken for one that is missing, whenever it ends."""
    record_history(store)
    with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=True) as other:
        with other.write() as session:
            late = begin(session)
        looks = count(1)

        def end_it(_done: int, _all: int) -> None:
            if next(looks) == look:
                with other.write() as session:
                    finish_run(session, run_id=late, ended_at=at(9), clock_us=1)

        found = verify(store, watch=end_it)

    assert found.problems == ()
    assert found.runs == 5


def test_an_empty_database_is_sound(store: Store) -> None:
    """Before the first run has ended there is no chain, and nothing is wrong with that."""
    found = verify(store)

    assert (found.problems, found.head, found.runs) == ((), None, 0)


@pytest.mark.parametrize(
    ("statement", "lines"),
    [
        (
            "UPDATE runs SET host = 'elsewhere' WHERE id = 2",
            ["run 2: its row, its tallies or its losses were changed since it was sealed"],
        ),
        (
            "UPDATE runs SET started_at = started_at + 1 WHERE id = 2",
            ["run 2: its row, its tallies", "run 2: tallies has a row that is not its own"],
        ),
        (
            "UPDATE runs SET collected = 3, failed = 1 WHERE id = 2",
            ["run 2: its total says 3 collected, its batches 2"],
        ),
        (
            "UPDATE runs SET waited_us = 1 WHERE id = 2",
            ["run 2: its total says 1 waited_us, its attempts"],
        ),
        ("UPDATE tallies SET sum = '35' WHERE run_id = 2", ["the tally of dice says 35 sum, not"]),
        ("DELETE FROM tallies WHERE run_id = 2", ["run 2: the tally of dice was removed"]),
        ("UPDATE losses SET first_attempt = 9 WHERE run_id = 1", ["run 1: its row, its tallies"]),
        ("DELETE FROM losses WHERE run_id = 1", ["run 1: its row, its tallies or its losses"]),
        (
            "INSERT INTO losses VALUES ('2026', 2, 'dice', 'dns', 'dns', 1, 1, '', '', 0, 0)",
            ["run 2: losses has a row that is not its own"],
        ),
        (
            "UPDATE batches SET sum = sum + 1 WHERE run_id = 2 AND number = 1",
            ["run 2 w1: its numbers are not those collected", "run 2: its batches, its attempts"],
        ),
        (
            "UPDATE batches SET numbers = x'050504' WHERE run_id = 4 AND number = 0",
            ["run 4 w0: its numbers are not those collected"],
        ),
        (
            "UPDATE batches SET numbers = '555' WHERE run_id = 2 AND number = 1",
            ["run 2 w1: its numbers are not those collected"],
        ),
        (
            "UPDATE batches SET n = 'many' WHERE run_id = 2 AND number = 1",
            ["run 2 w1: its numbers are not those collected"],
        ),
        (
            "UPDATE batches SET numbers = NULL WHERE run_id = 2 AND number = 1",
            ["run 2: its batches, its attempts or their answers were changed since it was sealed"],
        ),
        (
            "DELETE FROM batches WHERE run_id = 2 AND number = 1",
            ["run 2 w1: was removed", "run 2: its total says 2 collected, its batches 1"],
        ),
        ("DELETE FROM batches WHERE run_id = 2 AND number = 4", ["run 2 w4: was removed"]),
        (
            f"{INSERT_BATCH} VALUES (2, 5, 'x', 0, 1, 1, 1)",
            ["run 2: 1 batches have no outcome", "run 2: its batches, its attempts"],
        ),
        (
            f"{INSERT_BATCH} VALUES (9, 0, 'x', 0, 1, 1, 1)",
            ["run 9: is not there, but batches has rows of it"],
        ),
        (
            "UPDATE attempts SET tls_us = 5 WHERE run_id = 2",
            [
                "run 2: its batches, its attempts or their answers",
                "says 4274 exchange_us, not 4294",
            ],
        ),
        (
            "UPDATE batches SET verdict = 4, error = 'dns' WHERE run_id = 2 AND number = 3",
            ["run 2: its batches, its attempts"],
        ),
        (
            "UPDATE batches SET source = 2 WHERE run_id = 2 AND number = 0",
            ["run 2: its batches, its attempts", "run 2: the tally of dice says"],
        ),
        ("UPDATE sources SET name = 'other' WHERE id = 1", ["run 2: its batches, its attempts"]),
        (
            "UPDATE attempts SET request = 99 WHERE run_id = 2 AND number = 1",
            ["run 2: its batches, its attempts or their answers were changed"],
        ),
        (
            "UPDATE batches SET is_sandbox = 1 WHERE number = 0",
            ["run 1: its batches, its attempts"],
        ),
        ("UPDATE tallies SET is_sandbox = 1", ["run 1: its row, its tallies"]),
        ("UPDATE runs SET is_sandbox = 1", ["run 1: its row, its tallies"]),
        ("UPDATE attempts SET is_reused = 3 WHERE id = 1", ["run 1: its batches, its attempts or"]),
        ("UPDATE attempts SET wait_us = 'long' WHERE id = 1", ["run 1: attempt 1 is damaged"]),
        ("DELETE FROM attempts WHERE id = 2", ["run 1: its total says 4 attempts, its attempts 3"]),
        ("UPDATE attempts SET run_id = 9 WHERE id = 2", ["run 9: is not there, but attempts has"]),
        ("UPDATE evidence SET body = x'00'", ["was changed"]),
        ("UPDATE evidence SET headers = '{'", ["was changed"]),
        (
            "UPDATE evidence SET first_seen_at = 0",
            ["run 1: its batches, its attempts or their answers", "run 3: its batches"],
        ),
        ("INSERT INTO evidence VALUES ('ab', 1, '[]', x'', 0, '')", ["answer ab: belongs to no"]),
        ("UPDATE requests SET url = 'http://127.0.0.1/' WHERE id = 1", ["request ", "was changed"]),
        ("INSERT INTO requests VALUES (9, 'ab', '', '', '[]', x'')", ["request ab: belongs to no"]),
        ("DELETE FROM runs WHERE id = 2", ["run 2: was removed; its seal is left at position 2"]),
        (
            "DELETE FROM seals WHERE position = 2",
            ["position 2: the seal was removed", "run 2: is n"],
        ),
        (
            "DELETE FROM seals WHERE position = 3",
            ["position 3: the seal was removed", "run 3: is n"],
        ),
        (
            "DELETE FROM seals WHERE position < 3",
            ["position 1: the seals to position 2 were remov"],
        ),
        ("UPDATE seals SET sealed_at = ''", ["position 1: the seal of run 1 was changed"]),
        ("UPDATE seals SET chain = 'ab' WHERE position = 3", ["position 3: the seal of run 3"]),
        (
            "UPDATE seals SET pruned_by = 3 WHERE run_id = 1",
            ["position 3: the runs marked as prun"],
        ),
        (
            "INSERT INTO runs VALUES (5,'','',1,'','','',0,'','','ok',1,0,0,0,0,0,0,0,0,NULL)",
            ["run 5: is not in the chain; it was inserted, or its seal was removed"],
        ),
    ],
)
def test_what_was_changed_is_named(history: Path, statement: str, lines: list[str]) -> None:
    """Months later somebody must know what of all this to mistrust."""
    tamper(history, statement)

    found = problems_of(history)

    for line in lines:
        assert any(line in problem for problem in found), found


def test_only_the_run_that_was_changed_is_blamed(history: Path) -> None:
    """A hundred runs after it are still as they were sealed."""
    tamper(history, "UPDATE runs SET host = 'elsewhere' WHERE id = 1")

    assert problems_of(history) == [
        "run 1: its row, its tallies or its losses were changed since it was sealed at position 1"
    ]


def test_a_changed_seal_does_not_blame_its_run(history: Path) -> None:
    """The chain tells that the run is as it was."""
    tamper(history, "UPDATE seals SET record = 'ab' WHERE position = 2")

    assert problems_of(history) == ["position 2: the seal of run 2 was changed"]


def test_a_removed_run_is_missed_even_without_its_seal(history: Path) -> None:
    """Run ids are never given twice, so a gap is a removal."""
    tamper(
        history,
        "DELETE FROM seals WHERE run_id = 2",
        *(f"DELETE FROM {table} WHERE run_id = 2" for table in ("tallies", "losses")),
        *(f"DELETE FROM {table} WHERE run_id = 2" for table in ("batches", "attempts")),
        "DELETE FROM runs WHERE id = 2",
        "DELETE FROM evidence WHERE digest NOT IN (SELECT evidence FROM attempts WHERE evidence)",
    )

    found = problems_of(history)

    assert "run 2: was removed" in found
    assert "position 2: the seal was removed" in found


def test_the_newest_runs_are_missed_as_well(history: Path) -> None:
    """Nothing follows them, but SQLite remembers the last id it gave."""
    tables = ("seals", "tallies", "losses", "batches", "attempts")
    tamper(
        history,
        *(f"DELETE FROM {table} WHERE run_id > 1" for table in tables),
        "DELETE FROM runs WHERE id > 1",
    )

    found = problems_of(history)

    assert "runs 2 to 4: were removed" in found
    assert "position 2: the seals to position 3 were removed" in found


def test_a_chain_written_anew_is_found_by_its_noted_head(store: Store, history: Path) -> None:
    """Whoever can write the file can write a whole new chain; but not in somebody's notebook."""
    noted = head_of(store)
    assert problems_of(history, expected=noted) == []
    tables = ("seals", "tallies", "losses", "batches", "attempts", "health", "health_alarms")
    tamper(
        history,
        *(f"DELETE FROM {table}" for table in (*tables, "evidence", "requests", "runs")),
        "DELETE FROM sqlite_sequence",
    )
    record_mixed_run(store)
    assert problems_of(history) == []

    shorter = problems_of(history, expected=noted)
    record_history(store)
    rewritten = problems_of(history, expected=noted)

    assert shorter == ["position 3: was noted, but the chain ends at 1"]
    assert rewritten == [
        "position 3: another chain was noted; what is before it has been written anew"
    ]


def test_a_text_that_is_no_text_is_named(history: Path) -> None:
    """Half a character stops Python from reading the row, but not us from saying which run."""
    tamper(history, "UPDATE runs SET host = CAST(x'ff' AS TEXT) WHERE id = 2")

    (line,) = (line for line in problems_of(history) if "cannot be read" in line)

    assert line.startswith("run 2: cannot be read: ")


def test_a_count_that_is_no_number_is_named(history: Path) -> None:
    """SQLite keeps a text in a column of integers if it is made to."""
    tamper(
        history,
        "UPDATE tallies SET collected = x'00' WHERE run_id = 2",
        "UPDATE batches SET number = x'00' WHERE run_id = 3 AND number = 4",
    )

    found = problems_of(history)

    assert any(line.startswith("run 2: the tally of ") for line in found)
    assert "run 3: holds something else where a count should be" in found


def test_a_run_that_begins_and_ends_meanwhile_is_no_finding(store: Store, history: Path) -> None:
    """Verification takes minutes on a large store, and collecting goes on."""
    del history
    later = iter(range(5, 8))

    def collect_meanwhile(done: int, total: int) -> None:
        del done, total
        if (day := next(later, None)) is not None:
            record_mixed_run(store, started_at=at(24 * 60 * day))

    found = verify(store, watch=collect_meanwhile)

    assert found.problems == ()
    assert found.head == head_of(store)


def test_a_start_that_failed_leaves_no_gap(store: Store, history: Path) -> None:
    """A transaction that is rolled back gives its id back, or cron's bad night would look bad."""
    with suppress(RuntimeError), store.write() as session:
        begin(session)
        raise RuntimeError
    record_mixed_run(store, started_at=at(9000))

    assert problems_of(history) == []


KEYS = {
    "runs": ("id",),
    "batches": ("run_id", "number"),
    "attempts": ("id",),
    "evidence": ("digest",),
    "requests": ("id",),
    "sources": ("id",),
    "tallies": ("run_id", "source"),
    "losses": ("run_id", "source", "error", "phase"),
    "seals": ("position",),
}


def flip_value(path: Path, chance: random.Random) -> str:
    """Flip one bit of one value through SQL, and say which."""
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        while True:
            table = chance.choice(SEALED)
            column = chance.choice([row[1] for row in raw.execute(f"PRAGMA table_info({table})")])
            keys = raw.execute(f"SELECT {', '.join(KEYS[table])} FROM {table}").fetchall()
            key = chance.choice(keys)
            where = " AND ".join(f"{name} = ?" for name in KEYS[table])
            query = f'SELECT "{column}" FROM {table} WHERE {where}'
            value = raw.execute(query, key).fetchone()[0]
            if value in (None, b"", ""):
                continue
            update = f'UPDATE OR IGNORE {table} SET "{column}" = ? WHERE {where}'
            if raw.execute(update, (_flipped(value, chance), *key)).rowcount:
                return f"{table}.{column} of {key}"


def _flipped(value: object, chance: random.Random) -> object:
    if isinstance(value, int):
        return value ^ 1 << chance.randrange(40)
    raw = bytearray(value if isinstance(value, bytes) else str(value).encode())
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(7)
    return bytes(raw) if isinstance(value, bytes) else raw.decode()


@pytest.fixture
def ended(store: Store, path: Path) -> Path:
    """Record two runs: one that goes on is not sealed yet."""
    for day in range(2):
        record_mixed_run(store, started_at=at(24 * 60 * day))
    return path


@pytest.mark.parametrize("seed", range(4))
def test_any_flipped_bit_of_a_value_is_found(ended: Path, seed: int) -> None:
    """Whichever column it is in: nobody chooses where a disk fails."""
    chance, sound = random.Random(seed), ended.read_bytes()
    for _ in range(25):
        ended.write_bytes(sound)

        place = flip_value(ended, chance)

        assert problems_of(ended), place


@pytest.mark.parametrize("seed", range(4))
def test_any_flipped_bit_of_the_file_is_found_if_it_changes_a_value(ended: Path, seed: int) -> None:
    """In pages of SQLite a bit may hit a length, a pointer or nothing; no value changes unseen."""
    chance, sound, before = random.Random(seed), ended.read_bytes(), contents_of(ended)
    used = [at for at, byte in enumerate(sound) if byte]  # most of so small a file is empty
    for _ in range(40):
        damaged = bytearray(sound)
        damaged[chance.choice(used)] ^= 1 << chance.randrange(8)
        ended.write_bytes(damaged)

        assert not is_changed(ended, before) or is_found(ended)


def is_changed(path: Path, before: dict[str, list[tuple[object, ...]]]) -> bool:
    """Compare every value that the chain is over, if they can be read at all."""
    try:
        return contents_of(path) != before
    except (sqlite3.Error, UnicodeDecodeError):
        return True


def is_found(path: Path) -> bool:
    """Check the database as ``pipeline db check`` does."""
    try:
        with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=False) as store:
            with store.read() as session:
                structure = structure_problems(session)
            return bool(structure or verify(store).problems)
    except StoreError:
        return True
