"""Make charts of measures over time, in stretches as long as the data's own interval."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from pipeline.clock import MADE_AT
from pipeline.rendering.document import Chart, Kind, Mark, Series
from pipeline.store.window import LENGTHS, Window

T = TypeVar("T")

MOST_MOMENTS = 184  # more columns than that are thinner than a line on a phone
HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
LADDER = (
    *(n * HOUR for n in (1, 2, 3, 4, 6, 8, 12, 24)),
    *(n * WEEK for n in (1, 4, 13, 52)),
)
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)  # where weeks, days and hours are counted from


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Stretches of time of one length.

    Attributes:
        moments: when each begins; ascending, without a gap.
        seen: those in which a run wanted something.
    """

    step: timedelta
    moments: Sequence[datetime]
    seen: frozenset[datetime]

    def begin_of(self, moment: datetime) -> datetime:
        """Tell when the stretch begins that *moment* lies in."""
        return _begin(moment, self.step)


def _begin(moment: datetime, step: timedelta) -> datetime:
    return moment - (moment - MONDAY) % step


def make_buckets(
    seen: Iterable[datetime],
    window: Window,
    *,
    begin: datetime | None = None,
    least: timedelta = HOUR,
    most: int = MOST_MOMENTS,
) -> Buckets | None:
    """Divide the window from the first hour or day *seen*, or from *begin*, to its end, or to now.

    As finely as the data lie close, not finer: three runs a day make three columns a day, and no
    gaps between them. They are *least* wide and *most* in number. What a clock that was wrong has
    put far before or behind is left out. None if nothing was seen.
    """
    now = datetime.now(UTC)
    known = sorted({*seen})
    usual = [moment for moment in known if moment <= now] or known
    right = [moment for moment in usual if moment >= MADE_AT]  # by a clock that was set
    if not usual:
        return None
    first = (right or usual)[0]
    first = min(begin or first, first)
    end = max(usual[-1], min(window.until or usual[-1], now) - timedelta.resolution)
    least = max(least, LENGTHS[window.step], (end - first) / most)
    step = _choose_step(right or usual, least)
    moments = list(_walk(_begin(first, step), end, step, most))
    return Buckets(
        step=step,
        moments=moments,
        seen=frozenset(_begin(moment, step) for moment in usual) & {*moments},
    )


def _choose_step(seen: Sequence[datetime], least: timedelta) -> timedelta:
    """Choose the smallest step that three in four gaps fit into."""
    gaps = sorted(after - before for before, after in pairwise(seen)) or [least]
    wanted = max(gaps[3 * (len(gaps) - 1) // 4], least)
    return next((step for step in LADDER if step >= wanted), LADDER[-1])


def _walk(moment: datetime, end: datetime, step: timedelta, most: int) -> Iterator[datetime]:
    if (surplus := (end - moment) // step - most) > 0:
        moment += surplus * step
    while moment <= end:
        yield moment
        moment += step


def trend(
    title: str,
    kind: Kind,
    buckets: Buckets | None,
    points: Iterable[tuple[datetime, str, T]],
    add_up: Callable[[list[T]], float | None],
    *,
    absent: float | None = None,
    mark: Mark = Mark.LINE,
) -> list[Chart]:
    """Draw a series for each name in *points*, the points of a bucket added up.

    *absent* is the value where runs wanted something and there is no point. Without any point there
    is no chart.
    """
    series: dict[str, defaultdict[datetime, list[T]]] = {}
    if buckets is not None:
        for began_at, name, value in points:
            series.setdefault(name, defaultdict(list))[buckets.begin_of(began_at)].append(value)
    if buckets is None or not series:
        return []
    missing = dict.fromkeys(buckets.seen, absent)
    drawn = [
        Series(
            name,
            [
                add_up(found[moment]) if moment in found else missing.get(moment)
                for moment in buckets.moments
            ],
        )
        for name, found in sorted(series.items())
    ]
    return [
        Chart(
            title=title,
            kind=kind,
            moments=buckets.moments,
            series=drawn,
            mark=mark,
            step=buckets.step,
        )
    ]
