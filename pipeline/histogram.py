"""How durations are distributed, in few numbers that can be added up for years. Pure.

A duration falls into a bucket that is at most 1/32 of it wide and is named by its middle, so a
percentile read from buckets is off by 1/64 at most (1.6 %). Below 64 µs it is exact, and so are
the count, the total and the maximum.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from math import ceil
from typing import Any, Self

BITS = 6  # of a duration that decide its bucket
PRECISION = 0.016  # the largest error of a percentile, as a share of it


def _index_of(us: int) -> int:
    """Number the bucket that *us* falls into; they are numbered from 0 without a gap."""
    shift = max(us.bit_length() - BITS, 0)
    return (shift << BITS - 1) + (us >> shift)


@cache
def _middle_of(index: int) -> int:
    """Give the duration in the middle of a bucket."""
    shift = max((index >> BITS - 1) - 1, 0)
    return (index - (shift << BITS - 1) << shift) + (1 << shift >> 1)


def bucket_of(us: int) -> int:
    """Name the bucket that *us* falls into, by its middle."""
    return _middle_of(_index_of(us))


class Histogram:
    """Counted durations in microseconds.

    Attributes:
        n: how many.
        total_us: all of them added up.
        max_us: the longest.
        counts: how many of each length; the lengths are those of buckets once it was stored.
    """

    __slots__ = ("counts", "max_us", "n", "total_us")
    n: int
    total_us: int
    max_us: int
    counts: Counter[int]

    def __init__(self) -> None:
        self.n = 0
        self.total_us = 0
        self.max_us = 0
        self.counts = Counter()

    def add(self, us: int) -> None:
        """Count one duration."""
        self.n += 1
        self.total_us += us
        self.max_us = max(self.max_us, us)
        self.counts[us] += 1

    def add_all(self, durations: Sequence[int]) -> None:
        """Count some durations, by their buckets: quicker, and in less memory than one by one."""
        self.n += len(durations)
        self.total_us += sum(durations)
        self.max_us = max(self.max_us, *durations)
        for us, times in Counter(durations).items():
            self.counts[bucket_of(us)] += times

    def merge(self, other: Self) -> None:
        """Count all that *other* has counted."""
        self.n += other.n
        self.total_us += other.total_us
        self.max_us = max(self.max_us, other.max_us)
        self.counts.update(other.counts)

    def percentiles(self, *ranks: float) -> list[int | None]:
        """Give the shortest durations that these shares (0.5, 0.99) of all do not exceed.

        That is the nearest rank: always a duration that was seen, or its bucket; None without any.
        """
        found: list[int | None] = []
        lengths = sorted(self.counts)
        for rank in ranks:
            left = ceil(rank * self.n)
            for us in lengths:
                left -= self.counts[us]
                if left <= 0:
                    found.append(min(us, self.max_us))
                    break
            else:
                found.append(None)
        return found

    @property
    def p50_us(self) -> int | None:
        """Give the median, None without durations."""
        return self.percentiles(0.5)[0]

    @property
    def p90_us(self) -> int | None:
        """Give what nine of ten do not exceed."""
        return self.percentiles(0.9)[0]

    @property
    def p99_us(self) -> int | None:
        """Give what 99 of 100 do not exceed."""
        return self.percentiles(0.99)[0]

    def to_json(self) -> list[Any]:
        """Make what is stored: JSON types only, durations replaced by their buckets.

        That is ``n``, ``total_us``, ``max_us``, how far each bucket is from the one before it
        that counts anything (the first from 0), and what each of them counts.
        """
        buckets: Counter[int] = Counter()
        for us, times in self.counts.items():
            buckets[_index_of(us)] += times
        indexes = sorted(buckets)
        gaps = [index - before for before, index in pairwise((0, *indexes))]
        return [self.n, self.total_us, self.max_us, gaps, [buckets[index] for index in indexes]]

    @classmethod
    def from_json(cls, stored: Sequence[Any]) -> Self:
        """Read what ``to_json`` made."""
        histogram = cls()
        histogram.n, histogram.total_us, histogram.max_us, gaps, counts = stored
        histogram.counts.update(dict(zip(map(_middle_of, accumulate(gaps)), counts, strict=True)))
        return histogram
