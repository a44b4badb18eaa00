"""The moments that cron expressions name, above all where the clock is changed."""

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile

import pytest

from pipeline.schedule.cron import Cron, expression_of

YEAR = 2026
BEGIN, END = datetime(YEAR, 1, 1, tzinfo=UTC), datetime(YEAR + 1, 1, 1, tzinfo=UTC)
SPRING = datetime(YEAR, 3, 29, 1, tzinfo=UTC)  # in Berlin 02:00 becomes 03:00
AUTUMN = datetime(YEAR, 10, 25, 1, tzinfo=UTC)  # in Berlin 03:00 becomes 02:00
BEFORE = timedelta(microseconds=1)


def berlin(expression: str) -> Cron:
    """Go by the clock of Berlin."""
    return Cron(expression=expression, timezone="Europe/Berlin")


def between(cron: Cron, begin: datetime, end: datetime) -> list[datetime]:
    """List the slots from *begin* to before *end*."""
    return list(takewhile(lambda due_at: due_at < end, cron.after(begin - BEFORE)))


@pytest.mark.parametrize(
    ("expression", "distance"),
    [("*/5 * * * *", timedelta(minutes=5)), ("0 * * * *", timedelta(hours=1))],
)
def test_a_year_of_even_slots_has_none_lost_and_none_twice(
    expression: str, distance: timedelta
) -> None:
    """Both changes of the clock included: on a stopwatch there are none."""
    expected = [BEGIN + n * distance for n in range((END - BEGIN) // distance)]

    assert between(berlin(expression), BEGIN, END) == expected


def test_a_daily_slot_comes_once_a_day_all_year() -> None:
    """Debian's rule: at the end of the hour that is left out, in the first of the two alike."""
    slots = between(berlin("30 2 * * *"), BEGIN, END)

    assert len(slots) == len({slot.date() for slot in slots}) == 365
    assert SPRING in slots
    assert AUTUMN - timedelta(minutes=30) in slots
    assert AUTUMN + timedelta(minutes=30) not in slots


@pytest.mark.parametrize(("change", "count"), [(SPRING, 0), (AUTUMN, 4), (BEGIN, 2)])
def test_a_star_follows_the_clock_on_the_wall(change: datetime, count: int) -> None:
    """Half past two, whenever a clock shows it: never in spring, twice in autumn."""
    midnight = change.replace(hour=0) - timedelta(hours=2)

    slots = between(berlin("*/30 2 * * *"), midnight, midnight + timedelta(days=1))

    assert len(slots) == count


def test_nothing_comes_again_for_who_begins_in_the_second_hour() -> None:
    """A restart at the wrong minute must not repeat the night's run."""
    again = AUTUMN + timedelta(minutes=10)  # 02:10 for the second time

    assert next(berlin("30 2 * * *").after(again)) > AUTUMN + timedelta(hours=20)


@pytest.mark.parametrize(
    "cron",
    [
        berlin("*/5 * * * *"),
        berlin("30 2 * * *"),
        berlin("0,30 1-3 * * *"),
        berlin("*/15 2 * * *"),
        Cron(expression="*/30 * * * * *", timezone="America/New_York"),
        Cron(expression="15 */2 * * *"),
    ],
)
def test_the_newest_slot_is_the_last_one_that_has_come(cron: Cron) -> None:
    """Backwards and forwards must agree, or a slot is run twice or never."""
    for change in (SPRING, AUTUMN, BEGIN + timedelta(days=40)):
        slots = between(cron, change - timedelta(hours=60), change + timedelta(hours=4))
        moments = [change + timedelta(minutes=minutes) for minutes in range(-180, 200, 7)]
        for moment in [*moments, *slots[-2:], *(slot - BEFORE for slot in slots[-2:])]:
            assert cron.latest(moment) == slots[bisect_right(slots, moment) - 1]


@pytest.mark.parametrize(
    ("every", "per_day"),
    [("30s", 2880), ("1m", 1440), ("5m", 288), ("1h", 24), ("8h", 3), ("1d", 1)],
)
def test_every_is_an_expression(every: str, per_day: int) -> None:
    """A shorthand, not a second kind of schedule."""
    cron = Cron(expression=expression_of(every))

    slots = between(cron, BEGIN, BEGIN + timedelta(days=1))

    assert len(slots) == cron.per_day() == per_day
    assert slots[0] == BEGIN


@pytest.mark.parametrize(
    ("expression", "per_month"),
    [("*/5 * * * *", 8928), ("0 0 1 * *", 1), ("0 12 * * mon", 5), ("0 0 29 2 *", 0)],
)
def test_the_fullest_month_is_held_against_a_quota(expression: str, per_month: int) -> None:
    """A quota that lasts in February may not in March."""
    assert Cron(expression=expression).per_month(date(2026, 11, 22)) == per_month


def test_utc_needs_no_time_zone_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default has to work in the smallest of containers."""
    monkeypatch.setenv("PYTHONTZPATH", "")

    assert len(list(islice(Cron(expression="* * * * *").after(BEGIN), 3))) == 3


@pytest.mark.parametrize(
    "cron",
    [
        Cron(expression="*/10 * * * *"),
        Cron(expression="7 3,15 * * mon"),
        berlin("*/5 * * * *"),
        berlin("30 2 * * *"),
        berlin("*/15 2 * * *"),
        berlin("0 0 29 2 *"),
        Cron(expression="*/20 * * * *", timezone="Australia/Lord_Howe"),  # changes by half an hour
    ],
)
def test_slots_are_counted_without_a_walk_over_each(cron: Cron) -> None:
    """Whole days at once, and those on which the clock is changed as they are."""
    begin, end = BEGIN + timedelta(hours=7, minutes=11), END - timedelta(days=9, hours=5)

    assert cron.count(begin, end) == len(between(cron, begin, end))
    assert cron.count(begin, begin) == 0


def test_decades_of_slots_are_counted_at_once() -> None:
    """A clock that was at 1970 must not cost the next start a minute."""
    begin, end = datetime(1970, 1, 2, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC)

    assert Cron(expression=expression_of("10s")).count(begin, end) == (end - begin) // timedelta(
        seconds=10
    )
