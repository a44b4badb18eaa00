"""Draw what a run waited for as SVG: a row of each attempt, a rectangle of each phase."""

from collections.abc import Iterator

from pipeline.errors import Phase
from pipeline.rendering.chart import legend
from pipeline.rendering.document import Bar, Waterfall
from pipeline.rendering.page import as_html
from pipeline.rendering.words import show_duration

TICKS = 4  # stretches on the scale
NARROWEST = 0.15  # per cent of its width: a bar can be seen, however short
SHOW = "pipeline audit show"


def _drawn(bar: Bar, clock_us: int) -> str:
    """Draw a rectangle for each phase; places and widths are per cent of the clock."""
    per_cent = 100 / max(clock_us, 1)
    at, drawn = bar.begin_us, ""
    for phase, us in bar.segments:
        width = max(us * per_cent, NARROWEST)
        place = min(at * per_cent, 100 - NARROWEST)
        drawn += (
            f'<rect class="{phase}" x="{place:.3f}%" width="{width:.3f}%" height="100%">'
            f"<title>{phase} {show_duration(us)}</title></rect>"
        )
        at += us
    return f'<svg aria-hidden="true">{drawn}</svg>'


def _row_of_bar(bar: Bar, clock_us: int) -> str:
    begin = '<tr class="lost">' if bar.error else "<tr>"
    label = as_html(bar.label)
    if bar.attempt_id is not None:
        label = f'<span class="command" title="{SHOW} {bar.attempt_id}">{label}</span>'
    return (
        f'{begin}<th scope="row">{label}</th>'
        f'<td class="timeline">{_drawn(bar, clock_us)}</td>'
        f'<td class="duration">{show_duration(bar.took_us)}</td><td>{as_html(bar.error)}</td></tr>'
    )


def draw_waterfall(waterfall: Waterfall) -> Iterator[str]:
    """Draw a row of each attempt, its phases on the scale of the run's clock."""
    name, clock_us = as_html(waterfall.title), waterfall.clock_us
    reached = {phase for bar in waterfall.bars for phase, _ in bar.segments}
    ticks = (f"<span>{show_duration(clock_us * i // TICKS)}</span>" for i in range(TICKS + 1))
    yield legend((phase, phase) for phase in Phase if phase in reached)
    yield f'<table class="waterfall"><caption>{name}</caption>'
    yield (
        '<thead><tr><th scope="col">attempt</th>'
        f'<th scope="col" class="scale"><div>{"".join(ticks)}</div></th>'
        '<th scope="col" class="duration">took</th><th scope="col">error</th></tr></thead>'
    )
    yield "<tbody>"
    yield from (_row_of_bar(bar, clock_us) for bar in waterfall.bars)
    yield "</tbody></table>"
