"""Tables and prose in the width of a terminal."""

import pytest
from rich.text import Text

from pipeline.rendering.columns import fold, head_lines, lay_out, row_lines


def draw(
    heads: list[str],
    *rows: tuple[str, ...],
    width: int,
    right: frozenset[int] = frozenset(),
    ends_in_text: bool = True,
) -> list[str]:
    """Draw a table without its rule."""
    texts = [list(map(Text, row)) for row in rows]
    layout = lay_out(heads, texts, width, ends_in_text=ends_in_text)
    lines = [*head_lines(layout, right)]
    lines += [line for row in texts for line in row_lines(row, layout, right)]
    return [line.plain for line in lines]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("one two", 7, ["one two"]),
        ("one two", 6, ["one", "two"]),
        ("  one two", 6, ["  one", "  two"]),
        ("abcdefgh i", 4, ["abcdefgh", "i"]),
        ("数数 数", 5, ["数数", "数"]),
        ("a\xa0b c", 3, ["a\xa0b", "c"]),
    ],
)
def test_prose_is_broken_between_words(text: str, width: int, lines: list[str]) -> None:
    """Half a word or half a command is none; an indent says what belongs together."""
    assert fold(text, width) == lines


def test_what_fits_is_left_alone() -> None:
    """Numbers at the right, words at the left, two blanks between."""
    lines = draw(["name", "n"], ("a", "1"), ("long name", "10"), width=80, right=frozenset({1}))

    assert lines == ["name        n", "a           1", "long name  10"]


def test_heads_are_broken_before_anything_leaves() -> None:
    """They are longer than what stands below them, often."""
    lines = draw(["source", "expected mean"], ("dice", "3.5"), width=16, right=frozenset({1}))

    assert lines == ["        expected", "source      mean", "dice         3.5"]


def test_columns_move_together_before_one_leaves() -> None:
    """Twenty rows are read more easily than forty."""
    lines = draw(["batch", "n", "verdict"], ("w0", "2", "collected"), width=17)

    assert lines == ["batch n verdict", "w0    2 collected"]


def test_what_says_nothing_in_most_rows_leaves_first() -> None:
    """It is told where it says something, and nowhere else."""
    rows = [("1", "0", "ok", "60"), ("2", "3", "partial", "57"), ("3", "-", "ok", "60")]

    lines = draw(["run", "lost", "status", "numbers"], *rows, width=21, ends_in_text=False)

    assert lines == [
        "run  status   numbers",
        "1    ok       60",
        "2    partial  57",
        "    lost 3",
        "3    ok       60",
    ]


def test_where_all_say_something_those_at_the_right_leave() -> None:
    """Pairs stay together, and a line of them is broken between two of them."""
    row = ("dice", "12", "2026-03-01 12:00", "2026-03-02 12:00")

    lines = draw(["source", "n", "first at", "last at"], row, width=30, ends_in_text=False)

    assert lines == [
        "source  n   first at",
        "dice    12  2026-03-01 12:00",
        "    last at 2026-03-02 12:00",
    ]
    assert draw(["source", "n", "first at", "last at"], row, width=12, ends_in_text=False) == [
        "source  n",
        "dice    12",
        "    first at 2026-03-01 12:00,",
        "    last at 2026-03-02 12:00",
    ]


def test_a_nought_among_figures_is_told_below_its_row() -> None:
    """An expected mean of 0 is a figure; a column of noughts says nothing."""
    rows = [("dice", "0", "0"), ("coin", "3.5", "0")]

    lines = draw(["source", "expectation", "lost"], *rows, width=12, ends_in_text=False)

    assert lines[1:] == ["dice", "    expectation 0", "coin", "    expectation 3.5"]


def test_long_text_is_folded_where_it_has_room() -> None:
    """Between words, below itself."""
    text = "the connection was reset while the answer came"

    lines = draw(["source", "why"], ("dice", text), width=40)

    assert lines == [
        "source  why",
        "dice    the connection was reset while",
        "        the answer came",
    ]


def test_long_text_stands_below_its_row_where_it_has_none() -> None:
    """And its verdict stays in the row."""
    rows = [("w0", "collected"), ("w1", "failed: reset (the peer closed it)"), ("w2", "collected")]

    lines = draw(["batch", "verdict"], *rows, width=20)

    assert lines == [
        "batch  verdict",
        "w0     collected",
        "w1     failed",
        "    failed: reset",
        "    (the peer closed",
        "    it)",
        "w2     collected",
    ]


def test_a_table_of_nothing_has_its_heads() -> None:
    """However narrow it is."""
    assert draw(["a", "bb"], width=2, ends_in_text=False) == ["a"]
    assert draw([], width=2, ends_in_text=False) == []
