"""How files spell rows: held against the readers that other people use."""

import csv
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO, StringIO
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.errors import UsageError
from pipeline.export.choices import FileFormat
from pipeline.export.encoders import ENCODERS
from pipeline.export.records import Columns
from pipeline.extras import how_to_install
from pipeline.sanitize import FORMULA_STARTS

COLUMNS: Columns = {"count": int, "name": str, "is_open": bool, "at": datetime}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = (-7, "anu", True, NOON)
NOTHING = (None,) * len(COLUMNS)
LARGEST = 2**63 - 1


def encode(format_: FileFormat, columns: Columns, *pages: Iterable[tuple[Any, ...]]) -> bytes:
    """Write rows, page by page, and give what the file holds."""
    file = BytesIO()
    ENCODERS[format_](file, columns, (list(zip(*page, strict=True)) for page in pages))
    return file.getvalue()


def sheet_of(text: str) -> str:
    """Write one text to CSV, and read it back."""
    content = encode(FileFormat.CSV, {"text": str}, [(text,)]).decode()
    [_, [cell]] = csv.reader(StringIO(content, newline=""), strict=True)
    return cell


def test_csv_is_that_of_rfc_4180() -> None:
    """A head line, CR LF, an empty cell for what is not known."""
    content = encode(FileFormat.CSV, COLUMNS, [ROW], [NOTHING])

    assert content == (
        b"count,name,is_open,at\r\n-7,anu,true,2026-03-01T12:00:00.000000Z\r\n,,,\r\n"
    )


def test_csv_without_rows_has_its_head() -> None:
    """A program that reads it finds the columns that it expects."""
    assert encode(FileFormat.CSV, COLUMNS) == b"count,name,is_open,at\r\n"


@pytest.mark.parametrize("start", FORMULA_STARTS, ids=ascii)
def test_a_formula_in_csv_is_only_text(start: str) -> None:
    """Else whoever opens the file in a spreadsheet runs what an upstream wrote."""
    assert sheet_of(f"{start}cmd()").startswith("'")


def test_a_negative_number_in_csv_is_a_number() -> None:
    """An apostrophe would make text of it, and every sum wrong."""
    assert encode(FileFormat.CSV, {"sum": int}, [(-5,)]) == b"sum\r\n-5\r\n"


@pytest.mark.parametrize("text", ["", "a,b", 'say "no"', '",', "naïve ☂", "'quoted'"])
def test_a_harmless_text_comes_back_from_csv(text: str) -> None:
    """Commas and quotes are its own business."""
    assert sheet_of(text) == text


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\r\nb", "\u202eb", "\x00"], ids=ascii)
def test_a_control_character_in_csv_is_visible(text: str) -> None:
    """A line stays a line, and `pipeline export | head` cannot steer the terminal."""
    assert sheet_of(text).isprintable()


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_from_json_lines(text: str) -> None:
    """On one line of ASCII."""
    content = encode(FileFormat.JSONL, {"text": str}, [(text,)])

    assert json.loads(content) == {"text": text}
    assert content.endswith(b"\n")
    assert content[:-1].decode("ascii").isprintable()


def test_json_lines_have_an_object_each() -> None:
    """Times as everywhere in JSON of this program; null for what is not known."""
    first, second = encode(FileFormat.JSONL, COLUMNS, [ROW], [NOTHING]).splitlines()

    assert json.loads(first) == {
        "count": -7,
        "name": "anu",
        "is_open": True,
        "at": "2026-03-01T12:00:00.000000Z",
    }
    assert json.loads(second) == dict.fromkeys(COLUMNS)


@pytest.mark.parametrize("format_", [FileFormat.CSV, FileFormat.JSONL])
def test_integers_are_exact(format_: FileFormat) -> None:
    """A float would round them from 2**53 on."""
    assert str(LARGEST).encode() in encode(format_, {"value": int}, [(LARGEST,)])


@pytest.mark.parametrize("format_", [FileFormat.CSV, FileFormat.JSONL])
def test_times_are_utc(format_: FileFormat) -> None:
    """Wherever the database keeps them."""
    moment = NOON.astimezone(timezone(timedelta(hours=2)))

    assert b"2026-03-01T12:00:00.000000Z" in encode(format_, {"at": datetime}, [(moment,)])


def test_parquet_holds_the_same() -> None:
    """Read by the library that most others are built on."""
    content = encode(FileFormat.PARQUET, COLUMNS, [ROW, NOTHING], [(LARGEST, *NOTHING[1:])])

    table = parquet.read_table(BytesIO(content))
    assert table.schema.types == [
        pa.int64(),
        pa.string(),
        pa.bool_(),
        pa.timestamp("us", tz="UTC"),
    ]
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ROW,
        NOTHING,
        (LARGEST, *NOTHING[1:]),
    ]


def test_parquet_is_compressed_and_has_a_row_group_per_page() -> None:
    """So it is written as it comes, whatever its size."""
    content = encode(FileFormat.PARQUET, {"n": int}, [(1,), (2,)], [(3,)])

    metadata = parquet.ParquetFile(BytesIO(content)).metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [2, 1]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_without_rows_has_its_columns() -> None:
    """A program that reads it finds what it expects."""
    table = parquet.read_table(BytesIO(encode(FileFormat.PARQUET, COLUMNS)))

    assert table.column_names == list(COLUMNS)
    assert table.num_rows == 0


def test_parquet_without_its_library_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most have no need of it; the line says how to get it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(UsageError, match=re.escape(how_to_install("pyarrow"))):
        encode(FileFormat.PARQUET, COLUMNS)
