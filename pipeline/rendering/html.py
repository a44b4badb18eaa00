"""Write documents as one HTML file that can be read without a script, and printed.

What is drawn stands in a table below it as well, for people and for screen readers.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

from pipeline.rendering.chart import draw_chart, legend
from pipeline.rendering.document import (
    NOTHING,
    WORDS,
    Cell,
    Chart,
    Column,
    Document,
    Lane,
    Lanes,
    Notices,
    Part,
    Strip,
    Table,
    Text,
    Waterfall,
    longest_bars,
    show_cell,
)
from pipeline.rendering.figures import (
    tabulate_chart,
    tabulate_lanes,
    tabulate_strip,
    tabulate_waterfall,
)
from pipeline.rendering.page import as_html, render_page
from pipeline.rendering.palette import style_of
from pipeline.rendering.waterfall import SHOW, draw_waterfall
from pipeline.rendering.words import show_step, show_time

MOST_BARS = 500
LONG = 40  # characters of a cell, past which it may be folded
MANY_COLUMNS = 7  # past which a table is set narrower
FEW_SERIES = 5  # have room in half a page, figures included
MANY_CELLS = 120  # past which a strip has several rows, less high
HATCHES = 2  # that page.css knows

# What the number in a cell is of, by the name of its column, and the command that shows more.
REFERENCES = {
    **dict.fromkeys(
        ("attempt_id", "attempt_ids", "first_attempt_id", "last_attempt_id", "fastest_attempt_id"),
        ("attempt", SHOW),
    ),
    "run_id": ("run", "pipeline report --run"),
}

Anchors = frozenset[str]  # of the rows that links lead to


# ---- Tables ----


def _link(name: str, number: str, anchors: Anchors) -> str:
    """Make of a number of an attempt or run a link to its row, or the command to copy."""
    what, command = REFERENCES[name]
    if (target := f"{what}-{number}") in anchors and name != f"{what}_id":
        return f'<a href="#{target}">{number}</a>'
    return f'<span class="command" title="{command} {number}">{number}</span>'


def _shown(cell: Cell, column: Column, anchors: Anchors) -> str:
    shown = show_cell(cell, column)
    if column.name in REFERENCES and cell is not None:
        numbers = (number.strip() for number in shown.split(","))
        return ", ".join(
            _link(column.name, n, anchors) if n.isdecimal() else as_html(n) for n in numbers
        )
    command = r'<span class="command" title="pipeline \g<0>">\g<0></span>'
    return re.sub(r"audit show [0-9]+", command, as_html(shown))


def _cell(cell: Cell, column: Column, anchors: Anchors) -> str:
    shown = _shown(cell, column, anchors)
    if column.kind in WORDS:
        tone = f"{style_of(str(cell))} tone" if style_of(str(cell)) else ""
        told = show_cell(cell, column)
        width = "long" if len(told) > LONG else "" if " " in told else "word"
        names = f"{tone} {width}".strip()
        return f'<td class="{names}">{shown}</td>' if names else f"<td>{shown}</td>"
    if cell is None:
        return f'<td class="{column.kind}">{shown}</td>'
    key = cell.timestamp() if isinstance(cell, datetime) else as_html(str(cell))
    return f'<td class="{column.kind}" data-key="{key}">{shown}</td>'


def _row(row: Sequence[Cell], table: Table, anchors: Anchors) -> str:
    name = f' id="{table.anchor}-{as_html(str(row[0]))}"' if table.anchor else ""
    cells = (_cell(cell, column, anchors) for cell, column in zip(row, table.columns, strict=True))
    return f"<tr{name}>{''.join(cells)}</tr>"


def _html_of_table(table: Table, caption: str, anchors: Anchors) -> Iterator[str]:
    name = as_html(caption)
    dense = " dense" if len(table.columns) > MANY_COLUMNS else ""
    yield f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">'
    yield f'<table class="sortable{dense}"><caption>{name}</caption>'
    heads = (
        f'<th scope="col" class="{column.kind}">{as_html(column.head)}</th>'
        for column in table.columns
    )
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    rows = (_row(row, table, anchors) for row in table.rows)
    yield next(rows, f'<tr><td colspan="{len(table.columns)}">{NOTHING}</td></tr>')
    yield from rows
    yield "</tbody></table></div>"


def _show_begin(moment: datetime, step: timedelta | None) -> str:
    """Name a stretch of time by its begin, as exactly as its length asks for."""
    shown = show_time(moment)
    if step is None:
        return shown
    return shown.partition(" ")[0] if step >= timedelta(days=1) else f"{shown[:-4]}Z"


def _figures(table: Table, step: timedelta | None = None) -> Iterator[str]:
    """Give the figures of a drawing as a table that can be opened, with short tags: it is long."""
    name = as_html(table.title)
    yield "<details><summary>Figures</summary>"
    yield f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">'
    yield f'<table class="figures"><caption>{name}</caption><thead><tr>'
    yield "".join(f'<th scope="col">{as_html(column.head)}' for column in table.columns)
    yield "<tbody>"
    for first, *rest in table.rows:
        begin = _show_begin(first, step) if isinstance(first, datetime) else as_html(str(first))
        cells = (
            f"<td>{as_html(show_cell(cell, column))}"
            for cell, column in zip(rest, table.columns[1:], strict=True)
        )
        yield f'<tr><th scope="row">{begin}{"".join(cells)}'
    yield "</table></div></details>"


# ---- Drawings ----


def _html_of_chart(chart: Chart) -> Iterator[str]:
    yield '<figure class="chart">'
    yield from draw_chart(chart)
    yield from _figures(tabulate_chart(chart), chart.step)
    yield "</figure>"


def _inks(words: Iterable[str]) -> dict[str, str]:
    """Choose a colour for each word, and hatch it where another word has it already."""
    used: Counter[str] = Counter()
    inks = {}
    for word in words:
        tone = style_of(word) or "plain"
        inks[word] = f"{tone} hatched-{min(used[tone], HATCHES)}" if used[tone] else tone
        used[tone] += 1
    return inks


def _ends(first: str, middle: str, last: str) -> str:
    return f'<p class="ends"><span>{first}</span><span>{middle}</span><span>{last}</span></p>'


def _html_of_strip(strip: Strip) -> Iterator[str]:
    counts = Counter(word for _, word in strip.cells)
    inks = _inks(counts)
    yield legend((inks[word], f"{word} {n:,}") for word, n in counts.items())
    said = ", ".join(f"{word} {n}" for word, n in counts.items())
    yield f'<div class="strip" role="img" aria-label="{as_html(said)}">'
    yield "".join(
        f'<i class="{inks[word]}" title="{show_time(moment)} {as_html(word)}"></i>'
        for moment, word in strip.cells
    )
    yield f"</div>{_ends(show_time(strip.cells[0][0]), '', show_time(strip.cells[-1][0]))}"
    yield from _figures(tabulate_strip(strip))


def _html_of_lane(lane: Lane, lanes: Lanes, inks: dict[str, str]) -> Iterator[str]:
    name, counts = as_html(lane.name), Counter(lane.words)
    said = as_html(", ".join(f"{word} {n}" for word, n in counts.items()))
    state = f'<span class="chip {style_of(lane.state) or "plain"}">{as_html(lane.state)}</span>'
    yield f'<div class="lane"><p><b>{name}</b>{state}<span>{as_html(lane.sum)}</span></p>'
    is_long = len(lanes.moments) > MANY_CELLS  # then page.js says what the table below has
    many = " many" if is_long else ""
    yield f'<div class="cells{many}" role="img" aria-label="{name}: {said}">'
    yield "".join(
        f'<i class="{inks[word]}"></i>'
        if is_long
        else f'<i class="{inks[word]}" title="{_show_begin(moment, lanes.step)} {as_html(word)}'
        f'{as_html(f": {note}") if note else ""}"></i>'
        for moment, word, note in zip(lanes.moments, lane.words, lane.notes, strict=True)
    )
    yield "</div></div>"


def _html_of_lanes(lanes: Lanes) -> Iterator[str]:
    inks = _inks(dict.fromkeys(word for lane in lanes.lanes for word in lane.words))
    yield legend((ink, word) for word, ink in inks.items())
    for lane in lanes.lanes:
        yield from _html_of_lane(lane, lanes, inks)
    first, last = (_show_begin(lanes.moments[i], lanes.step) for i in (0, -1))
    yield _ends(first, f"a cell per {show_step(lanes.step)}", last if last != first else "")
    yield from _figures(tabulate_lanes(lanes), lanes.step)


# ---- Words ----


def _html_of_notices(notices: Notices) -> Iterator[str]:
    yield '<ul class="notices">'
    for each in notices.notices:
        text = as_html(each.text)
        linked = f'<a href="#{each.target}">{text}</a>' if each.target else text
        detail = f"<p>{as_html(each.detail)}</p>" if each.detail else ""
        command = f'<code class="command">{as_html(each.command)}</code>' if each.command else ""
        tone = style_of(each.word) or "plain"
        chip = f'<span class="chip {tone}">{as_html(each.word)}</span>'
        yield f'<li class="{tone}">{chip}<div><b>{linked}</b>{detail}{command}</div></li>'
    yield "</ul>"


def _html_of_text(text: Text) -> Iterator[str]:
    if text.is_verbatim:
        block = "\n".join(map(as_html, text.lines))
        yield f'<pre tabindex="0">{block}</pre>'
    else:
        for line in map(as_html, text.lines):
            code = r'<code class="command">\1</code>'
            yield f"<p>{re.sub('`([^`]+)`', code, line) if text.is_ours else line}</p>"


def _html_of(part: Part, caption: str, anchors: Anchors) -> Iterator[str]:
    match part:
        case Table():
            yield from _html_of_table(part, caption, anchors)
        case Chart() if _has_points(part):
            yield from _html_of_chart(part)
        case Waterfall(bars=[_, *_]):
            yield from draw_waterfall(part)
            yield from _figures(tabulate_waterfall(part))
        case Strip(cells=[_, *_]):
            yield from _html_of_strip(part)
        case Lanes(moments=[_, *_]):
            yield from _html_of_lanes(part)
        case Notices(notices=[_, *_]):
            yield from _html_of_notices(part)
        case Text():
            yield from _html_of_text(part)
        case _:
            yield f"<p>{NOTHING}</p>"


def _has_points(part: Part) -> bool:
    """Tell whether there is a chart to draw."""
    return isinstance(part, Chart) and any(
        value is not None for series in part.series for value in series.values
    )


# ---- The page ----


def _section(part: Part, title: str, anchors: Anchors, *, is_half: bool) -> Iterator[str]:
    shown = longest_bars(part, MOST_BARS) if isinstance(part, Waterfall) else part
    head = shown.heading if isinstance(shown, Chart) else shown.title
    is_note = isinstance(part, Text) and not part.title and not part.is_verbatim
    kind = ' class="half"' if is_half else ' class="note"' if is_note else ""
    yield f"<section{kind}>"
    if head:
        yield f"<h2>{as_html(head)}</h2>"
    yield from _html_of(shown, head or title, anchors)
    yield "</section>"


def _halves(parts: Sequence[Part]) -> set[int]:
    """Choose the charts that stand side by side: of neighbours that are small, an even number."""
    halves: set[int] = set()
    for is_small, group in groupby(range(len(parts)), key=lambda i: _is_small(parts[i])):
        places = list(group)
        if is_small:
            halves |= {*places[len(places) % 2 :]}
    return halves


def _is_small(part: Part) -> bool:
    return isinstance(part, Chart) and _has_points(part) and len(part.series) <= FEW_SERIES


def _body(document: Document, parts: Sequence[Part], anchors: Anchors) -> Iterator[str]:
    if document.verdict is not None:
        word, sentence = document.verdict
        yield f'<p class="verdict {style_of(word) or "plain"}">{as_html(sentence)}</p>'
    yield from (f'<p class="fact">{as_html(fact)}</p>' for fact in document.facts)
    halves = _halves(parts)
    for i, part in enumerate(parts):
        yield from _section(part, document.title, anchors, is_half=i in halves)


def _listed(part: Part) -> Part:
    """Keep the rows of a table that links lead to: they are needed twice."""
    if isinstance(part, Table) and part.anchor:
        return replace(part, rows=list(part.rows))
    return part


def render_html(document: Document) -> Iterator[str]:
    """Write *document* as a page that asks no network for anything; pictures come first."""
    parts = sorted(map(_listed, document.parts), key=lambda part: isinstance(part, Table | Text))
    anchors = frozenset(
        f"{part.anchor}-{row[0]}"
        for part in parts
        if isinstance(part, Table) and part.anchor
        for row in part.rows
    )
    return render_page(document.title, _body(document, parts, anchors), document.origin)
