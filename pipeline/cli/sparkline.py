"""Charts as a line of characters per series, for places that take nothing but text. Pure."""

from collections.abc import Iterator, Sequence

from pipeline.cli.document import Cell, Chart, Column, Kind, Series, Table
from pipeline.cli.render import show_time

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
GAP = "·"  # not measured; never drawn as 0
ASCII_GAP = "?"


def _shrunk(values: Sequence[float | None], width: int) -> Iterator[float | None]:
    """Give at most *width* values, each the mean of what was measured in its stretch."""
    n = min(width, len(values))
    for i in range(n):
        stretch = values[i * len(values) // n : (i + 1) * len(values) // n]
        known = [value for value in stretch if value is not None]
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
    ends = (known[0], known[-1], min(known), max(known)) if known else (None,) * 4
    return (series.name, line, *ends)


def summarize(chart: Chart, *, width: int, is_ascii: bool = False) -> Table:
    """Make a row of each series: its line, the first, the last, the smallest, the largest value."""
    kind = chart.kind
    ends = dict.fromkeys(map(show_time, (*chart.moments[:1], *chart.moments[-1:])))
    return Table(
        title=f"{chart.title}, {' to '.join(ends)}" if ends else chart.title,
        columns=(
            Column("series"),
            Column("trend"),
            *(Column(name, kind) for name in ("first", "last", "min", "max")),
        ),
        rows=[
            _row(
                series,
                sparkline(
                    series.values, width=width, is_share=kind is Kind.SHARE, is_ascii=is_ascii
                ),
            )
            for series in chart.series
        ],
    )
