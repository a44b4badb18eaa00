"""What the server, the imitations and the faults hand each other: plain values, no I/O."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from math import inf
from typing import Any, TypeVar

from pipeline.sandbox.options import SandboxOptions

JSON = "application/json"
TEXT = "text/plain"
HTML = "text/html"

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
MEMORY = 10_000  # clients, keys or paths that a table of an imitation remembers

Headers = tuple[tuple[str, str], ...]
K = TypeVar("K")
V = TypeVar("V")


class Signal(Enum):
    """A step of a script that is neither bytes nor a pause."""

    RESET = auto()


Step = bytes | float | Signal
"""Bytes to send, seconds to pause (``inf``: until the client leaves), or a reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as it came off the wire, not yet routed.

    Attributes:
        target: as it stood in the request line.
        headers: by lower-case name; the last of two wins.
        client: the peer's address, the unit of most upstreams' limits.
        port: the peer's port, which tells connections apart.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    client: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Call):
    """A call that reached an imitation.

    Attributes:
        path: below the kind's prefix, with a leading slash.
        query: decoded; every value that a name was given.
        seconds: monotonic time of arrival.
        utc: wall time of arrival.
        in_flight: other requests of this client to this upstream, not answered yet.
    """

    path: str
    query: Mapping[str, Sequence[str]]
    seconds: float
    utc: datetime
    in_flight: int

    def param(self, name: str) -> str | None:
        """Give the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a good answer is made of, so that a fault can tell it wrongly.

    Attributes:
        tokens: the numbers as they are written in the body.
        high: the largest number that the request allows.
        render: tokens to body.
    """

    tokens: Sequence[str]
    high: int
    render: Callable[[Sequence[str]], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer; the server adds the length.

    Attributes:
        delay_seconds: waited before the first byte.
        violations: the rules that the request broke.
        numbers: present in a good answer only.
        signed_short: makes the same body with half a signature; present in a signed pulse only.
        script: played byte by byte instead of the rest, then the connection ends.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    delay_seconds: float = 0.0
    violations: tuple[str, ...] = ()
    numbers: Numbers | None = None
    signed_short: Callable[[], bytes] | None = None
    script: Iterator[Step] | None = None


class Upstream:
    """An imitation: its state is its rules' memory, its only input the request.

    Attributes:
        example: a path that works, for the index.
        memory: what the rules know, by client or key.
    """

    example = "/"

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.memory: dict[str, Any] = {}

    def answer(self, request: Request, /) -> Response:
        """Answer as the upstream would."""
        raise NotImplementedError

    def refuse(self, request: Request, /) -> Response:
        """Refuse in the upstream's own words, whatever was asked."""
        raise NotImplementedError

    def is_early(self, request: Request, seconds: float) -> bool:
        """Tell whether the client was served less than so many *seconds* ago, if rules hold."""
        served_at = self.memory.get(request.client, -inf)
        return self.options.rules and request.seconds - served_at < seconds

    def used(self, key: str, period: str) -> int:
        """Tell how much of the quota of this *period* is remembered of a key."""
        since, used = self.memory.get(key, (period, 0))
        return used if since == period else 0


def answer_text(
    body: str, status: int = 200, content_type: str = TEXT, headers: Headers = ()
) -> Response:
    """Make an answer of *body*."""
    return Response(
        status=status, headers=(("Content-Type", content_type), *headers), body=body.encode()
    )


def answer_numbers(
    tokens: Sequence[str],
    high: int,
    write: Callable[[Sequence[str]], str],
    content_type: str = JSON,
    headers: Headers = (),
) -> Response:
    """Make a good answer: numbers up to *high* as *tokens*, of which *write* makes a body."""
    numbers = Numbers(tokens=tokens, high=high, render=lambda tokens: write(tokens).encode())
    return Response(
        headers=(("Content-Type", content_type), *headers),
        body=numbers.render(tokens),
        numbers=numbers,
    )


def parse_integer(value: str | None) -> int | None:
    """Read a decimal integer of at most 18 digits; None if it is anything else."""
    return int(value) if value is not None and INTEGER.fullmatch(value) else None


def not_found() -> Response:
    """Answer as most servers do where there is nothing."""
    return answer_text("<h1>Not Found</h1>", 404, HTML)


def compact(value: object) -> str:
    """Write JSON without blanks, as the imitated servers do."""
    return json.dumps(value, separators=(",", ":"))


def remember(memory: dict[K, V], key: K, value: V) -> None:
    """Set *key*, and forget the oldest one when the table is full."""
    memory[key] = value
    if len(memory) > MEMORY:
        del memory[next(iter(memory))]
