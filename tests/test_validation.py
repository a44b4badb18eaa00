"""Tests for pipeline/validation.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ErrorName, SourceError
from pipeline.validation import check_numbers


def _error(values: list[object], *, n: int = 3, low: int = 1, high: int = 6) -> SourceError:
    with pytest.raises(SourceError) as caught:
        check_numbers(values, n=n, low=low, high=high)
    return caught.value


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=30))
def test_good_numbers_pass_as_they_are(numbers: list[int]) -> None:
    """Order and repeats are the upstream's, and bounds are inclusive however large."""
    checked = check_numbers(numbers, n=len(numbers), low=min(numbers), high=max(numbers))

    assert checked == tuple(numbers)


@pytest.mark.parametrize("value", [5.0, "5", True, None, [5], {"a": 5}, b"5"])
def test_only_integers_are_integers(value: object) -> None:
    """Kind conversions are how `true` and "5" become data."""
    error = _error([1, value, 6])

    assert error.error is ErrorName.SCHEMA
    assert "number 2 of 3" in error.detail


@pytest.mark.parametrize("count", [0, 2, 4])
def test_counts_are_exact_and_both_are_told(count: int) -> None:
    """Which of the two was wrong is what the reader of a report asks first."""
    error = _error([1] * count)

    assert error.error is ErrorName.COUNT
    assert f"{count} numbers" in error.detail
    assert "3" in error.detail


@pytest.mark.parametrize("value", [0, 7, -(2**63), 2**63, 2**64])
def test_a_number_outside_is_named(value: int) -> None:
    """One past each end and what no 64-bit integer holds are the same mistake."""
    error = _error([1, value, 6])

    assert error.error is ErrorName.RANGE
    assert f"{value} is outside [1, 6]" in error.detail


def test_a_huge_number_is_described() -> None:
    """Python refuses to print more than 4300 digits, and the error must not fail itself."""
    error = _error([1, 10**5000, 6])

    assert error.error is ErrorName.RANGE
    assert "16610 bits" in error.detail


def test_nothing_asked_is_nothing_given() -> None:
    """min() of nothing raises a ValueError, which would pass for a bug of ours."""
    assert check_numbers([], n=0, low=1, high=6) == ()
