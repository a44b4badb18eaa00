"""What became of a measure over time, as a chart."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pipeline.cli.document import Chart, Kind, Mark, Series
from pipeline.store.history import LENGTHS, Window


def trend(
    title: str,
    kind: Kind,
    window: Window,
    points: Iterable[tuple[datetime, str, float | None]],
    *,
    absent: float | None = None,
    mark: Mark = Mark.LINE,
) -> list[Chart]:
    """Draw a series for each name in *points*, over all hours or days since the first of them.

    *absent* is the value of an hour or day without a point. Without any there is no chart.
    """
    series: dict[str, dict[datetime, float | None]] = {}
    for began_at, name, value in points:
        series.setdefault(name, {})[began_at] = value
    if not series:
        return []
    moments = list(_moments([moment for values in series.values() for moment in values], window))
    drawn = [
        Series(name, [series[name].get(moment, absent) for moment in moments])
        for name in sorted(series)
    ]
    return [Chart(title=title, kind=kind, moments=moments, series=drawn, mark=mark)]


def _moments(seen: list[datetime], window: Window) -> Iterator[datetime]:
    """Walk from the first to the end of the window, or to now, whatever comes first."""
    last = max(seen)
    end = max(last, min(window.until or last, datetime.now(UTC)))
    moment, step = min(seen), LENGTHS[window.step]
    while moment <= end:
        yield moment
        moment += step
