"""Public values that sources publish for everybody, and how numbers are drawn out of them. Pure.

A pulse of a beacon is one value of 32 or 64 bytes. It is expanded, for each batch by a label of its
own, so that no two batches ever share a number for sharing a pulse. Everybody can do the same again
and must: the numbers are proved, and they are anything but secret.
"""

from datetime import datetime
from hashlib import shake_256

import httpx2 as httpx

from pipeline.models import Batch, Fetch
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.hints import read_headers
from pipeline.sources.words import map_words

MOST_NUMBERS = 10_000  # of one request
_WIDTHS = (1, 2, 4, 8)  # of a word, in bytes


def label_of(run: int, batch: Batch) -> str:
    """Name a batch so that no other has this name: ``17/w3``."""
    return f"{run}/{batch.name}"


def expand(value: bytes, label: str, *, n: int, low: int, high: int) -> list[int]:
    """Draw *n* numbers in [*low*, *high*] out of SHAKE-256 over *value* and *label*.

    Its output is read as words of 1, 2, 4 or 8 bytes, as few as the range needs, the first byte
    the highest. Words of the last, incomplete round are left out; of the others the number is
    *low* and the remainder by the count of numbers there are.
    """
    span = high - low + 1
    width = next(width for width in _WIDTHS if span <= 1 << 8 * width)
    hashing = shake_256(value + label.encode())
    words = n
    numbers: list[int] = []
    while len(numbers) < n:
        words *= 2
        stream = hashing.digest(words * width)
        drawn = (int.from_bytes(stream[at : at + width]) for at in range(0, len(stream), width))
        numbers = map_words(drawn, size=1 << 8 * width, low=low, high=high)
    return numbers[:n]


def draw(value: bytes, fetch: Fetch) -> tuple[int, ...]:
    """Draw the numbers of all batches of *fetch*, each by its own label."""
    return tuple(
        number
        for batch in fetch.batches
        for number in expand(
            value, label_of(fetch.run, batch), n=batch.n, low=batch.min, high=batch.max
        )
    )


class Beacon:
    """A source of pulses: what is asked, which is the same whatever is wanted of it.

    *newest* is the path of the newest pulse, or with *sees_other* of where that is told.
    """

    def __init__(self, base_url: str, newest: str, *, sees_other: bool = False) -> None:
        self._endpoint = Endpoint(base_url, newest, sees_other=sees_other)

    def max_numbers(self, low: int, high: int) -> int:
        """Give a limit of ours: a pulse is expanded to as many as are wanted."""
        del low, high
        return MOST_NUMBERS

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Ask for the newest pulse, whatever is wanted of it."""
        del fetch
        return self._endpoint.get()

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers; beacons say nothing else about when to ask again."""
        return read_headers(answer, now)

    def cost_bits(self, fetch: Fetch, /) -> int:
        """Count none: a pulse costs the same whatever is drawn out of it."""
        del fetch
        return 0
