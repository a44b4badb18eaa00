"""Whatever a client sends, the imitations answer: an exception would end the server for all."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sandbox.exchange import Call
from pipeline.sandbox.imitations import KINDS
from pipeline.sandbox.options import RandomNumberApiMode, SandboxOptions
from pipeline.sandbox.server import HOST, Sandbox
from tests.sandbox.support import POLITE

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PARAMS = st.fixed_dictionaries(
    {
        "apiKey": JSON_VALUES | st.just("00000000-0000-4000-8000-000000000000"),
        "n": JSON_VALUES | st.integers(0, 99),
        "min": JSON_VALUES | st.integers(0, 99),
        "max": JSON_VALUES | st.integers(0, 99),
        "base": JSON_VALUES | st.sampled_from([2, 10]),
        "replacement": JSON_VALUES,
    }
)
CALLS = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "method": st.sampled_from(["generateIntegers", "getUsage"]) | JSON_VALUES,
        "params": PARAMS | JSON_VALUES,
        "id": JSON_VALUES,
    }
).map(lambda call: json.dumps(call).encode())
WORDS = st.sampled_from(
    [
        "n",
        "string_length",
        "num",
        "min",
        "max",
        "col",
        "base",
        "format",
        "rnd",
        "length",
        "type",
        "size",
        "count",
    ]
)
VALUES = st.sampled_from(["1", "-1", "9" * 18, "10", "plain", "new", "uint8", "hex16"]) | st.text()
QUERIES = st.lists(st.tuples(WORDS, VALUES), max_size=8).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
PATHS = st.sampled_from(
    [
        "/",
        "/API/jsonI.php",
        "/integers/",
        "/quota/",
        "/api/v1.0/random",
        "/qrng_api/qrng",
        "/api/get_string_get",
        "/csrng/csrng.php",
        "/api/random/ints",
        "/qt/qrng/ints",
    ]
)


def _answer(path: str, body: bytes = b"") -> int:
    call = Call(
        method="POST",
        target=path,
        headers={**POLITE, "content-type": "application/json", "x-api-key": "good"},
        body=body,
        client=HOST,
        port=1,
    )
    statuses = []
    for mode in RandomNumberApiMode:
        options = SandboxOptions(rules=False, random_number_api_mode=mode)
        with Sandbox(options).exchange(call) as response:
            statuses.append(response.status)
    return max(statuses)


@given(body=CALLS | st.binary())
@settings(max_examples=150, deadline=None)
def test_every_call_has_an_answer(body: bytes) -> None:
    """JSON-RPC's parameters may be of any type."""
    assert _answer("/random_org_jsonrpc/json-rpc/4/invoke", body) < 500
    assert _answer("/outshift/api/v1/random_numbers", body) < 500


@given(kind=st.sampled_from(list(KINDS)), path=PATHS, query=QUERIES)
@settings(max_examples=150, deadline=None)
def test_every_query_has_an_answer(kind: str, path: str, query: str) -> None:
    """Parameters may be missing, repeated, huge, or in any script."""
    assert _answer(f"/{kind}{path}?{query}") in {200, 400, 403, 404, 405, 415, 500, 503}


@given(target=st.text())
@settings(max_examples=150, deadline=None)
def test_every_target_has_an_answer(target: str) -> None:
    """Faults are chosen in the path, and so can be misspelled there."""
    assert _answer(f"/~{target}") in {200, 404}
    assert _answer(target) in {200, 404}
