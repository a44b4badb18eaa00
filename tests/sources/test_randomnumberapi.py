"""Tests for pipeline/sources/randomnumberapi.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ErrorName
from pipeline.models import Fetch
from pipeline.sources.base import Answer
from pipeline.sources.randomnumberapi import RandomNumberApi
from tests.sources.samples import (
    FEW_EXAMPLES,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
    refusal_of,
)

SOURCE = RandomNumberApi(base_url="https://www.randomnumberapi.com")
FETCH = fetch_of(3, 1, 6)


@pytest.mark.parametrize(
    ("low", "high", "query"),
    [
        (0, 100, "min=0&max=101"),
        (1, 6, "min=1&max=7"),
        (5, 5, "min=5&max=6"),
        (-10, 10, "min=0&max=21"),
        (-10, -5, "min=0&max=6"),
    ],
)
def test_max_is_exclusive_and_min_never_negative(low: int, high: int, query: str) -> None:
    """The server of 2023 replaces a negative min by 0 and says nothing."""
    url = SOURCE.build_request(fetch_of(3, low, high)).url

    assert str(url) == f"https://www.randomnumberapi.com/api/v1.0/random?{query}&count=3"


@pytest.mark.parametrize(("low", "high"), [(0, 2**63 - 2), (-(2**62), 2**62 - 2), (0, 0)])
def test_a_hundred_numbers_are_the_most(low: int, high: int) -> None:
    """For 101 the server of 2023 sends one, and a bound beyond its integers becomes a default."""
    assert SOURCE.max_numbers(low, high) == 100


@pytest.mark.parametrize(("low", "high"), [(0, 2**63 - 1), (-1, 2**63 - 2), (-(2**63), 0)])
def test_a_range_beyond_its_integers_is_a_matter_of_configuration(low: int, high: int) -> None:
    """The exclusive max must fit as well."""
    with pytest.raises(ConfigError, match="beyond the server's integers"):
        SOURCE.max_numbers(low, high)


@pytest.mark.parametrize("body", [b"[3, 1, 6]", b"[3,1,6]\n"])
def test_an_array_is_read(body: bytes) -> None:
    """The Python server puts blanks, the Go server a line end."""
    assert SOURCE.parse_answer(FETCH, answer_of(body)) == (3, 1, 6)


def test_a_negative_range_is_shifted_back() -> None:
    """It was asked from 0."""
    fetch = fetch_of(3, -10, -5)

    assert SOURCE.parse_answer(fetch, answer_of([0, 5, 3])) == (-10, -5, -7)


@pytest.mark.parametrize(("fetch", "body"), [(FETCH, [3, 1, 7]), (fetch_of(3, -10, -5), [0, 6, 3])])
def test_the_inclusive_server_gives_itself_away(fetch: Fetch, body: list[int]) -> None:
    """The server before 2023 draws max as well: 1 in R + 1 numbers would be outside."""
    error = refusal_of(SOURCE, fetch, answer_of(body))

    assert error.error is ErrorName.RANGE
    assert "the server treats max as inclusive" in error.detail


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (answer_of({"error": "count is too large"}, status=400), ErrorName.HTTP_4XX, "too large"),
        (answer_of({"error": "Bad Gateway"}, status=502), ErrorName.HTTP_5XX, "Bad Gateway"),
        (answer_of({"error": "Not Allowed"}, status=405), ErrorName.HTTP_4XX, "status 405"),
        (answer_of({"error": "\x1b[2J"}), ErrorName.REFUSED, "\\x1b[2J"),
        (answer_of({"error": None}), ErrorName.REFUSED, "null"),
        (answer_of({"message": {"min": "no int"}}, status=400), ErrorName.HTTP_4XX, "status 400"),
        (answer_of(b"<html>", status=500, content_type="text/html"), ErrorName.HTTP_5XX, "500"),
        (answer_of([3, 1, 6], status=500), ErrorName.HTTP_5XX, "status 500"),
        (answer_of(b"", status=429, content_type=None), ErrorName.RATE_LIMITED, "status 429"),
        (answer_of(b"<html>", content_type="text/html"), ErrorName.CONTENT_TYPE, "text/html"),
        (answer_of(b"[3, 1"), ErrorName.NOT_JSON, ""),
        (answer_of({"data": [3, 1, 6]}), ErrorName.SCHEMA, "not an array"),
        (answer_of(b"3"), ErrorName.SCHEMA, "not an array"),
        (answer_of(["3", "1", "6"]), ErrorName.SCHEMA, "str"),
        (answer_of([3, 1, 6.5]), ErrorName.SCHEMA, "a number with a fraction"),
        (answer_of([3]), ErrorName.COUNT, "1 numbers instead of 3"),
        (answer_of([]), ErrorName.COUNT, "0 numbers"),
        (answer_of([3, 1, 6, 2]), ErrorName.COUNT, "4 numbers"),
        (answer_of([3, 1, 0]), ErrorName.RANGE, "0 is outside"),
        (answer_of([3, 1, 101]), ErrorName.RANGE, "101 is outside"),
    ],
)
def test_each_failure_has_its_name(answer: Answer, error: ErrorName, words: str) -> None:
    """A silent default shows only in the count and in the range."""
    raised = refusal_of(SOURCE, FETCH, answer)

    assert raised.error is error
    assert words in raised.detail


@given(st.data(), st.integers(-(2**60), 2**60), st.integers(1, 2**60))
@FEW_EXAMPLES
def test_good_arrays_are_the_numbers(data: st.DataObject, low: int, span: int) -> None:
    """Through the shift and back, whatever the sign."""
    high = low + span - 1
    numbers = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=20))
    fetch = fetch_of(len(numbers), low, high)
    asked = int(SOURCE.build_request(fetch).url.params["min"])

    read = SOURCE.parse_answer(fetch, answer_of([x - low + asked for x in numbers]))

    assert read == tuple(numbers)


@given(st.data())
@FEW_EXAMPLES
def test_a_damaged_answer_breaks_no_promise(data: st.DataObject) -> None:
    """Whatever bytes are lost or changed, numbers are as asked or an error has a name."""
    fetch = data.draw(st.sampled_from([FETCH, fetch_of(3, -10, 10)]))

    hold_contract(SOURCE, fetch, answer_of(data.draw(mutated(b"[3, 1, 6]\n"))))


@given(hostile_answers())
@FEW_EXAMPLES
def test_a_hostile_answer_breaks_no_promise(answer: Answer) -> None:
    """A traceback would stop the other sources too."""
    hold_contract(SOURCE, FETCH, answer)
