"""Tests for pipeline/sandbox/faults.py and bodies.py: what really happens on the wire."""

import gzip
import json
import math
import zlib
from collections.abc import AsyncIterator, Callable
from time import monotonic

import pytest
from anyio import BrokenResourceError, move_on_after

from pipeline.errors import ConfigError
from pipeline.sandbox.bodies import BOMB_BYTES
from pipeline.sandbox.faults import FAULTS, HUGE_HEADER_BYTES, MANY_HEADERS, NESTING, parse_fault
from pipeline.sandbox.imitations import KINDS
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import Sandbox, serving
from tests.sandbox.support import (
    Seen,
    connect,
    cut,
    fetch,
    read_all,
    read_one,
    write_request,
)

pytestmark = pytest.mark.anyio

ANU = "anu_legacy/API/jsonI.php?length=3&type=uint8"
RANDOM_ORG = "random_org/integers/?num=3&min=1&max=6&col=1&base=10&format=plain&rnd=new"
SMALL_PAUSE = 0.001


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve without rules, so that each test may ask at once."""
    async with serving(SandboxOptions(rules=False)) as sandbox:
        yield sandbox


async def _fetch(sandbox: Sandbox, *faults: str, path: str = ANU) -> bytes:
    prefix = "".join(f"/~{fault}" for fault in faults)
    return await fetch(sandbox, f"{prefix}/{path}", "X-Api-Key: canary")


async def _answer(sandbox: Sandbox, *faults: str, path: str = ANU) -> Seen:
    return cut(await _fetch(sandbox, *faults, path=path))


def _data(seen: Seen) -> list[int]:
    data: list[int] = json.loads(seen.body)["data"]
    return data


# What never becomes a whole answer.


async def test_stall_says_nothing_for_as_long_as_the_client_stays(sandbox: Sandbox) -> None:
    """The client's own timeout has to end it."""
    data = b"not silent"

    with move_on_after(0.05) as scope:
        data = await _fetch(sandbox, "stall")

    assert scope.cancelled_caught
    assert data == b"not silent"


async def test_close_ends_without_a_byte(sandbox: Sandbox) -> None:
    """A proxy that gives up looks like this."""
    assert await _fetch(sandbox, "close") == b""


async def test_reset_breaks_the_connection_in_mid_body(sandbox: Sandbox) -> None:
    """A reset and not an end: the client's read must fail."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~reset/{ANU}"))
        start = await stream.receive()

        with pytest.raises(BrokenResourceError) as caught:
            await read_all(stream)

    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert b'{"type":"uint8"' in start


@pytest.mark.parametrize(("fault", "announced"), [("truncated", 1), ("wrong_length", -1)])
async def test_a_length_can_be_announced_wrongly(
    sandbox: Sandbox, fault: str, announced: int
) -> None:
    """Too large: the answer is incomplete. Too small: it is cut, and the rest poisons the next."""
    seen = await _answer(sandbox, fault)

    assert (int(seen.headers["content-length"]) - len(seen.body)) * announced > 0


async def test_chunks_can_lack_the_last_one(sandbox: Sandbox) -> None:
    """The body looks whole; only the end of the coding is missing."""
    seen = await _answer(sandbox, "chunked_truncated")

    assert seen.headers["transfer-encoding"] == "chunked"
    assert seen.body.endswith(b'"success":true}\r\n')


async def test_short_close_cannot_be_told_from_a_whole_answer(sandbox: Sandbox) -> None:
    """Without a length only the expected count can show that something is missing."""
    seen = await _answer(sandbox, "short_close", path=RANDOM_ORG)

    assert "content-length" not in seen.headers
    assert len(seen.body) == 3


async def test_idle_close_takes_the_kept_connection_away(sandbox: Sandbox) -> None:
    """A client finds out when it sends its next request."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~idle_close/{ANU}", is_last=False))
        seen = await read_one(stream)

        rest = await read_all(stream)

    assert len(_data(seen)) == 3
    assert rest == b""


# What takes too long.


@pytest.mark.parametrize("fault", ["latency=0.03", f"slow_headers={SMALL_PAUSE}"])
async def test_an_answer_can_come_late(sandbox: Sandbox, fault: str) -> None:
    """It is good, but it takes its time."""
    began = monotonic()

    seen = await _answer(sandbox, fault)

    assert monotonic() - began >= 0.03
    assert len(_data(seen)) == 3


async def test_slow_body_comes_byte_by_byte(sandbox: Sandbox) -> None:
    """Each byte renews a read timeout, so that only a total one can end it."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~slow_body={SMALL_PAUSE}/{ANU}"))
        await read_all(stream, at_most=1)  # the head

        pieces = [await stream.receive() for _ in range(5)]

    assert max(map(len, pieces)) < 10


async def test_endless_100_never_comes_to_the_answer(sandbox: Sandbox) -> None:
    """Interim answers may be many; a client needs a limit of its own."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~endless_100/{ANU}"))

        data = await read_all(stream, at_most=100)

    assert set(data.split(b"\r\n\r\n")) == {b"HTTP/1.1 100 Continue", b""}


async def test_endless_body_goes_on(sandbox: Sandbox) -> None:
    """A megabyte for three numbers is no longer an answer."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~endless_body/{ANU}"))

        data = await read_all(stream, at_most=2**20)

    assert data.endswith((b"1,1,1,", b"1,1,1"))


# What is not quite HTTP.


@pytest.mark.parametrize(
    ("fault", "sign"),
    [
        ("garbage", b"SSH-2.0-"),
        ("bad_version", b"HTTP/9.9 200"),
        ("bad_length", b"Content-Length: -1\r\n"),
        ("bad_chunk", b"\r\n\r\nZZ\r\n"),
        ("tiny_chunks", b"\r\n\r\n1\r\n{\r\n1\r\n"),
    ],
)
async def test_http_can_be_spoken_badly(sandbox: Sandbox, fault: str, sign: bytes) -> None:
    """The parser is what these are for; the last is valid, if wasteful."""
    assert sign in await _fetch(sandbox, fault)


async def test_two_lengths_contradict_each_other(sandbox: Sandbox) -> None:
    """Whoever picks one of them lets the other side smuggle."""
    head, _, _ = (await _fetch(sandbox, "two_lengths")).partition(b"\r\n\r\n")

    assert head.count(b"Content-Length") == 2


async def test_two_responses_answer_one_request(sandbox: Sandbox) -> None:
    """The surplus waits for whoever sends the next request on this connection."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~two_responses/{ANU}"))

        first = await read_one(stream)

    body, surplus = first.body.split(b"HTTP/1.1 200 OK", 1)
    assert surplus.endswith(body)


async def test_headers_can_be_huge_or_many(sandbox: Sandbox) -> None:
    """Neither may cost a client memory without end."""
    assert len(await _fetch(sandbox, "huge_header")) > HUGE_HEADER_BYTES
    assert (await _fetch(sandbox, "many_headers")).count(b"X-Header-") == MANY_HEADERS


# What says no.


@pytest.mark.parametrize(
    ("fault", "status", "sign"),
    [
        ("refusal", 500, b"QRNG API is limited to 1 requests per minute"),
        ("refusal_200", 200, b"QRNG API is limited to 1 requests per minute"),
        ("success_false", 200, b'{"success":false}'),
        ("rate_limited", 429, b"Too Many Requests"),
        ("unavailable", 503, b"Service Unavailable"),
        ("server_error", 500, b"Internal Server Error"),
        ("not_found", 404, b"Not Found"),
        ("forbidden", 403, b"Forbidden"),
        ("status", 418, b""),
        ("status=204", 204, b""),
        ("html", 200, b"<title>Maintenance</title>"),
        ("ansi", 500, b"\x1b]0;owned\x07"),
        ("redirect", 302, b"Found"),
    ],
)
async def test_the_upstream_can_say_no(
    sandbox: Sandbox, fault: str, status: int, sign: bytes
) -> None:
    """In every voice that was heard, and in some that were not."""
    seen = await _answer(sandbox, fault)

    assert seen.status == status
    assert sign in seen.body


@pytest.mark.parametrize("kind", KINDS)
async def test_every_upstream_refuses_in_its_own_words(sandbox: Sandbox, kind: str) -> None:
    """A test of an adapter needs them without using up a quota first."""
    seen = await _answer(sandbox, "refusal", path=f"{kind}/")

    assert seen.body


async def test_ansi_forges_a_line_of_a_log(sandbox: Sandbox) -> None:
    """Whoever prints or logs a body as it came has been warned."""
    assert b"\r\n2026-01-01T00:00:00Z ERROR " in (await _answer(sandbox, "ansi")).body


@pytest.mark.parametrize("value", ["7", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "²"])
async def test_retry_after_is_sent_as_it_was_chosen(sandbox: Sandbox, value: str) -> None:
    """A client must survive what a server may write there."""
    encoded = "".join(f"%{byte:02X}" for byte in value.encode())

    seen = await _answer(sandbox, f"rate_limited={encoded}")

    assert seen.headers["retry-after"] == value.lower()


async def test_a_redirect_leads_away_from_the_host(sandbox: Sandbox) -> None:
    """A listener on 127.0.0.2 must hear nothing."""
    assert (await _answer(sandbox, "redirect")).headers["location"] == "http://127.0.0.2/"


async def test_echo_secret_repeats_the_whole_request(sandbox: Sandbox) -> None:
    """Evidence that is kept of such an answer must not hold the key."""
    seen = await _answer(sandbox, "echo_secret")

    assert seen.status == 400
    assert b"x-api-key: canary" in seen.body
    assert b"length=3&type=uint8" in seen.body


# What is coded, typed or written wrongly.


async def test_gzip_is_announced_and_right(sandbox: Sandbox) -> None:
    """Nobody asked for it."""
    seen = await _answer(sandbox, "gzip")

    assert seen.headers["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(seen.body))["data"]) == 3


async def test_gzip_cut_lacks_its_end(sandbox: Sandbox) -> None:
    """Lenient decoders take the part for the whole."""
    seen = await _answer(sandbox, "gzip_cut")

    with pytest.raises(EOFError):
        gzip.decompress(seen.body)


async def test_gzip_bomb_is_small_on_the_wire(sandbox: Sandbox) -> None:
    """A cap on received bytes does not see it coming."""
    seen = await _answer(sandbox, "gzip_bomb")

    assert len(seen.body) < BOMB_BYTES / 100
    start = zlib.decompressobj(wbits=31).decompress(seen.body, 1000)
    assert start == bytes(1000)


@pytest.mark.parametrize(("path", "wrong"), [(ANU, "text/plain"), (RANDOM_ORG, "application/json")])
async def test_wrong_type_is_wrong_for_each_upstream(
    sandbox: Sandbox, path: str, wrong: str
) -> None:
    """What is right for one is wrong for the other."""
    assert (await _answer(sandbox, "wrong_type", path=path)).headers["content-type"] == wrong


@pytest.mark.parametrize(
    ("fault", "body"),
    [("empty", b""), ("null", b"null"), ("deep", b"[" * NESTING + b"]" * NESTING)],
)
async def test_a_body_can_be_no_answer(sandbox: Sandbox, fault: str, body: bytes) -> None:
    """The status and the type are right all the same."""
    seen = await _answer(sandbox, fault)

    assert (seen.status, seen.headers["content-type"]) == (200, "application/json")
    assert seen.body == body


async def test_not_json_is_cut_but_announced_whole(sandbox: Sandbox) -> None:
    """HTTP is satisfied; only the parser can object."""
    seen = await _answer(sandbox, "not_json")

    assert len(seen.body) == int(seen.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(seen.body)


async def test_duplicate_keys_look_well_to_a_parser_that_takes_the_last(sandbox: Sandbox) -> None:
    """Which is what Python's does."""
    seen = await _answer(sandbox, "duplicate_keys")

    assert seen.body.count(b'"data"') == 2
    assert len(_data(seen)) == 3
    array = await _answer(sandbox, "duplicate_keys", path="randomnumberapi/api/v1.0/random")
    assert array.body == b'[{"data":1,"data":2}]'


async def test_charset_is_named_beside_the_type(sandbox: Sandbox) -> None:
    """A change that breaks nobody, and that its owner may want to know of all the same."""
    seen = await _answer(sandbox, "charset")

    assert seen.headers["content-type"] == "application/json; charset=utf-8"
    assert len(_data(seen)) == 3


async def test_a_key_can_be_added_or_called_otherwise(sandbox: Sandbox) -> None:
    """The one breaks nobody, the other everybody."""
    added, renamed = [
        json.loads((await _answer(sandbox, fault)).body) for fault in ("extra_key", "renamed_key")
    ]

    assert set(added) - set(renamed) == {"notice", "data"}
    assert set(renamed) - set(added) == {"numbers"}


async def test_a_body_without_keys_gets_none(sandbox: Sandbox) -> None:
    """It is no object."""
    seen = await _answer(sandbox, "extra_key", path=RANDOM_ORG)

    assert len(seen.body.splitlines()) == 3


# What counts or spells wrongly.


async def test_stale_numbers_come_again_in_a_new_answer(sandbox: Sandbox) -> None:
    """As from a cache; another question has another first answer."""
    first, again = [await _answer(sandbox, "stale") for _ in range(2)]
    other = await _answer(sandbox, "stale", path="anu_legacy/API/jsonI.php?length=16&type=uint16")
    fresh = await _answer(sandbox, path="anu_legacy/API/jsonI.php?length=16&type=uint16")

    assert _data(first) == _data(again)
    assert _data(other) != _data(fresh)


async def test_a_stuck_upstream_serves_one_number_for_ever(sandbox: Sandbox) -> None:
    """In each answer the same, of each range its own."""
    first, again = [_data(await _answer(sandbox, "stuck")) for _ in range(2)]
    other = await _answer(sandbox, "stuck", path="anu_legacy/API/jsonI.php?length=16&type=uint16")

    assert first == again == first[:1] * 3
    assert len(set(_data(other))) == 1


async def test_a_biased_upstream_has_a_favourite(sandbox: Sandbox) -> None:
    """Among a thousand bytes some four are usual of each."""
    path = "anu_legacy/API/jsonI.php?length=1024&type=uint8"
    numbers = _data(await _answer(sandbox, "biased=.5", path=path))

    assert 400 < max(numbers.count(number) for number in set(numbers)) < 650
    assert len(set(numbers)) > 100


async def test_what_has_no_numbers_cannot_be_stuck(sandbox: Sandbox) -> None:
    """A refusal stays one."""
    seen = await _answer(sandbox, "stuck", path="anu_legacy/API/jsonI.php?length=0")

    assert seen == await _answer(sandbox, path="anu_legacy/API/jsonI.php?length=0")


async def test_a_refusal_is_never_stale(sandbox: Sandbox) -> None:
    """There are no numbers in it."""
    seen = await _answer(sandbox, "stale", path="anu_legacy/API/jsonI.php?length=0")

    assert seen.body == b'{"success":false}'


@pytest.mark.parametrize(("fault", "count"), [("short", 2), ("long", 4)])
async def test_the_count_can_be_off_by_one(sandbox: Sandbox, fault: str, count: int) -> None:
    """The length field still claims three."""
    assert len(_data(await _answer(sandbox, fault))) == count


async def test_out_of_range_is_one_past_the_end(sandbox: Sandbox) -> None:
    """The nearest miss is the one that careless bounds let through."""
    assert _data(await _answer(sandbox, "out_of_range"))[0] == 256
    assert (await _answer(sandbox, "out_of_range", path=RANDOM_ORG)).body.startswith(b"7\n")


@pytest.mark.parametrize(
    ("fault", "is_told"),
    [
        ("nan", lambda data: math.isnan(data[0])),
        ("floats", lambda data: all(isinstance(each, float) for each in data)),
        ("strings", lambda data: all(isinstance(each, str) for each in data)),
    ],
)
async def test_numbers_can_be_spelled_as_something_else(
    sandbox: Sandbox, fault: str, is_told: Callable[[list[float]], bool]
) -> None:
    """Python's parser takes all of these without a word."""
    data: list[float] = json.loads((await _answer(sandbox, fault)).body)["data"]

    assert len(data) == 3
    assert is_told(data)


@pytest.mark.parametrize(("fault", "token"), [("floats", 5.0), ("strings", "zz")])
async def test_hex_digits_can_be_spelled_wrongly_too(
    sandbox: Sandbox, fault: str, token: object
) -> None:
    """There a string is right, and only its digits can be wrong."""
    seen = await _answer(sandbox, fault, path="anu_legacy/API/jsonI.php?length=2&type=hex16")

    assert json.loads(seen.body)["data"] == [token, token]


async def test_an_answer_without_numbers_is_left_alone(sandbox: Sandbox) -> None:
    """There is nothing to miscount in a refusal."""
    seen = await _answer(sandbox, "short", path="anu_legacy/API/jsonI.php?length=0")

    assert seen.body == b'{"success":false}'


# When faults hold.


async def test_fail_first_recovers(sandbox: Sandbox) -> None:
    """For tests of retries: alone it fails with 503."""
    statuses = [(await _answer(sandbox, "fail_first=2")).status for _ in range(4)]

    assert statuses == [503, 503, 200, 200]


async def test_fail_every_flaps(sandbox: Sandbox) -> None:
    """Fail, work, fail, work: a retry always helps."""
    statuses = [(await _answer(sandbox, "fail_every=2")).status for _ in range(4)]

    assert statuses == [503, 200, 503, 200]


async def test_fail_first_lends_its_count_to_the_fault_behind_it(sandbox: Sandbox) -> None:
    """Any failure can be the one that passes."""
    statuses = [(await _answer(sandbox, "fail_first=1", "not_found")).status for _ in range(2)]

    assert statuses == [404, 200]


async def test_each_path_is_counted_for_itself(sandbox: Sandbox) -> None:
    """Two sources under one fault must not share their luck."""
    await _answer(sandbox, "fail_first=1")

    assert (await _answer(sandbox, "fail_first=1", path=RANDOM_ORG)).status == 503


async def test_faults_add_up(sandbox: Sandbox) -> None:
    """A late answer can be wrong as well."""
    seen = await _answer(sandbox, "latency=0.001", "short", "wrong_type")

    assert seen.headers["content-type"] == "text/plain"
    assert len(_data(seen)) == 2


# How faults are chosen.


async def test_a_fault_can_be_switched_on_for_one_upstream() -> None:
    """The others must stay well beside it."""
    options = SandboxOptions(rules=False, faults=("anu_legacy:rate_limited=9", "latency=0"))
    async with serving(options) as sandbox:
        refused = await _answer(sandbox)
        served = await _answer(sandbox, path=RANDOM_ORG)

    assert (refused.status, refused.headers["retry-after"]) == (429, "9")
    assert served.status == 200


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ("sleep", "no fault is named 'sleep'"),
        ("stall=5", "fault stall does not take the value '5'"),
        ("latency=soon", "fault latency does not take the value 'soon'"),
        ("rate_limited=a\r\nb", "fault rate_limited does not take the value 'a\\r\\nb'"),
        ("status=100", "fault status does not take the value '100'"),
        ("fail_every=0", "fault fail_every does not take the value '0'"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(chosen: str, complaint: str) -> None:
    """A typing error must not become a test that tests nothing."""
    with pytest.raises(ConfigError) as caught:
        parse_fault(chosen)

    assert complaint in str(caught.value)


def test_an_upstream_that_does_not_exist_is_refused() -> None:
    """The complaint says which there are."""
    with pytest.raises(ConfigError, match="no upstream is named 'anu'; use one of anu_legacy"):
        Sandbox(SandboxOptions(faults=("anu:stall",)))


async def test_an_unknown_fault_in_a_path_is_not_found(sandbox: Sandbox) -> None:
    """With the reason in the body."""
    seen = await _answer(sandbox, "sleep")

    assert (seen.status, seen.body[:14]) == (404, b"no fault is na")


async def test_the_faults_of_a_path_are_bounded(sandbox: Sandbox) -> None:
    """Ten thousand would be deeper than Python calls."""
    seen = await _answer(sandbox, *["short"] * 5_000)

    assert (seen.status, seen.body) == (404, b"a path may name 16 faults\n")


async def test_a_url_escapes_what_a_fault_is_given(sandbox: Sandbox) -> None:
    """A slash would end the segment."""
    location = "http://127.0.0.2:8/x"
    target = sandbox.url("anu_legacy", f"redirect={location}").removeprefix(sandbox.root)

    assert cut(await fetch(sandbox, target)).headers["location"] == location


def test_every_default_is_a_value_that_the_fault_takes() -> None:
    """A fault switched on by its bare name must work."""
    for name in FAULTS:
        assert parse_fault(name) == FAULTS[name]


async def test_what_is_left_is_told_in_body_and_header(sandbox: Sandbox) -> None:
    """One API counts down in a field, another in a header; then both refuse."""
    seen = [await _answer(sandbox, "ratelimit_fields=2") for _ in range(3)]

    assert [each.status for each in seen] == [200, 200, 429]
    assert [each.headers["x-ratelimit-remaining"] for each in seen] == ["1", "0", "0"]
    assert [json.loads(each.body)["QUOTA"] for each in seen] == [1, 0, 0]
