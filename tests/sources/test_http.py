"""Tests for pipeline/sources/http.py: limits, size caps, and the exact name of every failure."""

import gzip
import socket
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2 as httpx
import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import Sandbox, serving
from pipeline.sources.answers import read_json
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.http import (
    MAX_EVIDENCE_HEADERS,
    Exchange,
    Leniency,
    Limits,
    make_ssl_context,
    open_client,
)
from tests.sources.edge import (
    PATIENT,
    QUICK_IN_ALL,
    SHORT_SECONDS,
    Got,
    Script,
    Visit,
    ask,
    ask_once,
    ask_raw,
    happens,
    raw_client,
    raw_server,
    replying,
    response,
    url_of,
)

pytestmark = pytest.mark.anyio

GOOD = b"[1, 2, 3]"
SECRET = "0d6f3e2a-canary/0001"
KIB, MIB = 2**10, 2**20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def _with_length(*values: bytes) -> bytes:
    lengths = b"".join(b"Content-Length: %b\r\n" % value for value in values)
    return b"HTTP/1.1 200 OK\r\n" + lengths + b"\r\n" + GOOD


# The limit of the whole attempt.


@pytest.mark.parametrize(
    ("fault", "error", "phase"),
    [
        ("stall", "read_timeout", "first_byte"),
        ("slow_headers=0.01", "deadline", "body"),
        ("slow_body=0.01", "deadline", "body"),
        ("endless_100", "deadline", "body"),
    ],
)
async def test_an_attempt_ends_at_its_limit(
    sandbox: Sandbox, fault: str, error: str, phase: str
) -> None:
    """A byte now and then keeps every other timeout quiet for ever; no byte is the upstream's."""
    for _ in range(10):  # a machine that is slow may spend the time of an attempt on connecting
        with anyio.fail_after(60):
            got = await ask_once(url_of(sandbox, fault, n=100), QUICK_IN_ALL)
        if got.error == (error, phase):
            break

    assert got.error == (error, phase)
    assert got.detail.startswith(f"no whole answer within {SHORT_SECONDS} s")


async def test_the_limit_counts_from_the_first_step() -> None:
    """Looking up and connecting are part of the attempt; only the wait before it is not."""
    async with raw_client(replying(response(GOOD)), QUICK_IN_ALL) as (server, client):
        exchange = Exchange()
        await anyio.sleep(SHORT_SECONDS)
        await client.fetch_answer(httpx.Request("GET", server.url), exchange)

    assert (exchange.clock.timings().wait_us or 0) >= SHORT_SECONDS * 1_000_000


async def test_being_stopped_is_no_failure_of_the_upstream(sandbox: Sandbox) -> None:
    """The cancellation goes on to whoever asked for it."""
    with anyio.move_on_after(SHORT_SECONDS) as scope:
        await ask_once(url_of(sandbox, "stall"))

    assert scope.cancelled_caught


# What arrives, and what it is called if it is broken.


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (response(GOOD), GOOD),
        (response(b""), b""),
        (CLOSED + GOOD, GOOD),
        (b"HTTP/1.0 200 OK\r\n\r\n" + GOOD, GOOD),
        (b"HTTP/1.1 200\r\nContent-Length: 9\r\n\r\n" + GOOD, GOOD),
        (CHUNKED + b"\r\n4\r\n[1, \r\n5\r\n2, 3]\r\n0\r\n\r\n", GOOD),
        (CHUNKED + b"\r\n9;name=value\r\n" + GOOD + b"\r\n0\r\nX-Trailer: 1\r\n\r\n", GOOD),
        # RFC 9112, 6.3: chunks win over a length, and the connection ends.
        (CHUNKED + b"Content-Length: 4\r\n\r\n9\r\n" + GOOD + b"\r\n0\r\n\r\n", GOOD),
        (b"HTTP/1.1 103 Early\r\nLink: </>\r\n\r\n" + response(GOOD), GOOD),
        (_with_length(b"9", b"9"), GOOD),
        (_with_length(b"7"), GOOD[:7]),
        (response(GOOD, b"Content-Encoding: identity"), GOOD),
        (response(GOOD, b"Content-Encoding:"), GOOD),
        (response(GOOD, status=b"200 \x1b[2J\xff"), GOOD),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (response(GOOD, status=b"205 Reset Content"), GOOD),
        (response(GOOD, status=b"999 Whatever"), GOOD),
    ],
)
async def test_odd_answers_that_are_whole_arrive(reply: bytes, body: bytes) -> None:
    """What they mean is for the adapter to judge, by the status and the bytes."""
    got = await ask_raw(replying(reply, hold=False))

    assert got.body == body


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "incomplete"),
        (b"HTT", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "incomplete"),
        (_with_length(b"10"), "incomplete"),
        (CHUNKED + b"\r\n9\r\n" + GOOD, "incomplete"),
        (CHUNKED + b"\r\n9\r\n" + GOOD + b"\r\n", "incomplete"),
        (CHUNKED + b"\r\n9\r\n" + GOOD + b"\r\n0\r\n", "incomplete"),
        (_with_length(b"9", b"7"), "protocol"),
        (_with_length(b"-1"), "protocol"),
        (_with_length(b"abc"), "protocol"),
        (_with_length(b"9" * 21), "protocol"),
        (_with_length(b"9" * 19), "too_large"),
        (CHUNKED + b"\r\nZZ\r\n" + GOOD, "protocol"),
        (CHUNKED + b"\r\n9\r\n" + GOOD + b"XX0\r\n\r\n", "protocol"),
        (CHUNKED + b"\r\n9;" + b"x" * 200_000 + b"\r\n" + GOOD + b"\r\n0\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n" + GOOD, "protocol"),
        (b"HTTP/9.9 200 OK\r\n\r\n" + GOOD, "protocol"),
        (b"HTTP/1.1 099 Early\r\n\r\n" + GOOD, "protocol"),
        (b"HTTP/1.1 20 Early\r\n\r\n" + GOOD, "protocol"),
        (b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n" + GOOD, "protocol"),
        (b"HTTP/1.1 200 OK\r\nX-Zero: \x00\r\n\r\n" + GOOD, "protocol"),
        (b"\r\n\r\n" + response(GOOD), "protocol"),
    ],
)
async def test_broken_answers_are_told_apart(reply: bytes, error: str) -> None:
    """Cut short is the path's doing or a crash; not HTTP is somebody's bug."""
    got = await ask_raw(replying(reply, hold=False))

    assert got.error == (error, "body" if reply else "first_byte")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("truncated", "incomplete"),
        ("chunked_truncated", "incomplete"),
        ("reset", "reset"),
        ("bad_chunk", "protocol"),
        ("bad_version", "protocol"),
        ("two_lengths", "protocol"),
        ("bad_length", "protocol"),
        ("gzip", "decode"),
        ("gzip_cut", "decode"),
        ("gzip_bomb", "decode"),
    ],
)
async def test_the_sandboxs_faults_have_the_published_names(
    sandbox: Sandbox, fault: str, error: str
) -> None:
    """What the README shows is what comes out."""
    got = await ask_once(url_of(sandbox, fault))

    assert got.error == (error, "body")


async def test_thousands_of_tiny_chunks_are_fine(sandbox: Sandbox) -> None:
    """Legal, if silly, and linear in time."""
    got = await ask_once(url_of(sandbox, "tiny_chunks", n=1024))

    assert got.body.endswith(b'"success":true}')


@pytest.mark.parametrize(
    "status", [200, 301, 400, 401, 403, 404, 408, 410, 425, 429, 500, 502, 503, 504]
)
async def test_a_status_is_no_failure_here(sandbox: Sandbox, status: int) -> None:
    """Upstreams use them in ways of their own: the adapter knows."""
    got = await ask_once(url_of(sandbox, f"status={status}"))

    assert got.answer is not None
    assert got.answer.status == got.exchange.status == status


async def test_a_header_sent_twice_is_joined() -> None:
    """So a second value can never pass unseen for the first."""
    reply = response(GOOD, b"Retry-After: 5", b"Retry-After: 10")

    got = await ask_raw(replying(reply))

    assert got.answer is not None
    assert got.answer.headers["retry-after"] == "5, 10"


# Nothing is done that was not asked for.


async def test_a_request_goes_out_as_the_adapter_made_it() -> None:
    """Each header is the adapter's, but for what HTTP/1.1 itself demands."""
    async with raw_client(replying(response(GOOD))) as (server, client):
        request = httpx.Request("GET", f"{server.url}?n=3", headers={"X-Api-Key": SECRET})
        await client.fetch_answer(request, Exchange())

    assert server.heads[0].split(b"\r\n") == [
        b"GET /numbers?n=3 HTTP/1.1",
        b"Host: 127.0.0.1:%d" % server.port,
        b"X-Api-Key: " + SECRET.encode(),
        b"",
        b"",
    ]


async def test_cookies_are_neither_kept_nor_sent() -> None:
    """An upstream could fill our memory with them, and follow us through the run."""
    reply = response(GOOD, b"Set-Cookie: id=1; Path=/")

    async with raw_client(replying(reply, reply)) as (server, client):
        for _ in range(2):
            await ask(client, server.url)

    assert len(server.heads) == 2
    assert b"cookie" not in server.heads[1].lower()


@pytest.mark.parametrize(
    "location",
    [
        b"http://127.0.0.2:%d/",
        b"http://169.254.169.254/latest/meta-data/",
        b"https://127.0.0.2:%d/",
        b"//127.0.0.2:%d/",
        b"/elsewhere",
        b"",
        b"file:///etc/passwd",
        b"http://[::1",
        b"http://127.0.0.2:99999/",
        b"\xff\xfe",
        b"x" * 10_000,
    ],
)
async def test_no_redirect_is_followed(location: bytes) -> None:
    """It could lead anywhere, and the key would go along."""
    with socket.create_server(("127.0.0.2", 0)) as canary:
        canary.setblocking(False)  # noqa: FBT003 - positional only
        aim = location % canary.getsockname()[1] if b"%d" in location else location
        reply = response(b"", b"Location: " + aim, status=b"302 Found")
        async with raw_client(replying(reply)) as (server, client):
            got = await ask(client, server.url)
            await anyio.sleep(0.002)

        with pytest.raises(BlockingIOError):
            canary.accept()
    assert got.answer is not None
    assert got.answer.status == 302
    assert server.connections == len(server.heads) == 1


def see_other(location: bytes, *headers: bytes, status: bytes = b"303 See Other") -> bytes:
    """Write an answer that leads elsewhere."""
    return response(b"", b"Location: " + location, *headers, status=status)


async def ask_for_newest(*replies: bytes) -> tuple[Got, list[bytes]]:
    """Ask a server for what may stand elsewhere on it."""
    async with raw_client(replying(*replies)) as (server, client):
        request = Endpoint(server.url.rpartition("/")[0], "/pulse", sees_other=True).get()
        exchange = Exchange()
        answer = await client.fetch_answer(request, exchange)
    assert server.connections == 1
    got = Got(exchange=exchange, timings=exchange.clock.timings(), answer=answer)
    return got, [head.partition(b"\r\n")[0] for head in server.heads]


@pytest.mark.parametrize("location", [b"/chain/1/pulse/7", b"chain/1/pulse/7"])
async def test_what_stands_elsewhere_on_the_same_server_is_asked_for(location: bytes) -> None:
    """Over the same connection, and as one attempt: the first request decides what is told."""
    got, lines = await ask_for_newest(see_other(location), response(GOOD))

    assert got.body == bytes(got.exchange.body) == GOOD
    assert (got.exchange.status, got.exchange.is_reused) == (200, False)
    assert lines == [b"GET /pulse HTTP/1.1", b"GET /chain/1/pulse/7 HTTP/1.1"]


@pytest.mark.parametrize(
    "reply",
    [
        see_other(b"http://127.0.0.2/"),
        see_other(b"https://127.0.0.1/chain/1/pulse/7"),
        see_other(b"http://127.0.0.1:9/"),
        see_other(b"//user@127.0.0.1/"),
        see_other(b"http://[::1"),
        see_other(b""),
        see_other(b"/chain/1/pulse/7", b"Retry-After: 1"),
        see_other(b"/chain/1/pulse/7", status=b"302 Found"),
        response(b"", status=b"303 See Other"),
    ],
)
async def test_any_other_way_is_not_gone(reply: bytes) -> None:
    """To another server, by another status, without a place, or before a wait."""
    got, lines = await ask_for_newest(reply, response(GOOD))

    assert got.answer is not None
    assert got.answer.status in (302, 303)
    assert len(lines) == 1


async def test_one_hop_is_gone_and_no_second() -> None:
    """Or it would go round for ever."""
    got, lines = await ask_for_newest(see_other(b"/a"), see_other(b"/b"), response(GOOD))

    assert got.exchange.status == 303
    assert len(lines) == 2


async def test_a_location_that_breaks_its_line_is_no_http() -> None:
    """Nor does what stands behind the break become a header."""
    reply = b"HTTP/1.1 302 Found\r\nLocation: /a\rX-Forged: 1\r\n\r\n"

    got = await ask_raw(replying(reply, hold=False))

    assert got.error == ("protocol", "body")


# Size.


async def test_a_body_may_be_as_large_as_allowed() -> None:
    """The limit is the largest that is read."""
    limits = replace(PATIENT, max_bytes=len(GOOD))

    assert (await ask_raw(replying(response(GOOD)), limits)).body == GOOD


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    """Nothing is set aside for what somebody announces."""
    limits = replace(PATIENT, max_bytes=len(GOOD) - 1)

    got = await ask_raw(replying(response(GOOD)), limits)

    assert got.error == ("too_large", "body")
    assert got.detail == "9 bytes announced, at most 8 are read"
    assert got.exchange.body == b""


@pytest.mark.parametrize("reply", [CLOSED + GOOD, CHUNKED + b"\r\n9\r\n" + GOOD + b"\r\n0\r\n\r\n"])
async def test_a_body_that_grows_too_large_is_cut(reply: bytes) -> None:
    """Its beginning is evidence."""
    limits = replace(PATIENT, max_bytes=len(GOOD) - 1)

    got = await ask_raw(replying(reply, hold=False), limits)

    assert got.error == ("too_large", "body")
    assert got.detail == "more than 8 bytes came"
    assert got.exchange.body == GOOD[:-1]


async def test_an_endless_body_is_not_drained(sandbox: Sandbox) -> None:
    """The connection is cut as soon as it is too much."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(CLOSED)
        while True:
            await visit.send(b"1," * 2**14)

    async with raw_server(play) as server, open_client(PATIENT) as client:
        got = await ask(client, server.url)
        is_closed = await happens(lambda: server.gone == 1)
        after = await ask(client, url_of(sandbox))

    assert got.error == ("too_large", "body")
    assert len(got.exchange.body) == PATIENT.max_bytes
    assert is_closed
    assert after.answer is not None


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"gzip, gzip", b"zstd", b"x-\x1b[2J", b"br"])
async def test_a_coding_that_was_not_asked_for_is_refused_unread(coding: bytes) -> None:
    """590 bytes can hold half a gigabyte, and a cut one can pass for whole."""
    reply = response(gzip.compress(GOOD), b"Content-Encoding: " + coding)

    got = await ask_raw(replying(reply))

    assert got.error == ("decode", "body") if b"\x1b" not in coding else ("protocol", "body")
    assert got.exchange.body == b""


MEMORY = """
import resource, sys
from pathlib import Path
from dataclasses import replace

import anyio
from tests.sources.edge import PATIENT, ask_raw, replying, response
from tests.sources.test_http import CHUNKED, CLOSED, GOOD, KIB, MIB, endless

CAP = replace(PATIENT, max_bytes=MIB)
BOMB = Path(sys.argv[1]).read_bytes()
HOSTILE = [
    endless(CLOSED, b"1," * (32 * KIB)),
    endless(CHUNKED + b"\\r\\n", b"10000\\r\\n" + bytes(64 * KIB) + b"\\r\\n"),
    endless(CHUNKED + b"\\r\\n1;", b"x" * (64 * KIB)),
    endless(b"HTTP/1.1 200 OK\\r\\n", b"X-Header: x\\r\\n" * 4096),
    endless(b"HTTP/1.1 200 OK\\r\\nX-Endless: ", b"x" * (64 * KIB)),
    replying(response(BOMB, b"Content-Encoding: gzip")),
    replying(response(BOMB, b"Content-Encoding: gzip, gzip")),
]

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB

async def main():
    for _ in range(3):
        got = await ask_raw(replying(response(bytes(MIB))), CAP)
        assert len(got.body) == MIB
    before = peak_bytes()
    for script in HOSTILE:
        got = await ask_raw(script, CAP)
        print(got.error[0], end=" ", flush=True)
    print((peak_bytes() - before) // MIB)

anyio.run(main)
"""


def endless(start: bytes, more: bytes) -> Script:
    """Answer with *start*, and then with *more* for ever."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(start)
        while True:
            await visit.send(more)

    return play


def test_no_answer_takes_more_memory_than_a_large_good_one(tmp_path: Path) -> None:
    """Whatever an upstream sends, the process stays as small as its limits say."""
    deflate = zlib.compressobj(level=9, wbits=31)
    pieces = [deflate.compress(bytes(MIB)) for _ in range(64)]
    (tmp_path / "bomb.gz").write_bytes(b"".join([*pieces, deflate.flush()]))

    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "bomb.gz")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert ended.stderr == ""
    *errors, grown_mib = ended.stdout.split()
    assert errors == ["too_large", "too_large", *["protocol"] * 3, "decode", "decode"]
    assert int(grown_mib) <= 8


# Many at once.


async def test_each_worker_has_a_connection_of_its_own() -> None:
    """Nobody waits for a free one, and no wait is charged to the upstream."""
    got: list[Got] = []

    async with serving(SandboxOptions(rules=False, latency_seconds=0.05)) as sandbox:

        async def work() -> None:
            got.append(await ask_once(url_of(sandbox)))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(work)

    assert all(each.answer for each in got)
    assert len({entry.port for entry in sandbox.journal.entries}) == 50


# Evidence.


def exchange_of(body: bytes, *headers: tuple[str, str], status: int = 400) -> Exchange:
    """Make an exchange that received *body* after *headers*."""
    return Exchange(status=status, headers=httpx.Headers(headers), body=bytearray(body))


async def test_there_is_no_evidence_without_an_answer(sandbox: Sandbox) -> None:
    """Nothing came, so there is nothing to keep."""
    got = await ask_once(url_of(sandbox, "close"))

    assert got.exchange.evidence([], 100) is None


async def test_an_answer_that_broke_off_is_evidence_as_far_as_it_came(sandbox: Sandbox) -> None:
    """What is missing is often seen from what is there."""
    got = await ask_once(url_of(sandbox, "truncated"))
    evidence = got.exchange.evidence([], 100)

    assert evidence is not None
    assert evidence.status == 200
    assert evidence.body.startswith(b'{"type":"uint8"')
    assert evidence.body_bytes == len(evidence.body)
    assert ("content-type", "application/json") in evidence.headers


def test_evidence_is_bounded_and_says_how_much_there_was() -> None:
    """An upstream must not fill our disk with its errors."""
    headers = [(f"X-{number}", "x" * 1000) for number in range(200)]

    evidence = exchange_of(b"x" * 1000, *headers).evidence([], 10)

    assert evidence is not None
    assert (evidence.body, evidence.body_bytes) == (b"x" * 10, 1000)
    assert len(evidence.headers) == MAX_EVIDENCE_HEADERS
    assert all(len(value) <= 300 for _, value in evidence.headers)


def test_evidence_holds_no_secret() -> None:
    """Upstreams repeat what they were sent, in headers and bodies."""
    quoted = SECRET.replace("/", "%2F")
    exchange = exchange_of(f"key={SECRET}".encode(), ("X-Echo", quoted), (SECRET[:16], "name"))

    evidence = exchange.evidence([SECRET, SECRET[:16]], 100)

    assert evidence is not None
    assert evidence.body == b"key=[REDACTED]"
    assert evidence.headers == (("x-echo", "[REDACTED]"), ("[REDACTED]", "name"))


@pytest.mark.parametrize("kept", range(4, 40))
def test_the_limit_of_evidence_never_falls_into_a_secret(kept: int) -> None:
    """Most of a key is as good as all of it."""
    evidence = exchange_of(b"<" + SECRET.encode() + b">" * 40).evidence([SECRET], kept)

    assert evidence is not None
    assert SECRET.encode()[:5] not in evidence.body
    assert len(evidence.body) <= kept


def test_evidence_shows_no_control_characters_in_headers() -> None:
    """They are shown on terminals; the body is kept as it came and made safe when shown."""
    exchange = exchange_of(b"\x1b[2J")
    exchange.headers = httpx.Headers([(b"X-Title", b"\x9b2J")])

    evidence = exchange.evidence([], 100)

    assert evidence is not None
    assert evidence.headers == (("x-title", r"\x9b2J"),)
    assert evidence.body == b"\x1b[2J"


# What one source may send beyond what is agreed.


async def ask_leniently(play: Script, limits: Limits = PATIENT) -> Got:
    """Send one request for a source whose bodies may be compressed."""
    leniency = Leniency(content_types=frozenset({"text/html"}), takes_gzip=True)
    async with raw_server(play) as server, open_client(limits, leniency=leniency) as client:
        return await ask(client, server.url)


def gzipped(body: bytes, coding: bytes = b"gzip") -> Script:
    """Reply with *body*, said to be compressed."""
    return replying(response(body, b"Content-Encoding: " + coding))


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"x-gzip", b"utf-8, gzip", b"gzip, identity"])
async def test_gzip_is_read_where_it_may_be(coding: bytes) -> None:
    """However it is named."""
    got = await ask_leniently(gzipped(gzip.compress(GOOD), coding))

    assert got.body == GOOD
    assert got.exchange.body == GOOD


@pytest.mark.parametrize("coding", [b"utf-8", b"UTF8", b"iso-8859-1", b"us-ascii, identity"])
async def test_the_name_of_a_charset_is_no_coding(coding: bytes) -> None:
    """Servers put it into the wrong field."""
    assert (await ask_raw(gzipped(GOOD, coding))).body == GOOD


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (gzip.compress(GOOD)[:-1], b"gzip"),
        (gzip.compress(GOOD)[:9], b"gzip"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, b"gzip"),
        (gzip.compress(GOOD) + b"\0", b"gzip"),
        (gzip.compress(GOOD) * 2, b"gzip"),
        (GOOD, b"gzip"),
        (gzip.compress(gzip.compress(GOOD)), b"gzip, gzip"),
        (zlib.compress(GOOD), b"deflate"),
        (GOOD, b"br"),
    ],
    ids=["cut", "head", "sum", "rest", "two", "plain", "twice", "deflate", "br"],
)
async def test_what_is_not_one_whole_gzip_is_not_taken(body: bytes, coding: bytes) -> None:
    """Half of an answer is none."""
    assert (await ask_leniently(gzipped(body, coding))).error == ("decode", "body")


async def test_an_empty_body_needs_no_gzip() -> None:
    """Nothing is nothing, whatever it is said to be."""
    assert (await ask_leniently(gzipped(b""))).body == b""


@pytest.mark.parametrize("coding", [b"gzip", b"x" * 50 + SECRET.encode()])
async def test_a_coding_is_not_shown_in_part(coding: bytes) -> None:
    """Cut short, a key that is repeated there could not be recognised."""
    got = await ask_raw(gzipped(GOOD, coding))

    assert got.error == ("decode", "body")
    assert SECRET[:4] not in got.detail


async def test_a_decompressed_body_has_the_same_limit() -> None:
    """To the byte."""
    limits = replace(PATIENT, max_bytes=1000)
    got = [await ask_leniently(gzipped(gzip.compress(b"x" * n)), limits) for n in (1000, 1001)]

    assert len(got[0].body) == 1000
    assert got[1].error == ("too_large", "body")
    assert len(got[1].exchange.body) == 1000


async def test_a_gzip_bomb_takes_no_more_memory_than_the_limit() -> None:
    """Half a gibibyte of zeros in half a mebibyte."""
    piece = zlib.compressobj(9, wbits=31)
    bomb = b"".join(piece.compress(bytes(MIB)) for _ in range(512)) + piece.flush()
    limits = replace(PATIENT, max_bytes=MIB)

    tracemalloc.start()
    got = await ask_leniently(gzipped(bomb), limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert got.error == ("too_large", "body")
    assert peak < 16 * MIB


async def test_a_connection_with_gzip_is_kept() -> None:
    """What is counted are the bytes on the wire."""
    reply = response(gzip.compress(GOOD), b"Content-Encoding: gzip")
    async with (
        raw_server(replying(reply, reply)) as server,
        open_client(PATIENT, leniency=Leniency(takes_gzip=True)) as client,
    ):
        got = [await ask(client, server.url) for _ in range(2)]

    assert [each.body for each in got] == [GOOD, GOOD]
    assert got[1].exchange.is_reused


async def test_an_accepted_content_type_passes() -> None:
    """Besides the agreed one, and no other."""
    types = (b"text/html; charset=utf-8", b"application/json", b"text/plain")
    got = [
        await ask_leniently(replying(response(GOOD, b"Content-Type: " + each))) for each in types
    ]
    errors: list[str | None] = []
    for each in got:
        assert each.answer is not None
        try:
            read_json(each.answer)
            errors.append(None)
        except SourceError as error:
            errors.append(error.error)

    assert errors == [None, None, "content_type"]


# Authorities.


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_a_ca_file_without_a_certificate_is_a_complaint(
    tmp_path: Path, content: bytes | None
) -> None:
    """At the start, and not once per request."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"^ca_file {path}: "):
        make_ssl_context(str(path))


def test_a_ca_file_stands_alone(tmp_path: Path) -> None:
    """Who names one wants no other."""
    trustme = pytest.importorskip("trustme")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")

    context = make_ssl_context(str(tmp_path / "ca.pem"))

    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname


@pytest.mark.parametrize("is_own_authority", [True, False])
def test_the_environment_cannot_have_the_keys_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_own_authority: bool
) -> None:
    """A variable that somebody left set would undo TLS without a word."""
    trustme = pytest.importorskip("trustme")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    context = make_ssl_context(str(tmp_path / "ca.pem") if is_own_authority else None)

    assert context.keylog_filename is None
    assert not (tmp_path / "keys").exists()


def test_a_missing_bundle_in_the_environment_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cron and a shell are to trust the same."""
    trusted = make_ssl_context(None).get_ca_certs()

    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")

    assert make_ssl_context(None).get_ca_certs() == trusted
