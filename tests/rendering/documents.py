"""Documents for the tests of every shape: one of each part, and text that means harm."""

import random
from datetime import UTC, datetime, timedelta

from pipeline.errors import Phase
from pipeline.rendering.document import (
    Bar,
    Chart,
    Column,
    Document,
    Kind,
    Lane,
    Lanes,
    Mark,
    Notice,
    Notices,
    Origin,
    Series,
    SourceName,
    Strip,
    Table,
    Text,
    Waterfall,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    '"><img src=x onerror="window.hacked=1">',
    "' onmouseover='window.hacked=1",
    "javascript:window.hacked=1",
    '<a href="javascript:window.hacked=1">x</a>',
    "[x](javascript:window.hacked=1)",
    "`a` | **b** | _c_ || \\| ``` @user #1 $x$ :+1: www.example.org ~~d~~",
    "a\\|b",
    "# 1. - > +",
    "&lt;b&gt; &amp;",
    "%{y} {{x}} ${x} $x$",
    "=1+1",
    "\x1b]0;owned\x07\x9b2J",
    "a\r\n\r\n| b |\tc",
    "\u202eevil\u200b\u2028",
    "a" + "\u0301" * 50,
    "\ud800",
)


def at(minutes: float) -> datetime:
    """Give a moment so many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def make_chart(*values: float | None, kind: Kind = Kind.NUMBER, name: str = "one") -> Chart:
    """Make a chart of one series, a value a minute."""
    moments = [at(minute) for minute in range(len(values))]
    return Chart(title="Trend", kind=kind, moments=moments, series=[Series(name, values)])


def make_bar(label: str, begin_us: int, *, error: str = "", first_byte_us: int = 300) -> Bar:
    """Make an attempt that waited 100 us and then for the first byte."""
    phases = ((Phase.WAIT, 100), (Phase.FIRST_BYTE, first_byte_us))
    return Bar(label=label, begin_us=begin_us, segments=phases, error=error)


def make_waterfall(*bars: Bar, clock_us: int = 1000) -> Waterfall:
    """Make a waterfall."""
    return Waterfall(title="Waits", clock_us=clock_us, bars=bars)


def make_strip(*words: str) -> Strip:
    """Make a strip, a cell every five minutes."""
    return Strip(title="Slots", cells=[(at(5 * i), word) for i, word in enumerate(words)])


def make_lanes(*words: str, name: str = "anu", days: int = 0) -> Lanes:
    """Make one lane, a cell for each word or for as many days."""
    wanted = words or ("ok",) * days
    moments = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=i) for i in range(len(wanted))]
    lane = Lane(name=name, words=wanted, notes=[name] * len(wanted), state="ok", sum=name)
    return Lanes(title="Batches", step=timedelta(days=1), moments=moments, lanes=[lane])


def make_notices(text: str, target: str = "") -> Notices:
    """Make one notice."""
    notice = Notice(word="critical", text=text, detail=text, target=target, command=text)
    return Notices(title=text, notices=[notice])


def make_origin(text: str) -> Origin:
    """Say that all comes from *text*."""
    return Origin(store=text, host=text, version="1.0", window=text, written_at=NOON)


def make_table() -> Table:
    """Make a table with a column of each kind and a row without anything."""
    return Table(
        title="Sources",
        columns=[
            Column("source", Kind.SOURCE),
            Column("n", Kind.NUMBER),
            Column("seen_at", Kind.MOMENT),
            Column("p99_us", Kind.DURATION),
            Column("success_share", Kind.SHARE),
        ],
        rows=[
            (SourceName("anu", is_sandbox=False), -(10**30), NOON, 1_034_000, 0.99999),
            (SourceName("dice", is_sandbox=True), 7, at(1), 900, 1),
            (SourceName("both", is_sandbox=None), None, None, None, None),
        ],
    )


def make_document(text: str = "plain") -> Document:
    """Make a document that has every part, with *text* wherever text can stand."""
    rng = random.Random(1)
    moments = [at(60 * hour) for hour in range(48)]
    counts = [Series(f"{text} {i}", [rng.randint(0, 9) for _ in moments]) for i in range(9)]
    columns = [Column(text, title=text), Column(f"{text} n", Kind.NUMBER, title=f"{text} n")]
    return Document(
        title=text,
        verdict=("ok", text),
        facts=[text],
        origin=make_origin(text),
        parts=[
            make_notices(text),
            make_lanes("ok", "partial", "failed", text, name=text),
            Table(title=text, columns=columns, rows=[(text, 2), (f"b {text}", 10), (None, None)]),
            Chart(
                title=text,
                kind=Kind.DURATION,
                moments=moments,
                series=[Series(text, [None, *(rng.random() * 2e6 for _ in moments[1:])])],
            ),
            Chart(title="bars", kind=Kind.NUMBER, mark=Mark.BARS, moments=moments, series=counts),
            make_waterfall(make_bar(text, 0, error=text), make_bar("w1", 500)),
            make_strip("ran", "late", "skipped", text),
            Text(title=text, lines=[text, text]),
            Text(title="block", lines=["  two", "```", text], is_verbatim=True),
        ],
    )


def make_empty_document() -> Document:
    """Make a document in which no part has anything to show."""
    return Document(
        title="Empty",
        parts=[
            Table(columns=[Column("a")], rows=[]),
            Chart(title="no series", kind=Kind.SHARE, moments=[NOON], series=[]),
            make_chart(),
            make_chart(None, None),
            make_waterfall(),
            make_strip(),
            Lanes(title="no days", step=timedelta(days=1), moments=[], lanes=[]),
            Notices(title="no notices", notices=[]),
            Text(lines=[]),
        ],
    )
