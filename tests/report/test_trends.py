"""Stretches of time as long as the data's own interval."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.rendering.document import Kind, Mark
from pipeline.report.trends import MOST_MOMENTS, Buckets, make_buckets, trend
from pipeline.store.window import Window

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def every(step: timedelta, days: float = 7) -> Iterator[datetime]:
    """Walk over evenly spaced moments."""
    for i in range(int(days * DAY / step)):
        yield MIDNIGHT + i * step


def make(*seen: datetime, days: float = 7) -> Buckets:
    """Divide so many days."""
    found = make_buckets(seen, Window(since=MIDNIGHT, until=MIDNIGHT + days * DAY))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("step", "days", "wanted"),
    [
        (HOUR, 7, HOUR),
        (8 * HOUR, 7, 8 * HOUR),
        (5 * HOUR, 7, 6 * HOUR),
        (DAY, 7, DAY),
        (HOUR, 15, 2 * HOUR),
        (DAY, 30, DAY),
        (DAY, 210, 7 * DAY),
        (7 * DAY, 60, 7 * DAY),
    ],
)
def test_buckets_are_as_wide_as_runs_lie_apart(
    step: timedelta, days: float, wanted: timedelta
) -> None:
    """Finer ones would be gaps for the most part; more of them than a page is wide, a blur."""
    buckets = make(*every(step, days), days=days)

    assert buckets.step == wanted
    assert len(buckets.moments) <= MOST_MOMENTS + 1
    assert buckets.seen >= {*buckets.moments[:-1]}


def test_nights_without_a_run_are_no_gaps_and_lost_days_are() -> None:
    """Runs at eight, noon and six make days; the third of them is missing."""
    days = [MIDNIGHT + i * DAY for i in (0, 1, 3, 4, 5, 6)]

    buckets = make(*(day + hour * HOUR for day in days for hour in (8, 12, 18)))

    assert buckets.step in {12 * HOUR, DAY}
    missing = [moment for moment in buckets.moments if moment not in buckets.seen]
    assert {moment.date() for moment in missing} >= {(MIDNIGHT + 2 * DAY).date()}


def test_a_clock_without_a_battery_does_not_stretch_time() -> None:
    """One run of 1970 would leave a single column for all that came since."""
    buckets = make(datetime(1970, 1, 1, tzinfo=UTC), *every(HOUR))

    assert (buckets.moments[0], buckets.step) == (MIDNIGHT, HOUR)


def test_where_all_clocks_were_wrong_their_times_stand() -> None:
    """They are all there is."""
    long_ago, ahead = (datetime(year, 1, 1, tzinfo=UTC) for year in (1970, 3000))

    assert make(long_ago).begin_of(long_ago) in make(long_ago).seen
    assert make(ahead).moments[-1] == make(ahead).begin_of(ahead)


def test_the_end_of_the_window_belongs_to_it_and_nothing_behind() -> None:
    """What ended at midnight has no column of the next day."""
    buckets = make(*every(HOUR, 2), days=3)

    assert buckets.moments[-1] == MIDNIGHT + 3 * DAY - HOUR


def test_values_of_a_bucket_are_added_up() -> None:
    """A count is 0 where a run brought nothing; without a run, and in measures, there is a gap."""
    buckets = Buckets(
        step=DAY,
        moments=[MIDNIGHT, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY],
        seen=frozenset({MIDNIGHT, MIDNIGHT + DAY}),
    )
    points = [(MIDNIGHT, "dice", 3), (MIDNIGHT + HOUR, "dice", 4)]

    [bars] = trend("T", Kind.NUMBER, buckets, points, sum, absent=0, mark=Mark.BARS)
    [line] = trend("T", Kind.NUMBER, buckets, points, sum)

    assert bars.series[0].values == [7, 0, None]
    assert line.series[0].values == [7, None, None]
    assert bars.heading == "T per day"


def test_without_a_point_or_a_run_there_is_no_chart() -> None:
    """An empty frame says nothing."""
    assert trend("T", Kind.NUMBER, make(MIDNIGHT), [], sum) == []
    assert make_buckets([], Window()) is None
    assert trend("T", Kind.NUMBER, None, [(MIDNIGHT, "dice", 1)], sum) == []


def test_of_more_time_than_fits_the_end_is_kept() -> None:
    """A thousand years are the work of a clock; their last columns are what somebody wants."""
    ends = (datetime(1000, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))

    buckets = make_buckets(ends, Window())

    assert buckets is not None
    assert len(buckets.moments) == MOST_MOMENTS + 1
    assert buckets.moments[-1] <= ends[1] < buckets.moments[-1] + buckets.step
