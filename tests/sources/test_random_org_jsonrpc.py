"""Tests for pipeline/sources/random_org_jsonrpc.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ErrorName
from pipeline.sources.base import Answer
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
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

SOURCE = RandomOrgJsonrpc(base_url="https://api.random.org", api_key=SECRET)
FETCH = fetch_of(3, 1, 6, number=7)


def _good(data: object, call: object = 7) -> dict[str, object]:
    return {
        "jsonrpc": "2.0",
        "result": {
            "random": {"data": data, "completionTime": "2026-03-02 09:14:07Z"},
            "bitsUsed": 8,
            "bitsLeft": 249992,
            "requestsLeft": 999,
            "advisoryDelay": 1020,
        },
        "id": call,
    }


def _error(code: object, message: object = "no", call: object = 7) -> dict[str, object]:
    error = {"code": code, "message": message, "data": None}
    return {"jsonrpc": "2.0", "error": error, "id": call}


def test_the_request_is_the_documented_one() -> None:
    """A wrong content type is a 415, and without an id the answer is empty."""
    request = SOURCE.build_request(FETCH)

    assert (request.method, str(request.url)) == (
        "POST",
        "https://api.random.org/json-rpc/4/invoke",
    )
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.read()) == {
        "jsonrpc": "2.0",
        "method": "generateIntegers",
        "params": {
            "apiKey": SECRET,
            "n": 3,
            "min": 1,
            "max": 6,
            "replacement": True,
            "base": 10,
        },
        "id": 7,
    }


def test_the_limits_are_random_orgs() -> None:
    """They are the same for both interfaces."""
    assert SOURCE.max_numbers(-(10**9), 10**9) == 10_000
    with pytest.raises(ConfigError):
        SOURCE.max_numbers(5, 5)


def test_the_documented_answer_is_read() -> None:
    """The numbers stand two levels below `result`."""
    assert SOURCE.parse_answer(FETCH, answer_of(_good([4, 1, 6]))) == (4, 1, 6)


@pytest.mark.parametrize(
    ("code", "error", "may_retry"),
    [
        *((code, ErrorName.UNAUTHORIZED, False) for code in (400, 401, 404, 405)),
        *((code, ErrorName.QUOTA_EXHAUSTED, False) for code in (402, 403)),
        *((code, ErrorName.REFUSED, True) for code in (101, 32000, -32603)),
        *((code, ErrorName.REFUSED, False) for code in (-32700, -32600, -32601, -32602)),
        *((code, ErrorName.REFUSED, False) for code in (100, 200, 201, 202, 203, 300, 301, 307)),
        *((code, ErrorName.REFUSED, False) for code in (420, 426, 500, 0, 10**30)),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_error_object_counts_whatever_the_status(
    code: int, error: ErrorName, *, may_retry: bool, status: int
) -> None:
    """Errors come with 200; for some of the codes nobody has recorded the status."""
    raised = refusal_of(SOURCE, FETCH, answer_of(_error(code), status=status))

    assert (raised.error, raised.may_retry) == (error, may_retry)
    assert f"code {code}: 'no'" in raised.detail


def test_an_error_may_come_without_the_id() -> None:
    """JSON-RPC answers a call that could not be read with `id: null`."""
    raised = refusal_of(SOURCE, FETCH, answer_of(_error(-32700, call=None)))

    assert raised.error is ErrorName.REFUSED


def test_an_error_outweighs_a_result() -> None:
    """JSON-RPC forbids both at once; the careful reading is the right one."""
    body = {**_good([4, 1, 6]), **_error(402)}

    assert refusal_of(SOURCE, FETCH, answer_of(body)).error is ErrorName.QUOTA_EXHAUSTED


def test_a_null_error_is_none() -> None:
    """Older JSON-RPC servers send both members always."""
    body = {**_good([4, 1, 6]), "error": None}

    assert SOURCE.parse_answer(FETCH, answer_of(body)) == (4, 1, 6)


@pytest.mark.parametrize(
    "body",
    [
        _error("402"),
        _error(402.0),
        _error(code=True),
        _error(None),
        {"error": "no", "id": 7},
        {"error": {}, "id": 7},
        {"error": [], "id": 7},
    ],
)
def test_an_error_of_another_shape_is_a_breach(body: object) -> None:
    """Guessing at a code could spend the day's allowance on retries."""
    assert refusal_of(SOURCE, FETCH, answer_of(body)).error is ErrorName.SCHEMA


@pytest.mark.parametrize("message", [None, 5, ["no"], {"a": 1}])
def test_a_message_of_another_type_does_no_harm(message: object) -> None:
    """The code decides; the text is for people."""
    raised = refusal_of(SOURCE, FETCH, answer_of(_error(402, message)))

    assert raised.error is ErrorName.QUOTA_EXHAUSTED


@pytest.mark.parametrize("call", [8, "7", 7.0, None, True, [7], {}])
def test_the_id_must_be_the_one_sent(call: object) -> None:
    """An answer to another call holds the numbers of another batch."""
    raised = refusal_of(SOURCE, FETCH, answer_of(_good([4, 1, 6], call)))

    assert raised.error is ErrorName.SCHEMA
    assert "call 7" in raised.detail


@pytest.mark.parametrize("call", [True, 1.0])
def test_one_is_not_true(call: object) -> None:
    """In Python it is."""
    fetch = fetch_of(3, 1, 6, number=1)

    assert refusal_of(SOURCE, fetch, answer_of(_good([4, 1, 6], call))).error is ErrorName.SCHEMA


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answer_of(b"", status=204, content_type=None), ErrorName.SCHEMA),
        (answer_of(b"forbidden", status=403, content_type="text/plain"), ErrorName.UNAUTHORIZED),
        (answer_of(b"", status=405), ErrorName.HTTP_4XX),
        (answer_of(b"", status=415), ErrorName.HTTP_4XX),
        (answer_of({}, status=503), ErrorName.HTTP_5XX),
        (answer_of(_good([4, 1, 6]), status=500), ErrorName.HTTP_5XX),
        (answer_of(b"<html>", content_type="text/html"), ErrorName.CONTENT_TYPE),
        (answer_of(b"{"), ErrorName.NOT_JSON),
        (answer_of(b"null"), ErrorName.SCHEMA),
        (answer_of([_good([4, 1, 6])]), ErrorName.SCHEMA),
        (answer_of({"jsonrpc": "2.0", "id": 7}), ErrorName.SCHEMA),
        (answer_of({"jsonrpc": "2.0", "result": None, "id": 7}), ErrorName.SCHEMA),
        (answer_of({"jsonrpc": "2.0", "result": {"random": []}, "id": 7}), ErrorName.SCHEMA),
        (answer_of(_good(None)), ErrorName.SCHEMA),
        (answer_of(_good(["4", "1", "6"])), ErrorName.SCHEMA),
        (answer_of(_good([4, 1, 6.0])), ErrorName.SCHEMA),
        (answer_of(_good([4, 1])), ErrorName.COUNT),
        (answer_of(_good([4, 1, 6, 6])), ErrorName.COUNT),
        (answer_of(_good([4, 1, 7])), ErrorName.RANGE),
        (answer_of(_good([4, 1, 0])), ErrorName.RANGE),
    ],
)
def test_each_failure_has_its_name(answer: Answer, error: ErrorName) -> None:
    """The transport's refusals carry no JSON, and the contract has many ways to break."""
    assert refusal_of(SOURCE, FETCH, answer).error is error


@pytest.mark.parametrize("padding", [0, 20, 60, 79])
def test_a_key_echoed_in_a_message_is_blotted_out(padding: int) -> None:
    """Errors are stored, printed and mailed; also where the text is cut inside the key."""
    message = "x" * padding + SECRET

    raised = refusal_of(SOURCE, FETCH, answer_of(_error(400, message)))

    assert SECRET[:4] not in str(raised)


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=50), st.integers(0, 10**6))
@FEW_EXAMPLES
def test_good_data_are_the_numbers(numbers: list[int], call: int) -> None:
    """Bounds are inclusive at both ends."""
    fetch = fetch_of(len(numbers), -(10**9), 10**9, number=call)

    assert SOURCE.parse_answer(fetch, answer_of(_good(numbers, call))) == tuple(numbers)


@given(st.data())
@FEW_EXAMPLES
def test_a_damaged_answer_breaks_no_promise(data: st.DataObject) -> None:
    """Whatever bytes are lost or changed, numbers are as asked or an error has a name."""
    good = data.draw(st.sampled_from([_good([4, 1, 6]), _error(402, SECRET)]))

    hold_contract(SOURCE, FETCH, answer_of(data.draw(mutated(answer_of(good).body))), secret=SECRET)


@given(hostile_answers())
@FEW_EXAMPLES
def test_a_hostile_answer_breaks_no_promise(answer: Answer) -> None:
    """A traceback would stop the other sources too, and a key in an error is published."""
    hold_contract(SOURCE, FETCH, answer, secret=SECRET)
