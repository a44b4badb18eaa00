"""Documents as text."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.style import Style

from pipeline.errors import Phase
from pipeline.rendering.document import Bar, Column, Document, Kind, Part, Table, Text
from pipeline.rendering.text import MOST_BARS, MOST_CELLS, render_text
from tests.rendering.documents import (
    at,
    make_bar,
    make_chart,
    make_document,
    make_empty_document,
    make_strip,
    make_table,
    make_waterfall,
)


def draw(*parts: Part) -> list[str]:
    """Draw a document without facts."""
    document = Document(title="Report", parts=parts)
    return [line for text in render_text(document) for line in text.splitlines()]


class Terminal(StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


Draw = Callable[..., list[str]]


@pytest.fixture
def draw_on_terminal(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draw for a terminal with all colours, 100 characters wide, unless variables say otherwise."""

    def draw_there(*parts: Part, **variables: str) -> list[str]:
        usual = {"TERM": "xterm", "COLORTERM": "truecolor", "COLUMNS": "100"}
        with monkeypatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            for name, value in (usual | variables).items():
                patch.setenv(name, value)
            patch.setattr("sys.stdout", Terminal())
            for cached in (Style.parse, Style._add):  # rich keeps the first terminal's codes
                cached.cache_clear()
            return draw(*parts)

    return draw_there


def test_the_facts_come_first_and_a_line_parts_the_parts() -> None:
    """Who reads no further knows what matters."""
    document = Document(title="Report", facts=["It went well."], parts=[Text(lines=["a", "b"])])

    assert list(render_text(document)) == ["It went well.", "", "a", "b"]


def test_numbers_durations_and_shares_stand_at_the_right() -> None:
    """So that they can be compared; times and words at the left."""
    title, head, _, *rows = draw(make_table())

    assert title == "Sources"
    assert [row.split("  ")[-1].strip() for row in rows] == ["99.99%", "100.00%", "-"]
    assert all(len(row) == len(head) for row in rows)


def test_nothing_to_show_is_said() -> None:
    """A head without rows looks like a mistake."""
    lines = draw(*make_empty_document().parts)

    assert lines.count("none") == 6
    assert [line.split() for line in lines if line.startswith("one")][1] == ["one", "··", *"---"]


def test_a_trend_of_one_moment_is_left_out() -> None:
    """It says what the table above it has said, in six columns more."""
    assert draw(make_chart(7)) == []


def test_a_chart_is_a_line_for_each_series() -> None:
    """A person sees where it went, and from when to when."""
    title, *_, line = draw(make_chart(0, None, 14, 7))

    assert title == "Trend, 2026-03-01 12:00:00Z to 2026-03-01 12:03:00Z"
    assert line.split() == ["one", "▁·█▅", "0", "14", "7"]


def test_what_cannot_be_encoded_is_drawn_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """``LC_ALL=C`` is what cron gives."""
    monkeypatch.setattr("sys.stdout", TextIOWrapper(BytesIO(), encoding="ascii"))

    assert "\n".join(render_text(make_document())).isascii()


def test_a_bar_shows_its_phases_to_scale() -> None:
    """From when the attempt began to its end; in a pipe by letters."""
    segments = [(Phase.WAIT, 250), (Phase.DNS, 125), (Phase.FIRST_BYTE, 125)]
    bar = Bar(label="w0", begin_us=500, segments=segments, error="reset")

    _, head, _, line, legend = draw(make_waterfall(bar))

    scale = head.removeprefix("attempt  ")
    drawing = line.removeprefix("w0       ")[:MOST_CELLS]
    assert scale[:MOST_CELLS] == "0" + "1 ms".rjust(MOST_CELLS - 1)
    assert drawing == " " * 48 + "." * 24 + "d" * 12 + "f" * 12
    assert line.endswith(" 0.5 ms  reset")
    assert legend == ". wait   d dns   f first_byte"


@pytest.mark.parametrize(
    ("bar", "drawn"),
    [
        (make_bar("w0", 2000), " " * (MOST_CELLS - 1) + "."),
        (Bar(label="w0", begin_us=0, segments=[(Phase.DNS, 0)]), "d"),
        (Bar(label="w0", begin_us=0, segments=[]), ""),
    ],
)
def test_a_bar_that_does_not_fit_the_scale_is_seen(bar: Bar, drawn: str) -> None:
    """A clock that was set back must not break the report."""
    line = draw(make_waterfall(bar, clock_us=0 if not bar.took_us else 1000))[3]

    assert line.removeprefix("w0       ")[:MOST_CELLS].rstrip() == drawn


def test_a_cell_shows_the_phase_that_took_most_of_it() -> None:
    """A quick step beside a long one does not hide it."""
    segments = [(Phase.SEND, 4_000), (Phase.FIRST_BYTE, 6_000), (Phase.BODY, 90_000)]
    bar = Bar(label="w0", begin_us=0, segments=segments)

    line = draw(make_waterfall(bar, clock_us=96 * 10_000))[3]

    assert line.split()[1] == "f" + "b" * 9


def test_of_many_bars_only_the_telling_ones_are_drawn() -> None:
    """And the title says so."""
    title, *lines = draw(make_waterfall(*(make_bar(f"w{i}", i) for i in range(1234))))

    assert title.startswith(f"Waits ({MOST_BARS} of 1,234 attempts")
    assert sum(line.startswith("w") for line in lines) == MOST_BARS


def test_the_words_of_a_strip_have_letters_of_their_own() -> None:
    """Also where two begin alike; and each line says when it begins."""
    words = ["ran"] * MOST_CELLS + ["reset", "ring", "??", "äß"]

    _, first, second, legend = draw(make_strip(*words))

    assert first == f"2026-03-01 12:00:00Z  {'r' * MOST_CELLS}"
    assert second == f"{at(5 * MOST_CELLS):%Y-%m-%d %H:%M:%SZ}  eiab"
    assert legend == "r ran 96   e reset 1   i ring 1   a ?? 1   b äß 1"


def test_more_words_than_letters_share_a_sign() -> None:
    """Nobody could tell so many apart anyway."""
    words = [f"{i}!" for i in range(50)]

    assert draw(make_strip(*words))[1].endswith("##")


def test_a_terminal_gets_colours(draw_on_terminal: Draw) -> None:
    """Phases as plain cells, whose letters are there for who copies them; slots with letters."""
    lines = draw_on_terminal(make_waterfall(make_bar("w0", 0)), make_strip("ran", "missed"))

    assert lines[0] == "\x1b[1mWaits\x1b[0m"
    assert "\x1b[38;2;0;114;178;48;2;0;114;178mf" in lines[3]
    assert "\x1b[30;48;2;213;94;0mm\x1b" in lines[-2]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_colours_gets_letters(draw_on_terminal: Draw, name: str, value: str) -> None:
    """https://no-color.org, and terminals that know none."""
    lines = draw_on_terminal(make_waterfall(make_bar("w0", 0)), **{name: value})

    assert "48;2" not in "".join(lines)
    assert ".f" in lines[3]


def test_a_drawing_fits_the_terminal(draw_on_terminal: Draw) -> None:
    """What the terminal folds nobody can read."""
    drawn = (make_chart(*range(200)), make_strip(*["ran"] * 99), make_waterfall(make_bar("w0", 0)))

    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in draw_on_terminal(*drawn)]

    assert 80 < max(map(len, lines)) <= 100


@pytest.mark.parametrize("columns", ["1", "0", "40", "500", "x"])
def test_a_terminal_of_any_width_gets_a_drawing(draw_on_terminal: Draw, columns: str) -> None:
    """One that is too narrow folds the lines itself."""
    assert draw_on_terminal(*make_document().parts, COLUMNS=columns)


def test_a_name_is_no_markup() -> None:
    """Neither of the library that draws, nor in the head of a column."""
    table = Table(title="[b]t[/x]", columns=[Column("[b]h[/x]", Kind.NUMBER)], rows=[(1,)])

    assert draw(table)[:2] == ["[b]t[/x]", "[b]h[/x]"]


def test_on_a_terminal_times_of_about_now_are_relative(draw_on_terminal: Draw) -> None:
    """A person who looks on wants to know how long ago; a pipe gets the exact time."""
    moment = datetime.now(UTC) - timedelta(hours=2, minutes=1)
    table = Table(columns=[Column("last_at", Kind.MOMENT)], rows=[(moment,)])

    assert draw_on_terminal(table)[-1].strip() == "2 h ago"
    assert draw(table)[-1].strip() == f"{moment:%Y-%m-%d %H:%M:%SZ}"


def test_without_a_terminal_variables_may_ask_for_colours_and_a_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For `watch --color`, and for what is shown in a window of known width."""
    table = Table(columns=[Column("verdict")], rows=[("failed: " + "word " * 30,)])
    plain = draw(table)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")

    coloured = draw(table)

    assert not any("\x1b" in line for line in plain)
    assert len(plain) == 3
    assert any("\x1b[" in line for line in coloured)
    assert len(coloured) > 3
