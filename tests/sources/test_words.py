"""Tests for pipeline/sources/words.py."""

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.words import (
    SHORTFALL,
    map_words,
    numbers_within,
    shortfall_bound,
    words_needed,
)
from tests.sources.samples import FEW_EXAMPLES


@pytest.mark.parametrize("span", range(1, 257))
def test_every_number_has_the_same_chance(span: int) -> None:
    """All 256 bytes, mapped: each number must come out equally often, for every span."""
    counts = Counter(map_words(range(256), size=256, low=-3, high=span - 4))

    assert set(counts) == set(range(-3, span - 3))
    assert set(counts.values()) == {256 // span}


def test_words_keep_their_order() -> None:
    """Numbers are cut into batches by position, so nothing may be sorted on the way."""
    assert map_words([7, 255, 3, 250, 3], size=256, low=1, high=100) == [8, 4, 4]


@given(st.integers(1, 60), st.integers(1, 256))
@FEW_EXAMPLES
def test_the_bound_is_above_the_exact_chance(wanted: int, span: int) -> None:
    """The bound is an inequality by Hoeffding; the exact binomial sum must lie below it."""
    rejected = Fraction(256 % span, 256)
    words = words_needed(wanted, span=span, size=256)

    exact = sum(
        math.comb(words, kept) * (1 - rejected) ** kept * rejected ** (words - kept)
        for kept in range(wanted)
    )

    bound = shortfall_bound(words, wanted, float(rejected))
    assert float(exact) <= bound * (1 + 1e-9)
    assert bound < SHORTFALL


@given(st.integers(1, 1024), st.integers(1, 2**70))
@FEW_EXAMPLES
def test_no_word_too_many_is_asked(n: int, span: int) -> None:
    """Words are a scarce good: one less would break the promise."""
    size = 2 ** span.bit_length()
    rejected = size % span / size

    words = words_needed(n, span=span, size=size)

    assert n <= words
    assert words == n or shortfall_bound(words - 1, n, rejected) >= SHORTFALL


def test_nothing_is_spare_where_nothing_is_rejected() -> None:
    """A span that divides the words needs exactly as many words as numbers."""
    assert words_needed(434, span=256, size=256) == 434
    assert numbers_within(1024, span=256, size=256) == 1024


def test_fewer_words_than_wanted_never_suffice() -> None:
    """The bound is a chance also where the answer is plain."""
    assert shortfall_bound(9, 10, 0.0) == 1.0


@given(st.integers(1, 65536))
@FEW_EXAMPLES
def test_a_request_brings_as_many_numbers_as_its_words_allow(span: int) -> None:
    """max_numbers decides how batches are merged: one more would need a second request."""
    n = numbers_within(1024, span=span, size=2**16)

    assert words_needed(n, span=span, size=2**16) <= 1024
    assert words_needed(n + 1, span=span, size=2**16) > 1024
