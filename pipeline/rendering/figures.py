"""What is drawn as tables: for sheets, for who cannot see it, and for places without pictures."""

from itertools import groupby

from pipeline.errors import Phase
from pipeline.rendering.document import (
    Chart,
    Column,
    Kind,
    Lanes,
    Notices,
    Part,
    Strip,
    Table,
    Text,
    Waterfall,
)
from pipeline.rendering.words import show_step


def tabulate_part(part: Part) -> Table | Text:
    """Make a table of whatever is drawn."""
    match part:
        case Chart():
            return tabulate_chart(part)
        case Waterfall():
            return tabulate_waterfall(part)
        case Strip():
            return tabulate_strip(part)
        case Lanes():
            return tabulate_lanes(part)
        case Notices():
            return tabulate_notices(part)
        case Table() | Text():
            return part


def tabulate_chart(chart: Chart) -> Table:
    """Make a row of each moment, a column of each series."""
    unit = "_us" if chart.kind is Kind.DURATION else ""
    values = zip(*(series.values for series in chart.series), strict=True)
    return Table(
        title=chart.heading,
        columns=(
            Column("began_at", Kind.MOMENT),
            *(Column(f"{s.name}{unit}", chart.kind, title=s.name) for s in chart.series),
        ),
        rows=(
            [(moment, *row) for moment, row in zip(chart.moments, values, strict=True)]
            if chart.series
            else [(moment,) for moment in chart.moments]
        ),
    )


def tabulate_waterfall(waterfall: Waterfall) -> Table:
    """Make a row of each bar, a column of each phase; a phase that was not reached is None."""
    return Table(
        title=waterfall.title,
        columns=(
            Column("attempt"),
            Column("begin_us", Kind.DURATION),
            *(Column(f"{phase}_us", Kind.DURATION) for phase in Phase),
            Column("error"),
        ),
        rows=[
            (bar.label, bar.begin_us, *map(dict(bar.segments).get, Phase), bar.error or None)
            for bar in waterfall.bars
        ],
    )


def tabulate_strip(strip: Strip) -> Table:
    """Make a row of each stretch of moments with the same word."""
    stretches = (
        (word, [moment for moment, _ in cells])
        for word, cells in groupby(strip.cells, key=lambda cell: cell[1])
    )
    return Table(
        title=strip.title,
        columns=(
            Column("first_at", Kind.MOMENT),
            Column("last_at", Kind.MOMENT),
            Column("fate"),
            Column("slots", Kind.NUMBER),
        ),
        rows=[(moments[0], moments[-1], word, len(moments)) for word, moments in stretches],
    )


def tabulate_lanes(lanes: Lanes) -> Table:
    """Make a row of each moment, a column of each lane."""
    return Table(
        title=f"{lanes.title} per {show_step(lanes.step)}",
        columns=(Column("began_at", Kind.MOMENT), *(Column(lane.name) for lane in lanes.lanes)),
        rows=[
            (
                moment,
                *(f"{lane.words[i]}: {lane.notes[i]}".removesuffix(": ") for lane in lanes.lanes),
            )
            for i, moment in enumerate(lanes.moments)
        ],
    )


def summarize_lanes(lanes: Lanes) -> Table:
    """Make a row of each lane: how often it was what."""
    words = list(dict.fromkeys(word for lane in lanes.lanes for word in lane.words))
    return Table(
        title=f"{lanes.title}, counted per {show_step(lanes.step)}",
        columns=(
            *map(Column, ("name", "state")),
            *(Column(word, Kind.NUMBER) for word in words),
            Column("sum", title="in all"),
        ),
        rows=[
            (lane.name, lane.state, *(lane.words.count(word) for word in words), lane.sum)
            for lane in lanes.lanes
        ],
    )


def tabulate_notices(notices: Notices) -> Table:
    """Make a row of each notice."""
    return Table(
        title=notices.title,
        columns=tuple(map(Column, ("severity", "what", "detail", "command"))),
        rows=[
            (each.word, each.text, each.detail or None, each.command or None)
            for each in notices.notices
        ],
    )
