"""Which runs a clock that was wrong has recorded, told by their order; and how far ours is off."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.clock import (
    Stamp,
    find_doubt,
    find_untimely,
    is_behind,
    middle_offset,
    show_distance,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)
BATTERY = datetime(1970, 1, 2, tzinfo=UTC)


def stamps(*moments: datetime | timedelta) -> list[Stamp]:
    """Number runs that started then, or so long after noon."""
    return [
        Stamp(run_id=run_id, started_at=NOW + each if isinstance(each, timedelta) else each)
        for run_id, each in enumerate(moments, 1)
    ]


@pytest.mark.parametrize(
    ("moments", "wrong"),
    [
        ((), {}),
        ((-2 * HOUR, -HOUR), {}),
        ((-HOUR + timedelta(seconds=50), -HOUR), {}),  # two machines
        ((YEAR,), {1: YEAR}),
        ((YEAR, -HOUR), {1: YEAR + HOUR}),
        ((-3 * HOUR, YEAR, -2 * HOUR, -HOUR), {2: YEAR + 2 * HOUR}),
        ((-3 * HOUR, 2 * HOUR, 3 * HOUR, -HOUR), {2: 3 * HOUR, 3: 4 * HOUR}),
        ((BATTERY, -HOUR), {1: BATTERY - NOW + HOUR}),
        ((-3 * HOUR, BATTERY, -HOUR), {2: BATTERY - NOW + 3 * HOUR}),
        ((-3 * HOUR, -YEAR, -HOUR), {2: 3 * HOUR - YEAR}),
        # Long ago, so that what was the future then has come.
        ((-30 * DAY, -20 * DAY, -29 * DAY, -28 * DAY, -27 * DAY), {2: 9 * DAY}),
    ],
)
def test_runs_that_do_not_fit_in_are_found(
    moments: tuple[datetime | timedelta, ...], wrong: dict[int, timedelta]
) -> None:
    """Numbers ascend, so times must: what breaks the row is wrong; the nearest tells how far."""
    assert find_untimely(stamps(*moments), NOW) == wrong


@pytest.mark.parametrize(
    ("now", "runs", "in_future", "answer"),
    [
        (NOW, 3, 3, False),  # a new store: nobody can tell, and the clock is believed
        (NOW, 100, 12, False),
        (NOW, 100, 80, True),
        (NOW, 100, 0, False),
        (BATTERY, 1, 1, True),
        (BATTERY, 0, 0, False),
    ],
)
def test_when_most_of_history_is_to_come_it_is_this_clock_that_is_wrong(
    now: datetime, runs: int, in_future: int, answer: bool
) -> None:
    """Else one start at 1970 would take back every embargo that holds."""
    assert is_behind(now, runs=runs, in_future=in_future) is answer


@pytest.mark.parametrize(
    ("last", "now", "counts", "said"),
    [
        ((), NOW, (0, 0), None),
        ((-HOUR,), NOW, (1, 0), None),
        ((-2 * HOUR, -HOUR), NOW, (2, 0), None),
        ((-2 * HOUR, YEAR), NOW, (2, 1), "a clock was 365 days ahead"),
        ((YEAR, -HOUR), NOW, (2, 1), None),  # was said by the run before
        ((BATTERY,), NOW, (1, 0), "before this program was made: its clock was behind"),
        ((-HOUR, -100 * DAY), NOW, (2, 0), "and the one before it later: a clock was wrong"),
        ((-2 * HOUR, -HOUR), NOW - YEAR, (90, 90), "it seems to be behind"),
    ],
)
def test_the_next_run_says_what_is_odd_about_the_last_once(
    last: tuple[datetime | timedelta, ...],
    now: datetime,
    counts: tuple[int, int],
    said: str | None,
) -> None:
    """Cron mails every line, so not at every start for a year."""
    found = find_doubt(stamps(*last), now, runs=counts[0], in_future=counts[1])

    assert (found and found.endswith((said or "", "kept as it is"))) == (said and True)
    assert said is None or said in (found or "")


@pytest.mark.parametrize(
    ("offsets", "middle"),
    [
        ({}, None),
        ({"dice": []}, None),
        ({"dice": [5]}, 5),
        ({"dice": [1, 90, 2]}, 2),
        ({"dice": [3_600], "coin": [0]}, 0),  # one of the two is wrong, maybe not we
        ({"dice": [3_600], "coin": [3_601]}, 3_600),
        ({"dice": [-70], "coin": [-71], "anu": [0]}, -70),
    ],
)
def test_our_clock_is_judged_by_most_of_the_others(
    offsets: dict[str, list[int]], middle: int | None
) -> None:
    """One upstream whose clock is off must not make it ours."""
    assert middle_offset(offsets) == middle


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (75 * timedelta(seconds=1), "75 s"),
        (-90 * timedelta(minutes=1), "90 minutes"),
        (YEAR, "365 days"),
    ],
)
def test_a_distance_is_told_roughly(distance: timedelta, text: str) -> None:
    """Nobody wants the seconds of a year."""
    assert show_distance(distance) == text
