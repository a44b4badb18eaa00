"""Documents as CSV."""

import csv
from collections.abc import Iterator
from io import StringIO

import pytest

from pipeline.rendering.csv import render_sheet
from pipeline.rendering.document import Column, Document, Kind, Part, Table, Text
from tests.rendering.documents import (
    HOSTILE,
    make_bar,
    make_chart,
    make_lanes,
    make_strip,
    make_table,
    make_waterfall,
)


def read(*parts: Part, facts: tuple[str, ...] = ()) -> list[list[str]]:
    """Write a sheet and read it as a program would."""
    document = Document(title="Sheet", facts=facts, parts=parts)
    text = "".join(f"{line}\n" for line in render_sheet(document))
    assert text.count("\n") == text.count("\r\n")
    return list(csv.reader(StringIO(text, newline=""), strict=True))


def test_a_sheet_has_raw_values_below_names_with_units() -> None:
    """Whoever calculates wants all digits and no words among them."""
    head, *rows = read(make_table())

    assert head == ["source", "is_sandbox", "n", "seen_at", "p99_us", "success_share"]
    assert rows == [
        ["anu", "false", str(-(10**30)), "2026-03-01T12:00:00.000000Z", "1034000", "0.99999"],
        ["dice", "true", "7", "2026-03-01T12:01:00.000000Z", "900", "1"],
        ["both", "", "", "", "", ""],
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_text_that_a_sheet_would_calculate_is_quoted(text: str) -> None:
    """A formula in an error message of an upstream would run on the reader's machine."""
    table = Table(columns=[Column(text), Column("n", Kind.NUMBER)], rows=[(text, -1)])

    head, row = read(table)

    assert row[0].startswith(f"'{text[0] if text[0].isprintable() else chr(92)}")
    assert head[0].startswith("'")
    assert row[1] == "-1"


def test_foreign_text_stays_in_its_cell() -> None:
    """Quotes, commas and line ends included."""
    texts = [*HOSTILE, 'a "b", c', ",", ""]
    table = Table(columns=[Column("a"), Column("b")], rows=[(text, "end") for text in texts])

    rows = read(table)

    assert len(rows) == len(texts) + 1
    assert all(row[1] == "end" for row in rows[1:])
    assert ['a "b", c', "end"] in rows


def test_only_the_first_table_is_written() -> None:
    """Two tables in one file are none that a program can read; prose is none at all."""
    second = Table(columns=[Column("second")], rows=[])

    assert read(Text(lines=["x"]), make_chart(1), make_table(), second)[0][0] == "source"


@pytest.mark.parametrize(
    ("part", "head", "n"),
    [
        (make_chart(1, 2, kind=Kind.DURATION), ["began_at", "one_us"], 2),
        (make_strip("ran", "ran", "late"), ["first_at", "last_at", "fate", "slots"], 2),
        (make_waterfall(make_bar("w0", 0)), ["attempt", "begin_us", "wait_us"], 1),
    ],
)
def test_without_a_table_what_is_drawn_becomes_one(part: Part, head: list[str], n: int) -> None:
    """The figures behind a chart are what a sheet is for."""
    rows = read(Text(lines=["x"]), part)

    assert rows[0][: len(head)] == head
    assert len(rows) == n + 1


def test_without_anything_to_tabulate_the_facts_are_the_rows() -> None:
    """An empty file looks like a mistake."""
    assert read(Text(lines=["x"]), facts=("No run yet.",)) == [["fact"], ["No run yet."]]


def test_rows_are_written_as_they_are_walked_over() -> None:
    """A long history takes no memory."""
    walked: list[int] = []

    def rows() -> Iterator[tuple[int]]:
        for number in range(3):
            walked.append(number)
            yield (number,)

    table = Table(columns=[Column("n", Kind.NUMBER)], rows=rows())
    lines = render_sheet(Document(title="Sheet", parts=[table]))

    assert [next(lines), next(lines)] == ["n\r", "0\r"]
    assert walked == [0]


def test_without_a_table_a_strip_of_days_is_one() -> None:
    """A day a row, a source a column."""
    document = Document(title="Report", parts=[make_lanes("ok", "partial", name="anu")])

    assert list(render_sheet(document)) == [
        "began_at,anu\r",
        "2026-03-01T00:00:00.000000Z,ok: anu\r",
        "2026-03-02T00:00:00.000000Z,partial: anu\r",
    ]
