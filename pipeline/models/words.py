"""The words of the books: verdicts, states, kinds of findings."""

from enum import StrEnum


class Verdict(StrEnum):
    """What became of a batch."""

    # The store numbers them in this order: new ones come last.
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


class SlotChoice(StrEnum):
    """Whether a start of ``pipeline collect`` keeps to the slots of the schedule."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Aspect(StrEnum):
    """What of an answer is agreed upon, so that a change of it is worth a word."""

    CONTENT_TYPE = "content_type"
    KEYS = "keys"
    REFUSAL = "refusal"
    TLS_ISSUER = "tls_issuer"
    SIGNING = "signing"


UNFIT = "; the pinned key makes "
"""Stands in how a source signs where no key that is pinned makes signatures of that length."""


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
    WEAK = "weak"
    TOO_FAST = "too_fast"
    RULE_VIOLATION = "rule_violation"
    USELESS_RETRIES = "useless_retries"
    IMPOSSIBLE = "impossible"
    SILENT = "silent"
    SHUT = "shut"
    CLOCK = "clock"
    MISSED = "missed"
    OVERDUE = "overdue"
    REPETITION = "repetition"
    PROPORTION = "proportion"
    ODD_BLOCKS = "odd_blocks"
    LATE = "late"


class ProofWord(StrEnum):
    """How far numbers are proved to be those that their source gave; no word stands for another."""

    VERIFIED = "verified"
    CHAINED = "chained"
    UNVERIFIABLE = "signed, not verifiable"
    UNSIGNED = "unsigned"


class Severity(StrEnum):
    """How much a finding matters, the worst last."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
