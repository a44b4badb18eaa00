"""The values that the program talks about: frozen, checked before they are built, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from pipeline.errors import ErrorName, Phase, Whose


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


class Overlap(StrEnum):
    """What to do while another run of the same configuration is going on."""

    SKIP = "skip"
    WAIT = "wait"
    ALLOW = "allow"


class Aspect(StrEnum):
    """What of an answer is agreed upon, so that a change of it is worth a word."""

    CONTENT_TYPE = "content_type"
    KEYS = "keys"
    REFUSAL = "refusal"
    TLS_ISSUER = "tls_issuer"


class Step(StrEnum):
    """How wide the columns of a history are."""

    HOUR = "hour"
    DAY = "day"


class Fate(StrEnum):
    """What became of a slot."""

    RAN = "ran"
    LATE = "late"
    SKIPPED = "skipped"
    MISSED = "missed"
    INTERRUPTED = "interrupted"


class FindingKind(StrEnum):
    """What a finding is about."""

    INCIDENT = "incident"
    REFUSED = "refused"
    CONTRACT_CHANGE = "contract_change"
    STALE = "stale"
    TOO_FAST = "too_fast"
    RULE_VIOLATION = "rule_violation"
    USELESS_RETRIES = "useless_retries"
    SILENT = "silent"


class Severity(StrEnum):
    """How much a finding matters, the worst last."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


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
        """Give the name within the run: ``w0``, ``w1`` and so on."""
        return f"w{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One logical HTTP request that serves batches of one source and one range.

    Attributes:
        number: that of its first batch, so it is unique within the run.
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
        request: what was sent, or would have been over a better connection.
        contract: what the answer looked like, by aspect; only what it showed.
        evidence: the answer, if it failed or is the first of its kind in this run.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one batch.

    Attributes:
        fetch: number of the fetch that was to serve it.
        attempt: number of the attempt that decided it, None if none was made.
        offset: where its numbers begin in the fetch's answer.
        numbers: what was collected, in the order received; empty unless collected.
        not_before: if deferred, the earliest moment at which it can be asked for.
    """

    batch: Batch
    verdict: Verdict
    fetch: int
    attempt: int | None = None
    offset: int | None = None
    numbers: tuple[int, ...] = ()
    error: ErrorName | None = None
    detail: str | None = None
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run as the store knows it; while it is running its totals are 0.

    Attributes:
        uid: 32 hex digits that no other run has, on any machine.
        host: the machine that ran it.
        config_digest: hash of the settings it ran with.
        clock_us: how long it took by the clock; None if nobody saw its end.
        waited_us: all exchanges added up, without waits for permission: the time one by one.
        numbers: how many numbers were collected.
    """

    id: int
    uid: str
    host: str
    pid: int
    version: str
    config_digest: str
    config_path: str
    started_at: datetime
    ended_at: datetime | None
    status: RunStatus
    clock_us: int | None
    ordered: int
    collected: int
    failed: int
    deferred: int
    cancelled: int
    numbers: int
    attempts: int
    waited_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """One batch as the store knows it.

    Attributes:
        verdict: None while the run has not decided it.
        sum: of its numbers, exact; None unless collected.
        packed: its numbers as ``store.numbers`` packs them; None if not kept or not asked for.
        digest: SHA-256 over n, min, max and the packed numbers; None unless collected.
        not_before: if deferred, the earliest moment at which it can be asked for.
    """

    run_id: int
    number: int
    source: str
    n: int
    min: int
    max: int
    verdict: Verdict | None
    fetch: int | None
    attempt: int | None
    offset: int | None
    sum: int | None
    packed: bytes | None
    digest: bytes | None
    error: ErrorName | None
    detail: str | None
    not_before: datetime | None

    @property
    def name(self) -> str:
        """Give the name within the run: ``w0``, ``w1`` and so on."""
        return f"w{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt as the store knows it.

    Attributes:
        id: unique in the store, over all runs.
        evidence: digest (hex) of the answer that was kept, None if none was; the answer itself
            is in ``attempt.evidence`` only where one attempt was asked for.
    """

    id: int
    run_id: int
    attempt: Attempt
    evidence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCase:
    """One attempt with its request, its evidence and the batches that it decided.

    Attributes:
        tries: all attempts of its fetch, itself included, in order.
        contracts: what the source's answers looked like at the time; empty if it got none.
    """

    record: AttemptRecord
    batches: tuple[BatchRecord, ...]
    tries: tuple[AttemptRecord, ...]
    contracts: tuple["ContractSpan", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """One answer that was kept, and those like it: same source, same answer, same error.

    Attributes:
        error: what became of it then, None if it was accepted.
        attempts: how many got it.
        newest: the id of the last of them; ``fetch`` is what that one was to bring.
        fetch: None where the batches are not in the store any more.
    """

    source: str
    error: ErrorName | None
    attempts: int
    newest: int
    evidence: Evidence
    fetch: Fetch | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTotals:
    """How long one phase took over all attempts of a source that reached it, in microseconds.

    Attributes:
        n: how many attempts reached the phase; those that did not are in none of the figures.
    """

    source: str
    phase: Phase
    n: int
    total_us: int
    min_us: int
    max_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one run got from one source: written when the run ended, kept when it is pruned.

    Attributes:
        started_at: when the run did, UTC.
        sum: of all numbers collected, exact.
        retries: attempts after the first of a fetch.
        retries_helped: those of them that brought the numbers.
        wait_us: waits for permission and pauses before retries, all attempts added up.
        exchange_us: all else of the attempts, added up.
        fastest_us: the shortest exchange that brought numbers, ``fastest_attempt`` its id.
        first_sent_at: when the first request was allowed to go; None if none was sent.
        rule: the rate in force, as ``1/60s``; None if there was none or nobody knows.
        violations: requests that broke it, or that went before a time the upstream had named;
            None if nobody knows.
    """

    started_at: datetime
    run_id: int
    source: str
    min: int
    max: int
    collected: int
    failed: int
    deferred: int
    cancelled: int
    numbers: int
    sum: int
    attempts: int
    failed_attempts: int
    retries: int
    retries_helped: int
    wait_us: int
    exchange_us: int
    fastest_us: int | None
    fastest_attempt: int | None
    first_sent_at: datetime | None
    last_sent_at: datetime | None
    rule: str | None
    violations: int | None
    violating_attempt: int | None

    @property
    def ordered(self) -> int:
        """Count the batches that were wanted."""
        return self.collected + self.failed + self.deferred + self.cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one run lost at one source to one error in one phase; kept when the run is pruned.

    Attributes:
        phase: None if the batches were lost without asking anybody.
        attempts: that failed so.
        batches: whose outcome it is.
        first_at: when the first of these attempts was let go, its wait over, UTC; when the run
            started, if there was none.
        first_attempt: its id, ``last_attempt`` that of the last one; None if there was none.
    """

    started_at: datetime
    run_id: int
    source: str
    error: ErrorName
    phase: Phase | None
    attempts: int
    batches: int
    first_at: datetime
    last_at: datetime
    first_attempt: int | None
    last_attempt: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSpan:
    """One value of one aspect of a source's answers, from when to when it was seen."""

    source: str
    aspect: Aspect
    value: str
    first_at: datetime
    last_at: datetime
    first_attempt: int
    last_attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an audit has to say.

    Attributes:
        sources: whom it concerns, by name; never empty.
        since: when it began or was first seen, UTC.
        until: when it was over; None if it still goes on.
        reason: one line for a person; it may quote an upstream, so show it with care.
        whose: at whose door it lies; None if nobody is to blame.
        batches: that it cost.
        attempts: ids of some of the attempts that show it, the first and the last among them.
        figures: what it was judged by, fit for JSON.
    """

    kind: FindingKind
    severity: Severity
    sources: tuple[str, ...]
    since: datetime
    until: datetime | None
    reason: str
    whose: Whose | None
    batches: int = 0
    attempts: tuple[int, ...] = ()
    figures: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotClaim:
    """A slot that is ours to run.

    Attributes:
        schedule: the key of the schedule that promised it.
        due_at: UTC.
        grace_us: what starts later than this after it was due is late.
    """

    schedule: str
    due_at: datetime
    grace_us: int

    def late_us(self, started_at: datetime) -> int:
        """Tell how long after it was due a run began; one that began early is not late."""
        return max(0, (started_at - self.due_at) // timedelta(microseconds=1))

    def fate(self, run: RunSummary) -> Fate:
        """Tell what became of it now that its run has ended."""
        if run.status is RunStatus.SKIPPED:
            return Fate.SKIPPED
        if run.status is RunStatus.INTERRUPTED:
            return Fate.INTERRUPTED
        return Fate.LATE if self.late_us(run.started_at) > self.grace_us else Fate.RAN


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """One slot as the store knows it.

    Attributes:
        fate: None while its run goes on.
        host: the machine that claimed it or booked it as missed.
        late_us: how long after it was due its run began; None if none did.
    """

    schedule: str
    due_at: datetime
    fate: Fate | None
    run_id: int | None
    host: str | None
    claimed_at: datetime
    late_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotDay:
    """What became of the slots of one schedule that were due on one day (UTC).

    Attributes:
        running: those whose run goes on.
        late_us: by how much the latest start came after its slot was due; None if none did.
    """

    schedule: str
    day: date
    ran: int
    late: int
    skipped: int
    missed: int
    interrupted: int
    running: int
    late_us: int | None
