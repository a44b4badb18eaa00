"""Questions about a stretch of time, asked of a real database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.models import Batch, RunStatus, Step, Timings, Verdict
from pipeline.store import durations, history
from pipeline.store.db import Store
from pipeline.store.durations import FEW_ATTEMPTS
from pipeline.store.integrity.pruning import prune
from pipeline.store.summaries import EXCHANGE
from pipeline.store.tables import TALLIES
from pipeline.store.window import Window
from pipeline.store.writes import finish_run, order_batches
from tests.store.makers import (
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
    record_results,
    record_run,
)

ALL = Window()


def record(store: Store, minute: int, source: str = "dice", *, good: bool = True) -> int:
    """Record a run of one batch that starts so many minutes after noon."""
    batch, began_at = make_batch(0, source), at(minute)
    with store.write() as session:
        ask = make_attempt if good else make_failed_attempt
        attempt = ask(0, source=source, began_at=began_at)
        outcome = make_collected(batch) if good else make_lost(batch)
        return record_results(session, outcome, attempts=[attempt], started_at=began_at)


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    """Ask a history: dice at 0, 59 and 60 minutes, the last in vain; coin a day later."""
    record(store, 0)
    record(store, 59)
    record(store, 60, good=False)
    record(store, 24 * 60, "coin")
    with store.read() as session:
        yield session


# ---- The window ----


@pytest.mark.parametrize(
    ("window", "runs"),
    [
        (ALL, [1, 2, 3, 4]),
        (Window(since=at(59)), [2, 3, 4]),
        (Window(until=at(59)), [1]),
        (Window(since=at(0), until=at(60)), [1, 2]),
        (Window(since=at(1), until=at(1)), []),
    ],
)
def test_a_window_holds_its_begin_and_not_its_end(
    session: Session, window: Window, runs: list[int]
) -> None:
    """So that windows side by side count each run once."""
    assert [tally.run_id for tally in history.tallies(session, window)] == runs


@pytest.mark.parametrize(
    ("length", "step"),
    [(timedelta(days=7), Step.HOUR), (timedelta(days=15), Step.HOUR), (timedelta(16), Step.DAY)],
)
def test_a_long_window_is_read_by_days(length: timedelta, step: Step) -> None:
    """A chart of a thousand hours is a carpet."""
    assert Window(since=NOON, until=NOON + length).step is step


def test_a_window_without_begin_is_read_by_days() -> None:
    """Nobody knows how long it is."""
    assert Window(until=NOON).step is Step.DAY


def test_a_window_without_end_ends_now() -> None:
    """Its length is what has gone by since."""
    now = datetime.now(UTC)

    assert Window(since=now - timedelta(hours=1)).step is Step.HOUR
    assert Window(since=now - timedelta(days=100)).step is Step.DAY


# ---- Tallies and losses ----


def test_tallies_come_in_the_order_of_time_whoever_ended_first(store: Store) -> None:
    """Runs overlap, and a clock may be put back."""
    late, early = record(store, 5), record(store, 1)

    with store.read() as session:
        assert [tally.run_id for tally in history.tallies(session, ALL)] == [early, late]


def test_tallies_and_losses_can_be_of_one_source(session: Session) -> None:
    """One bad source is looked at alone."""
    assert [tally.run_id for tally in history.tallies(session, ALL, source="coin")] == [4]
    assert list(history.losses(session, ALL, source="coin")) == []
    assert [loss.run_id for loss in history.losses(session, ALL, source="dice")] == [3]
    assert [loss.run_id for loss in history.losses(session, Window(until=at(60)))] == []


def test_a_run_has_the_tallies_of_its_sources(store: Store) -> None:
    """Two runs that start in the same instant are told apart."""
    twins = [record_run_of(store, ["dice", "coin"]), record_run_of(store, ["dice"])]

    with store.read() as session:
        found = [
            [(tally.run_id, tally.source) for tally in history.tallies_of_run(session, run_id=twin)]
            for twin in twins
        ]

    assert found == [[(1, "coin"), (1, "dice")], [(2, "dice")]]


def record_run_of(store: Store, sources: list[str]) -> int:
    """Record a run at noon that collects a batch of each source."""
    batches = [make_batch(number, source) for number, source in enumerate(sources)]
    attempts = [make_attempt(batch.number, source=batch.source) for batch in batches]
    with store.write() as session:
        return record_run(session, batches, attempts=attempts)


def test_retries_are_counted_by_run(store: Store) -> None:
    """Runs without any count as well; those that go on have not been added up."""
    with store.write() as session:
        tried = [make_failed_attempt(0, 1), make_failed_attempt(0, 2)]
        outcome = make_collected(make_batch(0), attempt=3)
        run_id = record_results(session, outcome, attempts=[*tried, make_attempt(0, 3)])
        other = record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
        going_on = begin(session)

    with store.read() as session:
        counted = history.retries_by_run(session, run_ids=[run_id, other, going_on])

    assert counted == {run_id: 2, other: 0}


# ---- Totals ----


def test_sources_are_added_up_by_name(session: Session) -> None:
    """How many runs, how many of them brought something, what was asked and got."""
    coin, dice = history.source_totals(session, ALL)

    assert (coin.source, coin.runs, coin.answered, coin.numbers) == ("coin", 1, 1, 3)
    assert (dice.source, dice.runs, dice.answered, dice.numbers) == ("dice", 3, 2, 6)
    assert (dice.ordered, dice.collected, dice.failed) == (3, 2, 1)
    assert (dice.attempts, dice.failed_attempts, dice.retries) == (3, 1, 0)
    assert (dice.wait_us, dice.exchange_us) == (10, 2 * 2037 + 100)
    assert (dice.last_good_at, dice.last_bad_at) == (at(59), at(60))
    assert coin.last_bad_at is None


def test_sources_are_added_up_by_hour_and_by_day(session: Session) -> None:
    """For the charts; an hour without a run is left out."""

    def listed(step: Step) -> list[tuple[str, datetime | None, int]]:
        totals = history.source_totals(session, ALL, step=step)
        return [(total.source, total.began_at, total.runs) for total in totals]

    midnight = NOON - timedelta(hours=12)
    assert listed(Step.HOUR) == [("coin", at(1440), 1), ("dice", NOON, 2), ("dice", at(60), 1)]
    assert listed(Step.DAY) == [("coin", midnight + timedelta(days=1), 1), ("dice", midnight, 3)]


def test_totals_can_be_of_one_run_and_one_source(session: Session) -> None:
    """The figures of a run are its own, whoever else ran."""
    (total,) = history.source_totals(session, run_id=3)

    assert (total.source, total.runs, total.failed) == ("dice", 1, 1)
    assert history.source_totals(session, run_id=3, source="coin") == []
    assert history.source_totals(session, run_id=99) == []
    assert history.loss_totals(session, run_id=1) == []
    assert [loss.attempts for loss in history.loss_totals(session, run_id=3)] == [1]
    assert [total.numbers for total in history.range_totals(session, run_id=2)] == [3]


def test_losses_are_added_up_most_attempts_first(store: Store) -> None:
    """By source, error and phase, with the first and the last moment of all."""
    for minute, source in ((0, "dice"), (1, "coin"), (2, "coin")):
        record(store, minute, source, good=False)

    with store.read() as session:
        worst, other = history.loss_totals(session, ALL)

    assert (worst.source, worst.error, worst.phase) == ("coin", ErrorName.HTTP_5XX, Phase.CHECK)
    assert (worst.attempts, worst.batches, worst.last_attempt) == (2, 2, 3)
    assert (worst.first_at, worst.last_at) == (at(1), at(2))
    assert (other.source, other.attempts) == ("dice", 1)


def test_losses_are_added_up_over_time(store: Store) -> None:
    """All phases of an error together, in the order of time."""
    for minute in (61, 0, 1):
        record(store, minute, good=False)

    with store.read() as session:
        totals = history.loss_totals(session, ALL, step=Step.HOUR)

    assert [(total.began_at, total.attempts, total.phase) for total in totals] == [
        (at(0), 2, None),
        (at(60), 1, None),
    ]


def test_losses_without_an_attempt_have_no_phase(store: Store) -> None:
    """And no attempt to look at."""
    with store.write() as session:
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=[make_batch(0)])
        finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1, rest=ErrorName.DEADLINE)

    with store.read() as session:
        (total,) = history.loss_totals(session, ALL)

    assert (total.phase, total.attempts, total.batches, total.last_attempt) == (None, 0, 1, None)


def test_sums_of_years_are_exact(store: Store) -> None:
    """Each run's sum fits into the database's integers; that of all does not."""
    for _ in range(3):
        batch = Batch(number=0, source="dice", n=1, min=0, max=2**63 - 1)
        with store.write() as session:
            record_results(session, make_collected(batch, (2**63 - 1,)))

    with store.read() as session:
        (total,) = history.range_totals(session, ALL)

    assert (total.batches, total.numbers, total.sum) == (3, 3, 3 * (2**63 - 1))


def test_ranges_are_told_apart(store: Store) -> None:
    """A source whose range was changed has two fair means."""
    for high in (6, 20, 6):
        batch = Batch(number=0, source="dice", n=3, min=1, max=high)
        with store.write() as session:
            record_run(session, [batch], attempts=[make_attempt(0)])

    with store.read() as session:
        totals = history.range_totals(session, ALL, source="dice")
        assert history.range_totals(session, ALL, source="coin") == []

    assert [(total.min, total.max, total.batches, total.sum) for total in totals] == [
        (1, 6, 2, 36),
        (1, 20, 1, 18),
    ]


# ---- Percentiles ----


def test_few_attempts_are_looked_at_one_by_one(session: Session) -> None:
    """Exact, and within the very window that was asked for."""
    window = Window(since=at(59), until=at(61))

    found = durations.percentiles(session, window)

    assert (found.is_exact, found.window) == (True, window)
    assert found.of["dice"][EXCHANGE].percentiles(0.5, 1) == [100, 2037]
    assert found.of["dice"]["dns"].n == 1
    assert "coin" not in found.of


def test_percentiles_can_be_of_one_source_one_run_and_some_phases(session: Session) -> None:
    """What is not shown is not counted."""
    assert set(durations.percentiles(session, ALL, source="coin").of) == {"coin"}
    assert durations.percentiles(session, run_id=3).of["dice"][EXCHANGE].n == 1
    assert set(durations.percentiles(session, run_id=1, phases={"send"}).of["dice"]) == {"send"}


def test_many_attempts_are_read_from_the_summaries(store: Store) -> None:
    """By whole hours, which the answer admits."""
    record(store, 0)
    record(store, 59)
    record(store, 120)
    with store.write() as session:  # as if the runs had been large
        session.connection().execute(TALLIES.update().values(attempts=FEW_ATTEMPTS + 1))

    with store.read() as session:
        found = durations.percentiles(session, Window(since=at(10), until=at(61)))
        only = durations.percentiles(session, Window(since=at(10)), phases={EXCHANGE})

    assert (found.is_exact, found.window) == (False, Window(since=at(0), until=at(120)))
    assert found.of["dice"][EXCHANGE].n == 2
    assert found.of["dice"][EXCHANGE].max_us == 2037
    assert set(only.of["dice"]) == {EXCHANGE}


def test_whole_hours_are_not_widened(store: Store) -> None:
    """A window that ends at noon does not hold the hour after it."""
    record(store, 0)
    record(store, 60)
    with store.write() as session:
        session.connection().execute(TALLIES.update().values(attempts=FEW_ATTEMPTS + 1))
    window = Window(since=at(0), until=at(60))

    with store.read() as session:
        found = durations.percentiles(session, window)

    assert found.window == window
    assert found.of["dice"][EXCHANGE].n == 1


def test_a_long_window_is_widened_to_whole_days(store: Store) -> None:
    """Its first day is not lost, though the window begins in the middle of it."""
    record(store, 0)
    with store.write() as session:
        session.connection().execute(TALLIES.update().values(attempts=FEW_ATTEMPTS + 1))
    window = Window(since=NOON - timedelta(hours=6), until=NOON + timedelta(days=15))

    with store.read() as session:
        found = durations.percentiles(session, window)

    assert found.of["dice"][EXCHANGE].n == 1
    assert found.window.since == NOON - timedelta(hours=12)


def test_pruned_attempts_are_read_from_the_summaries(store: Store) -> None:
    """They are gone; a few that are left would tell of the wrong time."""
    record(store, 0)
    newest = record(store, 24 * 60)
    prune(store, before=at(60), now=at(24 * 60))

    with store.read() as session:
        found = durations.percentiles(session, ALL)
        of_newest = durations.percentiles(session, run_id=newest)

    assert not found.is_exact
    assert found.of["dice"][EXCHANGE].n == 2
    assert of_newest.is_exact


def test_timings_come_by_the_steps_of_the_window(session: Session) -> None:
    """Hours for a short one, days for a long one."""

    def listed(window: Window, **chosen: str) -> list[tuple[datetime, str, int]]:
        steps = durations.timings_by_step(session, window, source=chosen.get("source"))
        return [(began_at, name, phases[EXCHANGE].n) for began_at, name, phases in steps]

    short = Window(since=at(1), until=at(100))
    midnight = NOON - timedelta(hours=12)
    assert listed(short) == [(at(0), "dice", 2), (at(60), "dice", 1)]
    assert listed(ALL) == [(midnight, "dice", 3), (midnight + timedelta(days=1), "coin", 1)]
    assert listed(ALL, source="coin") == [(midnight + timedelta(days=1), "coin", 1)]


# ---- The rest ----


def test_sources_that_were_asked_are_known(session: Session) -> None:
    """By name, each once."""
    assert history.known_sources(session) == ["coin", "dice"]


def test_a_pruning_has_a_moment(store: Store) -> None:
    """Whoever looks at a pruned run wants to know when its batches went."""
    old, new = record(store, 0), record(store, 24 * 60)
    prune(store, before=at(60), now=at(24 * 60))

    with store.read() as session:
        assert history.find_pruning(session, run_id=old) == at(24 * 60)
        assert history.find_pruning(session, run_id=new) is None
        assert len(history.tallies_of_run(session, run_id=old)) == 1


def test_a_run_that_goes_on_has_timings_and_no_tally(store: Store) -> None:
    """The one is read off its attempts, the other is written at its end."""
    with store.write() as session:
        attempt = replace(make_attempt(0), timings=Timings(wait_us=0, send_us=5))
        run_id = record_results(session, attempts=[attempt], batches=[make_batch(0)], is_over=False)

    with store.read() as session:
        assert history.tallies_of_run(session, run_id=run_id) == []
        found = durations.percentiles(session, run_id=run_id)

    assert found.of["dice"][EXCHANGE].max_us == 5


def test_a_run_that_was_skipped_leaves_no_trace_in_the_totals(store: Store) -> None:
    """Nothing was wanted from anybody."""
    with store.write() as session:
        run_id = begin(session)
        finish_run(session, run_id=run_id, status=RunStatus.SKIPPED, ended_at=NOON, clock_us=1)

    with store.read() as session:
        assert history.source_totals(session, ALL) == []


def test_deferred_batches_are_neither_good_nor_bad(store: Store) -> None:
    """The rules forbade asking; that is nobody's failure."""
    with store.write() as session:
        deferred = make_lost(make_batch(0), Verdict.DEFERRED)
        record_results(session, replace(deferred, error=None, attempt=None))

    with store.read() as session:
        (total,) = history.source_totals(session, ALL)

    assert (total.deferred, total.last_good_at, total.last_bad_at) == (1, None, None)
