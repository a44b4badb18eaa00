"""What is asked for, what one request takes, and what comes of it."""

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import attrgetter

from pipeline.errors import ErrorName, Phase
from pipeline.models.words import Aspect, ProofWord, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """``n`` integers in [``min``, ``max``] wanted from one source in one run.

    Attributes:
        number: position within the run, from 0; its name is ``w`` and this number.
        is_sandbox: whether the sandbox plays the source.
    """

    number: int
    source: str
    n: int
    min: int
    max: int
    is_sandbox: bool = False

    @property
    def name(self) -> str:
        """Give the name within the run: ``w0``, ``w1`` and so on."""
        return f"w{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One logical HTTP request that serves batches of one source and one range.

    Attributes:
        number: that of its first batch, so it is unique within the run.
        batches: whom it serves, in the order in which the answer is cut; never empty.
        run: the run that it belongs to, 0 where there is none.
    """

    number: int
    batches: tuple[Batch, ...]
    run: int = 0

    @property
    def source(self) -> str:
        """Name the source that is asked."""
        return self.batches[0].source

    @property
    def n(self) -> int:
        """Count the numbers that all batches want together."""
        return sum([batch.n for batch in self.batches])

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

    @property
    def total_us(self) -> int:
        """Add up the phases that were reached."""
        return sum(us for us in _durations(self) if us is not None)


_durations = attrgetter(*(field.name for field in fields(Timings)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The bounded, redacted record of an answer that failed, or looked like none before it.

    Attributes:
        headers: names and values in the order received.
        body: the first bytes of the body, secrets replaced.
        body_bytes: how many bytes were read; no more than ``max_bytes`` ever are.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was sent, fit to be kept: each secret is replaced by the name of its variable.

    Attributes:
        url: whole, as ``https://api.example.org/v1?n=5``.
        headers: names and values in the order sent; a secret reads ``${ANU_AQN_KEY}``.
        body: empty for a GET.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure that an answer holds beside its numbers, and what is wanted of it, if anything."""

    name: str
    value: float
    at_least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakMeasure:
    """A figure of a source that was below what is wanted, in some answers of a window.

    Attributes:
        n: how many answers had the figure, ``below`` how many too little of it.
        lowest: the least of all, ``at_least`` what is wanted.
        first_at: when the first attempt that was below began, ``last_at`` the last one.
        newest_attempt: the last one that had the figure at all.
    """

    source: str
    name: str
    n: int
    below: int
    lowest: float
    at_least: float
    first_at: datetime
    last_at: datetime
    first_attempt: int
    last_attempt: int
    newest_attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a source signed, whole: all that its numbers follow from, and who vouches for it.

    Attributes:
        scheme: how it is signed.
        key_id: which key signed it, as its source names that key.
        serial: the round, pulse or serial number.
        made_at: when it was made, by its own word.
        message: what was signed.
        word: how far it was verified when it came.
        is_expanded: whether the numbers were drawn out of one public value, for each batch anew.
    """

    scheme: str
    key_id: str
    serial: int
    made_at: datetime
    message: bytes
    signature: bytes
    word: ProofWord
    is_expanded: bool


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
        detail: one line, redacted and free of control characters; also what was odd about one
            that went well.
        retry_after_us: how long the upstream asked us to wait.
        request: what was sent, or would have been over a better connection.
        contract: what the answer looked like, by aspect; only what it showed.
        evidence: the answer, if it failed or is the first of its kind in this run.
        measures: what it says of its numbers beside them.
        proof: what its source signed, if it signs.
        member: the worker that asked, of those that share a run; None: the run itself.
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
    request: Request | None = None
    contract: tuple[tuple[Aspect, str], ...] = ()
    evidence: Evidence | None = None
    measures: tuple[Measure, ...] = ()
    proof: Proof | None = None
    member: int | None = None

    @property
    def wait_us(self) -> int:
        """Give the time that it waited before it was let go."""
        return self.timings.wait_us or 0

    @property
    def took_us(self) -> int:
        """Give the time from then to its end."""
        return self.timings.total_us - self.wait_us

    @property
    def sent_at(self) -> datetime:
        """Give the moment when its wait was over."""
        return self.began_at + timedelta(microseconds=self.wait_us)

    @property
    def ended_at(self) -> datetime:
        """Give the moment when it was over."""
        return self.began_at + timedelta(microseconds=self.timings.total_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one batch.

    Attributes:
        fetch: number of the fetch that was to serve it.
        attempt: number of the attempt that decided it, None if none was made.
        offset: where its numbers begin in the fetch's answer.
        sum: of the numbers, exact; None unless collected, as are ``digest`` and ``numbers``.
        digest: SHA-256 over n, min, max and the packed numbers.
        numbers: what was collected, in the order received, as ``store.numbers`` packs it.
        not_before: if deferred, the earliest moment at which it can be asked for.
    """

    batch: Batch
    verdict: Verdict
    fetch: int
    attempt: int | None = None
    offset: int | None = None
    sum: int | None = None
    digest: bytes | None = None
    numbers: bytes | None = None
    error: ErrorName | None = None
    detail: str | None = None
    not_before: datetime | None = None
