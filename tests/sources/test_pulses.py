"""Tests for pipeline/sources/pulses.py: numbers out of public values."""

from collections import Counter
from hashlib import shake_256

import pytest

from pipeline.models import Batch, Fetch
from pipeline.sources.pulses import draw, expand, label_of

VALUE = bytes(32)


def by_hand(value: bytes, label: str, n: int, low: int, high: int) -> list[int]:
    """Do the same as it is written in the manual, word after word."""
    span = high - low + 1
    width = next(width for width in (1, 2, 4, 8) if span <= 256**width)
    stream = shake_256(value + label.encode()).digest(width * (4 * n + 400))
    found: list[int] = []
    for at in range(0, len(stream), width):
        word = int.from_bytes(stream[at : at + width], "big")
        if word // span < 256**width // span:
            found.append(low + word % span)
    return found[:n]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 255),
        (1, 6),
        (0, 0),
        (-5, 251),
        (0, 2**16),
        (-(2**31), 2**31 - 1),
        (0, 2**64 - 1),
        (0, 128),
    ],
)
@pytest.mark.parametrize("n", [1, 29, 1000])
def test_anybody_can_draw_the_same(n: int, low: int, high: int) -> None:
    """With SHAKE-256 and a dozen lines."""
    assert expand(VALUE, "17/w3", n=n, low=low, high=high) == by_hand(VALUE, "17/w3", n, low, high)


def test_every_number_of_a_range_comes_about_as_often() -> None:
    """6 does not divide 256: the last incomplete round is left out."""
    counts = Counter(expand(VALUE, "1/w0", n=6000, low=1, high=6))

    assert sorted(counts) == [1, 2, 3, 4, 5, 6]
    assert all(850 < count < 1150 for count in counts.values())


def test_each_batch_of_each_run_draws_its_own() -> None:
    """Two that share a pulse share no number for it."""
    batches = tuple(Batch(number=number, source="d", n=20, min=0, max=255) for number in (0, 1))

    one, other = (draw(VALUE, Fetch(number=0, batches=batches, run=run)) for run in (1, 2))

    assert label_of(17, batches[1]) == "17/w1"
    assert len({one[:20], one[20:], other[:20], other[20:]}) == 4
    assert one[20:] == tuple(expand(VALUE, "1/w1", n=20, low=0, high=255))
