"""What becomes of one case, each figure certain or between two bounds. Pure.

What no attempt on record can tell (how a longer wait or one more retry would have ended) is
bounded: at best it brings the numbers, at worst it costs all that the limits allow.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, Self

from pipeline.errors import Whose
from pipeline.models import Attempt
from pipeline.pacing import Rate
from pipeline.settings.checks import check_rate
from pipeline.simulate.cases import MICROSECOND, Asked, Case

SECOND = 1_000_000  # microseconds


class Span(NamedTuple):
    """A figure that lies between two values; it is certain if they are the same."""

    low: int
    high: int

    def plus(self, low: int, high: int) -> "Span":
        """Move both ends."""
        return Span(self.low + low, self.high + high)


@dataclass(slots=True)
class Effect:
    """What became of a case: batches that did not come, requests, refusals, time by the clock.

    Attributes:
        unknown: why figures are not certain, and for how many requests.
        guesses: batches that hang on what is not known, by how many more tries they would get.
    """

    missing: Span
    requests: Span
    refusals: Span
    clock_us: Span
    unknown: Counter[str] = field(default_factory=Counter)
    guesses: Counter[int] = field(default_factory=Counter)

    @classmethod
    def exactly(cls, missing: int, requests: int, refusals: int, clock_us: int) -> Self:
        """Give one of which all is certain."""
        pairs = (Span(each, each) for each in (missing, requests, refusals, clock_us))
        return cls(next(pairs), next(pairs), next(pairs), next(pairs))

    def add(self, other: "Effect") -> None:
        """Add another one up."""
        for name in MEASURES:
            setattr(self, name, getattr(self, name).plus(*getattr(other, name)))
        self.unknown.update(other.unknown)
        self.guesses.update(other.guesses)

    def or_else(self, other: "Effect") -> Self:
        """Widen the bounds of all figures to those of *other*."""
        for name in MEASURES:
            one, two = getattr(self, name), getattr(other, name)
            setattr(self, name, Span(min(one.low, two.low), max(one.high, two.high)))
        return self


MEASURES = ("missing", "requests", "refusals", "clock_us")


def as_it_was(case: Case) -> Effect:
    """Count what is on record."""
    return count_kept(case, {id(asked): asked.tries for asked in case.fetches})


def count_kept(case: Case, kept: Mapping[int, Sequence[Attempt]]) -> Effect:
    """Count what is left of a case if of each fetch only these tries are made."""
    missing = requests = refusals = 0
    last = case.run.started_at
    for asked in case.fetches:
        tries = kept[id(asked)]
        is_whole = asked.is_collected and len(tries) == len(asked.tries)
        missing += 0 if is_whole else len(asked.batches)
        requests += len(tries)
        refusals += sum(map(is_refused, tries))
        last = max((last, *(each.ended_at for each in tries)))
    clock_us = (last - case.run.started_at) // MICROSECOND
    return Effect.exactly(missing, requests, refusals, clock_us)


def is_refused(made: Attempt) -> bool:
    """Tell whether the upstream refused, by rules of its own."""
    error = made.error
    return error is not None and error.whose is Whose.POLICY


def retries_left(asked: Asked, retries: int) -> int:
    """Count the tries that a fetch could still get after its last one, if another could help."""
    last = asked.tries[-1] if asked.tries else None
    if last is None or last.error is None or not last.error.may_retry:
        return 0
    return max(retries + 1 - last.number, 0)


def longest_us(case: Case, attempt_seconds: float) -> int:
    """Bound what one more request costs: its pause, its place in the rate, and its answer."""
    pause = case.limits["backoff_seconds"] * 2 ** case.limits["retries"]
    return int((attempt_seconds + pause) * SECOND) + interval_of(case.limits["rate"]) // MICROSECOND


def interval_of(rate: str) -> timedelta:
    """Give the time between two requests; none without a rate, or with a quota alone."""
    found = check_rate(rate)
    return found.interval if isinstance(found, Rate) else timedelta(0)


def leave_open(effect: Effect, case: Case, asked: Asked, why: str, *, tries: int) -> None:
    """Let the outcome of a fetch hang on up to so many more *tries*."""
    size = len(asked.batches)
    effect.missing = effect.missing.plus(-asked.missing, size - asked.missing)
    effect.requests = effect.requests.plus(0, tries)
    effect.refusals = effect.refusals.plus(0, tries)
    us = tries * longest_us(case, case.limits["attempt_seconds"])
    effect.clock_us = effect.clock_us.plus(0, us)
    effect.unknown[why] += 1
    effect.guesses[tries] += size


def bound_by_deadline(effect: Effect, case: Case) -> Effect:
    """Let what takes longer at worst cost what the deadline then cuts off."""
    most = int(case.deadline_seconds * SECOND)
    late_us = effect.clock_us.high - most
    if late_us > 0 and effect.clock_us.high > effect.clock_us.low:
        latest = case.deadline - late_us * MICROSECOND
        cut = sum(
            len(asked.batches)
            for asked in case.fetches
            if asked.is_collected and asked.tries[-1].ended_at > latest
        )
        whole = sum(len(asked.batches) for asked in case.fetches)
        effect.missing = Span(effect.missing.low, min(effect.missing.high + cut, whole))
        effect.clock_us = Span(effect.clock_us.low, max(most, effect.clock_us.low))
    return effect
