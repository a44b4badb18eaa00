"""What the runs add up to, read from a real database."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, StoreError, UsageError
from pipeline.models import RunStatus, Timings
from pipeline.report.batches import batch_lines, find_lines
from pipeline.report.question import Question, as_it_stands
from pipeline.report.runs import find_runs, run_lines
from pipeline.scope import find_run
from pipeline.store.window import Window
from pipeline.store.writes import order_batches, save_results
from tests.store.makers import (
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
    record_run,
)

BATCHES = [make_batch(0), make_batch(1), make_batch(2, "coin")]


def record_three(session: Session) -> int:
    """Record a run of three batches, the first of which took two attempts."""
    made = [
        make_failed_attempt(0, 1),
        make_attempt(0, 2),
        make_attempt(1),
        make_attempt(2, source="coin"),
    ]
    return record_run(session, BATCHES, attempts=made)


def test_a_duration_is_the_phases_that_were_reached() -> None:
    """NULL is no 0, but it adds nothing either."""
    assert Timings(wait_us=1, dns_us=20, check_us=300).total_us == 321
    assert Timings().total_us == 0


def test_the_newest_run_is_the_last(session: Session) -> None:
    """What a person wants to see after a run."""
    record_three(session)
    newest = record_run(session, BATCHES, started_at=at(1))

    assert find_run(session, "last").id == newest


def test_a_run_is_found_by_its_number(session: Session) -> None:
    """It stands in the list and in every complaint."""
    number = record_three(session)
    record_run(session, BATCHES, started_at=at(1))

    assert find_run(session, str(number)).ordered == 3


@pytest.mark.parametrize("wanted", ["1", "last", "0", "9" * 18, "9" * 19, "9" * 5000])
def test_a_run_that_is_not_there_is_a_mistake_of_the_caller(session: Session, wanted: str) -> None:
    """However long the number is: no database has integers for it."""
    with pytest.raises(UsageError, match="there is no such run"):
        find_run(session, wanted)


@pytest.mark.parametrize("wanted", ["", "first", "-1", "1.0", "\x1b[2J"])
def test_what_is_no_number_is_told_so(session: Session, wanted: str) -> None:
    """And shown so that it steers no terminal."""
    with pytest.raises(UsageError, match="give a number or last") as refusal:
        find_run(session, wanted)

    assert str(refusal.value).isprintable()


def begin_with_one_of_three(session: Session) -> int:
    """Begin a run that has one batch of three so far, and lost another."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=BATCHES)
    save_results(
        session,
        run_id=run_id,
        attempts=[make_attempt(0), make_failed_attempt(1)],
        outcomes=[make_collected(BATCHES[0]), make_lost(BATCHES[1])],
        keep_numbers=True,
    )
    return run_id


def test_a_running_run_is_counted_as_it_stands(session: Session) -> None:
    """The store adds up when a run ends; who looks while it runs would see zeros."""
    run_id = begin_with_one_of_three(session)

    run = as_it_stands(session, find_run(session, str(run_id)))

    assert run.status is RunStatus.RUNNING
    assert (run.ordered, run.collected, run.failed, run.deferred, run.cancelled) == (3, 1, 1, 0, 0)
    assert (run.numbers, run.attempts, run.waited_us) == (3, 2, 10 + 2000 + 20 + 7 + 100)
    assert [line.run for line in find_runs(session, Question(window=Window()))] == [run]


def test_the_history_is_newest_first_and_can_be_narrowed(session: Session) -> None:
    """By time, by source and by length."""
    old = record_run(session, BATCHES[:2])
    new = record_run(session, BATCHES[2:], started_at=at(5))

    def listed(since: int | None = None, source: str | None = None, limit: int = 9) -> list[int]:
        window = Window(since=None if since is None else at(since))
        question = Question(window=window, source=source, limit=limit)
        return [line.run.id for line in find_runs(session, question)]

    assert listed() == [new, old]
    assert listed(limit=1) == [new]
    assert listed(since=1) == [new]
    assert listed(source="dice") == [old]
    assert listed(source="x' OR 1=1 --") == []


def test_a_batch_took_as_long_as_all_attempts_of_its_fetch(session: Session) -> None:
    """A retry is time that the batch was waited for."""
    record_three(session)
    run = find_run(session, "last")

    lines = list(batch_lines(session, run))

    assert [line.batch.name for line in lines] == ["w0", "w1", "w2"]
    assert [line.took_us for line in lines] == [100 + 2042, 2042, 2042]
    assert {line.values for line in lines} == {None}


def test_a_batch_tells_how_often_it_was_tried(session: Session) -> None:
    """A retry that helped is invisible in the outcome."""
    record_three(session)
    run = find_run(session, "last")

    assert [line.attempts for line in batch_lines(session, run)] == [2, 1, 1]
    assert [line.retries for line in run_lines(session, [run])] == [1]


def test_the_newest_batches_come_first(session: Session) -> None:
    """As few as wanted, from as many runs as it takes."""
    record_three(session)
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)], started_at=at(5))

    def listed(limit: int, source: str | None = None) -> list[str]:
        question = Question(window=Window(), source=source, limit=limit)
        lines = find_lines(session, question)
        return [f"{line.batch.run_id} {line.batch.name} {line.attempts}" for line in lines]

    assert listed(3) == ["2 w0 1", "1 w2 1", "1 w1 1"]
    assert listed(9, "dice") == ["2 w0 1", "1 w1 1", "1 w0 2"]


def test_retries_of_more_runs_than_a_statement_takes(session: Session) -> None:
    """A listing of a million runs asks for all of them."""
    record_three(session)
    run = find_run(session, "last")
    many = [run, *(replace(run, id=number) for number in range(2, 2_500))]

    counted = run_lines(session, many)

    assert (len(counted), sum(line.retries for line in counted)) == (2_499, 1)


def test_numbers_are_read_only_when_asked_for(session: Session) -> None:
    """A table does not show them, and they are most of the database."""
    record_three(session)
    run = find_run(session, "last")

    lines = list(batch_lines(session, run, with_numbers=True))

    assert {line.values for line in lines} == {(6, 6, 6)}


def test_a_batch_without_a_fetch_took_no_time(session: Session) -> None:
    """It was never asked for; that is not the same as 0."""
    begin_with_one_of_three(session)
    run = find_run(session, "last")

    assert list(batch_lines(session, run))[2].took_us is None


def test_batches_can_be_narrowed_to_a_source(session: Session) -> None:
    """One bad source is looked at alone."""
    record_three(session)
    run = find_run(session, "last")

    assert [line.batch.name for line in batch_lines(session, run, source="coin")] == ["w2"]


def test_damaged_numbers_are_named(session: Session, path: Path) -> None:
    """A flipped bit must not look like a bug of ours."""
    record_three(session)
    session.commit()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE batches SET numbers = x'01' WHERE number = 1")
    run = find_run(session, "last")

    with pytest.raises(StoreError, match="run 1, w1: the database is damaged"):
        list(batch_lines(session, run, with_numbers=True))


def test_a_lost_batch_says_why(session: Session) -> None:
    """The line that a person looks for."""
    begin_with_one_of_three(session)
    run = replace(find_run(session, "last"), started_at=NOON)

    lost = list(batch_lines(session, run))[1].batch

    assert (lost.error, lost.detail) == (ErrorName.HTTP_5XX, "503 Service Unavailable")
