"""Answers told wrongly: what a fault makes of the bytes of a good one. Pure."""

import gzip
import re
from collections.abc import Iterator
from functools import cache

from pipeline.sandbox.exchange import Numbers, Response, Step

BOMB_BYTES = 64 * 1024 * 1024
_SIGNATURE = re.compile(rb'"signature(?:Value)?": ?"[0-9A-Za-z+/=]{40,}')


def add_key(body: bytes) -> bytes:
    """Add a key to an object; anything else stays as it is."""
    return b'{"notice":"new",' + body[1:] if body.startswith(b"{") else body


def add_quota(body: bytes, left: int) -> bytes:
    """Add what is left of a quota to an object, as randomdata.sh tells it."""
    return b'{"QUOTA":%d,' % left + body[1:] if body.startswith(b"{") else body


def change_signature(body: bytes) -> bytes:
    """Change one digit of a signature; a body without one stays as it is."""
    found = _SIGNATURE.search(body)
    if found is None:
        return body
    at = found.end() - 20
    other = b"1" if body[at : at + 1] == b"0" else b"0"
    return body[:at] + other + body[at + 1 :]


def half(body: bytes) -> bytes:
    """Give the first half."""
    return body[: len(body) // 2]


def duplicate_keys(body: bytes) -> bytes:
    """Let a parser that takes the last of two keys find nothing wrong."""
    first = b'{"success":false,"data":[],"result":null,'
    return first + body[1:] if body.startswith(b"{") else b'[{"data":1,"data":2}]'


def written_as_float(numbers: Numbers) -> list[str]:
    """Write 5.0 for 5."""
    return ["5.0" if token.startswith('"') else f"{token}.0" for token in numbers.tokens]


def written_as_string(numbers: Numbers) -> list[str]:
    """Write "5" for 5."""
    return ['"zz"' if token.startswith('"') else f'"{token}"' for token in numbers.tokens]


@cache
def bomb() -> bytes:
    """Compress 64 MiB of zeros."""
    return gzip.compress(bytes(BOMB_BYTES), compresslevel=1)


def compress(body: bytes) -> bytes:
    """Compress quickly."""
    return gzip.compress(body, compresslevel=1)


def write_head(response: Response, *extra: tuple[str, str], version: str = "HTTP/1.1") -> bytes:
    """Write the status line and the headers with *extra* ones after them, blank line included."""
    lines = [f"{version} {response.status} OK"]
    lines += [f"{name}: {value}" for name, value in (*response.headers, *extra)]
    return "\r\n".join([*lines, "", ""]).encode()


def length_of(response: Response, surplus: int = 0) -> tuple[str, str]:
    """Write the header that says how long the body is."""
    return "Content-Length", str(len(response.body) + surplus)


def sized_head(response: Response, *extra: tuple[str, str], version: str = "HTTP/1.1") -> bytes:
    """Write the head with the right length in it."""
    return write_head(response, length_of(response), *extra, version=version)


def whole(response: Response) -> bytes:
    """Write the answer as it should be."""
    return sized_head(response) + response.body


def chunked(response: Response, chunks: bytes) -> bytes:
    """Write the head of an answer in chunks, and these."""
    return write_head(response, ("Transfer-Encoding", "chunked")) + chunks


def chunk(data: bytes) -> bytes:
    """Write one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def drip(data: bytes, pause_seconds: float) -> Iterator[Step]:
    """Send byte by byte."""
    for byte in data:
        yield bytes((byte,))
        yield pause_seconds
