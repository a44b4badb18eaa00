"""What the sandbox's tests share: requests made by hand, and a client that sees every byte."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs

from anyio import EndOfStream, connect_tcp, fail_after
from anyio.abc import AnyByteStream, SocketStream

from pipeline.sandbox.exchange import Request
from pipeline.sandbox.server import HOST, Sandbox

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLITE = {"user-agent": "pipeline/0.1 (owner@example.org)"}
PATIENCE_SECONDS = 30


def make_request(
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] = POLITE,
    body: bytes = b"",
    client: str = HOST,
    seconds: float = 0.0,
    utc: datetime = NOON,
    in_flight: int = 0,
) -> Request:
    """Make what an imitation sees of *target*, at whatever time it is said to be."""
    path, _, query = target.partition("?")
    return Request(
        method=method,
        target=target,
        path=path,
        query=parse_qs(query, keep_blank_values=True),
        headers=headers,
        body=body,
        client=client,
        port=1,
        seconds=seconds,
        utc=utc,
        in_flight=in_flight,
    )


def write_request(
    target: str, *headers: str, method: str = "GET", body: bytes = b"", is_last: bool = True
) -> bytes:
    """Write a request; *is_last* asks the server to close afterwards."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if is_last:
        lines.append("Connection: close")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer, cut where its head ends."""

    status: int
    headers: dict[str, str]
    body: bytes


def cut(answer: bytes) -> Seen:
    """Split an answer that is whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Seen(int(status.split()[1]), headers, body)


async def connect(sandbox: Sandbox) -> SocketStream:
    """Open a connection to *sandbox*."""
    return await connect_tcp(HOST, sandbox.port)


async def read_all(stream: AnyByteStream, *, at_most: int = 2**24) -> bytes:
    """Read until the server closes, or until *at_most* bytes have come.

    Raises:
        BrokenResourceError: the server reset the connection.
    """
    data = b""
    with fail_after(PATIENCE_SECONDS):
        try:
            while len(data) < at_most:
                data += await stream.receive()
        except EndOfStream:
            return data
    return data


async def read_one(stream: SocketStream) -> Seen:
    """Read one answer with a length, and leave the connection open."""
    data = b""
    with fail_after(PATIENCE_SECONDS):
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        while len((seen := cut(data)).body) < int(seen.headers["content-length"]):
            data += await stream.receive()
    return seen


async def fetch(sandbox: Sandbox, target: str, *headers: str) -> bytes:
    """Ask once and give every byte that came back before the server closed."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(target, *headers))
        return await read_all(stream)
