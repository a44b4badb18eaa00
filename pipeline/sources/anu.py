"""What the two ANU services share: the shapes of words, the query, and the document.

Both are asked for 1 to 1024 words of type ``uint8``, ``uint16`` or ``hex16`` and answer with an
object of ``type``, ``length``, ``data`` and ``success`` (recorded answers of both, 2022 and on).
They differ in address, key, refusals, and in what one block of a hex word is.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.sources.answers import member, quote, read_array
from pipeline.sources.words import map_words, numbers_within, words_needed
from pipeline.validation import check_count, check_numbers, json_name

_MAX_WORDS = 1024
_UINT8_VALUES = 2**8
_UINT16_VALUES = 2**16
_SPARE_BITS = 8  # of a hex word: fewer than one in 256 is rejected
_HEX_DIGITS = re.compile("[0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HexBlocks:
    """What the query's ``size`` counts.

    Attributes:
        bits: of one block.
        max_size: how many blocks a word may have.
    """

    bits: int
    max_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One shape of words.

    Attributes:
        type: what the query calls it.
        bits: how many bits one word has, all of them random.
        size: the query's ``size``; None: this type takes none.
    """

    type: str
    bits: int
    size: int | None = None

    @property
    def values(self) -> int:
        """Count the values that a word may have."""
        return 1 << self.bits

    def query(self, length: int) -> dict[str, int | str]:
        """Give the query for *length* words."""
        size = {} if self.size is None else {"size": self.size}
        return {"length": length, "type": self.type, **size}


_UINT8 = Word(type="uint8", bits=8)
_UINT16 = Word(type="uint16", bits=16)


def choose_word(low: int, high: int, blocks: HexBlocks) -> Word:
    """Pick the shape that brings many numbers in [*low*, *high*] with few words.

    uint8 only where the span divides 256: of uint16 a request brings as many, and fewer are
    rejected.

    Raises:
        ConfigError: not even the longest hex word spans the range.
    """
    span = high - low + 1
    if _UINT8_VALUES % span == 0:
        return _UINT8
    if span <= _UINT16_VALUES:
        return _UINT16
    bits = (span - 1).bit_length()
    size = min(blocks.max_size, math.ceil((bits + _SPARE_BITS) / blocks.bits))
    if size * blocks.bits < bits:
        limit = blocks.max_size * blocks.bits
        raise ConfigError(f"the range takes {bits} bits per number, this source has {limit}")
    return Word(type="hex16", bits=size * blocks.bits, size=size)


def max_numbers(low: int, high: int, blocks: HexBlocks) -> int:
    """Count the numbers in [*low*, *high*] that the words of one request bring for sure."""
    values = choose_word(low, high, blocks).values
    return numbers_within(_MAX_WORDS, span=high - low + 1, size=values)


@lru_cache(maxsize=1024)  # a run asks the same thing thousands of times
def _words_for(n: int, low: int, high: int, blocks: HexBlocks) -> tuple[Word, int]:
    """Choose the words for *n* numbers, and how many make up for those that will be rejected."""
    word = choose_word(low, high, blocks)
    return word, words_needed(n, span=high - low + 1, size=word.values)


def build_query(fetch: Fetch, blocks: HexBlocks) -> dict[str, int | str]:
    """Ask for *fetch*, with words enough to make up for those that will be rejected."""
    word, length = _words_for(fetch.n, fetch.min, fetch.max, blocks)
    return word.query(length)


def _check_success(document: dict[str, object], secret: str | None) -> None:
    success = member(document, "success")
    if success is False:
        says = quote(document.get("message", ""), secret=secret)
        raise SourceError(ErrorName.REFUSED, f"success is false, message {says}")
    if success is not True:
        raise SourceError(ErrorName.SCHEMA, "success is neither true nor false")


def _check_echo(document: dict[str, object], word: Word, length: int) -> None:
    # Hex answers have been labelled `string` by the legacy service.
    labels = ("hex16", "string") if word.type == "hex16" else (word.type,)
    if member(document, "type") not in labels:
        raise SourceError(ErrorName.SCHEMA, f"the answer is not of type {word.type}")
    if document.get("size", word.size) not in (word.size, str(word.size)):
        raise SourceError(ErrorName.SCHEMA, f"the answer is not of size {word.size}")
    # The legacy service sends an integer, the other one a string.
    echoed = member(document, "length")
    if type(echoed) is not int and not (isinstance(echoed, str) and echoed.isdecimal()):
        raise SourceError(ErrorName.SCHEMA, "length is not an integer")
    if str(echoed) != str(length):
        raise SourceError(ErrorName.COUNT, f"length is not the {length} that was asked")


def _parse_hex(blocks: list[object], bits: int) -> list[int]:
    digits = bits // 4
    texts = [block for block in blocks if isinstance(block, str)]
    if len(texts) != len(blocks) or not set(map(len, texts)) <= {digits}:
        raise SourceError(ErrorName.SCHEMA, f"data is not made of {digits} hex digits each")
    if not _HEX_DIGITS.fullmatch("".join(texts)):
        raise SourceError(ErrorName.SCHEMA, "data has other characters than hex digits")
    return [int(text, 16) for text in texts]


def read_numbers(
    document: object, fetch: Fetch, blocks: HexBlocks, *, secret: str | None = None
) -> tuple[int, ...]:
    """Read the numbers of *fetch*; the ``type``, ``length``, ``size`` echoed must be as asked.

    *secret* is kept out of the errors.

    Raises:
        SourceError: ``refused`` where ``success`` is false, ``schema``, ``count``, ``range``.
    """
    if not isinstance(document, dict):
        raise SourceError(ErrorName.SCHEMA, f"the answer is {json_name(document)}, not an object")
    _check_success(document, secret)
    n, low, high = fetch.n, fetch.min, fetch.max
    word, length = _words_for(n, low, high, blocks)
    _check_echo(document, word, length)
    data = read_array(document, "data")
    raw = _parse_hex(data, word.bits) if word.type == "hex16" else data
    words = check_numbers(raw, n=length, low=0, high=word.values - 1)
    numbers = tuple(map_words(words, size=word.values, low=low, high=high)[:n])
    check_count(numbers, n)  # words may have been rejected; what is left lies within the range
    return numbers
