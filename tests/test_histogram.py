"""Durations in buckets: what is exact stays exact, and the rest is near enough."""

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.histogram import PRECISION, Histogram, bucket_of

DURATIONS = st.integers(min_value=0, max_value=10**13)  # 115 days
RANKS = st.floats(min_value=0.001, max_value=1)


def counted(durations: list[int]) -> Histogram:
    """Count *durations*."""
    histogram = Histogram()
    for us in durations:
        histogram.add(us)
    return histogram


def stored(histogram: Histogram) -> Histogram:
    """Write it down and read it again."""
    return Histogram.from_json(json.loads(json.dumps(histogram.to_json())))


@pytest.mark.parametrize("us", range(64))
def test_the_shortest_have_a_bucket_each(us: int) -> None:
    """A check takes a few microseconds; rounding would be most of it."""
    assert bucket_of(us) == us


@given(us=DURATIONS)
def test_a_bucket_is_near_what_falls_into_it(us: int) -> None:
    """1.6 % is what reports promise."""
    assert abs(bucket_of(us) - us) * 64 <= us
    assert abs(bucket_of(us) - us) <= us * PRECISION


@given(us=DURATIONS)
def test_a_bucket_falls_into_itself(us: int) -> None:
    """Else percentiles would drift with every merge of what was stored."""
    assert bucket_of(bucket_of(us)) == bucket_of(us)


@given(us=DURATIONS, more=st.integers(min_value=0, max_value=10**9))
def test_longer_durations_never_have_a_lower_bucket(us: int, more: int) -> None:
    """Ranks are counted along the buckets."""
    assert bucket_of(us) <= bucket_of(us + more)


@given(durations=st.lists(DURATIONS, min_size=1), rank=RANKS)
def test_a_percentile_is_the_nearest_rank(durations: list[int], rank: float) -> None:
    """Always a duration that was seen; what others call p50 may lie between two."""
    expected = sorted(durations)[ceil(rank * len(durations)) - 1]

    assert counted(durations).percentiles(rank) == [expected]


@given(durations=st.lists(DURATIONS, min_size=1), rank=RANKS)
def test_a_percentile_of_what_was_stored_is_near_the_exact_one(
    durations: list[int], rank: float
) -> None:
    """Within 1/64 of it, whatever the durations are."""
    (exact,) = counted(durations).percentiles(rank)
    (near,) = stored(counted(durations)).percentiles(rank)

    assert exact is not None
    assert near is not None
    assert abs(near - exact) * 64 <= exact
    assert near <= max(durations)


@given(durations=st.lists(DURATIONS))
def test_count_total_and_maximum_are_exact(durations: list[int]) -> None:
    """They are the books; only what lies between is rounded."""
    histogram = stored(counted(durations))

    assert histogram.n == len(durations)
    assert histogram.total_us == sum(durations)
    assert histogram.max_us == max(durations, default=0)


@given(first=st.lists(DURATIONS), second=st.lists(DURATIONS))
def test_merging_is_counting_all(first: list[int], second: list[int]) -> None:
    """A day is the sum of its hours."""
    merged = stored(counted(first))

    merged.merge(stored(counted(second)))

    assert merged.to_json() == stored(counted(first + second)).to_json()


def test_percentiles_of_nothing_are_unknown() -> None:
    """A 0 would look like the fastest source of all."""
    assert Histogram().percentiles(0.5, 0.99) == [None, None]


def test_what_is_stored_is_small() -> None:
    """A million different durations between 1 ms and 1 s lie in 320 buckets."""
    histogram = counted(list(range(1_000, 1_000_000, 97)))

    assert len(histogram.to_json()[-1]) <= 320


def test_many_durations_come_to_what_they_do_one_by_one() -> None:
    """And to few counts, however many lengths there are: a run has a hundred thousand of them."""
    durations = [n * n for n in range(10_000)]
    many, one_by_one = Histogram(), Histogram()

    many.add_all(durations)
    for us in durations:
        one_by_one.add(us)

    assert many.to_json() == one_by_one.to_json()
    assert len(many.counts) < 1_000
