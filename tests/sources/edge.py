"""What the tests of the network edge share: a client's request, and a server that lies by hand."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import anyio
import httpx2 as httpx
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

from pipeline.errors import SourceError
from pipeline.models import Timings
from pipeline.sandbox.server import Sandbox
from pipeline.sources.base import Answer
from pipeline.sources.http import Client, Exchange, Limits, open_client

PATIENT = Limits(connect_seconds=5, read_seconds=5, attempt_seconds=5, max_bytes=100_000)
SHORT_SECONDS = 0.25  # enough for what is to come before it, even on a busy machine
QUICK_TO_READ = replace(PATIENT, read_seconds=SHORT_SECONDS)
QUICK_TO_CONNECT = replace(PATIENT, connect_seconds=SHORT_SECONDS)
QUICK_IN_ALL = replace(PATIENT, attempt_seconds=SHORT_SECONDS)

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError)
LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What one request brought: an answer or a failure, and the exchange with its timings."""

    exchange: Exchange
    timings: Timings
    answer: Answer | None = None
    failure: SourceError | None = None

    @property
    def body(self) -> bytes:
        """Give the body of an answer that must have come."""
        assert self.answer is not None, self.failure
        return self.answer.body

    @property
    def error(self) -> tuple[str, str]:
        """Name the failure that must have come, and its phase."""
        assert self.failure is not None, self.answer
        return self.failure.error.value, self.exchange.clock.phase.value

    @property
    def detail(self) -> str:
        """Give the text of the failure that must have come."""
        assert self.failure is not None, self.answer
        return self.failure.detail


async def ask(client: Client, url: str, body: bytes | None = None) -> Got:
    """Send one request with *client*, a POST if there is a *body*."""
    exchange = Exchange()
    request = httpx.Request("GET" if body is None else "POST", url, content=body)
    answer = failure = None
    try:
        answer = await client.fetch_answer(request, exchange)
    except SourceError as exc:
        failure = exc
    exchange.clock.stop()
    return Got(exchange=exchange, timings=exchange.clock.timings(), answer=answer, failure=failure)


async def ask_once(url: str, limits: Limits = PATIENT, *, tls: ssl.SSLContext | None = None) -> Got:
    """Send one request with a client of its own."""
    async with open_client(limits, tls) as client:
        return await ask(client, url)


def url_of(sandbox: Sandbox, *faults: str, host: str = "127.0.0.1", n: int = 3) -> str:
    """Give the address of *n* numbers in the sandbox, under *faults*."""
    base = sandbox.url("anu_legacy", *faults).replace("127.0.0.1", host, 1)
    return f"{base}/API/jsonI.php?length={n}&type=uint8"


def response(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Write a whole answer with a length, after *headers*."""
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


@dataclass(slots=True)
class RawServer:
    """A server on loopback that plays a script to each connection.

    Attributes:
        heads: the head of every request that a script has read.
        connections: how many have been accepted.
        gone: how many of them are over.
    """

    scheme: str
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    gone: int = 0

    @property
    def url(self) -> str:
        """Give the address of its only resource."""
        return f"{self.scheme}://127.0.0.1:{self.port}/numbers"


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection to a raw server, and what a script does with it."""

    server: RawServer
    stream: ByteStream
    tcp: SocketStream

    async def read_head(self) -> bytes:
        """Read a request that has no body, and remember it."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.stream.receive()
        self.server.heads.append(head)
        return head

    async def send(self, *parts: bytes) -> None:
        """Send *parts*, each in a segment of its own where the kernel plays along."""
        for part in parts:
            await self.stream.send(part)

    async def until_gone(self) -> None:
        """Wait until the client hangs up."""
        while True:
            await self.stream.receive()

    def reset(self) -> None:
        """Make the close that follows a reset."""
        raw = self.tcp.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)


Script = Callable[[Visit], Awaitable[None]]


def replying(*replies: bytes, hold: bool = True) -> Script:
    """Answer request after request of a connection, then *hold* it open or close it."""

    async def play(visit: Visit) -> None:
        for reply in replies:
            await visit.read_head()
            await visit.send(reply)
        if hold:
            await visit.until_gone()

    return play


async def _converse(
    server: RawServer, play: Script, tls: ssl.SSLContext | None, tcp: SocketStream
) -> None:
    server.connections += 1
    tcp.extra(SocketAttribute.raw_socket).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with suppress(*GONE):
            stream: ByteStream = tcp
            if tls:
                stream = await TLSStream.wrap(
                    tcp, server_side=True, ssl_context=tls, standard_compatible=False
                )
            await play(Visit(server, stream, tcp))
    finally:
        server.gone += 1
        await anyio.aclose_forcefully(tcp)


@asynccontextmanager
async def raw_server(
    play: Script, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """Serve *play* on 127.0.0.1 for the length of the block."""
    server = RawServer("https" if tls else "http")

    async def serve(tcp: SocketStream) -> None:
        await _converse(server, play, tls, tcp)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield server
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def raw_client(
    play: Script, limits: Limits = PATIENT
) -> AsyncIterator[tuple[RawServer, Client]]:
    """Serve *play*, and open a client for it."""
    async with raw_server(play) as server, open_client(limits) as client:
        yield server, client


async def ask_raw(play: Script, limits: Limits = PATIENT) -> Got:
    """Send one request to a server that plays *play*."""
    async with raw_client(play, limits) as (server, client):
        return await ask(client, server.url)


async def happens(condition: Callable[[], bool]) -> bool:
    """Tell whether *condition* comes true within a second or so."""
    for _ in range(500):
        if condition():
            return True
        await anyio.sleep(0.002)
    return False
