"""Tests for pipeline/sources/transport.py: connections, phases, and whose answer it is."""

import errno
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

import anyio
import httpx2 as httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import ErrorName, Phase, SourceError
from pipeline.models import Timings
from pipeline.sandbox.options import SandboxOptions, TlsMode
from pipeline.sandbox.server import Sandbox, serving
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.http import Exchange, make_ssl_context, open_client
from pipeline.sources.transport import MAX_HEAD_BYTES, OneConnection, PhaseClock
from tests.sources.edge import (
    PATIENT,
    QUICK_IN_ALL,
    QUICK_TO_CONNECT,
    QUICK_TO_READ,
    SHORT_SECONDS,
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
BAD = b"[6, 6, 6]"
UPSTREAM = "upstream.test"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNREACHED = {"dns_us": None, "connect_us": None, "tls_us": None}


def _total_us(timings: Timings) -> int:
    phases = (getattr(timings, name) for name in Timings.__slots__)
    return sum(us for us in phases if us is not None)


def _reached(timings: Timings) -> list[str]:
    return [
        name.removesuffix("_us") for name in Timings.__slots__ if getattr(timings, name) is not None
    ]


# The clock.


def test_phases_add_up_to_the_whole() -> None:
    """A gap or an overlap would make a report's sums a lie."""
    gaps_us = []
    for _ in range(20):  # this machine may be busy
        began = perf_counter_ns()
        clock = PhaseClock()
        for phase in Phase:
            clock.enter(phase)
        clock.stop()
        whole_us = (perf_counter_ns() - began) / 1000
        assert _reached(clock.timings()) == [phase.value for phase in Phase]
        gaps_us.append(whole_us - _total_us(clock.timings()))

    assert 0 <= min(gaps_us) <= 2000


def test_a_phase_that_was_not_entered_is_unknown_and_not_zero() -> None:
    """Zero would drag every average down."""
    clock = PhaseClock()

    clock.enter(Phase.SEND)

    assert clock.timings().wait_us is not None
    assert clock.timings().dns_us is None


def test_a_phase_may_come_back() -> None:
    """Head and body of a POST are two writes: what was booked stays booked."""
    clock = PhaseClock()
    clock.enter(Phase.SEND)
    clock.stop()
    once = clock.timings().send_us

    clock.enter(Phase.SEND)
    clock.stop()

    assert once is not None
    assert (clock.timings().send_us or 0) >= once


# The phases of real exchanges.


async def test_an_attempt_is_timed_without_a_gap(sandbox: Sandbox) -> None:
    """Time adds up: what the clock on the wall shows is what the phases hold."""
    gaps_us: list[float] = []
    while not gaps_us or (min(gaps_us) > 50_000 and len(gaps_us) < 9):  # this machine may be busy
        began = perf_counter()
        got = await ask_once(url_of(sandbox, "latency=0.05", host="localhost"))
        whole_us = (perf_counter() - began) * 1_000_000
        assert _reached(got.timings) == ["wait", "dns", "connect", "send", "first_byte", "body"]
        assert (got.timings.first_byte_us or 0) >= 50_000
        gaps_us.append(whole_us - _total_us(got.timings))

    assert 0 <= min(gaps_us) <= 50_000


async def test_an_address_is_not_looked_up(sandbox: Sandbox) -> None:
    """No resolver, no DNS time."""
    got = await ask_once(url_of(sandbox))

    assert _reached(got.timings) == ["wait", "connect", "send", "first_byte", "body"]


async def test_a_public_name_must_not_lead_home(sandbox: Sandbox) -> None:
    """A forged answer of the resolver would make us ask what listens on this machine."""
    async with open_client(PATIENT, is_public=True) as client:
        got = await ask(client, url_of(sandbox, host="localhost"))

    assert got.error == ("dns", "dns")
    assert "which is not public" in got.detail
    assert not sandbox.journal.entries


async def test_an_address_that_was_named_is_asked_wherever_it_is(sandbox: Sandbox) -> None:
    """No resolver had a say in it."""
    async with open_client(PATIENT, is_public=True) as client:
        got = await ask(client, url_of(sandbox))

    assert got.answer is not None


async def test_a_kept_connection_has_no_connecting_in_its_books(sandbox: Sandbox) -> None:
    """Else the second request would seem to have connected in no time."""
    async with open_client(PATIENT) as client:
        first = await ask(client, url_of(sandbox, host="localhost"))
        second = await ask(client, url_of(sandbox, host="localhost"))

    assert not first.exchange.is_reused
    assert second.exchange.is_reused
    assert _reached(second.timings) == ["wait", "send", "first_byte", "body"]
    assert len({entry.port for entry in sandbox.journal.entries}) == 1


async def test_a_body_that_is_sent_counts_as_sending() -> None:
    """JSON-RPC posts its question."""

    async def play(visit: Visit) -> None:
        while not (await visit.stream.receive()).endswith(b"question"):
            pass
        await visit.send(response(GOOD))

    async with raw_client(play) as (server, client):
        got = await ask(client, server.url, b"question")

    assert got.body == GOOD
    assert _reached(got.timings) == ["wait", "connect", "send", "first_byte", "body"]


# Names.


@contextmanager
def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str] | OSError) -> Iterator[None]:
    """Let the resolver know one name: each look-up takes the next of *answers*."""
    real, left = socket.getaddrinfo, list(answers)

    def getaddrinfo(host: Any, port: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - C's signature
        if host != UPSTREAM:
            return real(host, port, *rest, **named)
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answer]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


async def test_an_unknown_name_is_a_dns_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the host: that is what has to be corrected."""
    with resolving(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known")):
        got = await ask_once(f"http://{UPSTREAM}/")

    assert got.error == ("dns", "dns")
    assert got.detail == f"{UPSTREAM}: Name or service not known"
    assert _reached(got.timings) == ["wait", "dns"]


@pytest.fixture
def hung_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let every look-up wait until the event is set, at the latest when the test is over."""
    release = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        release.wait()
        return []

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield release
    release.set()
    for thread in threading.enumerate():
        if thread.name == f"resolve {UPSTREAM}":
            thread.join(1)


async def test_a_resolver_that_takes_too_long_is_a_dns_error(
    hung_resolver: threading.Event,
) -> None:
    """It is part of connecting, and bounded by it."""
    got = await ask_once(f"http://{UPSTREAM}/", QUICK_TO_CONNECT)
    hung_resolver.set()
    await anyio.sleep(0.01)  # the thread answers to nobody, which must not hurt

    assert got.error == ("dns", "dns")
    assert got.detail == f"{UPSTREAM}: no answer in {SHORT_SECONDS} s"


@pytest.mark.usefixtures("hung_resolver")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_answer_from_the_resolver_may_come_after_the_end(backend: str) -> None:
    """The thread outlives the loop that asked; it must not complain to anybody."""
    got = anyio.run(ask_once, f"http://{UPSTREAM}/", QUICK_TO_CONNECT, backend=backend)

    assert got.error == ("dns", "dns")


HANG = f"""
import socket, sys, time
socket.getaddrinfo = lambda *args, **named: time.sleep(300)

import anyio, httpx2
from pipeline.errors import SourceError
from pipeline.sources.http import Exchange, Limits, open_client

limits = Limits(connect_seconds={SHORT_SECONDS}, read_seconds=1, attempt_seconds=1, max_bytes=1)

async def main():
    async with open_client(limits) as client:
        try:
            await client.fetch_answer(httpx2.Request("GET", "http://{UPSTREAM}/"), Exchange())
        except SourceError as exc:
            print(exc.error, flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hung_resolver_does_not_hold_the_process(backend: str) -> None:
    """Its thread cannot be stopped; cron must not wait a minute for it."""
    ended = subprocess.run(
        [sys.executable, "-c", HANG, backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "dns\n", "")


# Connecting.


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def full_listener(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Listen with a queue that is full, so that no connection ever completes."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, port), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - positional only
            assert waiting.connect_ex(address) in (0, errno.EINPROGRESS)
        yield address[1]


async def test_a_closed_port_refuses() -> None:
    """The host is there, the service is not."""
    port = _closed_port()

    got = await ask_once(f"http://127.0.0.1:{port}/")

    assert got.error == ("connect_refused", "connect")
    assert got.detail == f"127.0.0.1 port {port}: Connection refused"
    assert _reached(got.timings) == ["wait", "connect"]


async def test_a_connection_that_never_completes_times_out() -> None:
    """A firewall that drops packets says nothing."""
    with full_listener() as port:
        got = await ask_once(f"http://127.0.0.1:{port}/", QUICK_TO_CONNECT)

    assert got.error == ("connect_timeout", "connect")


async def test_a_failed_connection_leaves_the_client_usable(sandbox: Sandbox) -> None:
    """The upstream may come back within the run."""
    async with open_client(PATIENT) as client:
        failed = await ask(client, f"http://127.0.0.1:{_closed_port()}/")
        got = await ask(client, url_of(sandbox))

    assert failed.error == ("connect_refused", "connect")
    assert got.answer is not None
    assert not got.exchange.is_reused


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES])
async def test_no_route_is_unreachable(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Whatever the kernel's word for it, the path is broken and not the upstream."""

    async def fail(*_: object) -> None:
        raise OSError("All connection attempts failed") from OSError(code, os.strerror(code))

    monkeypatch.setattr(anyio, "connect_tcp", fail)

    got = await ask_once("http://127.0.0.1:1/")

    assert got.error == ("unreachable", "connect")
    assert os.strerror(code) in got.detail


async def test_running_out_of_descriptors_is_not_the_upstreams_fault(
    sandbox: Sandbox, anyio_backend_name: str
) -> None:
    """Many connections at once fail here first, and the report must say where."""
    assert anyio_backend_name
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        got = await ask_once(url_of(sandbox))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert got.error == ("internal", "connect")
    assert "Too many open files" in got.detail


async def test_the_next_address_is_tried_when_one_refuses(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the machines with IPv6 have a broken one."""
    with resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"]):
        got = await ask_once(url_of(sandbox, host=UPSTREAM))

    assert got.answer is not None


async def test_the_next_address_joins_in_when_one_is_silent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8305: a quarter of a second, and not the whole connect timeout."""
    began = perf_counter()
    with (
        full_listener("127.0.0.2", sandbox.port),
        resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"]),
    ):
        got = await ask_once(url_of(sandbox, host=UPSTREAM))

    assert got.answer is not None
    assert perf_counter() - began < PATIENT.connect_seconds


async def test_the_first_failure_is_told_when_all_addresses_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The resolver's first choice is what a person would try."""
    port = _closed_port()
    with resolving(monkeypatch, ["127.0.0.1", "127.0.0.2"]):
        got = await ask_once(f"http://{UPSTREAM}:{port}/")

    assert got.error == ("connect_refused", "connect")
    assert got.detail == f"{UPSTREAM} port {port}: Connection refused"


async def test_a_connection_won_while_being_stopped_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would ever use it, and the server would keep it for an hour."""
    connect_tcp = anyio.connect_tcp

    async with raw_server(Visit.until_gone) as server:
        with anyio.CancelScope() as scope:

            async def connect_and_stop(host: str, port: int) -> object:
                stream = await connect_tcp(host, port)
                scope.cancel()
                return stream

            monkeypatch.setattr(anyio, "connect_tcp", connect_and_stop)
            await ask_once(server.url)

        assert scope.cancelled_caught
        assert await happens(lambda: server.connections == server.gone == 1)


async def test_of_two_connections_that_succeed_at_once_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one would stay open unused."""
    connect_tcp = anyio.connect_tcp

    async with raw_server(replying(response(GOOD))) as server:
        both = anyio.Event()
        arrived: list[object] = []

        async def connect_together(_host: str, port: int) -> object:
            with anyio.CancelScope(shield=True):
                stream = await connect_tcp("127.0.0.1", port)
                arrived.append(stream)
                if len(arrived) == 2:
                    both.set()
                await both.wait()
            return stream

        monkeypatch.setattr(anyio, "connect_tcp", connect_together)
        with resolving(monkeypatch, ["127.0.0.1", "127.0.0.2"]):
            async with open_client(PATIENT) as client:
                got = await ask(client, f"http://{UPSTREAM}:{server.port}/")
                closed = await happens(lambda: server.gone == 1)

    assert got.body == GOOD
    assert server.connections == 2
    assert closed


async def test_a_proxy_in_the_environment_is_ignored(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cron's environment and a shell's must lead to the same place."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{_closed_port()}")

    got = await ask_once(url_of(sandbox))

    assert got.answer is not None


# Sending and receiving.


async def test_a_server_that_reads_nothing_cannot_be_written_to() -> None:
    """The kernel's buffers fill, then nothing moves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with open_client(QUICK_TO_READ) as client:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            got = await ask(client, url, bytes(2**24))

    assert got.error == ("write_timeout", "send")
    assert got.detail == f"not sent within {SHORT_SECONDS} s"


async def test_an_answer_that_comes_before_the_question_is_over_counts() -> None:
    """A server may refuse a request by its head and hang up on the rest."""

    async def play(visit: Visit) -> None:
        await visit.stream.receive()
        await visit.send(response(b"too much", b"Connection: close", status=b"413 No"))
        await anyio.sleep(0.01)
        visit.reset()

    async with raw_client(play) as (server, client):
        got = await ask(client, server.url, bytes(2**24))

    # Which one it is depends on whether the reset overtakes the answer in the kernel.
    if got.answer is None:
        assert got.error == ("reset", "first_byte")
    else:
        assert got.body == b"too much"


async def test_who_is_slow_within_the_limit_is_waited_for(sandbox: Sandbox) -> None:
    """Slow is not down, and the books say for what was waited (N10)."""
    got = await ask_once(url_of(sandbox, "latency=0.4"), replace(PATIENT, read_seconds=0.5))

    assert got.answer is not None
    assert (got.timings.first_byte_us or 0) == pytest.approx(400_000, abs=90_000)


async def test_silence_times_out(sandbox: Sandbox) -> None:
    """The server took the question and never answers."""
    got = await ask_once(url_of(sandbox, "stall"), QUICK_TO_READ)

    assert got.error == ("read_timeout", "first_byte")
    assert got.detail == f"no byte for {SHORT_SECONDS} s"
    assert got.timings.body_us is None


async def test_silence_after_the_first_bytes_times_out_in_the_body() -> None:
    """The phase tells a server that is stuck from one that never began."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(response(GOOD)[:-4])
        await visit.until_gone()

    got = await ask_raw(play, QUICK_TO_READ)

    assert got.error == ("read_timeout", "body")
    assert got.exchange.status == 200
    assert bytes(got.exchange.body) == GOOD[:-4]


async def test_a_reset_is_told_from_an_end(sandbox: Sandbox) -> None:
    """A crashed server resets, a polite one closes."""
    got = await ask_once(url_of(sandbox, "reset"))

    assert got.error == ("reset", "body")
    assert got.exchange.status == 200


async def test_hanging_up_without_a_byte_is_incomplete(sandbox: Sandbox) -> None:
    """Proxies that give up do so."""
    got = await ask_once(url_of(sandbox, "close"))

    assert got.error == ("incomplete", "first_byte")


@pytest.mark.parametrize("start", [b"SSH-2.0-OpenSSH_9.9\r\n", b"\x15\x03\x01\x00\x02\x02\x16"])
async def test_what_is_not_http_is_told_at_once(start: bytes) -> None:
    """A parser waits for a whole line, which another protocol need not send."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(start)
        await visit.until_gone()

    got = await ask_raw(play)

    assert got.error == ("protocol", "body")
    assert got.detail == "this is not HTTP/1"


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-OpenSSH_9.9\r\n", response(GOOD)], ids=["banner", "answer"]
)
async def test_who_speaks_first_is_heard(reply: bytes) -> None:
    """What comes before the question has come is judged as if it had come after it."""

    async def play(visit: Visit) -> None:
        await visit.send(reply)
        await visit.until_gone()

    got = await ask_raw(play)

    assert got.body == GOOD if got.answer else got.error == ("protocol", "body")
    assert (got.answer is None) is (reply[:3] == b"SSH")


async def test_a_key_that_ends_its_line_is_not_sent() -> None:
    """It would make headers, or a request, of its own."""
    async with raw_client(replying(response(GOOD))) as (server, client):
        request = httpx.Request("GET", server.url, headers={"X-Api-Key": "a\r\nX-Forged: 1"})
        with pytest.raises(ValueError, match="what HTTP does not allow"):
            await client.fetch_answer(request, Exchange())

    assert server.heads == []


async def test_an_answer_comes_at_its_readers_pace() -> None:
    """What nobody takes stays with the server, and takes no memory here."""
    size, sent = 2**24, 0

    async def play(visit: Visit) -> None:
        nonlocal sent
        await visit.read_head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await visit.send(bytes(2**16))
            sent += 2**16
        await visit.until_gone()

    async with (
        raw_server(play) as server,
        OneConnection(httpx.Timeout(5.0)) as connection,
    ):
        await connection.ask(httpx.Request("GET", server.url))
        before = -1
        while before != sent:
            before = sent
            await anyio.sleep(0.05)
        body = b""
        while piece := await connection.read_body():
            body += piece

    assert before < size
    assert body == bytes(size)


async def test_what_is_not_http_stays_so_when_the_server_closes(sandbox: Sandbox) -> None:
    """Calling it an answer that ended early would send the reader the wrong way."""
    got = await ask_once(url_of(sandbox, "garbage"))

    assert got.error == ("protocol", "body")


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_head_is_taken_up_to_its_limit(pieces: int) -> None:
    """And not a byte more, however the bytes happen to arrive."""
    shortest = response(GOOD, b"X-Long: ")
    longest = MAX_HEAD_BYTES - len(shortest) + len(GOOD)

    async def fetch(surplus: int) -> object:
        data = response(GOOD, b"X-Long: " + b"x" * (longest + surplus))
        size = len(data) // pieces + 1

        async def play(visit: Visit) -> None:
            await visit.read_head()
            for start in range(0, len(data), size):
                await visit.send(data[start : start + size])
                await anyio.sleep(0.002)
            await visit.until_gone()

        got = await ask_raw(play)
        return got.body if got.answer else got.error

    assert await fetch(0) == GOOD
    assert await fetch(1) == ("protocol", "body")


@pytest.mark.parametrize("fault", ["huge_header", "many_headers"])
async def test_a_head_without_measure_is_refused(sandbox: Sandbox, fault: str) -> None:
    """300 kB in one header, or 5000 headers."""
    got = await ask_once(url_of(sandbox, fault))

    assert got.error == ("protocol", "body")


# Whose answer is it?


@pytest.mark.parametrize("is_in_one_piece", [True, False])
async def test_a_surplus_answer_serves_nobody(is_in_one_piece: bool) -> None:
    """The numbers of one batch must not become those of another."""
    pair = [response(GOOD), response(BAD)]

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(*([b"".join(pair)] if is_in_one_piece else pair))
        await visit.until_gone()

    async with raw_client(play) as (server, client):
        first = await ask(client, server.url)
        await anyio.sleep(0.01)
        second = await ask(client, server.url)

    assert (first.body, second.body) == (GOOD, GOOD)
    assert not second.exchange.is_reused
    assert server.connections == 2


async def test_the_sandboxs_surplus_answer_serves_nobody(sandbox: Sandbox) -> None:
    """The same, as everybody can try it."""
    async with open_client(PATIENT) as client:
        await ask(client, url_of(sandbox, "two_responses"))
        got = await ask(client, url_of(sandbox, n=5))

    assert b'"length":5' in got.body


async def test_the_rest_of_a_body_serves_nobody() -> None:
    """A length that is too small leaves bytes behind."""
    reply = response(GOOD).replace(b"9\r\n", b"7\r\n")

    async with raw_client(replying(reply)) as (server, client):
        first = await ask(client, server.url)
        second = await ask(client, server.url)

    assert (first.body, second.body) == (GOOD[:7], GOOD[:7])
    assert server.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 102 Wait\r\n\r\n" + response(GOOD),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n" + GOOD,
        b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n" + GOOD,
    ],
    ids=["interim", "close", "http10"],
)
async def test_a_connection_that_cannot_be_counted_is_not_kept(reply: bytes) -> None:
    """A new connection is cheap, a wrong answer is not."""
    async with raw_client(replying(reply)) as (server, client):
        bodies = [(await ask(client, server.url)).body for _ in range(2)]

    assert bodies == [GOOD, GOOD]
    assert server.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        response(GOOD),
        response(b""),
        CHUNKED + b"9\r\n" + GOOD + b"\r\n0\r\n\r\n",
        CHUNKED + b"9;a=b\r\n" + GOOD + b"\r\n0\r\nX-Trailer: 1\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
    ],
    ids=["good", "empty", "chunked", "trailer", "no_chunk"],
)
async def test_a_connection_is_kept_when_all_is_accounted_for(reply: bytes) -> None:
    """Connecting takes longer than asking."""
    async with raw_client(replying(reply, reply, reply)) as (server, client):
        got = [await ask(client, server.url) for _ in range(3)]

    assert [each.exchange.is_reused for each in got] == [False, True, True]
    assert server.connections == 1


@pytest.mark.parametrize("surplus", [b"\r\n", b"0\r\n\r\n", b"H", response(BAD)])
async def test_what_follows_the_last_chunk_serves_nobody(surplus: bytes) -> None:
    """Where a body ends is known to the byte, in chunks as well."""
    reply = CHUNKED + b"9\r\n" + GOOD + b"\r\n0\r\n\r\n" + surplus

    async with raw_client(replying(reply)) as (server, client):
        bodies = [(await ask(client, server.url)).body for _ in range(2)]

    assert bodies == [GOOD, GOOD]
    assert server.connections == 2


async def test_a_connection_that_was_closed_while_idle_costs_nothing(sandbox: Sandbox) -> None:
    """Servers close idle connections, which is no failure."""
    async with open_client(PATIENT) as client:
        first = await ask(client, url_of(sandbox, "idle_close"))
        await anyio.sleep(0.1)
        second = await ask(client, url_of(sandbox, "idle_close"))

    assert first.answer is not None
    assert second.answer is not None
    assert not second.exchange.is_reused


def answering_once(*, is_reset: bool, first_byte: bytes = b"") -> Script:
    """Answer one request of each connection, read the next and be gone, maybe after a byte."""

    async def read_request(visit: Visit) -> None:
        request = b""
        while not request.endswith(b"{}" if request.startswith(b"POST") else b"\r\n\r\n"):
            request += await visit.stream.receive()

    async def play(visit: Visit) -> None:
        await read_request(visit)
        await visit.send(response(GOOD))
        await read_request(visit)
        await visit.send(*filter(None, [first_byte]))
        if is_reset:
            visit.reset()

    return play


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("body", [None, b"{}"], ids=["GET", "POST"])
async def test_a_connection_that_is_closed_under_a_request_is_replaced(
    body: bytes | None, is_reset: bool
) -> None:
    """The server had closed it, or was about to: nothing came back, and nobody failed."""
    async with raw_client(answering_once(is_reset=is_reset)) as (server, client):
        first = await ask(client, server.url, body)
        second = await ask(client, server.url, body)

    assert (first.body, second.body) == (GOOD, GOOD)
    assert not first.exchange.asked_again
    assert second.exchange.asked_again
    assert not second.exchange.is_reused
    assert second.timings.connect_us is not None
    assert server.connections == 2


async def test_what_is_paid_is_not_sent_again_unnoticed() -> None:
    """The first one may have been carried out: the adapter decides what is asked next."""
    async with raw_client(answering_once(is_reset=False)) as (server, client):
        paid = Endpoint(server.url, "").post(b"{}", is_paid=True)
        await client.fetch_answer(paid, Exchange())
        with pytest.raises(SourceError) as caught:
            await client.fetch_answer(paid, exchange := Exchange())

    assert caught.value.error is ErrorName.INCOMPLETE
    assert (exchange.asked_again, server.connections) == (False, 1)


async def test_a_server_that_closes_after_each_answer_never_fails() -> None:
    """Without a word about it; now and then a request crosses its goodbye."""
    async with raw_client(replying(response(GOOD), hold=False)) as (server, client):
        got = [await ask(client, server.url) for _ in range(200)]

    assert [each.failure for each in got] == [None] * 200


async def test_it_is_asked_again_once() -> None:
    """A new connection that ends without a byte is a failure."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        if visit.server.connections == 1:
            await visit.send(response(GOOD))
            await visit.read_head()
        visit.reset()

    async with raw_client(play) as (server, client):
        first = await ask(client, server.url)
        second = await ask(client, server.url)
        third = await ask(client, server.url)

    assert first.body == GOOD
    assert second.error == third.error == ("reset", "first_byte")
    assert second.exchange.asked_again
    assert not third.exchange.asked_again
    assert server.connections == 3


@pytest.mark.parametrize(("is_reset", "error"), [(False, "incomplete"), (True, "reset")])
async def test_an_answer_that_had_begun_is_not_asked_for_again(is_reset: bool, error: str) -> None:
    """The request had arrived, so it is the server that failed."""
    play = answering_once(is_reset=is_reset, first_byte=b"HTTP")

    async with raw_client(play) as (server, client):
        await ask(client, server.url)
        second = await ask(client, server.url)

    assert second.error == (error, "body")
    assert not second.exchange.asked_again
    assert server.connections == 1


async def test_silence_on_a_kept_connection_is_not_asked_about_again() -> None:
    """It may be thinking about it."""
    async with raw_client(replying(response(GOOD)), QUICK_TO_READ) as (server, client):
        await ask(client, server.url)
        second = await ask(client, server.url)

    assert second.error == ("read_timeout", "first_byte")
    assert server.connections == 1


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (CONTINUE + b"\r\n" + response(GOOD),),
        (CONTINUE, b"\r\n", response(GOOD)),
        (CONTINUE[:-2], b"\r\n\r", b"\n" + response(GOOD)),
        (CONTINUE + b"\r", b"\n" + CONTINUE + b"\n\n" + response(GOOD)[:5], response(GOOD)[5:]),
        (b"HTTP/1.1 103 Early\r\nLink: </>\r\n\r\n\r\n" + response(GOOD),),
    ],
)
async def test_a_blank_line_after_an_informational_answer_is_forgiven(
    parts: tuple[bytes, ...],
) -> None:
    """Some servers write one line end too many."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        for part in parts:
            await visit.send(part)
            await anyio.sleep(0.005)
        await visit.until_gone()

    got = await ask_raw(play)

    assert got.body == GOOD


async def test_a_blank_line_before_an_answer_is_not() -> None:
    """Nobody is known to do so, and what comes from elsewhere may begin so."""
    got = await ask_raw(replying(b"\r\n" + response(GOOD)))

    assert got.error == ("protocol", "body")


async def test_another_origin_gets_a_connection_of_its_own() -> None:
    """An answer belongs to the host that was asked."""
    async with (
        raw_server(replying(response(GOOD), response(GOOD))) as one,
        raw_client(replying(response(BAD))) as (other, client),
    ):
        got = [await ask(client, server.url) for server in (one, other)]

    assert [each.body for each in got] == [GOOD, BAD]
    assert [each.exchange.is_reused for each in got] == [False, False]


async def test_a_failed_exchange_hangs_up(sandbox: Sandbox) -> None:
    """The rest of an answer that we gave up on must not be drained, let alone be used."""
    async with raw_client(replying(response(GOOD)[:-1]), QUICK_TO_READ) as (server, client):
        first = await ask(client, server.url)
        is_closed = await happens(lambda: server.gone == 1)
        second = await ask(client, url_of(sandbox))

    assert first.error == ("read_timeout", "body")
    assert is_closed
    assert second.answer is not None


async def test_leaving_closes_the_connection() -> None:
    """A client that is done holds nothing."""
    async with raw_server(replying(response(GOOD))) as server:
        await ask_once(server.url)

        assert await happens(lambda: server.gone == 1)


# TLS.


class Tls:
    """An authority that clients trust, and servers with certificates of it."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.client = make_ssl_context(str(self.ca_file))

    def server(self, **certificate: Any) -> ssl.SSLContext:  # noqa: ANN401 - trustme's
        """Make the context of a server for 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1", **certificate).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Make one authority for all: keys take time."""
    return Tls(tmp_path_factory.mktemp("tls"))


async def test_tls_is_a_phase_of_its_own(tls: Tls) -> None:
    """A slow handshake is not a slow answer."""
    async with (
        raw_server(replying(response(GOOD), response(GOOD)), tls=tls.server()) as server,
        open_client(PATIENT, tls.client) as client,
    ):
        first = await ask(client, server.url)
        second = await ask(client, server.url)

    assert first.body == second.body == GOOD
    assert _reached(first.timings) == ["wait", "connect", "tls", "send", "first_byte", "body"]
    assert _reached(second.timings) == ["wait", "send", "first_byte", "body"]
    assert second.exchange.is_reused


async def test_the_issuer_is_known_as_long_as_the_connection_is(tls: Tls) -> None:
    """Another issuer overnight is worth a word; plain HTTP has none."""
    async with (
        raw_server(replying(response(GOOD), response(GOOD)), tls=tls.server()) as server,
        raw_server(replying(response(GOOD))) as plain,
        open_client(PATIENT, tls.client) as client,
    ):
        urls = (server.url, server.url, plain.url)
        issuers = [(await ask(client, url)).exchange.tls_issuer for url in urls]

    assert issuers[0] is not None
    assert issuers[0].startswith("O=trustme")
    assert issuers == [issuers[0], issuers[0], None]


def _self_signed(folder: Path, **name: str) -> Path:
    """Make a certificate for 127.0.0.1 that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    whose = x509.Name(
        [x509.NameAttribute(getattr(x509.NameOID, part), text) for part, text in name.items()]
    )
    now = datetime.now(UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(whose, whose, key.public_key(), serial_number=1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


async def test_an_issuer_is_written_with_its_common_name(tmp_path: Path) -> None:
    """One organisation signs with several keys, and the name of the key tells them apart."""
    file = _self_signed(tmp_path, COUNTRY_NAME="DE", COMMON_NAME="R3", ORGANIZATION_NAME="Example")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(file)

    async with raw_server(replying(response(GOOD)), tls=server_side) as server:
        got = await ask_once(server.url, tls=make_ssl_context(str(file)))

    assert got.exchange.tls_issuer == "O=Example, CN=R3"


async def test_a_certificate_that_nobody_checked_has_no_issuer(tls: Tls) -> None:
    """Anybody could have written it."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE

    async with raw_server(replying(response(GOOD)), tls=tls.server()) as server:
        got = await ask_once(server.url, tls=careless)

    assert got.body == GOOD
    assert got.exchange.tls_issuer is None


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (TlsMode.EXPIRED, "certificate: expired (or the clock here is wrong)"),
        (TlsMode.WRONG_HOST, "certificate: wrong host"),
        (TlsMode.UNKNOWN_ISSUER, "certificate: unknown issuer"),
    ],
)
async def test_a_certificate_that_does_not_fit_is_refused(
    tmp_path: Path, mode: TlsMode, reason: str
) -> None:
    """Never a silent fallback; the reason tells whom to ask."""
    async with serving(SandboxOptions(tls=mode)) as sandbox:
        (tmp_path / "ca.pem").write_bytes(sandbox.ca_pem or b"")
        context = make_ssl_context(str(tmp_path / "ca.pem"))

        got = await ask_once(url_of(sandbox), tls=context)

    assert got.error == ("tls", "tls")
    assert got.detail.startswith(reason)
    assert sandbox.journal.entries == type(sandbox.journal.entries)()


async def test_a_certificate_from_the_future_blames_the_clock_as_well(tls: Tls) -> None:
    """Behind it is most often a wrong clock here."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    context = tls.server(not_before=tomorrow, not_after=tomorrow + timedelta(days=1))

    async with raw_server(replying(response(GOOD)), tls=context) as server:
        got = await ask_once(server.url, tls=tls.client)

    assert got.error == ("tls", "tls")
    assert got.detail.startswith("certificate: not yet valid (or the clock here is wrong)")


async def test_without_a_context_the_systems_authorities_are_asked(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of the environment, which cron does not share with a shell."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))

    async with raw_server(replying(response(GOOD)), tls=tls.server()) as server:
        got = await ask_once(server.url)

    assert got.error == ("tls", "tls")
    assert got.detail.startswith("certificate: unknown issuer")


async def test_a_protocol_that_we_do_not_speak_ends_the_handshake(tls: Tls) -> None:
    """An upstream may turn old versions off, or never have turned new ones on."""
    old = tls.server()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    modern = make_ssl_context(str(tls.ca_file))
    modern.minimum_version = ssl.TLSVersion.TLSv1_3

    async with raw_server(replying(response(GOOD)), tls=old) as server:
        got = await ask_once(server.url, tls=modern)

    assert got.error == ("tls", "tls")
    assert got.detail.startswith("handshake: ")


async def test_plain_http_on_the_tls_port_is_a_tls_error(sandbox: Sandbox, tls: Tls) -> None:
    """The address says https, the server does not know."""
    got = await ask_once(url_of(sandbox).replace("http:", "https:"), tls=tls.client)

    assert got.error == ("tls", "tls")


@pytest.mark.parametrize("is_reset", [True, False])
async def test_hanging_up_in_the_handshake_is_a_tls_error(tls: Tls, is_reset: bool) -> None:
    """So do servers that miss something in our greeting."""

    async def play(visit: Visit) -> None:
        await visit.stream.receive()
        if is_reset:
            visit.reset()

    async with raw_server(play) as server:
        got = await ask_once(server.url.replace("http:", "https:"), tls=tls.client)

    assert got.error == ("tls", "tls")
    assert got.detail == "handshake: the server hung up"


async def test_a_handshake_that_stalls_is_bounded_by_the_connect_limit(tls: Tls) -> None:
    """And the connection below it is closed."""
    async with raw_server(Visit.until_gone) as server:
        url = server.url.replace("http:", "https:")
        async with open_client(QUICK_TO_CONNECT, tls.client) as client:
            got = await ask(client, url)

            assert got.error == ("connect_timeout", "tls")
            assert await happens(lambda: server.gone == 1)


async def test_a_handshake_that_is_given_up_hangs_up(tls: Tls) -> None:
    """The attempt's own limit may come first."""
    async with raw_server(Visit.until_gone) as server:
        url = server.url.replace("http:", "https:")
        async with open_client(QUICK_IN_ALL, tls.client) as client:
            got = await ask(client, url)

            assert got.error == ("connect_timeout", "tls")
            assert await happens(lambda: server.gone == 1)


async def test_an_end_without_goodbye_is_not_the_end_of_a_body(tls: Tls) -> None:
    """Without a length anybody on the way could cut the answer."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\n1\n2\n")

    async with raw_server(play, tls=tls.server()) as server:
        got = await ask_once(server.url, tls=tls.client)

    assert got.error == ("incomplete", "body")
    assert got.detail == "the connection ended without TLS's goodbye"


async def test_a_reset_under_tls_is_a_reset(tls: Tls) -> None:
    """As without TLS."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(response(GOOD)[:-1])
        await anyio.sleep(0.01)
        visit.reset()

    async with raw_server(play, tls=tls.server()) as server:
        got = await ask_once(server.url, tls=tls.client)

    assert got.error == ("reset", "body")


async def test_a_record_that_was_tampered_with_is_a_tls_error(tls: Tls) -> None:
    """TLS notices, and we say what it noticed."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.tcp.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await visit.until_gone()

    async with raw_server(play, tls=tls.server()) as server:
        got = await ask_once(server.url, tls=tls.client)

    assert got.error == ("tls", "first_byte")
    assert got.detail.startswith("after the handshake: ")


async def test_a_body_that_is_too_large_is_so_under_tls(tls: Tls) -> None:
    """OpenSSL would complain about what was left unread, and its complaint must not win."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(2**16)] * 8)
        await visit.until_gone()

    async with raw_server(play, tls=tls.server()) as server:
        got = await ask_once(server.url, replace(PATIENT, max_bytes=10), tls=tls.client)

    assert got.error == ("too_large", "body")


async def test_a_surplus_answer_hidden_in_tls_serves_nobody(tls: Tls) -> None:
    """It has left the socket with the answer before it, where no poll can see it."""
    body = bytes(2**14)
    full_record = body[: 2**14 - len(response(body)) + len(body)]
    assert len(response(full_record)) == 2**14

    async def play(visit: Visit) -> None:
        await visit.read_head()
        await visit.send(response(full_record) + response(BAD))
        await visit.until_gone()

    async with (
        raw_server(play, tls=tls.server()) as server,
        open_client(PATIENT, tls.client) as client,
    ):
        bodies = [(await ask(client, server.url)).body for _ in range(2)]

    assert bodies == [full_record, full_record]
    assert server.connections == 2
