"""Figures over a stretch of time, worked out from a real database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase, Whose
from pipeline.models import Batch, Timings, Verdict
from pipeline.pacing import Embargo
from pipeline.report import (
    Scope,
    error_lines,
    find_run,
    number_lines,
    source_lines,
    timing_points,
    timing_report,
)
from pipeline.store.db import open_store
from pipeline.store.history import Window
from pipeline.store.permissions import lay_embargo
from pipeline.store.writes import finish_run, order_batches, save_results
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

ALL = Scope(window=Window())


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Open a database, to write and to ask within one transaction."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store, store.write() as session:
        yield session


def record_bad_run(session: Session, minute: int = 0) -> int:
    """Record a run in which dice come with the second try and a coin is lost."""
    batches = [make_batch(0), make_batch(1, "coin")]
    run_id = begin(session, started_at=at(minute))
    order_batches(session, run_id=run_id, batches=batches)
    save_results(
        session,
        run_id=run_id,
        attempts=[
            make_failed_attempt(0, 1, error=ErrorName.DNS, phase=Phase.DNS, began_at=at(minute)),
            make_attempt(0, 2, began_at=at(minute)),
            make_failed_attempt(1, 1, "coin", began_at=at(minute)),
        ],
        outcomes=[make_collected(batches[0], attempt=2), make_lost(batches[1])],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=at(minute), clock_us=1)
    return run_id


# ---- Timings ----


def test_shares_of_the_phases_add_up_to_the_clock(session: Session) -> None:
    """And the exchange is all but the wait."""
    record_bad_run(session)

    lines = timing_report(session, replace(ALL, source="dice")).lines

    shares = {line.phase: line.share or 0 for line in lines}
    assert list(shares) == ["wait", "dns", "send", "first_byte", "body", "check", "exchange"]
    assert sum(shares.values()) - shares["exchange"] == pytest.approx(1)
    assert shares["exchange"] == pytest.approx(1 - shares["wait"])


def test_each_phase_has_its_own_count(session: Session) -> None:
    """One attempt got as far as the resolver; the other had an open connection."""
    record_bad_run(session)

    report = timing_report(session, replace(ALL, source="dice"))

    counts = {line.phase: line.n for line in report.lines}
    assert (counts["wait"], counts["dns"], counts["send"], counts["exchange"]) == (2, 1, 1, 2)
    assert report.is_exact


def test_percentiles_are_durations_that_were_seen(session: Session) -> None:
    """A hundred attempts of 1 to 100 ms."""
    batches = [make_batch(number) for number in range(100)]
    attempts = [
        replace(make_attempt(number), timings=Timings(first_byte_us=1000 * (number + 1)))
        for number in range(100)
    ]
    record_run(session, batches, attempts=attempts)

    line = timing_report(session, ALL, phases={"first_byte"}).lines[0]

    assert (line.p50_us, line.p90_us, line.p99_us) == (50_000, 90_000, 99_000)
    assert (line.max_us, line.total_us, line.n) == (100_000, 5_050_000, 100)


def test_phases_that_took_no_time_have_no_share(session: Session) -> None:
    """Nothing cannot be divided."""
    attempt = replace(make_attempt(0), timings=Timings(wait_us=0))
    record_run(session, [make_batch(0)], attempts=[attempt])

    assert {line.share for line in timing_report(session, ALL).lines} == {None}


def test_points_are_of_the_exchange(session: Session) -> None:
    """A chart shows what the upstream took, not what its rules made us wait."""
    record_bad_run(session)
    record_bad_run(session, minute=61)

    points = list(timing_points(session, Scope(window=Window(since=at(0), until=at(99)))))

    assert [(point.began_at, point.source, point.n) for point in points] == [
        (at(0), "coin", 1),
        (at(0), "dice", 2),
        (at(60), "coin", 1),
        (at(60), "dice", 2),
    ]
    assert (points[0].p50_us, points[1].p99_us) == (100, 2032)  # a bucket


# ---- Errors ----


def test_errors_say_whose_they_are_and_how_often(session: Session) -> None:
    """As a share of all attempts at that source."""
    record_bad_run(session)

    coin, dice = error_lines(session, ALL)

    assert (coin.source, coin.error, coin.phase) == ("coin", ErrorName.HTTP_5XX, Phase.CHECK)
    assert (coin.whose, coin.attempts, coin.batches, coin.share) == (Whose.UPSTREAM, 1, 1, 1.0)
    assert (dice.whose, dice.attempts, dice.batches, dice.share) == (Whose.PATH, 1, 0, 0.5)


def test_errors_without_attempts_have_no_share(session: Session) -> None:
    """Batches that the deadline cut off before anybody was asked."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1, rest=ErrorName.DEADLINE)

    (line,) = error_lines(session, ALL)

    assert (line.phase, line.attempts, line.batches, line.share) == (None, 0, 1, None)


def test_figures_can_be_of_one_run(session: Session) -> None:
    """Its own, though others ran in the same minute."""
    record_bad_run(session)
    good = record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    scope = replace(ALL, run=find_run(session, str(good)))

    assert error_lines(session, scope) == []
    assert [line.numbers for line in number_lines(session, scope)] == [3]
    assert [line.n for line in timing_report(session, scope, phases={"wait"}).lines] == [1]
    timings = timing_report(session, scope)
    assert [line.runs for line in source_lines(session, scope, timings, now=NOON)] == [1]


# ---- Numbers ----


def record_numbers(session: Session, numbers: tuple[int, ...], low: int, high: int) -> None:
    """Record a run that collects one batch of these."""
    batch = Batch(number=0, source="dice", n=len(numbers), min=low, max=high)
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[batch])
    save_results(
        session,
        run_id=run_id,
        attempts=[make_attempt(0)],
        outcomes=[replace(make_collected(batch), numbers=numbers)],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)


@pytest.mark.parametrize(
    ("numbers", "mean", "z"),
    [
        ((1, 2, 3, 4, 5, 6), 3.5, 0.0),
        # The standard error of three fair dice is sqrt(35 / 12 / 3).
        ((6, 6, 6), 6.0, 2.5 / (35 / 36) ** 0.5),
        ((1, 1, 1), 1.0, -2.5 / (35 / 36) ** 0.5),
    ],
)
def test_a_mean_is_held_to_that_of_fair_dice(
    session: Session, numbers: tuple[int, ...], mean: float, z: float
) -> None:
    """In standard errors, which do not depend on how many there are."""
    record_numbers(session, numbers, 1, 6)

    (line,) = number_lines(session, ALL)

    assert (line.mean, line.expected_mean) == (mean, 3.5)
    assert line.z == pytest.approx(z)
    assert not line.is_far_off


def test_a_loaded_die_is_far_off(session: Session) -> None:
    """Thirty sixes in a row."""
    record_numbers(session, (6,) * 30, 1, 6)

    (line,) = number_lines(session, ALL)

    assert line.is_far_off


def test_a_range_of_one_number_is_as_fair_as_it_can_be(session: Session) -> None:
    """Its mean cannot be off, so there is no error to count in."""
    record_numbers(session, (7, 7), 7, 7)

    (line,) = number_lines(session, ALL)

    assert (line.mean, line.z, line.is_far_off) == (7.0, None, False)


def test_huge_numbers_are_held_to_their_mean_exactly(session: Session) -> None:
    """Two floats of that size could not be told apart."""
    low, high = 2**58, 2**58 + 8
    record_numbers(session, (high,) * 20, low, high)

    (line,) = number_lines(session, ALL)

    assert line.z == pytest.approx(4 / (80 / 12 / 20) ** 0.5)
    assert line.sum == 20 * high


# ---- Sources ----


def test_a_source_is_summed_up(session: Session) -> None:
    """What came of what was ordered, and what it cost."""
    record_bad_run(session)
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)], started_at=at(5))

    coin, dice = source_lines(session, ALL, timing_report(session, ALL), now=at(6))

    assert (dice.runs, dice.ordered, dice.collected, dice.share) == (2, 2, 2, 1.0)
    assert (dice.numbers, dice.attempts, dice.retries) == (6, 3, 1)
    assert dice.success == pytest.approx(2 / 3)
    assert (dice.p50_us, dice.p99_us) == (2037, 2037)
    assert (dice.last_good_at, dice.last_bad_at) == (at(5), at(0))
    assert (coin.share, coin.success, coin.last_good_at) == (0.0, 0.0, None)


def test_a_source_that_was_not_asked_has_no_success_and_no_percentile(session: Session) -> None:
    """All was put off: nobody knows how it would have answered."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    deferred = replace(make_lost(make_batch(0), Verdict.DEFERRED), error=None, attempt=None)
    save_results(session, run_id=run_id, attempts=[], outcomes=[deferred], keep_numbers=True)
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)

    (line,) = source_lines(session, ALL, timing_report(session, ALL), now=NOON)

    assert (line.attempts, line.success, line.p50_us, line.share) == (0, None, None, 0.0)


@pytest.mark.parametrize(("minutes", "is_told"), [(-1, False), (1, True)])
def test_an_embargo_is_told_while_it_lasts(session: Session, minutes: int, is_told: bool) -> None:
    """A person wants to know why nothing comes."""
    record_bad_run(session)
    now = at(10)
    embargo = Embargo(until=now + timedelta(minutes=minutes), why="asked to wait")
    lay_embargo(session, upstream="coins", source="coin", embargo=embargo, said_at=NOON)

    coin, dice = source_lines(session, ALL, timing_report(session, ALL), now=now)

    assert coin.embargo_until == (embargo.until if is_told else None)
    assert coin.embargo_why == (embargo.why if is_told else None)
    assert dice.embargo_until is None
