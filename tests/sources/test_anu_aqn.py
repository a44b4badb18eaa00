"""Tests for pipeline/sources/anu_aqn.py; the document is tested with test_anu_legacy.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ErrorName
from pipeline.sources.anu_aqn import AnuAqn
from pipeline.sources.base import Answer
from tests.sources.samples import (
    FEW_EXAMPLES,
    SECRET,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
    refusal_of,
)

SOURCE = AnuAqn(base_url="https://api.quantumnumbers.anu.edu.au", api_key=SECRET)
PAIRS = fetch_of(3, 0, 65535)
GOOD = {"success": True, "type": "uint16", "length": "3", "data": [51234, 88, 40021]}


def test_the_request_is_the_documented_one() -> None:
    """The key travels in a header, never in the URL that logs show."""
    request = SOURCE.build_request(PAIRS)

    assert str(request.url) == "https://api.quantumnumbers.anu.edu.au/?length=3&type=uint16"
    assert request.headers["x-api-key"] == SECRET


@pytest.mark.parametrize(
    ("high", "size"), [(2**16, 2), (2**24 - 1, 2), (2**32 - 1, 3), (2**159, 10), (2**160 - 1, 10)]
)
def test_a_hex_block_is_two_bytes_here(high: int, size: int) -> None:
    """`hex16&size=4` brought 16 digits: twice what the legacy service brings."""
    assert SOURCE.build_request(fetch_of(1, 0, high)).url.params["size"] == str(size)


def test_a_range_beyond_ten_blocks_is_a_matter_of_configuration() -> None:
    """Of 100 requests a month none may be spent on an error that is known before."""
    assert SOURCE.max_numbers(0, 2**160 - 1) == 1024
    with pytest.raises(ConfigError, match="161 bits per number, this source has 160"):
        SOURCE.max_numbers(0, 2**160)


@pytest.mark.parametrize("length", ["3", 3])
def test_length_comes_in_two_types(length: object) -> None:
    """Recorded as a string; an integer is what the legacy service sends."""
    answer = answer_of({**GOOD, "length": length})

    assert SOURCE.parse_answer(PAIRS, answer) == (51234, 88, 40021)


def test_hex_words_have_four_digits_per_block() -> None:
    """There is no `size` in the answer to tell."""
    fetch = fetch_of(2, 0, 2**32 - 1)
    body = {"success": True, "type": "hex16", "length": "2", "data": ["3f9a11c07be2", "0" * 12]}

    assert SOURCE.parse_answer(fetch, answer_of(body)) == (0x11C07BE2, 0)


@pytest.mark.parametrize(
    ("status", "body", "error", "may_retry"),
    [
        (403, {"message": "Forbidden"}, ErrorName.UNAUTHORIZED, False),
        (403, {"message": "Missing Authentication Token"}, ErrorName.UNAUTHORIZED, False),
        (401, {"message": "Unauthorized"}, ErrorName.UNAUTHORIZED, False),
        (429, {"message": "Limit Exceeded"}, ErrorName.QUOTA_EXHAUSTED, False),
        (429, {"message": "Too Many Requests"}, ErrorName.RATE_LIMITED, True),
        (429, b"", ErrorName.RATE_LIMITED, True),
        (400, {"success": False}, ErrorName.HTTP_4XX, False),
        (400, b"", ErrorName.HTTP_4XX, False),
        (502, {"message": "Internal server error"}, ErrorName.HTTP_5XX, True),
        (504, {"message": "Endpoint request timed out"}, ErrorName.HTTP_5XX, True),
        (200, {"success": False}, ErrorName.REFUSED, False),
        (200, {"success": False, "message": "no"}, ErrorName.REFUSED, False),
        (200, {"message": "Limit Exceeded"}, ErrorName.SCHEMA, False),
        (200, {**GOOD, "data": [1, 2]}, ErrorName.COUNT, False),
        (200, {**GOOD, "data": [1, 2, 65536]}, ErrorName.RANGE, False),
        (200, {**GOOD, "type": "uint8"}, ErrorName.SCHEMA, False),
    ],
)
def test_each_refusal_has_its_name(
    status: int, body: object, error: ErrorName, *, may_retry: bool
) -> None:
    """Of the two kinds of 429, one passes in seconds and one with the month."""
    raised = refusal_of(SOURCE, PAIRS, answer_of(body, status=status))

    assert (raised.error, raised.may_retry) == (error, may_retry)


def test_a_key_that_fails_is_to_be_checked() -> None:
    """The owner reads what to do about it, and not the key."""
    error = refusal_of(SOURCE, PAIRS, answer_of({"message": SECRET}, status=403))

    assert "check the API key" in error.detail
    assert SECRET not in str(error)


def test_a_wait_is_passed_on() -> None:
    """The gateway documents none, but may send one."""
    headers = (("Retry-After", "7"),)
    used_up = answer_of({"message": "Limit Exceeded"}, status=429, headers=headers)
    too_fast = answer_of({"message": "Too Many Requests"}, status=429, headers=headers)

    assert refusal_of(SOURCE, PAIRS, used_up).retry_after == 7.0
    assert refusal_of(SOURCE, PAIRS, too_fast).retry_after == 7.0


@pytest.mark.parametrize("padding", [0, 50, 75])
def test_a_key_echoed_in_a_message_is_blotted_out(padding: int) -> None:
    """Also where the text is cut inside the key."""
    body = {"success": False, "message": "x" * padding + SECRET}

    error = refusal_of(SOURCE, PAIRS, answer_of(body))

    assert SECRET[:4] not in str(error)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
@FEW_EXAMPLES
def test_good_words_are_the_numbers(words: list[int]) -> None:
    """A range of 65536 numbers is what a word is."""
    body = {"success": True, "type": "uint16", "length": str(len(words)), "data": words}

    numbers = SOURCE.parse_answer(fetch_of(len(words), 0, 65535), answer_of(body))

    assert numbers == tuple(words)


@given(st.data())
@FEW_EXAMPLES
def test_a_damaged_answer_breaks_no_promise(data: st.DataObject) -> None:
    """Whatever bytes are lost or changed, numbers are as asked or an error has a name."""
    hold_contract(SOURCE, PAIRS, answer_of(data.draw(mutated(answer_of(GOOD).body))), secret=SECRET)


@given(hostile_answers())
@FEW_EXAMPLES
def test_a_hostile_answer_breaks_no_promise(answer: Answer) -> None:
    """A traceback would stop the other sources too, and a key in an error is published."""
    hold_contract(SOURCE, PAIRS, answer, secret=SECRET)
