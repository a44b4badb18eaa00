"""Sums of closed days and months that lie are found, whichever row was changed."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from pipeline.audit.sheets import examine_day
from pipeline.models import Step
from pipeline.store.db import Store
from pipeline.store.integrity.pruning import prune
from pipeline.store.integrity.sums import check_sums, plan_checks
from pipeline.store.rollups import close_periods
from pipeline.store.tables import DAY_LOSSES, DAYS, MONTHS, SHEETS, TIMINGS
from tests.store.histories import record_history
from tests.store.makers import NOON

LATER = NOON + timedelta(days=40)
BOTH = "2026-03-01: the sums in {} are not those of the runs of that day"


@pytest.fixture
def store(store: Store) -> Store:
    """Record three days, and close them."""
    record_history(store)
    with store.write() as session:
        close_periods(session, now=LATER, examine=examine_day)
    return store


def found(store: Store) -> list[str]:
    """Name what is wrong."""
    with store.read() as session:
        problems, checks = plan_checks(session.connection(), examine_day, None)
    problems += check_sums(store, lambda _: None, checks=checks)
    return [problem.text for problem in problems]


def test_sums_that_are_right_are_left_alone(store: Store) -> None:
    """Also when what they were made of once is pruned."""
    assert found(store) == []

    prune(store, before=NOON + timedelta(days=2), now=LATER)

    assert found(store) == []


FIRST = NOON.replace(hour=0)
SHORTER = {"exchange": [1, 1, 1, [1], [1]]}
LIES = [
    (update(DAYS).where(DAYS.c.began_at == FIRST).values(collected=99), BOTH.format("days")),
    (update(DAYS).where(DAYS.c.began_at == FIRST).values(sum=1), BOTH.format("days")),
    (delete(DAYS).where(DAYS.c.began_at == FIRST), BOTH.format("days")),
    (
        update(DAY_LOSSES).where(DAY_LOSSES.c.began_at == FIRST).values(batches=0),
        BOTH.format("day_losses"),
    ),
    (
        update(SHEETS).where(SHEETS.c.began_at == FIRST).values(facts={"runs": 0}),
        "2026-03-01: its sheet does not say what the runs of that day do",
    ),
    (
        update(MONTHS).values(phases=SHORTER),
        "2026-03-01: the durations of the month are not those of its days",
    ),
    (
        update(TIMINGS)
        .where(TIMINGS.c.step == Step.HOUR, TIMINGS.c.began_at == NOON)
        .values(phases=SHORTER),
        "2026-03-01: the durations of the day are not those of its hours",
    ),
]


@pytest.mark.parametrize(("change", "line"), LIES)
def test_a_sum_that_lies_is_named(store: Store, change: Callable[..., object], line: str) -> None:
    """By its day or month, and by what is not right about it."""
    with store.write() as session:
        session.connection().execute(change)  # type: ignore[call-overload]

    assert found(store) == [line]


def test_durations_that_were_changed_everywhere_disagree_with_the_runs(store: Store) -> None:
    """Whoever is so thorough has to change what is sealed as well."""
    with store.write() as session:
        session.connection().execute(
            update(TIMINGS)
            .where(TIMINGS.c.began_at < NOON + timedelta(hours=1))
            .values(phases=SHORTER)
        )
        session.connection().execute(delete(MONTHS))

    assert found(store) == [
        "2026-03-01: the durations of the day are not as many, or as long, as its runs'"
    ]


def test_sums_of_a_day_that_nobody_closed_are_found(store: Store) -> None:
    """Nobody would read them with care."""
    with store.write() as session:
        session.connection().execute(delete(SHEETS).where(SHEETS.c.began_at == FIRST))

    assert found(store) == [
        "2026-03-01: days has sums of a day that is not closed",
        "2026-03-01: day_losses has sums of a day that is not closed",
    ]
