"""Misbehaviour on the byte level: what to send, when to pause, when to reset.

A script is a generator of steps; the server plays it and then closes the connection. Nothing
here touches a socket, so that a script can be read and tested as a list.
"""

from collections.abc import Iterator
from itertools import repeat
from math import inf

from pipeline.sandbox.exchange import Response, Signal, Step

HUGE_HEADER_BYTES = 300_000
MANY_HEADERS = 5_000
ENDLESS_CHUNK = b"1," * 8_192
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_PAUSE_SECONDS = 0.01
IDLE_SECONDS = 0.05


def write_head(response: Response, *extra: tuple[str, str], version: str = "HTTP/1.1") -> bytes:
    """Write the status line and the headers with *extra* ones after them, blank line included."""
    lines = [f"{version} {response.status} OK"]
    lines += [f"{name}: {value}" for name, value in (*response.headers, *extra)]
    return "\r\n".join([*lines, "", ""]).encode()


def _length(response: Response, surplus: int = 0) -> tuple[str, str]:
    return "Content-Length", str(len(response.body) + surplus)


def _half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def whole(response: Response) -> bytes:
    """Write the answer as it should be."""
    return write_head(response, _length(response)) + response.body


def stall() -> Iterator[Step]:
    """Say nothing until the client leaves."""
    yield inf


def close() -> Iterator[Step]:
    """Say nothing and hang up."""
    yield from ()


def garbage() -> Iterator[Step]:
    """Speak another protocol."""
    yield b"SSH-2.0-OpenSSH_9.9\r\n\x00\x01\xfe\xff\r\n"


def endless_100() -> Iterator[Step]:
    """Promise an answer for ever."""
    while True:
        yield CONTINUE
        yield CONTINUE_PAUSE_SECONDS


def reset(response: Response) -> Iterator[Step]:
    """Break off in the middle of the body, the hard way."""
    yield write_head(response, _length(response)) + _half(response.body)
    yield IDLE_SECONDS  # or the reset overtakes the bytes
    yield Signal.RESET


def truncated(response: Response) -> Iterator[Step]:
    """Break off in the middle of the body, politely."""
    yield write_head(response, _length(response)) + _half(response.body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunked_head(response: Response) -> bytes:
    return write_head(response, ("Transfer-Encoding", "chunked"))


def chunked_truncated(response: Response) -> Iterator[Step]:
    """Leave out the last chunk."""
    yield _chunked_head(response) + _chunk(response.body)


def bad_chunk(response: Response) -> Iterator[Step]:
    """Announce a chunk whose size is no number."""
    yield _chunked_head(response) + b"ZZ\r\n" + response.body + b"\r\n0\r\n\r\n"


def tiny_chunks(response: Response) -> Iterator[Step]:
    """Send each byte in a chunk of its own, all at once."""
    chunks = b"".join(_chunk(response.body[at : at + 1]) for at in range(len(response.body)))
    yield _chunked_head(response) + chunks + b"0\r\n\r\n"


def short_close(response: Response) -> Iterator[Step]:
    """Let the connection's end be the body's end, too early."""
    yield write_head(response, ("Connection", "close")) + _half(response.body)


def wrong_length(response: Response) -> Iterator[Step]:
    """Announce two bytes fewer than are sent."""
    yield write_head(response, _length(response, -2)) + response.body


def two_lengths(response: Response) -> Iterator[Step]:
    """Announce two different lengths."""
    yield write_head(response, _length(response), _length(response, 7)) + response.body


def bad_length(response: Response) -> Iterator[Step]:
    """Announce a length that is no number."""
    yield write_head(response, ("Content-Length", "-1")) + response.body


def two_responses(response: Response) -> Iterator[Step]:
    """Send one answer too many, and keep the connection open for whoever reuses it."""
    yield whole(response) * 2
    yield inf


def idle_close(response: Response) -> Iterator[Step]:
    """Answer well, then close the connection that was to be kept."""
    yield whole(response)
    yield IDLE_SECONDS


def bad_version(response: Response) -> Iterator[Step]:
    """Claim a version of HTTP that does not exist."""
    yield write_head(response, _length(response), version="HTTP/9.9") + response.body


def _drip(data: bytes, pause_seconds: float) -> Iterator[Step]:
    for byte in data:
        yield bytes((byte,))
        yield pause_seconds


def slow_headers(response: Response, pause_seconds: float) -> Iterator[Step]:
    """Send the head byte by byte."""
    yield from _drip(write_head(response, _length(response)), pause_seconds)
    yield response.body


def slow_body(response: Response, pause_seconds: float) -> Iterator[Step]:
    """Send the body byte by byte."""
    yield write_head(response, _length(response))
    yield from _drip(response.body, pause_seconds)


def endless_body(response: Response) -> Iterator[Step]:
    """Never come to the end of the array."""
    yield write_head(response, ("Connection", "close")) + b"["
    yield from repeat(ENDLESS_CHUNK)


def huge_header(response: Response) -> Iterator[Step]:
    """Send one header that is larger than any parser should take."""
    yield write_head(response, _length(response), ("X-Huge", "x" * HUGE_HEADER_BYTES))
    yield response.body


def many_headers(response: Response) -> Iterator[Step]:
    """Send very many small headers."""
    many = [(f"X-Header-{number}", "x") for number in range(MANY_HEADERS)]
    yield write_head(response, _length(response), *many) + response.body
