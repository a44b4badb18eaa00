"""Charts as characters."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.rendering.document import Chart, Kind, Series
from pipeline.rendering.sparkline import sparkline, summarize
from tests.rendering.documents import make_chart
from tests.store.makers import NOON


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((), ""),
        ((0, 0), "▁▁"),
        ((5,), "█"),
        ((0, 1, 2, 3, 4, 5, 6, 7), "▁▂▃▄▅▆▇█"),
        ((None, 7, None), "·█·"),
        ((-7, 0, 7), "▁▅█"),
        ((-7, -7), "▁▁"),
        ((10**40, 1), "█▁"),
    ],
)
def test_a_line_begins_at_zero(values: tuple[float | None, ...], line: str) -> None:
    """Else a wiggle of one per cent looks like a storm; and what is not known is no 0."""
    assert sparkline(values, width=40) == line


def test_a_share_is_drawn_against_all_there_is() -> None:
    """Half of the batches is half a block high, in whatever company."""
    assert sparkline((0.5, 0, 1), width=40, is_share=True) == "▅▁█"


def test_many_values_are_averaged_over_what_was_measured() -> None:
    """A gap is drawn only where nothing was; all values count, none twice."""
    values = (7, 7, None, 0, None, None, 7, 0)

    assert sparkline(values, width=4) == "█▁·▅"


def test_where_blocks_cannot_be_encoded_the_line_is_ascii() -> None:
    """A row of question marks cannot be read, unless it means what it says."""
    assert sparkline((0, None, 7), width=9, is_ascii=True) == "_?#"


def test_a_summary_has_the_ends_and_the_extremes() -> None:
    """The line shows how, these say how much."""
    [row] = summarize(make_chart(None, 3, 1, 2, kind=Kind.DURATION), width=4).rows

    assert row == ("one", "·█▃▆", 1, 3, 2)


def test_a_summary_of_what_was_never_measured_has_no_numbers() -> None:
    """A missing number is a hyphen in every shape."""
    chart = make_chart(None)

    [row] = summarize(chart, width=4).rows

    assert row == ("one", "·", None, None, None)
    assert summarize(make_chart(), width=4).title == chart.title


def test_a_single_moment_is_named_once() -> None:
    """From 23:00 to 23:00 is no stretch of time."""
    chart = Chart(title="Numbers", kind=Kind.NUMBER, moments=[NOON], series=[Series("dice", [3])])

    assert summarize(chart, width=8).title == "Numbers, 2026-03-01 12:00:00Z"


def test_the_step_of_a_sign_and_the_scale_are_stated() -> None:
    """A line without them can mean anything."""
    chart = replace(make_chart(*range(24), kind=Kind.SHARE), step=timedelta(hours=1))

    whole, narrow = (summarize(chart, width=width) for width in (24, 10))

    assert whole.title.startswith("Trend per hour, 2026-03-01 12:00:00Z to ")
    assert whole.columns[1].head == "from 0 to 100 %"
    assert narrow.title == f"{whole.title}; a sign is the mean of 3 hours"
    assert [len(str(row[1])) for row in narrow.rows] == [8]
    assert summarize(make_chart(*range(24)), width=12).title.endswith("the mean of 2 of them")
