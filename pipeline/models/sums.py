"""What is added up over attempts, runs and time, and what an audit finds in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import ErrorName, Phase, Whose
from pipeline.models.words import Aspect, FindingKind, Severity


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


def state_of(collected: int, lost: int) -> str:
    """Say in a word how batches fared, some of which were ordered."""
    if lost:
        return "partial" if collected else "failed"
    return "ok" if collected else "deferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What attempts and batches of one source add up to.

    Attributes:
        wait_us: waits for permission and pauses before retries, all attempts added up.
        exchange_us: all else of the attempts, added up.
    """

    collected: int
    failed: int
    deferred: int
    cancelled: int
    numbers: int
    attempts: int
    failed_attempts: int
    retries: int
    retries_helped: int
    wait_us: int
    exchange_us: int

    @property
    def ordered(self) -> int:
        """Count the batches that were wanted."""
        return self.collected + self.failed + self.deferred + self.cancelled

    @property
    def lost(self) -> int:
        """Count the batches that did not come, and were not put off."""
        return self.failed + self.cancelled

    @property
    def came(self) -> str:
        """Write how many of its batches came."""
        return f"{self.collected}/{self.ordered}"

    @property
    def state(self) -> str:
        """Say in a word how it went: ok, partial, failed or deferred."""
        return state_of(self.collected, self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally(Totals):
    """What one run got from one source: written when the run ended, kept when it is pruned.

    Attributes:
        fastest_us: the shortest exchange that brought numbers, ``fastest_attempt`` its id.
        first_sent_at: when the first request was allowed to go; None if none was sent.
        rule: the rate in force, as ``1/60s``; None if there was none or nobody knows.
        violations: requests that broke it, or that went before a time the upstream had named;
            None if nobody knows.
    """

    started_at: datetime
    run_id: int
    source: str
    is_sandbox: bool
    min: int
    max: int
    sum: int
    fastest_us: int | None
    fastest_attempt: int | None
    first_sent_at: datetime | None
    last_sent_at: datetime | None
    rule: str | None
    violations: int | None
    violating_attempt: int | None


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
        attempts: ids of some of the attempts that show it, the first and the last among them.
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
