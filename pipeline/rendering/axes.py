"""The scales of charts: round numbers up, round times along. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, floor, log10

from pipeline.rendering.document import Chart, Kind, Mark
from pipeline.rendering.words import HOUR, MILLISECOND, MINUTE, SECOND, show_duration

MOST_STEPS = 5  # of a scale of values
MOST_TICKS = 8  # on a scale of time
FAR_APART = 20  # times as long
ROUND = (1, 2, 2.5, 5, 10)

# The largest first: the unit that a chart of durations has, by its largest value.
DURATION_UNITS = ((HOUR, "h"), (MINUTE, "min"), (SECOND, "s"), (MILLISECOND, "ms"))
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What the height of a chart means.

    Attributes:
        top: the value at its upper edge.
        labels: at equal distances, from below.
        bottom: 0, or the value at the lower edge of a scale on which each step is tenfold.
    """

    top: float
    labels: Sequence[str]
    bottom: float = 0

    def height(self, value: float) -> float:
        """Give the per cent of the whole height."""
        if not self.bottom:
            share = value / self.top
        else:
            share = log10(max(value / self.bottom, 1)) / log10(self.top / self.bottom)
        return min(max(share, 0), 1) * 100


def scale_of(chart: Chart) -> Scale:
    """Choose a scale from 0 to a round number above all values, or of shares, to 1.

    Durations so different that the short ones would lie on the lower edge get a tenfold scale.
    """
    if chart.kind is Kind.SHARE:
        return Scale(top=1, labels=[f"{n}%" for n in (0, 25, 50, 75, 100)])
    most = max(_heights(chart), default=0)
    least = min((v for series in chart.series for v in series.values if v), default=most)
    if chart.kind is Kind.DURATION and chart.mark is Mark.LINE and most > FAR_APART * least:
        return _tenfold(least, most)
    worth, unit = 1, ""
    if chart.kind is Kind.DURATION:
        worth, unit = next((u for u in DURATION_UNITS if most >= u[0]), DURATION_UNITS[-1])
    step = _round_up(most / worth / MOST_STEPS)
    if chart.kind is Kind.NUMBER:
        step = max(ceil(step), 1)
    steps = max(ceil(most / worth / step), 1)
    return Scale(
        top=step * steps * worth,
        labels=[f"{round(n * step, 9):,g} {unit}".strip() for n in range(steps + 1)],
    )


def _tenfold(least: float, most: float) -> Scale:
    powers = range(max(floor(log10(least)), ceil(log10(most)) - MOST_STEPS), ceil(log10(most)) + 1)
    labels = [show_duration(10**power) for power in powers]
    return Scale(bottom=10.0 ** powers[0], top=10.0 ** powers[-1], labels=labels)


def _heights(chart: Chart) -> list[float]:
    """List how high it is at each moment."""
    columns = zip(*(series.values for series in chart.series), strict=True)
    add_up = sum if chart.mark is Mark.BARS else max
    known = ([value for value in column if value is not None] for column in columns)
    return [add_up(values) for values in known if values]


def _round_up(step: float) -> float:
    """Give the next number of one digit, or 2.5, times a power of ten."""
    if step <= 0:
        return 1
    power = 10.0 ** floor(log10(step))
    return next((n * power for n in ROUND if n * power >= step), 10 * power)


Key = Callable[[datetime], int]


def _every(step: timedelta) -> Key:
    return lambda moment: (moment - EPOCH) // step


def _months(n: int) -> Key:
    return lambda moment: (moment.year * 12 + moment.month - 1) // n


# Times are round where the key changes from one moment to the next.
CLOCK, DATE, MONTH = "%H:%M", "%b %-d", "%b %Y"
RHYTHMS: Sequence[tuple[Key, str]] = (
    *((_every(timedelta(minutes=n)), CLOCK) for n in (1, 5, 15, 60, 180, 360)),
    *((_every(n * DAY), DATE) for n in (1, 2, 7)),
    *((_months(n), MONTH) for n in (1, 3, 6, 12, 24, 60, 120, 240, 600)),
)


def time_ticks(moments: Sequence[datetime]) -> list[tuple[int, str]]:
    """Choose moments to be named below a chart: their places, and how they are named."""
    utc = [moment.astimezone(UTC) for moment in moments]
    if len(utc) <= MOST_TICKS:
        is_by_day = all(moment.time() == EPOCH.time() for moment in utc)
        return [(i, _name(moment, DATE if is_by_day else CLOCK)) for i, moment in enumerate(utc)]
    crossings = ((_crossings(utc, key), form) for key, form in RHYTHMS)
    places, form = next((each for each in crossings if len(each[0]) <= MOST_TICKS), ([0], MONTH))
    return [(i, _name(utc[i], form)) for i in places or [0]]


def _crossings(moments: Sequence[datetime], key: Key) -> list[int]:
    keys = [key(moment) for moment in moments]
    return [i for i in range(1, len(keys)) if keys[i] != keys[i - 1]]


def _name(moment: datetime, form: str) -> str:
    is_midnight = form == CLOCK and not moment.hour and not moment.minute
    return moment.strftime(DATE if is_midnight else form)
