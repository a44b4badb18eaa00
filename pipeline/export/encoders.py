"""How a file spells rows: CSV, JSON Lines, Parquet, or the bare bits of numbers.

Each is written as its pages come.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import groupby, islice
from typing import IO, Any, TypeAlias

from pipeline.errors import UsageError
from pipeline.export.choices import FileFormat
from pipeline.export.records import Columns, Page
from pipeline.extras import how_to_install
from pipeline.rendering.csv import SAME_CELLS, spell_flag, spell_moment, spell_text

BITS = 8  # of a byte

Encoder: TypeAlias = Callable[[IO[bytes], Columns, Iterable[Page]], None]


@lru_cache(SAME_CELLS)
def _json_text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


_Spellings: TypeAlias = Mapping[type, Callable[[Any], str]]
_SHEET: _Spellings = {
    int: str,
    str: spell_text,
    bool: spell_flag,
    datetime: spell_moment,
}
_JSON: _Spellings = {
    **_SHEET,
    str: _json_text,
    datetime: lambda moment: f'"{spell_moment(moment)}"',
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


def arrow_tables(columns: Columns, pages: Iterable[Page]) -> Any:  # noqa: ANN401 - pyarrow comes without types
    """Give the pages to pyarrow, as they are asked for: int64, UTC timestamps in us, text.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - it may be missing
    except ImportError as exc:
        command = how_to_install("pyarrow")
        raise UsageError(f"Parquet and Arrow need pyarrow: {command}") from exc

    types = {
        int: pa.int64(),
        str: pa.string(),
        bool: pa.bool_(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    batches = (
        pa.record_batch(
            [pa.array(cells, field.type) for cells, field in zip(page, schema, strict=True)],
            schema=schema,
        )
        for page in pages
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def write_parquet(file: IO[bytes], columns: Columns, pages: Iterable[Page]) -> None:
    """Write Parquet, a row group per page."""
    reader = arrow_tables(columns, pages)
    from pyarrow import parquet  # noqa: PLC0415 - it is installed

    with parquet.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def write_bits(file: IO[bytes], columns: Columns, pages: Iterable[Page]) -> None:
    """Write the bits of numbers alone, one behind the other, the highest of each first.

    That is what programs that test random bits read. Bits behind the last whole byte are left out.

    Raises:
        UsageError: these are no numbers, or they do not stand for whole bits.
    """
    if "value" not in columns:
        raise UsageError("bytes are written of numbers alone: `pipeline export numbers`")
    names = list(columns)
    low, high, value = (names.index(name) for name in ("min", "max", "value"))
    left = ""
    for page in pages:
        ranges = zip(page[low], page[high], strict=True)
        numbers = iter(page[value])
        for (least, most), some in groupby(ranges):
            width = _width(least, most)
            part = islice(numbers, sum(1 for _ in some))
            if width == BITS and not left:
                file.write(bytes(number - least for number in part))
            elif width:
                left += "".join(f"{number - least:0{width}b}" for number in part)
                whole = len(left) // BITS
                file.write(int(f"0{left[: whole * BITS]}", 2).to_bytes(whole, "big"))
                left = left[whole * BITS :]
            else:
                list(part)


def _width(low: int, high: int) -> int:
    """Tell for how many bits a number in [*low*, *high*] stands."""
    values = high - low + 1
    if values & (values - 1):
        raise UsageError(
            f"numbers from {low} to {high} do not stand for whole bits, as those from 0 to 255 do;"
            " choose a --source whose numbers do, or another --format"
        )
    return values.bit_length() - 1


ENCODERS: dict[FileFormat, Encoder] = {
    FileFormat.CSV: write_csv,
    FileFormat.JSONL: write_json_lines,
    FileFormat.PARQUET: write_parquet,
    FileFormat.BYTES: write_bits,
}
