"""Figures over a stretch of time, worked out from a real database."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase, Whose
from pipeline.models import Batch, Timings, Verdict
from pipeline.pacing import Embargo
from pipeline.report.errors import SourceLoss, find_errors
from pipeline.report.question import Question
from pipeline.report.sources import SourceLine, find_sources
from pipeline.report.timings import TimingLine, find_timings, timing_lines, timing_points
from pipeline.scope import find_run
from pipeline.store.durations import FEW_ATTEMPTS, MEASURED
from pipeline.store.history import range_totals
from pipeline.store.permissions import lay_embargo
from pipeline.store.tables import TALLIES
from pipeline.store.totals import RangeTotals
from pipeline.store.window import Window
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

ALL = Question(window=Window())


def timings_of(
    session: Session, question: Question, phases: Collection[str] = MEASURED
) -> list[TimingLine]:
    """List the timings that a report shows."""
    return timing_lines(session, question, find_timings(session, question, phases=phases))


def sources_of(session: Session, question: Question, now: datetime = NOON) -> list[SourceLine]:
    """List what a report says of the sources."""
    return find_sources(session, question, find_timings(session, question).of, now)


def numbers_of(session: Session, question: Question) -> list[RangeTotals]:
    """Add the numbers up as a report does."""
    return range_totals(session, question.window, run_id=question.run_id)


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


# ---- The sandbox ----


@pytest.mark.parametrize(
    ("played", "is_sandbox"), [((True, True), True), ((False, False), False), ((True, False), None)]
)
def test_every_figure_says_whether_the_sandbox_played(
    session: Session, played: tuple[bool, bool], is_sandbox: bool | None
) -> None:
    """A name may be the sandbox's today and an upstream's tomorrow; neither may pass for both."""
    for flag in played:
        dice, lost = (replace(make_batch(number), is_sandbox=flag) for number in (0, 1))
        run_id = begin(session, is_sandbox=flag)
        order_batches(session, run_id=run_id, batches=[dice, lost])
        save_results(
            session,
            run_id=run_id,
            attempts=[make_attempt(0), make_failed_attempt(1)],
            outcomes=[make_collected(dice), make_lost(lost)],
            keep_numbers=True,
        )
        finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)

    figures: list[TimingLine | SourceLoss | SourceLine] = [
        *timings_of(session, ALL),
        *find_errors(session, ALL),
        *sources_of(session, ALL),
    ]
    assert {line.is_sandbox for line in figures} == {is_sandbox}
    numbers = numbers_of(session, ALL)
    assert [(line.is_sandbox, line.sum) for line in numbers] == (
        [(False, 18), (True, 18)] if is_sandbox is None else [(is_sandbox, 36)]
    )


def test_a_window_that_was_widened_is_looked_at_as_wide(session: Session) -> None:
    """A source that was asked just before the window is not half played for that."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    record_run(session, [make_batch(0, "coin")], started_at=at(40))
    session.connection().execute(TALLIES.update().values(attempts=FEW_ATTEMPTS + 1))
    question = Question(window=Window(since=at(30), until=at(60)))

    found = find_timings(session, question)

    assert not found.is_exact
    listed = timing_lines(session, question, found)
    assert {(line.source, line.is_sandbox) for line in listed} == {("dice", False)}


def test_a_run_that_goes_on_says_so_too(session: Session) -> None:
    """It has no tally so far."""
    run_id = begin(session, is_sandbox=True)
    batch = replace(make_batch(0), is_sandbox=True)
    order_batches(session, run_id=run_id, batches=[batch])
    save_results(session, run_id=run_id, attempts=[make_attempt(0)], outcomes=[], keep_numbers=True)
    question = Question(window=Window(), run=find_run(session, str(run_id)))

    assert {line.is_sandbox for line in timings_of(session, question)} == {True}


# ---- Timings ----


def test_shares_of_the_phases_add_up_to_the_clock(session: Session) -> None:
    """And the exchange is all but the wait."""
    record_bad_run(session)

    lines = timings_of(session, replace(ALL, source="dice"))

    shares = {line.phase: line.share or 0 for line in lines}
    assert list(shares) == ["wait", "dns", "send", "first_byte", "body", "check", "exchange"]
    assert sum(shares.values()) - shares["exchange"] == pytest.approx(1)
    assert shares["exchange"] == pytest.approx(1 - shares["wait"])


def test_each_phase_has_its_own_count(session: Session) -> None:
    """One attempt got as far as the resolver; the other had an open connection."""
    record_bad_run(session)

    found = find_timings(session, replace(ALL, source="dice"))

    counts = {line.phase: line.durations.n for line in timing_lines(session, ALL, found)}
    assert (counts["wait"], counts["dns"], counts["send"], counts["exchange"]) == (2, 1, 1, 2)
    assert found.is_exact


def test_percentiles_are_durations_that_were_seen(session: Session) -> None:
    """A hundred attempts of 1 to 100 ms."""
    batches = [make_batch(number) for number in range(100)]
    attempts = [
        replace(make_attempt(number), timings=Timings(first_byte_us=1000 * (number + 1)))
        for number in range(100)
    ]
    record_run(session, batches, attempts=attempts)

    of = timings_of(session, ALL, {"first_byte"})[0].durations

    assert (of.p50_us, of.p90_us, of.p99_us) == (50_000, 90_000, 99_000)
    assert (of.max_us, of.total_us, of.n) == (100_000, 5_050_000, 100)


def test_phases_that_took_no_time_have_no_share(session: Session) -> None:
    """Nothing cannot be divided."""
    attempt = replace(make_attempt(0), timings=Timings(wait_us=0))
    record_run(session, [make_batch(0)], attempts=[attempt])

    assert {line.share for line in timings_of(session, ALL)} == {None}


def test_points_are_of_the_exchange(session: Session) -> None:
    """A chart shows what the upstream took, not what its rules made us wait."""
    record_bad_run(session)
    record_bad_run(session, minute=61)

    points = list(timing_points(session, Question(window=Window(since=at(0), until=at(99)))))

    assert [(point.began_at, point.source, point.durations.n) for point in points] == [
        (at(0), "coin", 1),
        (at(0), "dice", 2),
        (at(60), "coin", 1),
        (at(60), "dice", 2),
    ]
    assert (points[0].durations.p50_us, points[1].durations.p99_us) == (100, 2032)  # a bucket


# ---- Errors ----


def test_errors_say_whose_they_are_and_how_often(session: Session) -> None:
    """As a share of all attempts at that source."""
    record_bad_run(session)

    coin, dice = find_errors(session, ALL)

    of = coin.loss
    assert (of.source, of.error, of.phase) == ("coin", ErrorName.HTTP_5XX, Phase.CHECK)
    assert (of.whose, of.attempts, of.batches, coin.share) == (Whose.UPSTREAM, 1, 1, 1.0)
    of = dice.loss
    assert (of.whose, of.attempts, of.batches, dice.share) == (Whose.PATH, 1, 0, 0.5)


def test_errors_without_attempts_have_no_share(session: Session) -> None:
    """Batches that the deadline cut off before anybody was asked."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1, rest=ErrorName.DEADLINE)

    (line,) = find_errors(session, ALL)

    of = line.loss
    assert (of.phase, of.attempts, of.batches, line.share) == (None, 0, 1, None)


def test_figures_can_be_of_one_run(session: Session) -> None:
    """Its own, though others ran in the same minute."""
    record_bad_run(session)
    good = record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    question = replace(ALL, run=find_run(session, str(good)))

    assert find_errors(session, question) == []
    assert [line.numbers for line in numbers_of(session, question)] == [3]
    assert [line.durations.n for line in timings_of(session, question, {"wait"})] == [1]
    assert [line.totals.runs for line in sources_of(session, question)] == [1]


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
        outcomes=[make_collected(batch, numbers)],
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

    (line,) = numbers_of(session, ALL)

    assert (line.mean, line.expected_mean) == (mean, 3.5)
    assert line.z == pytest.approx(z)


def test_a_range_of_one_number_is_as_fair_as_it_can_be(session: Session) -> None:
    """Its mean cannot be off, so there is no error to count in."""
    record_numbers(session, (7, 7), 7, 7)

    (line,) = numbers_of(session, ALL)

    assert (line.mean, line.z) == (7.0, None)


def test_huge_numbers_are_held_to_their_mean_exactly(session: Session) -> None:
    """Two floats of that size could not be told apart."""
    low, high = 2**58, 2**58 + 8
    record_numbers(session, (high,) * 20, low, high)

    (line,) = numbers_of(session, ALL)

    assert line.z == pytest.approx(4 / (80 / 12 / 20) ** 0.5)
    assert line.sum == 20 * high


# ---- Sources ----


def test_a_source_is_summed_up(session: Session) -> None:
    """What came of what was ordered, and what it cost."""
    record_bad_run(session)
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)], started_at=at(5))

    coin, dice = sources_of(session, ALL, at(6))

    of = dice.totals
    assert (of.runs, of.ordered, of.collected, of.share) == (2, 2, 2, 1.0)
    assert (of.numbers, of.attempts, of.retries) == (6, 3, 1)
    assert of.success_share == pytest.approx(2 / 3)
    assert dice.exchange is not None
    assert (dice.exchange.p50_us, dice.exchange.p99_us) == (2037, 2037)
    assert (of.last_good_at, of.last_bad_at) == (at(5), at(0))
    of = coin.totals
    assert (of.share, of.success_share, of.last_good_at) == (0.0, 0.0, None)


def test_a_source_that_was_not_asked_has_no_success_and_no_percentile(session: Session) -> None:
    """All was put off: nobody knows how it would have answered."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    deferred = replace(make_lost(make_batch(0), Verdict.DEFERRED), error=None, attempt=None)
    save_results(session, run_id=run_id, attempts=[], outcomes=[deferred], keep_numbers=True)
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)

    (line,) = sources_of(session, ALL, NOON)

    of = line.totals
    assert (of.attempts, of.success_share, line.exchange, of.share) == (0, None, None, 0.0)


@pytest.mark.parametrize(("minutes", "is_told"), [(-1, False), (1, True)])
def test_an_embargo_is_told_while_it_lasts(session: Session, minutes: int, is_told: bool) -> None:
    """A person wants to know why nothing comes."""
    record_bad_run(session)
    now = at(10)
    embargo = Embargo(until=now + timedelta(minutes=minutes), why="asked to wait")
    lay_embargo(session, upstream="coins", source="coin", embargo=embargo, said_at=NOON)

    coin, dice = sources_of(session, ALL, now)

    assert coin.embargo == (embargo if is_told else None)
    assert dice.embargo is None
