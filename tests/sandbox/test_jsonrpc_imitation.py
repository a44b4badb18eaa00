"""Tests for pipeline/sandbox/random_org_jsonrpc.py."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from pipeline.sandbox.exchange import Response
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.random_org_jsonrpc import PATH, STOPPED_KEY, RandomOrgJsonRpc
from pipeline.sandbox.rsa import CERTIFICATE
from tests.sandbox.support import NOON, make_request

KEY = "00000000-0000-4000-8000-000000000000"
PARAMS = {"apiKey": KEY, "n": 3, "min": 1, "max": 6}
LARGE: dict[str, object] = {
    "n": 10_000,
    "min": 0,
    "max": 2**20 - 1,
}  # 200 000 of the day's 250 000 bits
WITHOUT = "without replacement but the domain you specified only contains"
JSON_HEADERS = {"content-type": "application/json; charset=utf-8"}


def _upstream(*, rules: bool = True) -> RandomOrgJsonRpc:
    return RandomOrgJsonRpc(SandboxOptions(rules=rules))


def _send(
    upstream: RandomOrgJsonRpc,
    body: bytes,
    *,
    seconds: float = 0.0,
    utc: datetime = NOON,
    in_flight: int = 0,
) -> Response:
    request = make_request(
        PATH,
        method="POST",
        headers=JSON_HEADERS,
        body=body,
        seconds=seconds,
        utc=utc,
        in_flight=in_flight,
    )
    return upstream.answer(request)


def _call(method: str = "generateIntegers", /, **changed: object) -> bytes:
    call = {"jsonrpc": "2.0", "method": method, "params": PARAMS | changed, "id": 7}
    return json.dumps(call).encode()


def _error(upstream: RandomOrgJsonRpc, body: bytes) -> dict[str, Any]:
    response = _send(upstream, body)
    assert response.status == 200
    answer = json.loads(response.body)
    assert list(answer) == ["jsonrpc", "error", "id"]
    error: dict[str, Any] = answer["error"]
    return error


def test_integers_come_as_recorded() -> None:
    """Key order, compact writing, and a blank in the time stamp."""
    assert re.fullmatch(
        rb'\{"jsonrpc":"2.0","result":\{"random":\{"data":\[[1-6],[1-6],[1-6]\],'
        rb'"completionTime":"2026-11-22 12:00:00Z"\},"bitsUsed":8,"bitsLeft":249992,'
        rb'"requestsLeft":999,"advisoryDelay":60\},"id":7\}',
        _send(_upstream(), _call()).body,
    )


def test_another_base_makes_strings() -> None:
    """A client that asks for one must not find JSON numbers."""
    data = json.loads(_send(_upstream(), _call(base=2)).body)["result"]["random"]["data"]

    assert all(re.fullmatch("[01]+", each) for each in data)


def test_without_replacement_no_number_comes_twice() -> None:
    """As many as the domain holds is the most that can be asked for."""
    answer = json.loads(_send(_upstream(), _call(n=6, replacement=False)).body)

    assert sorted(answer["result"]["random"]["data"]) == [1, 2, 3, 4, 5, 6]


def test_usage_is_told_for_nothing() -> None:
    """Asking what is left must not use it up."""
    upstream = _upstream()
    _send(upstream, _call())

    usage = [json.loads(_send(upstream, _call("getUsage")).body)["result"] for _ in range(2)]

    assert usage[0] == usage[1]
    assert usage[0] == {
        "status": "running",
        "creationTime": "2013-02-01 17:53:40Z",
        "bitsLeft": 249992,
        "requestsLeft": 999,
        "totalBits": 8,
        "totalRequests": 1,
    }


@pytest.mark.parametrize(
    ("changed", "code", "message", "data"),
    [
        (
            {"n": 100_000},
            202,
            "Parameter 'n' is out of range; allowable values are [1,10000]",
            ["n", 1, 10_000],
        ),
        ({"n": "3"}, 200, "Parameter 'n' is malformed", ["n"]),
        ({"n": True}, 200, "Parameter 'n' is malformed", ["n"]),
        ({"n": None}, -32602, "Invalid params", None),
        ({"base": 7}, 201, "Parameter 'base' has illegal value", ["base"]),
        ({"base": []}, 201, "Parameter 'base' has illegal value", ["base"]),
        ({"min": 6}, 300, "Parameter 'min' must be less than parameter 'max'", ["min", "max"]),
        (
            {"n": 7, "replacement": False},
            301,
            f"You requested 7 values {WITHOUT} 6",
            [7, 6],
        ),
        (
            {"pregeneratedRandomization": {"id": "x"}},
            100,
            "Pregenerated randomization is not imitated here",
            None,
        ),
        ({"apiKey": 5}, 200, "Parameter 'apiKey' is malformed", ["apiKey"]),
        (
            {"apiKey": "11111111-0000-4000-8000-000000000000"},
            400,
            "The API key you specified does not exist",
            None,
        ),
        ({"apiKey": STOPPED_KEY}, 401, "The API key you specified is not running", None),
    ],
)
def test_errors_have_the_published_codes(
    changed: dict[str, Any], code: int, message: str, data: list[Any] | None
) -> None:
    """They hide behind status 200; the code is what clients match on."""
    error = _error(_upstream(), _call(**changed))

    assert error == {"code": code, "message": message, "data": data}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"[" * 20_000, -32700),
        (b"\xff", -32700),
        (b"[]", -32600),
        (b'{"jsonrpc":"1.0","method":"getUsage","id":1}', -32600),
        (b'{"jsonrpc":"2.0","method":5,"id":1}', -32600),
        (b'{"jsonrpc":"2.0","method":"getUsage","id":[[]]}', -32600),
        (b'{"jsonrpc":"2.0","method":"getUsage","id":1}', -32602),
        (b'{"jsonrpc":"2.0","method":"generateGaussians","params":{},"id":1}', -32601),
    ],
)
def test_a_call_that_is_none_is_told_so(body: bytes, code: int) -> None:
    """The transport's own codes, for a client that builds its calls wrongly."""
    assert _error(_upstream(), body)["code"] == code


def test_a_day_has_a_thousand_requests() -> None:
    """402 lasts to midnight UTC: asking on is a violation."""
    upstream = _upstream()
    for _ in range(1000):
        _send(upstream, _call(n=1))

    refused = _send(upstream, _call(n=1))
    tomorrow = _send(upstream, _call(n=1), utc=NOON + timedelta(days=1))

    assert json.loads(refused.body)["error"] == {
        "code": 402,
        "message": "The operation requires 1 requests, but the API key only has 0 left",
        "data": [1, 0],
    }
    assert refused.violations == ("quota",)
    assert json.loads(tomorrow.body)["result"]["requestsLeft"] == 999


def test_too_many_bits_are_refused_while_fewer_pass() -> None:
    """403 concerns this request's size, not the day."""
    upstream = _upstream()
    _send(upstream, _call(**LARGE))

    refused = _error(upstream, _call(**LARGE))

    assert refused == {
        "code": 403,
        "message": "The operation requires 200000 bits, but the API key only has 50000 left",
        "data": [200_000, 50_000],
    }
    assert "result" in json.loads(_send(upstream, _call()).body)


def test_who_does_not_wait_as_advised_is_noticed() -> None:
    """The answer's advisoryDelay is a rule, although nothing enforces it at once."""
    upstream = _upstream()
    _send(upstream, _call(), seconds=10)

    too_early = _send(upstream, _call(), seconds=10.05)
    in_time = _send(upstream, _call(), seconds=10.2)

    assert (too_early.violations, in_time.violations) == (("advisory_delay",), ())


def test_two_calls_in_flight_are_noticed() -> None:
    """Calls are to be sent one after the other."""
    response = _send(_upstream(), _call(), in_flight=1)

    assert response.violations == ("in_flight",)


def test_without_rules_every_key_is_good_and_nobody_counts() -> None:
    """A benchmark wants the wire format at full speed."""
    upstream = _upstream(rules=False)
    body = _call(**LARGE, apiKey="11111111-0000-4000-8000-000000000000")

    answers = [json.loads(_send(upstream, body, in_flight=1).body) for _ in range(3)]

    assert all("result" in answer for answer in answers)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("GET", JSON_HEADERS, 405), ("POST", {"content-type": "text/plain"}, 415), ("POST", {}, 415)],
)
def test_the_transport_is_checked_before_the_call(
    method: str, headers: dict[str, str], status: int
) -> None:
    """Here, and only here, the HTTP status tells."""
    request = make_request(PATH, method=method, headers=headers, body=_call())

    assert _upstream().answer(request).status == status


def test_another_path_is_not_found() -> None:
    """Release 2 has other rules and is not imitated."""
    assert _upstream().answer(make_request("/json-rpc/2/invoke", method="POST")).status == 404


def test_a_call_without_an_id_gets_no_content() -> None:
    """A notification is carried out and not answered."""
    upstream = _upstream()
    call = {"jsonrpc": "2.0", "method": "generateIntegers", "params": PARAMS}

    response = _send(upstream, json.dumps(call).encode())

    assert (response.status, response.body) == (204, b"")
    usage = json.loads(_send(upstream, _call("getUsage")).body)["result"]
    assert usage["totalRequests"] == 1


@pytest.mark.parametrize(("body", "call_id"), [(_call(), 7), (b"?", None)])
def test_a_refusal_on_demand_echoes_the_id(body: bytes, call_id: int | None) -> None:
    """A fault must not be told from the real thing by its id."""
    request = make_request(PATH, method="POST", body=body)

    answer = json.loads(_upstream().refuse(request).body)

    assert (answer["error"]["code"], answer["id"]) == (402, call_id)


def test_what_was_signed_is_given_again_free_of_charge() -> None:
    """To the key that it was signed for, by its number."""
    upstream = _upstream()
    signed = json.loads(_send(upstream, _call("generateSignedIntegers", userData="1/0")).body)

    again = json.loads(_send(upstream, _call("getResult", serialNumber=1)).body)

    for each in ("random", "signature", "bitsLeft", "requestsLeft"):
        assert again["result"][each] == signed["result"][each]
    assert again["result"]["bitsUsed"] == 0
    other = f"{KEY[:-1]}1"
    assert _error(upstream, _call("getResult", serialNumber=1, apiKey=other))["code"] == 303
    assert _error(upstream, _call("getResult", serialNumber=2))["code"] == 303


def test_the_certificate_of_its_key_is_served() -> None:
    """For whoever pins it."""
    assert _upstream().answer(make_request("/server.crt")).body == CERTIFICATE.encode()
