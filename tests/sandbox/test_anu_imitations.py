"""Tests for pipeline/sandbox/anu.py."""

import json
import re
from datetime import timedelta

import pytest

from pipeline.sandbox.anu import REFUSAL, REQUESTS_PER_MONTH, AnuAqn, AnuLegacy
from pipeline.sandbox.exchange import HTML, JSON
from pipeline.sandbox.options import SandboxOptions
from tests.sandbox.support import NOON, make_request

LEGACY = "/API/jsonI.php?length=3&type=uint8"
AQN = "/?length=3&type=uint16"
KEY = {"x-api-key": "good"}


def _legacy(target: str = LEGACY) -> bytes:
    return AnuLegacy(SandboxOptions()).answer(make_request(target)).body


def _aqn(target: str = AQN) -> bytes:
    return AnuAqn(SandboxOptions()).answer(make_request(target, headers=KEY)).body


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (LEGACY, rb'\{"type":"uint8","length":3,"data":\[\d+,\d+,\d+\],"success":true\}'),
        (
            "/API/jsonI.php?length=2&type=uint16",
            rb'\{"type":"uint16","length":2,"data":\[\d+,\d+\],"success":true\}',
        ),
        (
            "/API/jsonI.php?length=2&type=hex16&size=2",
            rb'\{"type":"string","length":2,"size":2,"data":\["\w{4}","\w{4}"\],"success":true\}',
        ),
    ],
)
def test_legacy_answers_as_recorded(target: str, shape: bytes) -> None:
    """Key order, an integer length and no newline are what recordings of this API show."""
    assert re.fullmatch(shape, _legacy(target))


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (AQN, rb'\{"success":true,"type":"uint16","length":"3","data":\[\d+,\d+,\d+\]\}'),
        (
            "/?length=1&type=hex16&size=4",
            rb'\{"success":true,"type":"hex16","length":"1","data":\["[0-9a-f]{16}"\]\}',
        ),
        (
            "/?length=1&type=hex8&size=1",
            rb'\{"success":true,"type":"hex8","length":"1","data":\["[0-9a-f]{2}"\]\}',
        ),
    ],
)
def test_aqn_answers_as_recorded(target: str, shape: bytes) -> None:
    """The newer API counts in a string and measures hex16 in words; both surprise clients."""
    assert re.fullmatch(shape, _aqn(target))


@pytest.mark.parametrize(("kind", "highest"), [("uint8", 255), ("uint16", 65535)])
def test_numbers_fill_the_whole_type(kind: str, highest: int) -> None:
    """A client that maps words to a range needs all of them, the last included."""
    data = json.loads(_legacy(f"/API/jsonI.php?length=1024&type={kind}"))["data"]

    assert 0 <= min(data) < highest / 20
    assert highest * 0.95 < max(data) <= highest


@pytest.mark.parametrize(
    "target",
    [
        "/API/jsonI.php?length=0&type=uint8",
        "/API/jsonI.php?length=1025&type=uint8",
        "/API/jsonI.php?length=1&type=uint32",
        "/API/jsonI.php?length=1&type=hex16&size=1025",
        "/API/jsonI.php?type=uint8",
        "/API/jsonI.php?length=x&type=uint8",
        "/API/jsonI.php",
    ],
)
def test_legacy_says_no_to_bad_parameters(target: str) -> None:
    """Clients guard against success:false; nobody recorded more of it."""
    assert _legacy(target) == b'{"success":false}'


def test_legacy_does_not_know_other_paths() -> None:
    """A wrong endpoint must not look like a refusal."""
    assert AnuLegacy(SandboxOptions()).answer(make_request("/")).status == 404


@pytest.mark.parametrize("status", [500, 200])
def test_legacy_refuses_a_second_request_within_the_minute(status: int) -> None:
    """The refusal is plain text, and was seen with both statuses."""
    upstream = AnuLegacy(SandboxOptions(anu_refusal_status=status))
    upstream.answer(make_request(LEGACY, seconds=0))

    refused = upstream.answer(make_request(LEGACY, seconds=59.9))

    assert refused.status == status
    assert refused.headers == (("Content-Type", HTML),)
    assert refused.body.decode() == REFUSAL
    assert refused.violations == ("rate",)


def test_legacy_counts_the_minute_from_the_last_served_request() -> None:
    """A refused client that waits out the rest of its minute is served."""
    upstream = AnuLegacy(SandboxOptions())
    upstream.answer(make_request(LEGACY, seconds=0))
    upstream.answer(make_request(LEGACY, seconds=59))

    assert upstream.answer(make_request(LEGACY, seconds=60)).numbers is not None


def test_legacy_limits_each_client_for_itself() -> None:
    """The limit is per address."""
    upstream = AnuLegacy(SandboxOptions())
    upstream.answer(make_request(LEGACY))

    assert upstream.answer(make_request(LEGACY, client="127.0.0.2")).numbers is not None


def test_without_rules_nothing_is_rationed() -> None:
    """A benchmark wants the wire format at full speed."""
    options = SandboxOptions(rules=False)
    legacy, aqn = AnuLegacy(options), AnuAqn(options)

    for _ in range(REQUESTS_PER_MONTH + 1):
        assert legacy.answer(make_request(LEGACY)).numbers is not None
        assert aqn.answer(make_request(AQN, headers={})).numbers is not None


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"x-api-key": "wrong"}])
def test_aqn_wants_a_key(headers: dict[str, str]) -> None:
    """403 is the gateway's word for a missing key as for a wrong one."""
    refused = AnuAqn(SandboxOptions()).answer(make_request(AQN, headers=headers))

    assert (refused.status, refused.body) == (403, b'{"message":"Forbidden"}')
    assert ("x-amzn-errortype", "ForbiddenException") in refused.headers
    assert refused.violations == ("key",)


def test_aqn_serves_a_hundred_requests_a_month() -> None:
    """A client that does not budget finds out here, not with its owner's key."""
    upstream = AnuAqn(SandboxOptions())
    for _ in range(REQUESTS_PER_MONTH):
        assert upstream.answer(make_request(AQN, headers=KEY)).numbers is not None

    refused = upstream.answer(make_request(AQN, headers=KEY))

    assert (refused.status, refused.body) == (429, b'{"message":"Limit Exceeded"}')
    assert refused.violations == ("quota",)
    assert upstream.answer(make_request(AQN, headers={"x-api-key": "other"})).status == 200
    next_month = make_request(AQN, headers=KEY, utc=NOON + timedelta(days=10))
    assert upstream.answer(next_month).status == 200


def test_aqn_says_400_to_bad_parameters() -> None:
    """More than 1024 items is refused, not cut."""
    refused = AnuAqn(SandboxOptions()).answer(make_request("/?length=2000&type=uint8", headers=KEY))

    assert (refused.status, refused.body) == (400, b'{"success":false}')


def test_aqn_calls_a_wrong_path_a_missing_token() -> None:
    """The gateway's wording misleads: the client should not blame its key for a typo."""
    refused = AnuAqn(SandboxOptions()).answer(make_request("/API", headers=KEY))

    assert (refused.status, refused.body) == (403, b'{"message":"Missing Authentication Token"}')


def test_aqn_refuses_a_burst_in_other_words_than_a_used_up_month() -> None:
    """One passes in a second, the other at the month's end."""
    refused = AnuAqn(SandboxOptions()).refuse(make_request(AQN))

    assert (refused.status, refused.body) == (429, b'{"message":"Too Many Requests"}')
    assert ("Content-Type", JSON) in refused.headers
