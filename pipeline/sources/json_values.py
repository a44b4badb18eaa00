"""Values in a JSON document: where they stand, how they are written, and what a word of them is."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite

from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.models import Measure
from pipeline.settings.api import MeasureRule
from pipeline.settings.templates import EVERY, Form, Values, parse_pointer
from pipeline.sources.answers import quote
from pipeline.validation import check_numbers, json_name

_BYTE = 8
_DECIMAL = re.compile(r"-?[0-9]{1,60}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One value that is mapped here.

    Attributes:
        low: the lowest one.
        size: how many there are, all equally likely.
        bits: how many bits it takes.
    """

    low: int = 0
    size: int
    bits: int

    @property
    def bytes(self) -> int:
        """Count the bytes that it takes."""
        return -(-self.bits // _BYTE)


def choose_word(values: Values, *, span: int) -> Word:
    """Choose the word that *span* numbers are mapped from.

    Raises:
        ConfigError: its values are fewer.
    """
    bits = max(1, (span - 1).bit_length())
    if values.form is Form.BITS:
        return Word(size=int(2**bits), bits=bits)
    if values.form is Form.BYTES:
        # One byte more where so many words are rejected otherwise that it costs less.
        fitting = [_BYTE * (-(-bits // _BYTE) + more) for more in (0, 1)]
        bits = min(fitting, key=lambda each: each / (2**each // span * span / 2**each))
        return Word(size=int(2**bits), bits=bits)
    if values.size < span:
        raise ConfigError(f"the range has {span} numbers, a value of this API {values.size}")
    return Word(low=values.low, size=values.size, bits=max(1, (values.size - 1).bit_length()))


def find_values(document: object, pointer: str) -> list[object]:
    """List what stands at *pointer*, the elements of arrays one by one; empty if nothing does."""
    found = _locate(document, pointer)
    return list(chain.from_iterable(v if isinstance(v, list) else [v] for v in found))


def read_values(document: object, pointer: str) -> list[object]:
    """List the same, where something must stand there.

    Raises:
        SourceError: ``schema``.
    """
    if not _locate(document, pointer):
        raise SourceError(ErrorName.SCHEMA, f"the answer has nothing at {quote(pointer)}")
    return find_values(document, pointer)


def _locate(document: object, pointer: str) -> list[object]:
    found: list[object] = [document]
    for part in parse_pointer(pointer):
        found = list(chain.from_iterable(_step(value, part) for value in found))
    return found


def _step(value: object, part: str) -> Iterator[object]:
    if isinstance(value, dict) and part in value:
        yield value[part]
    elif isinstance(value, list):
        if part == EVERY:
            yield from value
        elif _INDEX.fullmatch(part) and int(part) < len(value):
            yield value[int(part)]


def read_measures(document: object, rules: Iterable[MeasureRule]) -> tuple[Measure, ...]:
    """Read the figures that *rules* name, as far as *document* has them; of several the lowest."""
    found: list[Measure] = []
    for rule in rules:
        values = [number_in(value) for value in find_values(document, rule.field)]
        known = [value for value in values if value is not None and isfinite(value)]
        if known:
            found.append(Measure(name=rule.name, value=min(known), at_least=rule.at_least))
    return tuple(found)


def number_in(value: object) -> float | None:
    """Read a number, also from text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_written = isinstance(value, str) and _NUMBER.fullmatch(value.strip())
    return float(value) if isinstance(value, str) and is_written else None


def decode(found: Sequence[object], encoding: str) -> Sequence[object]:
    """Read integers that are written in decimal digits; others are what they are.

    Raises:
        SourceError: ``schema``.
    """
    if encoding == "integer":
        return found
    texts = [value for value in found if isinstance(value, str) and _DECIMAL.fullmatch(value)]
    if len(texts) != len(found):
        raise SourceError(ErrorName.SCHEMA, f"{_odd(found)}, not an integer in decimal digits")
    return list(map(int, texts))


def read_words(found: Sequence[object], encoding: str, word: Word, n: int) -> list[int]:
    """Read exactly *n* words, counted from 0.

    Raises:
        SourceError: ``schema``, ``count``, ``range``.
    """
    if encoding in ("hex", "base64"):
        data = _to_bytes(found, encoding)
        if len(data) != n * word.bytes:
            raise SourceError(ErrorName.COUNT, f"{len(data)} bytes instead of {n * word.bytes}")
        starts = range(0, len(data), word.bytes)
        return [int.from_bytes(data[at : at + word.bytes]) for at in starts]
    high = word.low + word.size - 1
    words = check_numbers(decode(found, encoding), n=n, low=word.low, high=high)
    return [value - word.low for value in words]


def _to_bytes(found: Sequence[object], encoding: str) -> bytes:
    texts = [value for value in found if isinstance(value, str)]
    if len(texts) != len(found) or not texts:
        raise SourceError(ErrorName.SCHEMA, f"{_odd(found)}, not text in {encoding}")
    if encoding == "hex":
        if not all(map(_HEX.fullmatch, texts)):
            raise SourceError(ErrorName.SCHEMA, "the value has other characters than hex digits")
        return bytes.fromhex("".join(texts))
    try:
        return b"".join(base64.b64decode(text, validate=True) for text in texts)
    except (binascii.Error, ValueError) as exc:
        raise SourceError(ErrorName.SCHEMA, "the value is not valid base64") from exc


def _odd(found: Sequence[object]) -> str:
    """Say what stands where text was to stand, without showing it."""
    if not found:
        return "there is no value"
    odd = next((value for value in found if not isinstance(value, str)), None)
    return f"a value is {json_name(odd) if odd is not None else 'other text'}"
