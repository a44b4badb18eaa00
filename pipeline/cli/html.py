"""Documents as one HTML file: sortable tables, charts to point at, bars and cells with titles.

Whatever is drawn can be read as a table below it, by people and by screen readers.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pipeline.cli.document import (
    NOTHING,
    Bar,
    Cell,
    Chart,
    Column,
    Document,
    Kind,
    Part,
    Strip,
    Table,
    Text,
    Waterfall,
    longest_bars,
    show_cell,
    tabulate_chart,
    tabulate_strip,
    tabulate_waterfall,
)
from pipeline.cli.page import as_html, render_page
from pipeline.cli.render import (
    HOUR,
    MILLISECOND,
    MINUTE,
    SECOND,
    show_duration,
    show_time,
    style_of,
)
from pipeline.errors import Phase
from pipeline.sanitize import printable

MOST_BARS = 500
LONG = 40  # characters of a cell, past which it may be folded
TICKS = 4  # stretches on the scale of a waterfall
HATCHES = 2  # that page.css knows
NARROWEST = 0.15  # per cent of its width: a bar can be seen, however short

# The largest first: the unit that a chart of durations has, by its largest value.
DURATION_UNITS = ((HOUR, "h"), (MINUTE, "min"), (SECOND, "s"), (MILLISECOND, "ms"))

# How plotly writes the values of an axis, and of a point (https://d3js.org/d3-format).
VALUE_FORMATS = {
    Kind.NUMBER: (",", ","),
    Kind.DURATION: (",.3~r", ",.4~r"),
    Kind.SHARE: (".0%", ".2%"),
}


def _cell(cell: Cell, column: Column) -> str:
    shown = as_html(show_cell(cell, column.kind))
    if column.kind is Kind.TEXT:
        tone = f"{style_of(str(cell))} tone" if style_of(str(cell)) else ""
        length = "long" if len(shown) > LONG else ""
        return f'<td class="{f"{tone} {length}".strip()}">{shown}</td>'
    if cell is None:
        return f'<td class="{column.kind}">{shown}</td>'
    key = cell.timestamp() if isinstance(cell, datetime) else as_html(str(cell))
    return f'<td class="{column.kind}" data-key="{key}">{shown}</td>'


def _html_of_table(table: Table, caption: str) -> Iterator[str]:
    name = as_html(caption)
    yield f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">'
    yield f'<table class="sortable"><caption>{name}</caption>'
    heads = (
        f'<th scope="col" class="{column.kind}">{as_html(column.name)}</th>'
        for column in table.columns
    )
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    rows = (f"<tr>{''.join(map(_cell, row, table.columns))}</tr>" for row in table.rows)
    yield next(rows, f'<tr><td colspan="{len(table.columns)}">{NOTHING}</td></tr>')
    yield from rows
    yield "</tbody></table></div>"


def _figures(table: Table) -> Iterator[str]:
    """Say the same in a table, for whoever opens it."""
    yield "<details><summary>Figures</summary>"
    yield from _html_of_table(table, table.title)
    yield "</details>"


def _as_script_text(value: object) -> str:
    """Write JSON that cannot end the script element that it stands in."""
    dumped = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return dumped.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _unit_of(chart: Chart) -> tuple[int, str]:
    """Give what one unit of the axis is worth, and its name."""
    if chart.kind is not Kind.DURATION:
        return 1, ""
    values = (abs(value) for series in chart.series for value in series.values if value is not None)
    most = max(values, default=0)
    return next((unit for unit in DURATION_UNITS if most >= unit[0]), DURATION_UNITS[-1])


def _points_of(chart: Chart) -> dict[str, object]:
    """Give page.js what it draws."""
    worth, unit = _unit_of(chart)
    axis, point = VALUE_FORMATS[chart.kind]
    return {
        "mark": chart.mark,
        "isShare": chart.kind is Kind.SHARE,
        "unit": unit and f" {unit}",
        "axisFormat": axis,
        "pointFormat": point,
        "moments": [f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for moment in chart.moments],
        "series": [
            {
                "name": printable(series.name),
                "values": [None if value is None else value / worth for value in series.values],
            }
            for series in chart.series
        ],
    }


def _html_of_chart(chart: Chart) -> Iterator[str]:
    name = as_html(chart.title)
    yield f'<figure class="chart"><div class="plot" role="img" aria-label="{name}"></div>'
    yield f'<script type="application/json">{_as_script_text(_points_of(chart))}</script></figure>'
    yield from _figures(tabulate_chart(chart))


def _legend(names: Iterable[tuple[str, str]]) -> str:
    """Say what each colour, given as a class, stands for."""
    items = (f'<li><i class="{ink}"></i>{as_html(name)}</li>' for ink, name in names)
    return f'<ul class="legend">{"".join(items)}</ul>'


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


def _row_of(bar: Bar, clock_us: int) -> str:
    begin = '<tr class="lost">' if bar.error else "<tr>"
    return (
        f'{begin}<th scope="row">{as_html(bar.label)}</th>'
        f'<td class="timeline">{_drawn(bar, clock_us)}</td>'
        f'<td class="duration">{show_duration(bar.took_us)}</td><td>{as_html(bar.error)}</td></tr>'
    )


def _html_of_waterfall(waterfall: Waterfall) -> Iterator[str]:
    name, clock_us = as_html(waterfall.title), waterfall.clock_us
    reached = {phase for bar in waterfall.bars for phase, _ in bar.segments}
    ticks = (f"<span>{show_duration(clock_us * i // TICKS)}</span>" for i in range(TICKS + 1))
    yield _legend((phase, phase) for phase in Phase if phase in reached)
    yield f'<table class="waterfall"><caption>{name}</caption>'
    yield (
        '<thead><tr><th scope="col">attempt</th>'
        f'<th scope="col" class="scale"><div>{"".join(ticks)}</div></th>'
        '<th scope="col" class="duration">took</th><th scope="col">error</th></tr></thead>'
    )
    yield "<tbody>"
    yield from (_row_of(bar, clock_us) for bar in waterfall.bars)
    yield "</tbody></table>"
    yield from _figures(tabulate_waterfall(waterfall))


def _inks(words: Iterable[str]) -> dict[str, str]:
    """Choose a colour for each word, and hatch it where another word has it already."""
    used: Counter[str] = Counter()
    inks = {}
    for word in words:
        tone = style_of(word) or "plain"
        inks[word] = f"{tone} hatched-{min(used[tone], HATCHES)}" if used[tone] else tone
        used[tone] += 1
    return inks


def _html_of_strip(strip: Strip) -> Iterator[str]:
    counts = Counter(word for _, word in strip.cells)
    inks = _inks(counts)
    yield _legend((inks[word], f"{word} {n:,}") for word, n in counts.items())
    said = ", ".join(f"{word} {n}" for word, n in counts.items())
    yield f'<div class="strip" role="img" aria-label="{as_html(said)}">'
    yield "".join(
        f'<i class="{inks[word]}" title="{show_time(moment)} {as_html(word)}"></i>'
        for moment, word in strip.cells
    )
    first, last = strip.cells[0][0], strip.cells[-1][0]
    yield f'</div><p class="ends"><span>{show_time(first)}</span><span>{show_time(last)}</span></p>'
    yield from _figures(tabulate_strip(strip))


def _html_of_text(text: Text) -> Iterator[str]:
    if text.is_verbatim:
        block = "\n".join(map(as_html, text.lines))
        yield f'<pre tabindex="0">{block}</pre>'
    else:
        yield from (f"<p>{as_html(line)}</p>" for line in text.lines)


def _html_of(part: Part, caption: str) -> Iterator[str]:
    match part:
        case Table():
            yield from _html_of_table(part, caption)
        case Chart() if _has_points(part):
            yield from _html_of_chart(part)
        case Waterfall(bars=[_, *_]):
            yield from _html_of_waterfall(part)
        case Strip(cells=[_, *_]):
            yield from _html_of_strip(part)
        case Text():
            yield from _html_of_text(part)
        case _:
            yield f"<p>{NOTHING}</p>"


def _section(part: Part, document: Document) -> Iterator[str]:
    shown = longest_bars(part, MOST_BARS) if isinstance(part, Waterfall) else part
    yield "<section>"
    if shown.title:
        yield f"<h2>{as_html(shown.title)}</h2>"
    yield from _html_of(shown, shown.title or document.title)
    yield "</section>"


def _has_points(part: Part) -> bool:
    """Tell whether there is a chart to draw."""
    return isinstance(part, Chart) and any(
        value is not None for series in part.series for value in series.values
    )


def _body(document: Document) -> Iterator[str]:
    yield from (f'<p class="fact">{as_html(fact)}</p>' for fact in document.facts)
    for part in document.parts:
        yield from _section(part, document)


def render_html(document: Document) -> Iterator[str]:
    """Write *document* as a page that asks no network for anything.

    Raises:
        UsageError: it has charts, and plotly is not installed.
    """
    has_charts = any(map(_has_points, document.parts))
    return render_page(document.title, _body(document), has_charts=has_charts)
