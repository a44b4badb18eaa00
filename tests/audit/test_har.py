"""HAR 1.2: every field that the format wants, and the truth in it."""

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from pipeline.audit.har import har_chunks, har_entry
from pipeline.errors import ErrorName, Phase
from pipeline.models import Attempt, AttemptRecord, Evidence, Request, Timings
from tests.store.makers import make_attempt, make_failed_attempt

TEXT: dict[str, Any] = {"type": "string"}
SIZE = {"type": "integer", "minimum": -1}
PASSED = {"type": "number", "minimum": 0}
PASSED_OR_NOT = {"anyOf": [PASSED, {"const": -1}]}


def record_of(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe an object: other fields must begin with an underscore, a comment is always fine."""
    return {
        "type": "object",
        "properties": required | (optional or {}) | {"comment": TEXT},
        "required": list(required),
        "patternProperties": {"^_": {}},
        "additionalProperties": False,
    }


def list_of(element: dict[str, Any]) -> dict[str, Any]:
    """Describe a list."""
    return {"type": "array", "items": element}


# Written down from the field lists of http://www.softwareishard.com/blog/har-12-spec/.
PAIR = record_of({"name": TEXT, "value": TEXT})
MESSAGE = {
    "httpVersion": TEXT,
    "cookies": list_of(PAIR),
    "headers": list_of(PAIR),
    "headersSize": SIZE,
    "bodySize": SIZE,
}
POST_DATA = record_of({"mimeType": TEXT, "params": list_of(PAIR), "text": TEXT})
CONTENT = record_of(
    {"size": SIZE, "mimeType": TEXT},
    {"compression": SIZE, "text": TEXT, "encoding": TEXT},
)
REQUEST = record_of(
    {"method": TEXT, "url": TEXT | {"format": "uri"}, "queryString": list_of(PAIR), **MESSAGE},
    {"postData": POST_DATA},
)
RESPONSE = record_of(
    {
        "status": {"type": "integer", "minimum": 0},
        "statusText": TEXT,
        "content": CONTENT,
        "redirectURL": TEXT,
        **MESSAGE,
    }
)
TIMINGS = record_of(
    {"send": PASSED, "wait": PASSED, "receive": PASSED},
    dict.fromkeys(("blocked", "dns", "connect", "ssl"), PASSED_OR_NOT),
)
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)$"
ENTRY = record_of(
    {
        "startedDateTime": TEXT | {"pattern": MOMENT},
        "time": PASSED,
        "request": REQUEST,
        "response": RESPONSE,
        "cache": record_of({}),
        "timings": TIMINGS,
    },
    {"pageref": TEXT, "serverIPAddress": TEXT, "connection": TEXT},
)
CREATOR = record_of({"name": TEXT, "version": TEXT})
LOG = {"version": {"const": "1.2"}, "creator": CREATOR, "entries": list_of(ENTRY)}
HAR = record_of({"log": record_of(LOG)})

REQUEST_KEPT = Request(
    method="POST",
    url="https://example.org/v1?n=5&x=&k=${KEY}",
    headers=(("Content-Type", "application/json"), ("x-api-key", "${KEY}")),
    body=b'{"apiKey":"${KEY}"}',
)
ALL_PHASES = Timings(
    wait_us=1_000,
    dns_us=2_500,
    connect_us=4_000,
    tls_us=8_000,
    send_us=16_000,
    first_byte_us=32_000,
    body_us=64_000,
    check_us=128_000,
)


def kept(body: bytes, *, body_bytes: int | None = None, status: int = 503) -> Evidence:
    """Keep an answer."""
    headers = (("content-type", "text/plain"), ("Location", "/there"))
    size = len(body) if body_bytes is None else body_bytes
    return Evidence(status=status, headers=headers, body=body, body_bytes=size)


def numbered(attempt: Attempt, id_: int = 17) -> AttemptRecord:
    """Give an attempt its place in the store."""
    return AttemptRecord(id=id_, run_id=3, attempt=attempt, evidence=None)


def entry_of(attempt: Attempt) -> dict[str, Any]:
    """Make the entry of an attempt, hold it to the format, and read it back."""
    document = json.loads(b"".join(har_chunks([numbered(attempt)])))
    jsonschema.validate(document, HAR, jsonschema.Draft202012Validator)
    (entry,) = document["log"]["entries"]
    assert entry == json.loads(json.dumps(har_entry(numbered(attempt))))
    assert isinstance(entry, dict)
    return entry


def test_the_phases_are_those_of_a_browser() -> None:
    """There ``connect`` takes in TLS; the total counts it once, and our own check not at all."""
    entry = entry_of(replace(make_attempt(), timings=ALL_PHASES))

    assert entry["timings"] == {
        "blocked": 1,
        "dns": 2.5,
        "connect": 12,
        "ssl": 8,
        "send": 16,
        "wait": 32,
        "receive": 64,
    }
    assert entry["time"] == 127.5
    assert entry["_microseconds"]["check_us"] == 128_000
    assert entry["startedDateTime"] == "2026-03-01T12:00:00.000+00:00"


def test_a_phase_that_was_not_reached_is_none() -> None:
    """The format wants a number for three of them; what was measured stands beside it."""
    entry = entry_of(make_failed_attempt())

    assert [entry["timings"][name] for name in ("dns", "connect", "ssl")] == [0.1, -1, -1]
    assert [entry["timings"][name] for name in ("send", "wait", "receive")] == [0, 0, 0]
    assert entry["_microseconds"]["send_us"] is None


def test_a_request_is_told_whole_with_its_secrets_named() -> None:
    """An empty parameter is one, too; the size of a body without its secret nobody knows."""
    entry = entry_of(replace(make_attempt(), request=REQUEST_KEPT))

    request = entry["request"]
    assert (request["method"], request["url"]) == ("POST", REQUEST_KEPT.url)
    assert request["queryString"] == [
        {"name": "n", "value": "5"},
        {"name": "x", "value": ""},
        {"name": "k", "value": "${KEY}"},
    ]
    assert request["headers"][1] == {"name": "x-api-key", "value": "${KEY}"}
    assert request["postData"] == {
        "mimeType": "application/json",
        "params": [],
        "text": '{"apiKey":"${KEY}"}',
    }
    assert request["bodySize"] == -1
    assert "comment" not in request


def test_a_request_that_was_not_kept_leads_nowhere() -> None:
    """Runs of older versions did not keep them; the format wants a URL all the same."""
    request = entry_of(make_attempt())["request"]

    assert (request["method"], request["url"]) == ("GET", "http://dice.invalid/")
    assert request["comment"] == "what was asked was not kept"
    assert request["bodySize"] == 0


def test_an_answer_is_text_where_it_can_be() -> None:
    """With its type, its size and where it would have sent us."""
    response = entry_of(make_failed_attempt(evidence=kept("Straße".encode())))["response"]

    assert (response["status"], response["statusText"]) == (503, "Service Unavailable")
    assert response["content"] == {"size": 7, "mimeType": "text/plain", "text": "Straße"}
    assert response["redirectURL"] == "/there"


def test_other_bytes_are_base64() -> None:
    """Not a byte is lost; and what was cut off is told."""
    response = entry_of(make_failed_attempt(evidence=kept(b"\xff\0", body_bytes=9)))["response"]

    content = response["content"]
    assert content["encoding"] == "base64"
    assert b64decode(content["text"]) == b"\xff\0"
    assert content["comment"] == "9 bytes, the first 2 kept"
    assert content["size"] == 9


def test_an_answer_that_was_not_kept_still_has_its_size() -> None:
    """As all those that went well and looked like one before."""
    response = entry_of(make_attempt())["response"]

    assert response["status"] == 200
    assert response["content"] == {
        "size": 40,
        "mimeType": "",
        "comment": "the answer was not kept",
    }
    assert response["bodySize"] == 40


def test_no_answer_is_status_0() -> None:
    """As browsers write it; the error and where it happened stand in fields of our own."""
    refused = make_failed_attempt(error=ErrorName.CONNECT_REFUSED, phase=Phase.CONNECT)

    entry = entry_of(replace(refused, status=None, detail="nobody there"))

    assert (entry["response"]["status"], entry["response"]["httpVersion"]) == (0, "")
    assert entry["response"]["content"] == {"size": 0, "mimeType": ""}
    assert (entry["_error"], entry["_phase"]) == ("connect_refused", "connect")
    assert entry["_detail"] == "nobody there"


def test_a_status_without_a_name_has_none() -> None:
    """Upstreams make up their own."""
    assert entry_of(replace(make_attempt(), status=799))["response"]["statusText"] == ""


def test_an_attempt_that_went_well_has_no_error() -> None:
    """A panel that looks for the field would paint it red."""
    entry = entry_of(make_attempt(fetch=2))

    assert "_error" not in entry
    assert entry["comment"] == "dice: attempt 17, run 3, fetch 2, try 1"


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_document_is_made_as_it_is_read(n: int) -> None:
    """In ASCII, whatever is in it, and complete for any number of entries."""
    hostile = make_failed_attempt(evidence=kept(b"\x1b[2J\xe2\x80\xae"))

    data = b"".join(har_chunks(numbered(hostile, id_) for id_ in range(n)))

    document = json.loads(data)
    jsonschema.validate(document, HAR, jsonschema.Draft202012Validator)
    assert len(document["log"]["entries"]) == n
    assert data.isascii()
    assert b"\x1b" not in data
    assert document["log"]["creator"]["name"] == "pipeline"
