"""The values that the program talks about: frozen, checked before they are built, no I/O."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipeline.errors import ErrorName, Phase


class Verdict(StrEnum):
    """What became of a batch."""

    COLLECTED = "collected"
    FAILED = "failed"
    DEFERRED = "deferred"
    CANCELLED = "cancelled"


class RunStatus(StrEnum):
    """What became of a run; ``running`` is the only one that is not final."""

    RUNNING = "running"
    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """``n`` integers in [``min``, ``max``] wanted from one source in one run.

    Attributes:
        number: position within the run, from 0; its name is ``w`` and this number.
    """

    number: int
    source: str
    n: int
    min: int
    max: int

    @property
    def name(self) -> str:
        """Give the name within the run: ``w0``, ``w1``, …"""
        return f"w{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One logical HTTP request that serves batches of one source and one range.

    Attributes:
        number: position within the run, from 0.
        batches: whom it serves, in the order in which the answer is cut; never empty.
    """

    number: int
    batches: tuple[Batch, ...]

    @property
    def source(self) -> str:
        """Name the source that is asked."""
        return self.batches[0].source

    @property
    def n(self) -> int:
        """Count the numbers that all batches want together."""
        return sum(batch.n for batch in self.batches)

    @property
    def min(self) -> int:
        """Give the lower bound, inclusive; the same for all batches."""
        return self.batches[0].min

    @property
    def max(self) -> int:
        """Give the upper bound, inclusive; the same for all batches."""
        return self.batches[0].max


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long each phase of an attempt took, in microseconds; None: it was not reached."""

    wait_us: int | None = None
    dns_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    send_us: int | None = None
    first_byte_us: int | None = None
    body_us: int | None = None
    check_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The bounded, redacted record of an answer that failed.

    Attributes:
        headers: names and values in the order received.
        body: the first bytes of the body, secrets replaced.
        body_bytes: how many bytes were received in all.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One HTTP exchange of a fetch.

    Attributes:
        fetch: the fetch's number within the run.
        number: 1 for the first try, 2 for its first retry, …
        began_at: UTC, when the fetch's turn came (before any wait).
        is_reused: whether an open connection carried it.
        status: the HTTP status, None if none was received.
        phase: where it failed, None if it did not.
        detail: one line, redacted and free of control characters.
        retry_after_us: how long the upstream asked us to wait.
    """

    fetch: int
    number: int
    source: str
    began_at: datetime
    timings: Timings
    is_reused: bool = False
    status: int | None = None
    body_bytes: int | None = None
    error: ErrorName | None = None
    phase: Phase | None = None
    detail: str | None = None
    retry_after_us: int | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one batch.

    Attributes:
        fetch: number of the fetch that was to serve it.
        attempt: number of the attempt that decided it, None if none was made.
        offset: where its numbers begin in the fetch's answer.
        numbers: what was collected, in the order received; empty unless collected.
    """

    batch: Batch
    verdict: Verdict
    fetch: int
    attempt: int | None = None
    offset: int | None = None
    numbers: tuple[int, ...] = ()
    error: ErrorName | None = None
    detail: str | None = None
