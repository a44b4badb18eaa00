"""How a file spells rows: CSV, JSON Lines, Parquet. Each is written as its pages come."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, TypeAlias

from pipeline.errors import UsageError
from pipeline.export.choices import FileFormat
from pipeline.published import iso_time
from pipeline.sanitize import sheet_text

Columns: TypeAlias = Mapping[str, type]  # by name what the cells are, unless None
Page: TypeAlias = Sequence[Sequence[Any]]  # the cells of each column, all of them equally many
Encoder: TypeAlias = Callable[[IO[bytes], Columns, Iterable[Page]], None]

SAME_CELLS = 4096  # distinct texts or moments that are spelled once; most cells repeat those above


def _flag(flag: bool) -> str:
    return "true" if flag else "false"


@lru_cache(SAME_CELLS)
def _sheet_moment(moment: datetime) -> str:
    return iso_time(moment)


@lru_cache(SAME_CELLS)
def _sheet_cell(text: str) -> str:
    safe = sheet_text(text)
    # A line end has become visible above; and nothing between quotes is not nothing at all.
    if not safe or "," in safe or '"' in safe:
        safe = safe.replace('"', '""')
        return f'"{safe}"'
    return safe


def _json_moment(moment: datetime) -> str:
    return f'"{_sheet_moment(moment)}"'


def _json_digest(digest: bytes) -> str:
    return f'"{digest.hex()}"'


@lru_cache(SAME_CELLS)
def _json_text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


_Spellings: TypeAlias = Mapping[type, Callable[[Any], str]]
_SHEET: _Spellings = {
    int: str,
    str: _sheet_cell,
    bool: _flag,
    datetime: _sheet_moment,
    bytes: bytes.hex,
}
_JSON: _Spellings = {
    int: str,
    str: _json_text,
    bool: _flag,
    datetime: _json_moment,
    bytes: _json_digest,
}


def _spell_lines(
    page: Page, line: str, spellings: Iterable[Callable[[Any], str]], nothing: str
) -> bytes:
    spelled = (
        [nothing if cell is None else spell(cell) for cell in cells]
        for cells, spell in zip(page, spellings, strict=True)
    )
    return "".join(map(line.__mod__, zip(*spelled, strict=True))).encode()


def write_csv(file: IO[bytes], columns: Columns, pages: Iterable[Page]) -> None:
    """Write CSV as RFC 4180 has it, in UTF-8: a head line, CR LF, quotes where there is need.

    None is an empty cell, an empty text two quotes. A text that a spreadsheet could take for a
    formula gets an apostrophe in front, and control characters are made visible; numbers stay
    numbers, the negative ones too.
    """
    file.write(",".join(columns).encode() + b"\r\n")
    line = ",".join("%s" for _ in columns) + "\r\n"
    spellings = [_SHEET[kind] for kind in columns.values()]
    for page in pages:
        file.write(_spell_lines(page, line, spellings, ""))


def write_json_lines(file: IO[bytes], columns: Columns, pages: Iterable[Page]) -> None:
    """Write an object per line, in ASCII; integers are exact, however large."""
    line = "{" + ", ".join(f'"{name}": %s' for name in columns) + "}\n"
    spellings = [_JSON[kind] for kind in columns.values()]
    for page in pages:
        file.write(_spell_lines(page, line, spellings, "null"))


def write_parquet(file: IO[bytes], columns: Columns, pages: Iterable[Page]) -> None:
    """Write Parquet, a row group per page: int64, timestamps in UTC to the microsecond, text.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, which most have no need of
        from pyarrow import parquet  # noqa: PLC0415 - of the same extra
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
