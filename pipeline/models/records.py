"""What is on record: runs, batches, attempts, portions, slots.

What published fields mean stands in ``rendering/meanings.toml``; here is only what is beside that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pipeline.errors import ErrorName
from pipeline.models.asking import Attempt, Batch, Evidence, Fetch
from pipeline.models.sums import ContractSpan
from pipeline.models.words import Fate, RunStatus, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run as the store knows it; while it is running its totals are 0.

    Attributes:
        clock_us: None if nobody saw its end.
        waited_us: all exchanges added up, without waits for permission: the time one by one.
        clock_offset_us: in whole seconds, as a ``Date`` has them; None if no answer had one.
        is_alive: None: it has ended, nobody can know, or nobody asked.
    """

    id: int
    uid: str
    host: str
    pid: int
    version: str
    config_digest: str
    config_path: str
    is_sandbox: bool
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
    clock_offset_us: int | None = None
    is_alive: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A run that is called running though its deadline, *until*, or its next sign of life is over.

    Attributes:
        silent_since: when it was heard last, if that is too long ago.
    """

    run_id: int
    host: str
    started_at: datetime
    until: datetime
    is_alive: bool | None
    sources: tuple[str, ...]
    silent_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A worker that takes part in the runs of a store."""

    member_id: int
    host: str
    pid: int
    version: str
    lanes: int
    since: datetime
    seen_at: datetime
    portions: int
    is_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PortionRecord:
    """A stretch of the batches of one source, in a run that machines share."""

    run_id: int
    source: str
    first: int
    last: int
    host: str | None
    pid: int | None
    began_at: datetime | None
    undecided: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord(Batch):
    """One batch as the store knows it.

    Attributes:
        verdict: None while the run has not decided it.
        packed: its numbers as ``store.numbers`` packs them; None if not kept or not asked for.
        digest: SHA-256 over n, min, max and the packed numbers; None unless collected, and asked
            for with them.
    """

    run_id: int
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
    def digest_hex(self) -> str | None:
        """Write the digest as it is published."""
        return None if self.digest is None else self.digest.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt as the store knows it.

    Attributes:
        id: unique in the store, over all runs.
        evidence: digest (hex) of the answer that was kept, None if none was; the answer itself
            is in ``attempt.evidence`` only where one attempt was asked for.
        host: the machine of the worker that asked; None: the run itself asked, on its own.
        pid: the worker's process there.
    """

    id: int
    run_id: int
    attempt: Attempt
    evidence: str | None
    host: str | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCase:
    """One attempt with its request, its evidence and the batches that it decided.

    Attributes:
        tries: all attempts of its fetch, itself included, in order.
        contracts: what the source's answers looked like at the time; empty if it got none.
        limits: those in force at its source then, as ``describe_limits`` names them, if they were
            kept.
    """

    record: AttemptRecord
    batches: tuple[BatchRecord, ...]
    tries: tuple[AttemptRecord, ...]
    contracts: tuple[ContractSpan, ...]
    limits: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Attempts at a source that came to the books when their run had ended: no part of its sums."""

    run_id: int
    source: str
    file: str | None
    host: str
    pid: int | None
    attempts: int
    collected: int
    first_at: datetime
    last_at: datetime


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
class Gap:
    """So many *slots* of a schedule in a row that nobody ran, the first and the last of them."""

    schedule: str
    due_at: datetime
    last_due_at: datetime
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """One slot as the store knows it.

    Attributes:
        fate: None while its run goes on.
        host: the machine that claimed it or booked it as missed.
        last_due_at: of a gap, when the last of its slots was due, the first of them at ``due_at``.
    """

    schedule: str
    due_at: datetime
    fate: Fate | None
    run_id: int | None
    host: str | None
    claimed_at: datetime
    late_us: int | None
    last_due_at: datetime | None = None
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotDay:
    """What became of the slots of one schedule that were due on one day (UTC)."""

    schedule: str
    day: date
    ran: int
    late: int
    skipped: int
    missed: int
    interrupted: int
    running: int
    late_us: int | None
