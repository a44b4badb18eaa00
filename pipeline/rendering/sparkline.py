"""Draw charts as a line of characters per series, for places that take only text. Pure."""

from collections.abc import Iterator, Sequence
from math import ceil

from pipeline.rendering.document import Cell, Chart, Column, Kind, Series, Table
from pipeline.rendering.words import show_step, show_time

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
GAP = "·"  # not measured; never drawn as 0
ASCII_GAP = "?"


def moments_per_sign(n: int, width: int) -> int:
    """Tell how many of *n* moments share a sign, so that they fit."""
    return max(ceil(n / max(width, 1)), 1)


def _shrunk(values: Sequence[float | None], width: int) -> Iterator[float | None]:
    """Give at most *width* values, each the mean of what was measured in its stretch."""
    each = moments_per_sign(len(values), width)
    for i in range(0, len(values), each):
        known = [value for value in values[i : i + each] if value is not None]
        yield sum(known) / len(known) if known else None


def sparkline(
    values: Sequence[float | None], *, width: int, is_share: bool = False, is_ascii: bool = False
) -> str:
    """Draw *values* between 0 and the largest of them, or, shares, between 0 and 1."""
    blocks, gap = (ASCII_BLOCKS, ASCII_GAP) if is_ascii else (BLOCKS, GAP)
    shown = list(_shrunk(values, width))
    known = [value for value in shown if value is not None]
    low = min(0, *known, 0)
    span = (1 if is_share else max(0, *known, 0)) - low or 1
    last = len(blocks) - 1
    return "".join(
        gap if value is None else blocks[min(round((value - low) / span * last), last)]
        for value in shown
    )


def _row(series: Series, line: str) -> tuple[Cell, ...]:
    known = [value for value in series.values if value is not None]
    ends = (min(known), max(known), known[-1]) if known else (None,) * 3
    return (series.name, line, *ends)


def _title(chart: Chart, width: int) -> str:
    """Say from when to when it is, and what a sign stands for."""
    ends = dict.fromkeys(map(show_time, (*chart.moments[:1], *chart.moments[-1:])))
    title = f"{chart.heading}, {' to '.join(ends)}" if ends else chart.heading
    each = moments_per_sign(len(chart.moments), width)
    if each == 1:
        return title
    length = f"{each} of them" if chart.step is None else show_step(chart.step * each)
    return f"{title}; a sign is the mean of {length}"


def summarize(chart: Chart, *, width: int, is_ascii: bool = False) -> Table:
    """Make a row of each series: its line, the smallest, the largest, the last value."""
    is_share = chart.kind is Kind.SHARE
    return Table(
        title=_title(chart, width),
        columns=(
            Column("series"),
            Column("trend", title=f"from 0 to {'100 %' if is_share else 'max'}"),
            *(Column(name, chart.kind) for name in ("min", "max", "last")),
        ),
        rows=[
            _row(
                series,
                sparkline(series.values, width=width, is_share=is_share, is_ascii=is_ascii),
            )
            for series in chart.series
        ],
    )
