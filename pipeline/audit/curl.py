"""Write a stored request as one command for a POSIX shell that repeats it with curl. Pure."""

import re
import shlex
from collections.abc import Iterator

from pipeline.errors import UsageError
from pipeline.models import Request

_SECRET = re.compile(rb"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")  # as it is stored
_UNSHOWN = re.compile(rb"([^\n -~]+)")  # could steer a terminal, or depends on its encoding

_SET_BY_CURL = frozenset({"host", "content-length"})  # it knows the real secret, and so the length
_ADDED_BY_CURL = ("Accept", "User-Agent")
_ADDED_WITH_BODY = "Content-Type"


def curl_command(request: Request, *, max_seconds: float) -> str:
    """Write the command that sends *request* once more and waits *max_seconds* for the answer.

    Secrets are variables; the shell stops at one that is not set. What was not in the request is
    not added: no header of curl's own, no proxy, no ``.curlrc``. The text is ASCII.

    Raises:
        UsageError: the body holds a zero byte, which no command line can.
    """
    return " \\\n  ".join(map(" ".join, _options(request, max_seconds)))


def _options(request: Request, max_seconds: float) -> Iterator[tuple[str, ...]]:
    # Without --globoff and --path-as-is curl rewrites URLs; without --http1.1 it may speak HTTP/2.
    yield ("curl", "--disable", "--include", "--globoff", "--path-as-is", "--http1.1")
    yield ("--noproxy", "'*'", "--max-time", f"{max_seconds:g}")
    yield ("--request", _word(request.method.encode()), _word(request.url.encode()))
    for name, value in request.headers:
        if name.lower() not in _SET_BY_CURL:
            header = f"{name}: {value}" if value else f"{name};"  # curl's way to say "empty"
            yield ("--header", _word(header.encode("latin-1")))
    for name in _unwanted(request):
        yield ("--header", f"'{name}:'")
    if request.body:
        yield ("--data-raw", _word(request.body))


def _unwanted(request: Request) -> Iterator[str]:
    """Name the headers that curl adds unless it is told not to."""
    sent = {name.lower() for name, _ in request.headers}
    added = (*_ADDED_BY_CURL, *((_ADDED_WITH_BODY,) if request.body else ()))
    return (name for name in added if name.lower() not in sent)


def _word(data: bytes) -> str:
    """Quote *data* as one word of the shell, secrets as variables."""
    if b"\0" in data:
        raise UsageError("the request holds a zero byte, so no command line can repeat it")
    return "".join(_quoted(data)) or "''"


def _quoted(data: bytes) -> Iterator[str]:
    for index, part in enumerate(_SECRET.split(data)):
        if index % 2:  # what the pattern's group took
            yield f'"${{{part.decode()}:?set it first}}"'
        else:
            yield from _quoted_text(part)


def _quoted_text(data: bytes) -> Iterator[str]:
    for index, part in enumerate(_UNSHOWN.split(data)):
        if index % 2:
            octal = "".join(f"\\{byte:03o}" for byte in part)
            yield f"\"$(printf '{octal}')\""  # never ends in a newline, which $() would drop
        elif part:
            yield shlex.quote(part.decode())
