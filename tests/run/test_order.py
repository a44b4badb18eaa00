"""Tests for pipeline/run/order.py: every batch is asked for once, in as few requests as may be."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, UsageError
from pipeline.models import Batch
from pipeline.run.order import Order
from pipeline.settings.sizes import GivenSizes

LARGEST = 10
LESSON = range(2, 30)  # the batches of the lesson that this program comes from


def order_of(sizes: Sequence[int], *, max_numbers: int = LARGEST, is_merged: bool = True) -> Order:
    """Order batches of *sizes*, the first of them number 7 of its run."""
    return Order(
        source="anu",
        sizes=sizes,
        min=1,
        max=6,
        first=7,
        max_numbers=max_numbers,
        is_merged=is_merged,
    )


def served(order: Order) -> list[list[int]]:
    """Give the sizes of the batches that each request serves."""
    return [[batch.n for batch in fetch.batches] for fetch in order.fetches()]


def test_batches_are_numbered_from_where_the_source_before_ended() -> None:
    """A batch's name is unique within its run, over all sources."""
    first, second = order_of([3, 4]).batches()

    assert first == Batch(number=7, source="anu", n=3, min=1, max=6)
    assert (second.name, second.n) == ("w8", 4)


@pytest.mark.parametrize(
    ("sizes", "requests"),
    [
        ([4], [[4]]),
        ([4, 6], [[4, 6]]),
        ([4, 7], [[4], [7]]),
        ([10, 10], [[10], [10]]),
        ([1, 9, 1, 9, 1], [[1, 9], [1, 9], [1]]),
        ([5, 6, 5], [[5], [6], [5]]),
    ],
)
def test_neighbours_share_a_request_as_long_as_they_fit(
    sizes: list[int], requests: list[list[int]]
) -> None:
    """The cheapest request is the one not sent; batches stay in their order."""
    assert served(order_of(sizes)) == requests


def test_the_lesson_is_one_request_where_1024_numbers_are_allowed() -> None:
    """28 batches, 434 numbers, one question."""
    assert served(order_of(LESSON, max_numbers=1024)) == [list(LESSON)]


def test_batches_that_are_not_merged_go_alone() -> None:
    """Some upstreams are asked once per batch."""
    assert served(order_of([1, 2, 3], is_merged=False)) == [[1], [2], [3]]


@given(st.lists(st.integers(1, LARGEST), min_size=1), st.booleans())
def test_every_batch_is_in_one_request_that_can_bring_it(sizes: list[int], is_merged: bool) -> None:
    """Nothing is lost, doubled or turned round, and no request asks for too much."""
    order = order_of(sizes, is_merged=is_merged)
    fetches = list(order.fetches())

    assert [batch for fetch in fetches for batch in fetch.batches] == list(order.batches())
    assert all(fetch.n <= LARGEST for fetch in fetches)
    assert all(fetch.number == fetch.batches[0].number for fetch in fetches)


@given(st.lists(st.integers(1, LARGEST), min_size=1))
def test_no_two_neighbouring_requests_could_have_been_one(sizes: list[int]) -> None:
    """Merging stops only where the next batch does not fit."""
    for fetch, following in pairwise(order_of(sizes).fetches()):
        assert fetch.n + following.batches[0].n > LARGEST


def test_a_batch_larger_than_a_request_is_refused() -> None:
    """Better before the run than as a failure at every tick of cron."""
    with pytest.raises(ConfigError) as caught:
        order_of([2, 11, 3])

    assert str(caught.value) == (
        "a batch of 11 is more than the 10 numbers in [1, 6] that one request brings;"
        " order several smaller ones"
    )


def test_one_that_was_given_at_the_start_is_a_wrong_command_line() -> None:
    """There is nothing to mend in the file."""
    with pytest.raises(UsageError) as caught:
        order_of(GivenSizes([2, 11, 3]))

    assert str(caught.value).startswith("--batches: sources.")
    assert "a batch of 11 is more than the 10 numbers" in str(caught.value)


def test_an_order_is_walked_over_and_not_held_in_memory() -> None:
    """A range of sizes stays a range; a hundred thousand batches need no list."""
    order = order_of(range(1, 100_001), max_numbers=100_000)

    assert [batch.n for batch in islice(order.batches(), 3)] == [1, 2, 3]
    assert next(order.fetches()).batches[0].n == 1


def test_turns_decide_who_shares_a_request_and_names_stay() -> None:
    """Who was asked for the longest time ago is in the first request, in the order of the file."""
    order = replace(order_of([2, 3, 4, 5], max_numbers=9), turns=(3, 1, 0, 2))

    assert served(order) == [[3, 5], [2, 4]]
    assert [fetch.number for fetch in order.fetches()] == [8, 7]
    assert [batch.number for batch in order.batches()] == [7, 8, 9, 10]


def test_the_smallest_fetch_asks_for_the_smallest_batch() -> None:
    """If that is too much for what is left of a quota, all others are."""
    assert order_of([4, 2, 3]).smallest_fetch().n == 2
