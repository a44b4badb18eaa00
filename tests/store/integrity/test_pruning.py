"""What a pruning deletes, what it keeps, and what it refuses."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.clock import Stamp
from pipeline.store import late
from pipeline.store.db import Store
from pipeline.store.integrity import pruning
from pipeline.store.integrity.pruning import Prunable, Pruned, find_prunable, prune, why_not
from pipeline.store.integrity.verify import verify
from tests.store.histories import record_history, record_mixed_run, start_endless_run, tamper
from tests.store.makers import NOON, at, make_attempt, make_batch, record_run

DAY = 24 * 60  # minutes


@pytest.fixture
def history(store: Store, path: Path) -> Path:
    """Record three runs a day apart from noon on, and one that goes on."""
    record_history(store)
    return path


def prune_before(store: Store, days: float) -> Pruned:
    """Prune what started so many days after noon or earlier."""
    return prune(store, before=at(int(days * DAY)), now=at(99 * DAY))


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Ask the database, past the program."""
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(query).fetchall()


def test_what_a_run_consisted_of_goes_and_what_it_adds_up_to_stays(
    store: Store, history: Path
) -> None:
    """A report over years needs the sums, and nobody looks at a batch of last year."""
    done = prune_before(store, 1.5)

    assert done == Pruned(runs=2, batches=10, attempts=8, requests=0, evidence=2)
    for table in ("batches", "attempts"):
        assert rows(history, f"SELECT DISTINCT run_id FROM {table}") == [(3,), (4,)]
    for table in ("tallies", "losses"):
        assert rows(history, f"SELECT DISTINCT run_id FROM {table}") == [(1,), (2,), (3,)]
    assert rows(history, "SELECT count(*) FROM evidence") == [(1,)]
    assert rows(history, "SELECT ordered, collected FROM runs WHERE id = 1") == [(5, 2)]


def test_what_came_late_goes_with_its_run(store: Store, history: Path) -> None:
    """Also what came when the run had been pruned, with the next pruning."""

    def come_late(run_id: int, fetch: int) -> None:
        with store.write() as session:
            late.keep(
                session,
                run_id=run_id,
                attempts=[make_attempt(fetch)],
                outcomes=[],
                keep_numbers=True,
            )

    come_late(1, 9)
    come_late(3, 9)
    prune_before(store, 1.5)
    assert rows(history, "SELECT run_id FROM late_attempts") == [(3,)]
    come_late(1, 8)

    prune_before(store, 1.5)

    assert rows(history, "SELECT run_id FROM late_attempts") == [(3,)]
    assert verify(store).problems == ()


def test_the_chain_still_verifies(store: Store, history: Path) -> None:
    """The pruning has a seal of its own, and those of the runs refer to it."""
    prune_before(store, 1.5)

    found = verify(store)

    assert (found.problems, found.runs, found.pruned) == ((), 4, 2)
    seals = rows(history, "SELECT position, kind, pruned_by FROM seals")
    assert seals == [(1, "run", 4), (2, "run", 4), (3, "run", None), (4, "pruning", None)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE seals SET pruned_by = 4 WHERE run_id = 3",
        "UPDATE seals SET pruned_by = NULL WHERE run_id = 1",
        "UPDATE seals SET pruned_by = NULL",
        "UPDATE seals SET record = contents WHERE position = 4",
    ],
)
def test_a_deletion_does_not_pass_for_a_pruning(
    store: Store, history: Path, statement: str
) -> None:
    """Whoever deletes a run's batches cannot hide behind a pruning that was."""
    prune_before(store, 1.5)
    tamper(history, "DELETE FROM batches WHERE run_id = 3", statement)

    found = [problem.text for problem in verify(store).problems]

    assert any("position 4: " in line for line in found)


def test_what_stays_of_a_pruned_run_is_still_held_to_its_seal(store: Store, history: Path) -> None:
    """Its tallies are all that is left, and somebody may wish that they were better."""
    prune_before(store, 1.5)
    tamper(history, "UPDATE tallies SET collected = 3 WHERE run_id = 1 AND source = 'dice'")

    found = [problem.text for problem in verify(store).problems]

    assert found == [
        "run 1: its total says 2 collected, its tallies 3",
        "run 1: its row, its tallies or its losses were changed since it was sealed at position 1",
    ]


def test_a_pruned_run_with_a_damaged_tally_is_named(store: Store, history: Path) -> None:
    """Even if there is nothing left that could be added up."""
    prune_before(store, 1.5)
    tamper(history, "UPDATE tallies SET collected = x'00' WHERE run_id = 1")

    found = [problem.text for problem in verify(store).problems]

    assert "run 1: its total says 2 collected, its tallies no number" in found


def test_an_answer_that_others_refer_to_stays(store: Store, history: Path) -> None:
    """The same refusal is kept once for all that got it."""
    tamper(
        history, "UPDATE attempts SET evidence = (SELECT max(evidence) FROM attempts) WHERE id = 2"
    )

    prune_before(store, 0.5)

    assert rows(history, "SELECT count(*) FROM evidence") == [(3,)]


def test_a_request_goes_with_the_last_that_sent_it(store: Store, history: Path) -> None:
    """Some upstreams want another id in every request."""
    tamper(
        history,
        "INSERT INTO requests VALUES (9, 'other', 'GET', '', '[]', x'')",
        "UPDATE attempts SET request = 9 WHERE run_id = 1 AND request = 1",
    )

    done = prune_before(store, 0.5)

    assert done.requests == 1
    assert rows(history, "SELECT id FROM requests ORDER BY id") == [(1,), (2,)]


@pytest.mark.sqlite
def test_a_request_that_is_sent_again_meanwhile_stays(store: Store, history: Path) -> None:
    """No reference holds it in a file, and a run may collect while the old ones are pruned."""
    tamper(
        history,
        "INSERT INTO requests VALUES (8, 'one', 'GET', '', '[]', x'')",
        "INSERT INTO requests VALUES (9, 'other', 'GET', '', '[]', x'')",
    )
    with store.read() as session:
        newest, unused = pruning.unused_requests(session.connection())
    record_mixed_run(store, started_at=at(50 * DAY))
    tamper(history, "UPDATE attempts SET request = 9 WHERE id = (SELECT max(id) FROM attempts)")

    deleted = pruning.delete_requests(store, newest, unused)

    assert (list(unused), deleted) == ([8, 9], 1)
    assert rows(history, "SELECT id FROM requests WHERE id > 2") == [(9,)]


def test_a_run_that_goes_on_is_left_alone(store: Store, path: Path) -> None:
    """It may have started long ago, and it may be dead; somebody else finds out."""
    start_endless_run(store)
    record_mixed_run(store, started_at=at(DAY))

    done = prune_before(store, 9)

    assert done == Pruned()
    assert rows(path, "SELECT count(*) FROM batches WHERE run_id = 1") == [(2,)]


def test_the_newest_attempt_is_never_pruned(store: Store, path: Path) -> None:
    """SQLite would give its number again, and somebody may have written it down."""
    record_mixed_run(store)
    newest = record_mixed_run(store, started_at=at(DAY))

    prune_before(store, 9)

    assert rows(path, "SELECT DISTINCT run_id FROM attempts") == [(newest,)]


def test_a_run_that_wanted_nothing_needs_no_pruning(store: Store) -> None:
    """A skipped run is a row and nothing else."""
    with store.write() as session:
        record_run(session, [], started_at=NOON)
    record_mixed_run(store, started_at=at(DAY))

    assert prune_before(store, 0.5) == Pruned()


def test_large_histories_go_in_several_transactions(
    store: Store, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that collects waits for one of them, not for all."""
    monkeypatch.setattr(pruning, "ROWS_PER_TRANSACTION", 5)
    seen: list[tuple[int, int]] = []

    prune(store, before=at(2 * DAY - 1), now=at(99 * DAY), watch=lambda *at: seen.append(at))

    assert seen == [(1, 2), (2, 2)]
    assert rows(history, "SELECT count(*) FROM seals WHERE kind = 'pruning'") == [(1,)]


def test_a_pruning_that_was_killed_is_finished_by_the_next(
    store: Store, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in between nothing is wrong: the runs are marked, and whole."""

    def die(done: int, total: int) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt(done, total)

    record_mixed_run(store, started_at=at(9 * DAY))
    monkeypatch.setattr(pruning, "RUNS_AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        prune(store, before=at(DAY * 2 - 1), now=at(99 * DAY), watch=die)
    assert rows(history, "SELECT DISTINCT run_id FROM batches") == [(2,), (3,), (4,), (5,)]
    assert verify(store).problems == ()

    done = prune_before(store, 2.5)

    assert done.runs == 2
    assert rows(history, "SELECT DISTINCT run_id FROM batches") == [(4,), (5,)]
    assert verify(store).problems == ()


def test_what_would_go_is_told_from_the_runs_alone(store: Store, history: Path) -> None:
    """Quick, however much they hold."""
    del history

    with store.read() as session:
        found = find_prunable(session, before=at(int(1.5 * DAY)), now=at(9 * DAY))

    assert found == Prunable(
        runs=2, batches=10, numbers=12, attempts=8, newest_at=at(DAY), oldest_kept_at=at(2 * DAY)
    )


@pytest.mark.parametrize(
    ("ahead", "keep", "reason"),
    [
        (0, 2, None),
        (365, 2, "no run has started since 2027-03-01 12:00Z, so nothing would be left whole"),
        (99, 200, None),
    ],
)
def test_a_clock_that_is_ahead_does_not_delete_everything(
    store: Store, ahead: int, keep: int, reason: str | None
) -> None:
    """Retention by age trusts a clock; the runs themselves tell how late it is."""
    for day in range(3):
        record_mixed_run(store, started_at=at(day * DAY))
    before = at((2 + ahead) * DAY) - timedelta(days=keep)
    with store.read() as session:
        found = find_prunable(session, before=before, now=before + timedelta(days=keep))

    assert why_not(found, before=before, keep=timedelta(days=keep)) == reason


def test_runs_of_the_same_wrong_clock_do_not_vouch_for_it(store: Store) -> None:
    """A clock that was ahead for one night has dated a run into next year."""
    for day in (0, 1, 365):
        record_mixed_run(store, started_at=at(day * DAY))

    with store.read() as session:
        found = find_prunable(session, before=at(275 * DAY), now=at(365 * DAY))

    assert why_not(found, before=at(275 * DAY), keep=timedelta(days=90)) == (
        "no run started between 2026-03-02 12:00Z and 2027-03-01 12:00Z"
    )


def test_nothing_speaks_against_pruning_nothing(store: Store) -> None:
    """The first night of a cron job."""
    with store.read() as session:
        found = find_prunable(session, before=NOON, now=at(90 * DAY))

    assert why_not(found, before=NOON, keep=timedelta(days=90)) is None
    assert prune_before(store, 0) == Pruned()


def test_pruning_goes_on_beside_a_run_that_collects(store: Store, history: Path) -> None:
    """Between two transactions another run ends, and both are in the chain."""
    del history

    def collect_meanwhile(done: int, total: int) -> None:
        del done, total
        with store.write() as session:
            record_run(session, [make_batch()], started_at=at(9 * DAY))

    prune(store, before=at(DAY * 2 - 1), now=at(99 * DAY), watch=collect_meanwhile)

    found = verify(store)
    assert (found.problems, found.runs, found.pruned) == ((), 5, 2)


@pytest.mark.parametrize(
    ("newest", "now", "is_fine"),
    [(-1, 0, True), (-6, 0, True), (-8, 0, False), (1, 0, False), (0, 0, True)],
)
def test_the_newest_run_vouches_for_the_clock(
    store: Store, newest: int, now: int, is_fine: bool
) -> None:
    """Days: far behind it or before it, the clock may be wrong by less than what is kept."""
    for day in range(3):
        record_mixed_run(store, started_at=at(day * DAY))
    before, keep = at(int(1.5 * DAY)), timedelta(days=90)
    stamp = Stamp(run_id=3, started_at=before + keep + timedelta(days=newest - now))
    with store.read() as session:
        found = find_prunable(session, before=before, now=before + keep)

    reason = why_not(found, before=before, keep=keep, newest_run=stamp)

    assert (reason is None) == is_fine
