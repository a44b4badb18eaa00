"""A stored request and its answer as lines of text, and how much of the body was kept. Pure.

The lines hold foreign text as it came: who shows them makes it printable.
"""

from collections.abc import Iterable, Iterator

from pipeline.errors import ErrorName
from pipeline.models import Evidence, Request
from pipeline.sanitize import REDACTED

# By what the headers announced; a body that turned out to be too large was read in part.
NOT_READ = frozenset({ErrorName.DECODE, ErrorName.TOO_LARGE})


def lines_of_request(request: Request, *, most: int | None = None) -> Iterator[str]:
    """Write a request; of its body at most so many characters."""
    yield f"{request.method} {request.url}"
    yield from _headers(request.headers)
    if request.body:
        yield ""
        yield from _body(request.body, most)


def lines_of_answer(
    evidence: Evidence, error: ErrorName | None, *, most: int | None = None
) -> Iterator[str]:
    """Write the answer to an attempt that ended in *error*; of its body so many characters."""
    yield f"Status {evidence.status}"
    yield from _headers(evidence.headers)
    yield f"Body: {tell_extent(evidence, error)}"
    if evidence.body:
        yield ""
        yield from _body(evidence.body, most)


def _headers(headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"{name}: {value}" for name, value in headers)


def _body(body: bytes, most: int | None) -> list[str]:
    text = body.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return (text if most is None or len(text) <= most else f"{text[:most]}…").split("\n")


def tell_extent(evidence: Evidence, error: ErrorName | None) -> str:
    """Say how much of a body was read and kept: ``5000 bytes, the first 100 kept``.

    Where a secret was replaced, the lengths do not tell whether the body was cut as well.
    """
    if evidence.body_bytes == 0 and error in NOT_READ:
        return "not read"
    size, kept = f"{evidence.body_bytes} bytes", len(evidence.body)
    if REDACTED in evidence.body:
        return f"{size}; kept: {kept}, with secrets replaced"
    return f"{size}, all kept" if kept >= evidence.body_bytes else f"{size}, the first {kept} kept"
