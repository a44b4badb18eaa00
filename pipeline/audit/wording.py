"""How findings are told: counts in words, and the few attempts that stand for many. Pure."""

from collections.abc import Iterable
from datetime import timedelta

UNITS = (("days", 86_400), ("h", 3_600), ("min", 60))

MOST_ATTEMPTS = 10  # named by a finding


def counted(n: int, one: str, many: str) -> str:
    """Write a count with its noun: ``1 batch``, ``1,200 batches``."""
    return f"{n:,} {one if n == 1 else many}"


def select_attempts(ids: Iterable[int | None]) -> tuple[int, ...]:
    """Pick some ten of *ids*, in order: the first and the last ones; None stands for no attempt."""
    known = sorted({attempt_id for attempt_id in ids if attempt_id is not None})
    if len(known) <= MOST_ATTEMPTS:
        return tuple(known)
    half = MOST_ATTEMPTS // 2
    return (*known[:half], *known[-half:])


def roughly(time: timedelta) -> str:
    """Write a stretch of time in its largest unit: ``5 min``, ``1.5 h``, ``20 s``."""
    seconds = time.total_seconds()
    for unit, length in UNITS:
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
