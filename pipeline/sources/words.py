"""Uniform words to uniform numbers: how to map them without bias, and how many to ask for.

A word is one of ``size`` equally likely values (a byte: of 256); the ``span`` values of a range
rarely divide that evenly. The words of the last, incomplete round are thrown away (rejection), so
that every number keeps exactly the same chance, and more words are asked for to make up for it.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache

SHORTFALL = 1e-9  # accepted chance that too few words survive


def shortfall_bound(words: int, wanted: int, rejected: float) -> float:
    """Bound the chance that fewer than *wanted* of *words* survive.

    *rejected* is the chance of one word to be rejected. Fewer than wanted survive if and only if
    at least k = words - wanted + 1 are rejected. A binomial count with mean words * rejected < k
    reaches k with a chance of at most exp(-words * D(k / words || rejected)), D being the
    relative entropy (Hoeffding 1963, theorem 1, inequality 2.1).
    """
    lost, kept = words - wanted + 1, wanted - 1
    if lost <= words * rejected:
        return 1.0
    if not rejected:
        return 0.0
    exponent = lost * math.log(words * rejected / lost)
    if kept:
        exponent += kept * math.log(words * (1 - rejected) / kept)
    return math.exp(exponent)


@lru_cache(maxsize=1024)
def words_needed(n: int, *, span: int, size: int) -> int:
    """Count the words to ask for, to get *n* numbers out of *span* <= *size* values.

    They fall short of *n* with a chance below 1e-9, by `shortfall_bound`.
    """
    if size % span == 0:
        return n  # none is rejected
    rejected = size % span / size
    candidates = range(n, 4 * n + 64)  # covers the worst case, every other word rejected

    def is_enough(words: int) -> bool:
        return shortfall_bound(words, n, rejected) < SHORTFALL

    return candidates[bisect_left(candidates, x=True, key=is_enough)]


@lru_cache(maxsize=64)
def numbers_within(words: int, *, span: int, size: int) -> int:
    """Count the numbers that so many *words* bring for sure: the inverse of `words_needed`."""
    return bisect_right(
        range(1, words + 1), words, key=lambda n: words_needed(n, span=span, size=size)
    )


def map_words(words: Iterable[int], *, size: int, low: int, high: int) -> list[int]:
    """Map uniform *words* to uniform numbers in [*low*, *high*], leaving out the rejected ones."""
    span = high - low + 1
    usable = size - size % span
    return [low + word % span for word in words if word < usable]
