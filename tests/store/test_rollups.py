"""Closed days and months: the same answers from fewer rows, and never from a row too few."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlmodel import Session

from pipeline.audit.closing import close_some
from pipeline.audit.sheets import examine_day
from pipeline.models import Step
from pipeline.store import durations, history
from pipeline.store.db import Store
from pipeline.store.integrity.pruning import prune
from pipeline.store.rollups import close_periods, count_open_days, split
from pipeline.store.tables import DAY_LOSSES, DAYS, MONTHS, SHEETS, TALLIES
from pipeline.store.window import Window
from tests.store.histories import record_mixed_run
from tests.store.makers import NOON, at, make_attempt, make_batch, record_run

LATER = NOON + timedelta(days=70)  # when all of it is over
WINDOWS = [
    Window(),
    Window(since=NOON),
    Window(until=NOON + timedelta(days=3, hours=1)),
    Window(since=NOON + timedelta(hours=12), until=NOON + timedelta(days=2, hours=12)),
    Window(since=NOON + timedelta(minutes=1), until=NOON + timedelta(hours=3)),
    Window(since=NOON - timedelta(days=40), until=NOON + timedelta(days=33)),
]


@pytest.fixture
def store(store: Store) -> Store:
    """Record runs at noon and an hour later: some days in a row, and some in the next month."""
    for day in (0, 1, 2, 3, 32, 33):
        for minutes in (0, 60):
            record_mixed_run(store, started_at=at(24 * 60 * day + minutes))
    return store


def close(store: Store, *, now: datetime = LATER, most: int = 100) -> int:
    """Close what is over."""
    with store.write() as session:
        return close_periods(session, now=now, examine=examine_day, most=most)


def rows(store: Store) -> list[int]:
    """Count what is kept of closed days and months."""
    with store.read() as session:
        connection = session.connection()
        return [
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (SHEETS, DAYS, DAY_LOSSES, MONTHS)
        ]


def answers(session: Session, window: Window) -> list[object]:
    """Ask all that closed days and months are asked."""
    return [
        *(history.source_totals(session, window, step=step) for step in (None, Step.DAY)),
        *(history.loss_totals(session, window, step=step) for step in (None, Step.DAY)),
        history.source_totals(session, window, source="dice", step=Step.HOUR),
        history.range_totals(session, window),
        history.rule_totals(session, window, source="dice"),
        history.played_by_sandbox(session, window),
    ]


def asked(store: Store) -> list[list[object]]:
    """Ask them about each window."""
    with store.read() as session:
        return [answers(session, window) for window in WINDOWS]


def long_times(store: Store) -> list[object]:
    """Distribute durations as those of many attempts are."""
    with store.write() as session:
        few = durations.FEW_ATTEMPTS
        for table in (TALLIES, DAYS):
            session.connection().execute(table.update().values(attempts=few + 1))
        found = [durations.percentiles(session, window) for window in WINDOWS]
        session.rollback()
    return [
        (
            of.window,
            {
                (name, phase): (each.n, each.max_us, each.percentiles(0.1, 0.5, 0.99))
                for name, phases in of.of.items()
                for phase, each in phases.items()
            },
        )
        for of in found
    ]


def test_closed_days_answer_as_the_runs_do(store: Store) -> None:
    """Whatever the window: whole days from their sums, and what it cuts from the runs."""
    before, times = asked(store), long_times(store)

    assert close(store) == 6

    assert asked(store) == before
    assert long_times(store) == times
    assert rows(store) == [6, 12, 12, 2]


def test_closed_days_are_used(store: Store) -> None:
    """Else the answers would be the same, and no quicker."""
    close(store)
    with store.write() as session:
        session.connection().execute(DAYS.update().values(collected=1_000))

    with store.read() as session:
        [coins, dice] = history.source_totals(session)
        _, of_runs = split(session, Window())

    assert (coins.collected, dice.collected) == (6_000, 6_000)
    assert len(of_runs) == 1  # today


def test_a_day_is_closed_when_it_is_over(store: Store) -> None:
    """Runs are still to come until midnight."""
    assert close(store, now=at(24 * 60 + 11 * 60)) == 1
    assert close(store, now=at(24 * 60 + 11 * 60)) == 0
    assert close(store, now=at(24 * 60 + 12 * 60)) == 1


def test_a_long_history_is_closed_bit_by_bit(store: Store) -> None:
    """No run takes a minute to end because the program is new."""
    with store.read() as session:
        assert count_open_days(session, now=LATER) == 6

    assert [close(store, most=4), close(store, most=4), close(store, most=4)] == [4, 2, 0]
    assert rows(store) == [6, 12, 12, 2]


def test_a_run_that_ends_late_opens_its_day_again(store: Store) -> None:
    """It began before midnight, or was set aside in a file for a week."""
    close(store)
    record_mixed_run(store, started_at=at(24 * 60 + 30))
    before = asked(store)
    assert rows(store) == [5, 10, 10, 1]

    assert close(store) == 1

    assert asked(store) == before
    assert rows(store) == [6, 12, 12, 2]


def test_a_day_is_closed_as_a_whole_or_not_at_all(store: Store) -> None:
    """A program that is killed, or a disk that is full, leaves no half."""

    def fail(*_: object) -> object:
        raise MemoryError

    with pytest.raises(MemoryError), store.write() as session:
        close_periods(session, now=LATER, examine=fail)

    assert rows(store) == [0, 0, 0, 0]


def test_pruning_leaves_closed_days_and_what_they_are_made_of(store: Store) -> None:
    """Reports go on showing what was pruned, closed or not."""
    close(store)
    before, times = asked(store), long_times(store)

    prune(store, before=NOON + timedelta(days=30), now=LATER)

    assert (asked(store), long_times(store)) == (before, times)
    record_mixed_run(store, started_at=at(30))  # opens a pruned day
    assert close(store) == 1


def test_days_with_gaps_all_over_are_read_from_the_runs(store: Store) -> None:
    """A question to the database has room for so many of them."""
    for day in range(4, 60, 2):
        record_mixed_run(store, started_at=at(24 * 60 * day))
    before = asked(store)
    close(store)
    with store.write() as session:
        for day in range(4, 60, 2):
            midnight = (NOON + timedelta(days=day)).replace(hour=0)
            for table in (SHEETS, DAYS, DAY_LOSSES):
                session.connection().execute(table.delete().where(table.c.began_at == midnight))

    assert asked(store) == before


def test_a_day_that_is_still_to_come_is_not_believed(store: Store) -> None:
    """A clock that was ahead may have closed it."""
    ahead = datetime.now(UTC) + timedelta(days=3)
    with store.write() as session:
        record_run(
            session, [make_batch()], attempts=[make_attempt(began_at=ahead)], started_at=ahead
        )
    close(store, now=ahead + timedelta(days=2))

    with store.read() as session:
        days, _ = split(session, Window())

    assert days is not None
    assert days.until is not None
    assert days.until <= datetime.now(UTC)


def test_whoever_ends_a_run_closes_the_days_before(store: Store) -> None:
    """By the clock of this machine."""
    assert close_some(store) == 6
