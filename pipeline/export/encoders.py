"""How a file spells rows: CSV, JSON Lines, Parquet. Each is written as its pages come."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from io import StringIO
from typing import IO, Any, TypeAlias

from pipeline.errors import UsageError
from pipeline.export.choices import FileFormat
from pipeline.sanitize import printable

Columns: TypeAlias = Mapping[str, type]  # by name what the cells are, unless None
Pages: TypeAlias = Iterable[Sequence[Sequence[Any]]]  # the cells of each column
Encoder: TypeAlias = Callable[[IO[bytes], Columns, Pages], None]

# What a spreadsheet may take for the beginning of a formula (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

SAME_CELLS = 4096  # distinct texts or moments that are spelled once; most cells repeat those above


@lru_cache(SAME_CELLS)
def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _flag(flag: bool) -> str:
    return "true" if flag else "false"


@lru_cache(SAME_CELLS)
def _sheet_text(text: str) -> str:
    return printable(f"'{text}" if text.startswith(FORMULA_STARTS) else text)


@lru_cache(SAME_CELLS)
def _json_text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


def _json_moment(moment: datetime) -> str:
    return f'"{_moment(moment)}"'


def _json_digest(digest: bytes) -> str:
    return f'"{digest.hex()}"'


_SHEET: dict[type, Callable[[Any], str]] = {
    str: _sheet_text,
    datetime: _moment,
    bool: _flag,
    bytes: bytes.hex,
    int: int.__repr__,
}
_JSON: dict[type, Callable[[Any], str]] = {
    str: _json_text,
    datetime: _json_moment,
    bool: _flag,
    bytes: _json_digest,
    int: int.__repr__,
}


def _spell(cells: Sequence[Any], spell: Callable[[Any], str], nothing: str) -> list[str]:
    return [nothing if cell is None else spell(cell) for cell in cells]


def write_csv(file: IO[bytes], columns: Columns, pages: Pages) -> None:
    """Write CSV as RFC 4180 has it, in UTF-8: a head line, CR LF, quotes where there is need.

    None is an empty cell. A text that a spreadsheet could take for a formula gets an apostrophe in
    front, and control characters are made visible; numbers stay numbers, the negative ones too.
    """
    spellings = [_SHEET[kind] for kind in columns.values()]
    paper = StringIO(newline="")
    writer = csv.writer(paper)
    writer.writerow(columns)
    for page in pages:
        writer.writerows(zip(*map(_spell, page, spellings, [""] * len(page)), strict=True))
        file.write(paper.getvalue().encode())
        paper.seek(0)
        paper.truncate()
    file.write(paper.getvalue().encode())  # the head, if there was no page


def write_json_lines(file: IO[bytes], columns: Columns, pages: Pages) -> None:
    """Write an object per line, in ASCII; integers are exact, however large."""
    spellings = [_JSON[kind] for kind in columns.values()]
    line = "{" + ", ".join(f'"{name}": %s' for name in columns) + "}\n"
    for page in pages:
        rows = zip(*map(_spell, page, spellings, ["null"] * len(page)), strict=True)
        file.write("".join(map(line.__mod__, rows)).encode("ascii"))


def write_parquet(file: IO[bytes], columns: Columns, pages: Pages) -> None:
    """Write Parquet, a row group per page: int64, timestamps in UTC to the microsecond, text.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, which most have no need of
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as exc:
        raise UsageError("Parquet needs pyarrow: pip install 'pipeline[parquet]'") from exc

    types = {
        int: pa.int64(),
        str: pa.string(),
        bool: pa.bool_(),
        datetime: pa.timestamp("us", tz="UTC"),
        bytes: pa.string(),  # in hex, as everywhere
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    digests = [kind is bytes for kind in columns.values()]
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for page in pages:
            cells = [
                [cell and cell.hex() for cell in column] if is_digest else column
                for column, is_digest in zip(page, digests, strict=True)
            ]
            arrays = [
                pa.array(column, field.type) for column, field in zip(cells, schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))


ENCODERS: dict[FileFormat, Encoder] = {
    FileFormat.CSV: write_csv,
    FileFormat.JSONL: write_json_lines,
    FileFormat.PARQUET: write_parquet,
}
