"""Tests for pipeline/sources/anu_legacy.py, and for what both ANU services share in anu.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ErrorName
from pipeline.models import Fetch
from pipeline.sources.anu_legacy import AnuLegacy
from pipeline.sources.base import Answer
from tests.sources.samples import (
    FEW_EXAMPLES,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
    refusal_of,
)

SOURCE = AnuLegacy(base_url="https://qrng.anu.edu.au")
BYTES = fetch_of(3, 0, 255)
GOOD = {"type": "uint8", "length": 3, "data": [17, 204, 95], "success": True}
REFUSAL = (
    "The QRNG API is limited to 1 requests per minute. For more requests, please visit "
    "https://quantumnumbers.anu.edu.au or contact qrng@anu.edu.au."
)


def _query(fetch: Fetch) -> dict[str, str]:
    return dict(SOURCE.build_request(fetch).url.params)


def _good_answer(fetch: Fetch, words: list[int]) -> Answer:
    """Answer *fetch* as the service would, with *words* repeated as often as it takes."""
    query = _query(fetch)
    length = int(query["length"])
    data: list[int | str] = [words[i % len(words)] for i in range(length)]
    if query["type"] == "hex16":
        data = [f"{word:0{2 * int(query['size'])}x}" for word in data]
    return answer_of({"type": query["type"], "length": length, "data": data, "success": True})


def test_the_request_is_the_documented_one() -> None:
    """A missing `type` is an error upstream, a `size` belongs to hex only."""
    request = SOURCE.build_request(BYTES)

    assert request.method == "GET"
    assert str(request.url) == "https://qrng.anu.edu.au/API/jsonI.php?length=3&type=uint8"


@pytest.mark.parametrize(
    ("low", "high", "query"),
    [
        (0, 255, {"type": "uint8", "length": "100"}),
        (-8, 7, {"type": "uint8", "length": "100"}),
        (5, 5, {"type": "uint8", "length": "100"}),
        (0, 65535, {"type": "uint16", "length": "100"}),
        (1, 100, {"type": "uint16", "length": "105"}),
        (0, 65536, {"type": "hex16", "size": "4", "length": "101"}),
        (0, 2**32 - 1, {"type": "hex16", "size": "5", "length": "100"}),
        (-(2**63), 2**63 - 1, {"type": "hex16", "size": "9", "length": "100"}),
        (1, 256**1024, {"type": "hex16", "size": "1024", "length": "100"}),
    ],
)
def test_the_type_fits_the_range(low: int, high: int, query: dict[str, str]) -> None:
    """Bytes where none is rejected, pairs up to 65536 numbers, hex beyond, and a few to spare."""
    assert _query(fetch_of(100, low, high)) == query


def test_one_request_brings_what_1024_words_bring() -> None:
    """The service allows one request a minute, so batches share it."""
    assert SOURCE.max_numbers(0, 255) == 1024
    assert SOURCE.max_numbers(0, 65535) == 1024
    assert 1000 < SOURCE.max_numbers(1, 100) < 1024
    assert 400 < SOURCE.max_numbers(0, 32768) < 512


def test_a_range_beyond_the_longest_word_is_a_matter_of_configuration() -> None:
    """Asking anyway would cost a minute to learn the same."""
    with pytest.raises(ConfigError, match="8193 bits per number, this source has 8192"):
        SOURCE.max_numbers(0, 256**1024)


def test_recorded_forms_are_read() -> None:
    """Key order and the integer `length` are as the service has sent them."""
    body = b'{"type":"uint8","length":3,"data":[17,204,95],"success":true}'

    assert SOURCE.parse_answer(BYTES, answer_of(body)) == (17, 204, 95)


@pytest.mark.parametrize("label", ["hex16", "string"])
@pytest.mark.parametrize("echo", [{}, {"size": 4}, {"size": "4"}])
def test_hex_goes_by_two_labels(label: str, echo: dict[str, object]) -> None:
    """Older clients saw `string` where `hex16` was asked."""
    fetch = fetch_of(1, 0, 2**20 - 1)
    body = {"type": label, "length": 1, **echo, "data": ["00abcdef"], "success": True}

    assert SOURCE.parse_answer(fetch, answer_of(body)) == (0xBCDEF,)


def test_length_may_be_a_string() -> None:
    """The newer service of the same house sends it so."""
    assert SOURCE.parse_answer(BYTES, answer_of({**GOOD, "length": "3"})) == (17, 204, 95)


@pytest.mark.parametrize("status", [200, 429, 500, 503])
@pytest.mark.parametrize("content_type", ["text/html", "application/json", None])
def test_the_refusal_counts_whatever_its_status(status: int, content_type: str | None) -> None:
    """It was seen as 500 and as 200; a quick retry of a 500 would never end."""
    answer = answer_of(REFUSAL, status=status, content_type=content_type)

    error = refusal_of(SOURCE, BYTES, answer)

    assert error.error is ErrorName.RATE_LIMITED
    assert error.retry_after == 60.0
    assert f"status {status}" in error.detail


def test_a_longer_wait_than_a_minute_is_respected() -> None:
    """No Retry-After was ever seen here; if one comes, it is the better word."""
    answer = answer_of(REFUSAL, status=500, headers=(("Retry-After", "90"),))

    assert refusal_of(SOURCE, BYTES, answer).retry_after == 90.0


def test_the_refusal_inside_json_counts_as_well() -> None:
    """The words decide, not the wrapping."""
    body = {"success": False, "message": REFUSAL}

    assert refusal_of(SOURCE, BYTES, answer_of(body)).error is ErrorName.RATE_LIMITED


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answer_of(b"", status=503, content_type=None), ErrorName.HTTP_5XX),
        (answer_of(b"<html>fault", status=500, content_type="text/html"), ErrorName.HTTP_5XX),
        (answer_of(b"<html>maintenance", content_type="text/html"), ErrorName.CONTENT_TYPE),
        (answer_of(b"", status=204, content_type=None), ErrorName.SCHEMA),
        (answer_of(b""), ErrorName.NOT_JSON),
        (answer_of(b"null"), ErrorName.SCHEMA),
        (answer_of([17, 204, 95]), ErrorName.SCHEMA),
        (answer_of({}), ErrorName.SCHEMA),
    ],
)
def test_an_answer_without_a_document_is_named(answer: Answer, error: ErrorName) -> None:
    """Each tells its owner something else: overload, maintenance, a changed contract."""
    assert refusal_of(SOURCE, BYTES, answer).error is error


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"success": False}, ErrorName.REFUSED),
        ({"success": "true"}, ErrorName.SCHEMA),
        ({"success": 1}, ErrorName.SCHEMA),
        ({"success": None}, ErrorName.SCHEMA),
        ({"type": "uint16"}, ErrorName.SCHEMA),
        ({"type": "string"}, ErrorName.SCHEMA),
        ({"type": ["uint8"]}, ErrorName.SCHEMA),
        ({"size": 1}, ErrorName.SCHEMA),
        ({"length": 4}, ErrorName.COUNT),
        ({"length": "03"}, ErrorName.COUNT),
        ({"length": "\u0663"}, ErrorName.COUNT),
        ({"length": True}, ErrorName.SCHEMA),
        ({"length": 3.0}, ErrorName.SCHEMA),
        ({"length": " 3"}, ErrorName.SCHEMA),
        ({"length": None}, ErrorName.SCHEMA),
        ({"data": [17, 204]}, ErrorName.COUNT),
        ({"data": [17, 204, 95, 1]}, ErrorName.COUNT),
        ({"data": []}, ErrorName.COUNT),
        ({"data": [17, 204, 256]}, ErrorName.RANGE),
        ({"data": [17, 204, -1]}, ErrorName.RANGE),
        ({"data": [17, 204, 2**64]}, ErrorName.RANGE),
        ({"data": [17, 204, 95.0]}, ErrorName.SCHEMA),
        ({"data": [17, 204, "95"]}, ErrorName.SCHEMA),
        ({"data": [17, 204, True]}, ErrorName.SCHEMA),
        ({"data": [17, 204, None]}, ErrorName.SCHEMA),
        ({"data": [17, 204, [95]]}, ErrorName.SCHEMA),
        ({"data": "ab0"}, ErrorName.SCHEMA),
        ({"data": None}, ErrorName.SCHEMA),
    ],
)
def test_a_document_that_is_not_as_asked_is_named(
    change: dict[str, object], error: ErrorName
) -> None:
    """One wrong member, and nothing of the answer is used."""
    assert refusal_of(SOURCE, BYTES, answer_of({**GOOD, **change})).error is error


@pytest.mark.parametrize("key", ["success", "type", "length", "data"])
def test_no_member_may_be_missing(key: str) -> None:
    """What is not echoed cannot be compared with what was asked."""
    body = {name: value for name, value in GOOD.items() if name != key}

    error = refusal_of(SOURCE, BYTES, answer_of(body))

    assert error.error is ErrorName.SCHEMA
    assert key in error.detail


def test_a_refusals_message_is_kept() -> None:
    """It is the only reason that anybody will ever see."""
    body = {"success": False, "message": "device \x1b[31m offline"}

    assert "device \\x1b[31m offline" in refusal_of(SOURCE, BYTES, answer_of(body)).detail


@pytest.mark.parametrize(
    "word", ["abc", "00abcdef0", "0xabcdef", "00abcdeg", " 0abcdef", "00_bcdef", "\u0661" * 8, 5]
)
def test_a_hex_word_of_another_shape_is_never_reinterpreted(word: object) -> None:
    """Half a word is still a number, and int() takes several of these."""
    fetch = fetch_of(1, 0, 2**20 - 1)
    body = {"type": "hex16", "length": 1, "data": [word], "success": True}

    assert refusal_of(SOURCE, fetch, answer_of(body)).error is ErrorName.SCHEMA


def test_hex_words_are_counted() -> None:
    """A short block must not become a short batch."""
    fetch = fetch_of(2, 0, 2**20 - 1)
    body = {"type": "hex16", "length": 2, "data": ["00000000"], "success": True}

    assert refusal_of(SOURCE, fetch, answer_of(body)).error is ErrorName.COUNT


def test_too_many_rejected_words_are_a_short_answer() -> None:
    """Its chance is below 1e-9, unless the upstream sends the same word again and again."""
    error = refusal_of(SOURCE, fetch_of(10, 1, 100), _good_answer(fetch_of(10, 1, 100), [65535]))

    assert error.error is ErrorName.COUNT
    assert "0 numbers instead of 10" in error.detail


@given(st.data(), st.integers(1, 300), st.integers(-(2**40), 2**40), st.integers(1, 2**40))
@FEW_EXAMPLES
def test_good_words_become_the_numbers_they_stand_for(
    data: st.DataObject, n: int, low: int, span: int
) -> None:
    """Words low enough to be accepted come out shifted, in order, and cut to what was asked."""
    wanted = data.draw(st.lists(st.integers(0, min(span, 256) - 1), min_size=1, max_size=8))
    fetch = fetch_of(n, low, low + span - 1)

    numbers = SOURCE.parse_answer(fetch, _good_answer(fetch, wanted))

    assert numbers == tuple(low + wanted[i % len(wanted)] for i in range(n))


@given(st.data())
@FEW_EXAMPLES
def test_a_damaged_answer_breaks_no_promise(data: st.DataObject) -> None:
    """Whatever bytes are lost or changed, numbers are as asked or an error has a name."""
    fetch = data.draw(st.sampled_from([BYTES, fetch_of(2, 0, 9), fetch_of(1, 0, 2**20 - 1)]))
    body = data.draw(mutated(_good_answer(fetch, [17, 4]).body))

    hold_contract(SOURCE, fetch, answer_of(body))


@given(hostile_answers())
@FEW_EXAMPLES
def test_a_hostile_answer_breaks_no_promise(answer: Answer) -> None:
    """A traceback would stop the other sources too."""
    hold_contract(SOURCE, BYTES, answer)
