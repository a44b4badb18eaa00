"""Charts as characters."""

import pytest

from pipeline.cli.document import Chart, Kind, Series
from pipeline.cli.sparkline import sparkline, summarize
from tests.cli.documents import make_chart
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

    assert row == ("one", "·█▃▆", 3, 2, 1, 3)


def test_a_summary_of_what_was_never_measured_has_no_numbers() -> None:
    """A missing number is a hyphen in every shape."""
    chart = make_chart(None)

    [row] = summarize(chart, width=4).rows

    assert row == ("one", "·", None, None, None, None)
    assert summarize(make_chart(), width=4).title == chart.title


def test_a_single_moment_is_named_once() -> None:
    """From 23:00 to 23:00 is no stretch of time."""
    chart = Chart(title="Numbers", kind=Kind.NUMBER, moments=[NOON], series=[Series("dice", [3])])

    assert summarize(chart, width=8).title == "Numbers, 2026-03-01 12:00:00Z"
