"""Each question to the store, with rows that must not be in the answer."""

import tracemalloc
from dataclasses import replace
from itertools import islice

import pytest

from pipeline.errors import Phase
from pipeline.models import PhaseTotals, RunStatus, Timings, Verdict
from pipeline.store.db import Store
from pipeline.store.queries import (
    attempts_of_run,
    batches_of_run,
    find_attempt,
    find_run,
    phase_totals,
    recent_runs,
)
from pipeline.store.window import Window
from pipeline.store.writes import order_batches, save_results
from tests.store.makers import (
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_failed_attempt,
    record_results,
    record_run,
)


@pytest.fixture
def runs(store: Store) -> list[int]:
    """Record three runs, a minute apart: dice, coin, and both."""
    wanted = [("dice",), ("coin",), ("dice", "coin")]
    with store.write() as session:
        return [
            record_run(
                session,
                [make_batch(number, source) for number, source in enumerate(sources)],
                started_at=at(minutes),
            )
            for minutes, sources in enumerate(wanted)
        ]


def test_the_newest_runs_come_first_and_no_more_than_asked(store: Store, runs: list[int]) -> None:
    """The history grows for years; the reader wants the last page."""
    with store.read() as session:
        found = recent_runs(session, limit=2)

    assert [run.id for run in found] == [runs[2], runs[1]]


def test_runs_before_a_time_are_left_out(store: Store, runs: list[int]) -> None:
    """``--since`` means a moment, and a run that started at that moment counts."""
    with store.read() as session:
        found = recent_runs(session, Window(since=at(1)), limit=9)

    assert [run.id for run in found] == [runs[2], runs[1]]


@pytest.mark.parametrize(
    ("source", "wanted"), [("dice", [2, 0]), ("coin", [2, 1]), ("x' OR 1=1--", []), ("%", [])]
)
def test_runs_without_a_source_are_left_out(
    store: Store, runs: list[int], source: str, wanted: list[int]
) -> None:
    """A source's name is text and nothing else, whatever is in it."""
    with store.read() as session:
        found = recent_runs(session, source=source, limit=9)

    assert [run.id for run in found] == [runs[index] for index in wanted]


def test_a_run_is_found_by_its_id_or_as_the_last(store: Store, runs: list[int]) -> None:
    """People ask for ``last`` far more often than for a number."""
    with store.read() as session:
        first, last = find_run(session, run_id=runs[0]), find_run(session, run_id=None)

    assert first is not None
    assert (first.id, first.status, first.collected) == (runs[0], RunStatus.OK, 1)
    assert last is not None
    assert last.id == runs[2]


@pytest.mark.parametrize("run_id", [None, 7])
def test_a_run_that_is_not_there_is_none(store: Store, run_id: int | None) -> None:
    """A fresh database has no last run, and that is no error."""
    with store.read() as session:
        assert find_run(session, run_id=run_id) is None


def test_batches_of_other_runs_are_left_out(store: Store, runs: list[int]) -> None:
    """Each run has a ``w0`` of its own."""
    with store.read() as session:
        found = list(batches_of_run(session, run_id=runs[2]))

    assert [(batch.run_id, batch.name, batch.source) for batch in found] == [
        (runs[2], "w0", "dice"),
        (runs[2], "w1", "coin"),
    ]


def test_numbers_come_only_when_asked_for(store: Store, runs: list[int]) -> None:
    """A listing of a large run must not read what it does not show."""
    with store.read() as session:
        (bare,) = batches_of_run(session, run_id=runs[0])
        (whole,) = batches_of_run(session, run_id=runs[0], with_numbers=True)

    assert bare.packed is None
    assert whole.packed == b"\x05\x05\x05"


def test_attempts_of_other_runs_are_left_out_and_the_rest_is_in_order(store: Store) -> None:
    """A reader follows a fetch from its first try to its last."""
    with store.write() as session:
        record_run(session, [], attempts=[make_attempt(fetch=9)])
        run_id = record_run(
            session, [], attempts=[make_attempt(1), make_attempt(0, 2), make_failed_attempt(0, 1)]
        )

    with store.read() as session:
        found = [record.attempt for record in attempts_of_run(session, run_id=run_id)]

    assert [(attempt.fetch, attempt.number) for attempt in found] == [(0, 1), (0, 2), (1, 1)]


def test_reading_a_long_run_takes_little_memory(store: Store) -> None:
    """A report of a million batches streams through a pipe, it does not fill the machine."""
    with store.write() as session:
        run_id = begin(session)
        order_batches(
            session, run_id=run_id, batches=(make_batch(number) for number in range(20_000))
        )

    tracemalloc.start()
    with store.read() as session:
        count = sum(1 for _ in batches_of_run(session, run_id=run_id))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 4_000_000


def test_the_first_batches_of_a_long_run_come_before_the_last_are_read(store: Store) -> None:
    """``report | head`` is answered at once."""
    with store.write() as session:
        run_id = record_run(session, [make_batch(number) for number in range(5)])

    with store.read() as session:
        first_two = list(islice(batches_of_run(session, run_id=run_id), 2))

    assert [batch.number for batch in first_two] == [0, 1]


def test_an_attempt_comes_with_the_batches_it_decided(store: Store) -> None:
    """One merged answer serves several batches; a later try of the same fetch serves others."""
    batches = [make_batch(number) for number in range(3)]
    with store.write() as session:
        run_id = record_results(
            session,
            make_collected(batches[0], fetch=0, attempt=2),
            make_collected(batches[1], fetch=0, attempt=2),
            make_collected(batches[2], fetch=1, attempt=2),
            attempts=[make_failed_attempt(0, 1, evidence=make_evidence()), make_attempt(0, 2)],
            is_over=False,
        )

    with store.read() as session:
        first_try, second_try = attempts_of_run(session, run_id=run_id)
        in_vain = find_attempt(session, attempt_id=first_try.id)
        answered = find_attempt(session, attempt_id=second_try.id)

    assert in_vain is not None
    assert in_vain.batches == ()
    assert in_vain.record.evidence is not None
    assert in_vain.record.attempt.evidence == make_evidence()
    assert answered is not None
    assert answered.record == second_try
    assert [batch.name for batch in answered.batches] == ["w0", "w1"]
    assert {batch.verdict for batch in answered.batches} == {Verdict.COLLECTED}


def test_an_attempt_that_is_not_there_is_none(store: Store) -> None:
    """A mistyped number is no reason for a traceback."""
    with store.read() as session:
        assert find_attempt(session, attempt_id=1) is None


def test_phases_add_up_over_the_attempts_that_reached_them(store: Store) -> None:
    """A phase that was not reached is no phase of 0 µs, or the averages lie."""
    with store.write() as session:
        record_run(session, [], attempts=[make_attempt(0)])
        run_id = record_run(
            session,
            [],
            attempts=[make_attempt(0), make_failed_attempt(1), make_failed_attempt(2, 1, "coin")],
        )

    with store.read() as session:
        found = phase_totals(session, run_id=run_id)

    assert [(total.source, total.phase) for total in found] == [
        ("coin", Phase.WAIT),
        ("coin", Phase.DNS),
        ("dice", Phase.WAIT),
        ("dice", Phase.DNS),
        ("dice", Phase.SEND),
        ("dice", Phase.FIRST_BYTE),
        ("dice", Phase.BODY),
        ("dice", Phase.CHECK),
    ]
    assert found[2] == PhaseTotals(
        source="dice", phase=Phase.WAIT, n=2, total_us=5, min_us=0, max_us=5
    )
    assert found[3].n == 1


def test_sums_that_exceed_the_integers_of_sqlite_do_not_fail(store: Store) -> None:
    """SQLite's own SUM would end the report with "integer overflow"."""
    with store.write() as session:
        attempts = [
            replace(make_attempt(fetch), timings=Timings(wait_us=2**62)) for fetch in (0, 1)
        ]
        run_id = record_run(session, [], attempts=[attempts[0]])
        save_results(session, run_id=run_id, attempts=[attempts[1]], outcomes=[], keep_numbers=True)

    with store.read() as session:
        (waited,) = phase_totals(session, run_id=run_id)

    assert waited.total_us == 2**63


@pytest.mark.sqlite
def test_failures_are_counted_from_their_index_alone(store: Store) -> None:
    """A million failed attempts are answered in a fraction of a second only this way."""
    with store.read() as session:
        plan = session.connection().exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT source, error, phase, count(*), min(began_at)"
            " FROM attempts WHERE error IS NOT NULL GROUP BY source, error, phase"
        )
        steps = [row.detail for row in plan]

    assert steps == ["SCAN attempts USING COVERING INDEX ix_attempts_failures"]
