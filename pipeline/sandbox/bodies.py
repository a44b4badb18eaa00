"""Bodies told wrongly: what a fault makes of the bytes of a good answer. Pure."""

import gzip
import re
from functools import cache

from pipeline.sandbox.exchange import Numbers

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
