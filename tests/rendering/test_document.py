"""What an answer holds, whatever its shape."""

import subprocess
import sys
from datetime import timedelta, timezone

import pytest

from pipeline.rendering.document import Cell, Chart, Column, Kind, Series, longest_bars, show_cell
from pipeline.rendering.figures import tabulate_chart, tabulate_strip, tabulate_waterfall
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Shape
from tests.rendering.documents import (
    HOSTILE,
    NOON,
    at,
    make_bar,
    make_document,
    make_empty_document,
    make_strip,
    make_waterfall,
)

DRAWN = [Shape.TEXT, Shape.CSV, Shape.MARKDOWN, Shape.HTML]


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (None, Kind.DURATION, "-"),
        ("anu", Kind.TEXT, "anu"),
        (-5, Kind.NUMBER, "-5"),
        (10**40, Kind.NUMBER, "1" + "0" * 40),
        (2 / 3, Kind.NUMBER, "0.6667"),
        (1_034_000, Kind.DURATION, "1.03 s"),
        (900.4, Kind.DURATION, "0.9 ms"),
        (0.5, Kind.SHARE, "50.00%"),
        (1, Kind.SHARE, "100.00%"),
        (0.99999, Kind.SHARE, "99.99%"),
        (NOON.astimezone(timezone(timedelta(hours=2))), Kind.MOMENT, "2026-03-01 12:00:00Z"),
    ],
)
def test_a_cell_reads_as_its_column_says(cell: Cell, kind: Kind, text: str) -> None:
    """And a share is all only where nothing is missing."""
    assert show_cell(cell, Column("any", kind)) == text


def test_a_chart_can_be_read_as_a_table() -> None:
    """What is only drawn cannot be copied, nor read aloud."""
    series = [Series("a", (1, None)), Series("b", (2, 3))]
    table = tabulate_chart(Chart(title="T", kind=Kind.SHARE, moments=[NOON, at(1)], series=series))

    assert [column.name for column in table.columns] == ["began_at", "a", "b"]
    assert list(table.rows) == [(NOON, 1, 2), (at(1), None, 3)]


def test_a_chart_without_series_has_moments() -> None:
    """A table of nothing beside them, and no error."""
    table = tabulate_chart(Chart(title="T", kind=Kind.SHARE, moments=[NOON], series=[]))

    assert list(table.rows) == [(NOON,)]


def test_a_phase_that_was_not_reached_is_nothing_in_the_table() -> None:
    """Never 0: that would be a measurement."""
    table = tabulate_waterfall(make_waterfall(make_bar("w0", 5, error="reset")))

    nothing = (None,) * 4
    assert list(table.rows) == [("w0", 5, 100, *nothing, 300, None, None, "reset")]


def test_equal_neighbours_of_a_strip_are_one_row() -> None:
    """A night of missed slots is one thing that happened."""
    table = tabulate_strip(make_strip("ran", "missed", "missed", "ran"))

    assert list(table.rows) == [
        (at(0), at(0), "ran", 1),
        (at(5), at(10), "missed", 2),
        (at(15), at(15), "ran", 1),
    ]


def test_of_many_bars_those_stay_that_say_why_a_run_took_so_long() -> None:
    """First what failed, then what took longest; in the order in which it happened."""
    bars = [make_bar(f"w{i}", i, first_byte_us=i) for i in range(10)]
    failed = make_bar("lost", 3, error="dns", first_byte_us=0)

    kept = longest_bars(make_waterfall(*bars, failed), 3)

    assert [bar.label for bar in kept.bars] == ["lost", "w8", "w9"]
    assert kept.title.startswith("Waits (3 of 11 attempts")
    assert longest_bars(kept, 3) is kept


@pytest.mark.parametrize("shape", DRAWN)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_character_that_steers_survives_in_any_shape(shape: Shape, text: str) -> None:
    """Whatever an upstream sends: a terminal, a pager and an editor show it and obey nothing."""
    lines = "\n".join(render(make_document(text), shape)).encode().decode()

    odd = {char for char in lines if not char.isprintable()} - {"\n"}

    assert odd <= ({"\r"} if shape is Shape.CSV else set())


@pytest.mark.parametrize("shape", DRAWN)
def test_nothing_to_show_is_no_error(shape: Shape) -> None:
    """The first report of a new installation is empty."""
    assert list(render(make_empty_document(), shape))


def test_a_document_needs_nothing_that_draws() -> None:
    """Commands import it for their help as well, and help must be quick."""
    code = (
        "import pipeline.rendering.document, sys;"
        "print({'rich.table', 'sqlmodel', 'httpx2'} & sys.modules.keys())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
