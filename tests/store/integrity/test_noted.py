"""What was verified and noted is gone on from, and comes to the same as a look at everything."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from pipeline.audit.sheets import examine_day
from pipeline.store.db import Store
from pipeline.store.integrity import noted as module
from pipeline.store.integrity.noted import Noted, read_note, write_note
from pipeline.store.integrity.pruning import prune
from pipeline.store.integrity.verify import Verification, verify
from pipeline.store.rollups import close_periods
from pipeline.store.tables import DAYS, EVIDENCE, SEALS
from tests.store.histories import record_mixed_run, start_endless_run
from tests.store.makers import NOON, at

DAY = timedelta(days=1)


def look(store: Store, noted: Noted | None = None) -> Verification:
    """Verify, sums included."""
    return verify(store, noted=noted, examine=examine_day)


def note(store: Store, noted: Noted | None = None) -> Noted:
    """Verify what is sound, and give what is to be noted."""
    found = look(store, noted)
    assert found.problems == ()
    assert found.noted is not None
    return found.noted


def told(noted: Noted) -> tuple[object, ...]:
    """Give all that does not depend on when it was looked at."""
    return (noted.began, noted.head, noted.batches, noted.first_run, noted.sums_from, noted.states)


def close(store: Store, now: datetime) -> None:
    """Close the days before."""
    with store.write() as session:
        close_periods(session, now=now, examine=examine_day)


def test_going_on_comes_to_the_same_as_reading_everything(store: Store) -> None:
    """Step by step, with runs that overlap, days that are closed, and a run that never ends."""
    noted = None
    for day in range(5):
        record_mixed_run(store, started_at=NOON + day * DAY)
        if day == 2:
            start_endless_run(store, started_at=NOON + day * DAY)
        close(store, NOON + day * DAY)
        noted = note(store, noted)

        assert told(noted) == told(note(store))
    assert noted is not None
    assert noted.all_verified_at < noted.verified_at


def test_only_what_came_since_is_counted(store: Store) -> None:
    """Nobody must take a look at little for a look at all."""
    record_mixed_run(store)
    noted = note(store)
    record_mixed_run(store, started_at=NOON + DAY)

    found = look(store, noted)

    assert (found.runs, found.batches, found.attempts) == (1, 5, 4)
    assert found.since == noted


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_runs_may_be_pruned_after_they_were_noted(store: Store, kept: int) -> None:
    """Before the head or behind it: the tests of health go on from where numbers are left."""
    record_mixed_run(store)
    record_mixed_run(store, started_at=NOON + DAY)
    noted = note(store)
    for day in (2, 3):
        record_mixed_run(store, started_at=NOON + day * DAY)

    prune(store, before=NOON + kept * DAY + timedelta(hours=1), now=NOON + 4 * DAY)
    again = note(store, noted)

    assert again.states == note(store).states
    record_mixed_run(store, started_at=NOON + 5 * DAY)
    assert look(store, again).problems == ()


def test_a_marked_pruning_that_is_wrong_is_found(store: Store) -> None:
    """Somebody may say of a run that it was pruned."""
    record_mixed_run(store)
    record_mixed_run(store, started_at=NOON + DAY)
    noted = note(store)
    prune(store, before=NOON + timedelta(hours=1), now=NOON + 4 * DAY)
    with store.write() as session:
        session.connection().execute(update(SEALS).where(SEALS.c.position == 2).values(pruned_by=3))

    (problem,) = look(store, noted).problems

    assert problem.text == "position 3: the runs marked as pruned there are not those that were"


def test_a_changed_answer_is_found_when_a_new_run_refers_to_it(store: Store) -> None:
    """What runs have in common is looked at for the new ones."""
    record_mixed_run(store)
    noted = note(store)
    record_mixed_run(store)
    with store.write() as session:
        session.connection().execute(update(EVIDENCE).values(body=b"other"))

    assert any("was changed" in problem.text for problem in look(store, noted).problems)


@pytest.mark.parametrize("is_late", [False, True])
def test_sums_of_days_that_were_touched_since_are_looked_at(store: Store, is_late: bool) -> None:
    """A run that ends late opens its day again."""
    record_mixed_run(store)
    record_mixed_run(store, started_at=NOON + DAY)
    close(store, NOON + 2 * DAY)
    noted = note(store)
    if is_late:
        record_mixed_run(store, started_at=at(5))
        close(store, NOON + 2 * DAY)
    with store.write() as session:
        lie = update(DAYS).where(DAYS.c.began_at == NOON.replace(hour=0))
        session.connection().execute(lie.values(collected=99))

    problems = [problem.text for problem in look(store, noted).problems]

    wrong = "2026-03-01: the sums in days are not those of the runs of that day"
    assert problems == ([wrong] if is_late else [])
    assert wrong in [problem.text for problem in look(store).problems]


def test_a_note_says_on_disk_what_it_says(store: Store, tmp_path: Path) -> None:
    """Blocks of numbers and moments included."""
    record_mixed_run(store)
    noted = note(store)
    path = tmp_path / "notes" / "store.verified"

    assert write_note(path, noted) is None
    assert read_note(path) == noted
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["store.verified"]


def test_a_note_is_none_after_a_migration(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have made anew how far the tests of health are."""
    record_mixed_run(store)
    write_note(tmp_path / "noted", note(store))
    monkeypatch.setattr(module, "NEWEST", "9999")

    with pytest.raises(ValueError, match="is damaged, or older than the last migration"):
        read_note(tmp_path / "noted")


def test_where_nothing_was_noted_there_is_nothing(tmp_path: Path) -> None:
    """The first time."""
    assert read_note(tmp_path / "store.verified") is None
