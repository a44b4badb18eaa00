"""Draw charts as SVG: lines and bars stretch with the page, the words around them do not.

One unit along is a tenth of a moment, one unit up a hundredth of the height. A point is a line of
no length with round ends, which no stretching deforms.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import groupby

from pipeline.rendering.axes import Scale, scale_of, time_ticks
from pipeline.rendering.document import Chart, Mark
from pipeline.rendering.page import as_html

INKS = 7  # that page.css knows; after them the same come again in a new style
STYLES = 4
WIDTH = 10  # of a moment
SMALLEST = 0.8  # per cent of the height: one of a thousand is seen
MANY = 100  # moments, past which a point on each would hide the line
EDGE = 5  # per cent: a label nearer to the edge would stick out

Values = Sequence[float | None]


def ink_of(index: int) -> str:
    """Name the classes of a series."""
    return f"s{index % INKS} d{index // INKS % STYLES}"


def _n(value: float) -> str:
    return f"{round(value, 1):g}"


def _line(values: Values, scale: Scale) -> str:
    """Join what was measured one after the other."""
    drawn, is_joined = [], False
    for i, value in enumerate(values):
        if value is not None:
            y = _n(100 - scale.height(value))
            drawn.append(f"{'L' if is_joined else 'M'}{WIDTH * i + WIDTH // 2} {y}")
        is_joined = value is not None
    return "".join(drawn)


def _points(values: Values, scale: Scale) -> str:
    """Mark what was measured; of many moments only what no line leads to."""
    around = [None, *values, None]
    return "".join(
        f"M{WIDTH * i + WIDTH // 2} {_n(100 - scale.height(value))}h0"
        for i, value in enumerate(values)
        if value is not None and (len(values) <= MANY or around[i] is around[i + 2] is None)
    )


def _bars(values: Values, base: list[float], scale: Scale) -> str:
    """Set a bar on each *base*, which grows by it."""
    drawn = []
    for i, value in enumerate(values):
        if value is not None and value > 0:
            height = max(scale.height(value), SMALLEST)
            drawn.append(f"M{WIDTH * i + 1} {_n(100 - base[i])}v-{_n(height)}h{WIDTH - 2}")
            drawn.append(f"v{_n(height)}z")
            base[i] += height
    return "".join(drawn)


def _series(chart: Chart, scale: Scale) -> Iterator[str]:
    base = [0.0] * len(chart.moments)
    for index, series in enumerate(chart.series):
        ink = ink_of(index)
        if chart.mark is Mark.BARS:
            yield f'<path class="bar {ink}" d="{_bars(series.values, base, scale)}"/>'
        else:
            yield f'<path class="line {ink}" d="{_line(series.values, scale)}"/>'
            yield f'<path class="points {ink}" d="{_points(series.values, scale)}"/>'


def gaps_of(chart: Chart) -> list[tuple[int, int]]:
    """Find where nothing was measured: the first moment of each gap, and how many there are."""
    columns = zip(*(series.values for series in chart.series), strict=True)
    is_empty = (all(value is None for value in column) for column in columns)
    stretches = (list(group) for _, group in groupby(enumerate(is_empty), key=lambda each: each[1]))
    return [(stretch[0][0], len(stretch)) for stretch in stretches if stretch[0][1]]


def _background(chart: Chart, scale: Scale) -> Iterator[str]:
    if chart.step is not None:
        d = "".join(f"M{WIDTH * i} 0h{WIDTH * n}v100h-{WIDTH * n}z" for i, n in gaps_of(chart))
        yield f'<path class="gap" d="{d}"/>'
    width, steps = WIDTH * len(chart.moments), len(scale.labels) - 1
    grid = "".join(f"M0 {_n(100 * i / steps)}h{width}" for i in range(steps + 1))
    yield f'<path class="grid" d="{grid}"/>'


def _place(per_cent: float) -> str:
    side = ' class="first"' if per_cent < EDGE else ' class="last"' if per_cent > 100 - EDGE else ""
    return f'{side} style="left:{_n(per_cent)}%"'


def _times(chart: Chart) -> str:
    # A day is named below its middle, an hour where it begins.
    shift = 0.5 if chart.step is None or chart.step >= timedelta(days=1) else 0.0
    return "".join(
        f"<span{_place(100 * (i + shift) / len(chart.moments))}>{name}</span>"
        for i, name in time_ticks(chart.moments)
    )


def legend(names: Iterable[tuple[str, str]]) -> str:
    """Say what each colour, given as classes, stands for."""
    items = (f'<li><i class="{ink}"></i>{as_html(name)}</li>' for ink, name in names)
    return f'<ul class="legend">{"".join(items)}</ul>'


def draw_chart(chart: Chart) -> Iterator[str]:
    """Draw *chart* with its legend and its scales."""
    scale = scale_of(chart)
    names = [(ink_of(i), series.name) for i, series in enumerate(chart.series)]
    if chart.step is not None and gaps_of(chart):
        names.append(("gap", "nothing was asked"))
    if scale.bottom:
        names.append(("none", "each line is ten times the one below"))
    yield legend(names)
    yield f'<div class="plot" role="img" aria-label="{as_html(chart.heading)}">'
    yield f'<div class="up">{"".join(f"<span>{each}</span>" for each in scale.labels[::-1])}</div>'
    yield f'<svg viewBox="0 0 {WIDTH * len(chart.moments)} 100" preserveAspectRatio="none">'
    yield from _background(chart, scale)
    yield from _series(chart, scale)
    yield f'</svg><div class="along">{_times(chart)}</div></div>'
