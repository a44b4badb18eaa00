"""The scales of charts."""

from datetime import timedelta

import pytest

from pipeline.rendering.axes import MOST_TICKS, scale_of, time_ticks
from pipeline.rendering.document import Chart, Kind, Mark, Series
from tests.rendering.documents import NOON, at, make_chart

HOUR, DAY = 60, 24 * 60


@pytest.mark.parametrize(
    ("value", "kind", "labels"),
    [
        (0, Kind.NUMBER, ["0", "1"]),
        (1, Kind.NUMBER, ["0", "1"]),
        (7, Kind.NUMBER, ["0", "2", "4", "6", "8"]),
        (3_801, Kind.NUMBER, ["0", "1,000", "2,000", "3,000", "4,000"]),
        (12, Kind.NUMBER, ["0", "3", "6", "9", "12"]),
        (900, Kind.DURATION, ["0 ms", "0.2 ms", "0.4 ms", "0.6 ms", "0.8 ms", "1 ms"]),
        (2_500_000, Kind.DURATION, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s", "2.5 s"]),
        (120_000_000, Kind.DURATION, ["0 min", "0.5 min", "1 min", "1.5 min", "2 min"]),
        (9 * 3600 * 10**6, Kind.DURATION, ["0 h", "2 h", "4 h", "6 h", "8 h", "10 h"]),
        (0.2, Kind.SHARE, ["0%", "25%", "50%", "75%", "100%"]),
    ],
)
def test_values_stand_on_round_numbers(value: float, kind: Kind, labels: list[str]) -> None:
    """In the unit of the largest: an axis of five-digit numbers cannot be read."""
    scale = scale_of(make_chart(value, None, 0, kind=kind))

    assert scale.labels == labels
    assert 0 <= scale.height(value) <= 100


def test_durations_far_apart_get_a_tenfold_scale() -> None:
    """Else the quick sources lie on the lower edge, whatever happens to them."""
    scale = scale_of(make_chart(150_000, 9_000_000, None, 0, kind=Kind.DURATION))

    assert scale.labels == ["100 ms", "1 s", "10 s"]
    assert [scale.height(us) for us in (0, 100_000, 1_000_000, 10_000_000)] == [0, 0, 50, 100]
    assert len(scale_of(make_chart(1, 10**12, kind=Kind.DURATION)).labels) == 6


def test_bars_reach_as_high_as_they_stand_on_each_other() -> None:
    """A chart that they grow out of is wrong."""
    series = [Series("a", [6]), Series("b", [3])]
    chart = Chart(title="T", kind=Kind.NUMBER, moments=[NOON], series=series, mark=Mark.BARS)

    assert scale_of(chart).height(9) == pytest.approx(90)


@pytest.mark.parametrize(
    ("minutes", "n", "names"),
    [
        (HOUR, 3, ["12:00", "13:00", "14:00"]),
        (DAY, 1, ["12:00"]),
        (HOUR, 26, ["15:00", "18:00", "21:00", "Mar 2", "03:00", "06:00", "09:00", "12:00"]),
        (8 * HOUR, 30, ["Mar 2", "Mar 4", "Mar 6", "Mar 8", "Mar 10"]),
        (DAY, 30, ["Mar 2", "Mar 9", "Mar 16", "Mar 23", "Mar 30"]),
        (7 * DAY, 52, ["Apr 2026", "Jul 2026", "Oct 2026", "Jan 2027"]),
        (365 * DAY, 30, ["2030", "2035", "2040", "2045", "2050", "2055"]),
    ],
)
def test_times_are_named_where_they_are_round(minutes: int, n: int, names: list[str]) -> None:
    """Midnights, Mondays, first days of months: few enough to be read."""
    ticks = time_ticks([at(minutes * i) for i in range(n)])

    found = [name for _, name in ticks]
    assert len(found) <= MOST_TICKS
    assert [name[-len(wanted) :] for name, wanted in zip(found, names, strict=False)] == names


def test_days_are_named_by_their_dates() -> None:
    """Midnight is no news."""
    days = [(NOON + timedelta(days=i)).replace(hour=0) for i in range(3)]

    assert [name for _, name in time_ticks(days)] == ["Mar 1", "Mar 2", "Mar 3"]
