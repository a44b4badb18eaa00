"""What runs told of a source, one after the other: all but the incidents. Pure.

Moments are microseconds since 1970, in lists as long as there were runs: a year of a source that
is asked every five minutes has a hundred thousand. A longer course is one day's after the other's.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import sub
from typing import Any, NamedTuple, Self

from pipeline.audit.observations import Observation, select_attempts
from pipeline.errors import ErrorName, Whose
from pipeline.store.columns import to_us


class Broken(NamedTuple):
    """A run with requests that broke a rule: how many, which rule, and the first of them."""

    started_us: int
    requests: int
    rule: str | None
    attempt: int | None


class Retried(NamedTuple):
    """Runs with retries: how many, when the first and the last of them started."""

    runs: int
    retries: int
    helped: int
    first_us: int
    last_us: int


class Stale(NamedTuple):
    """Answers with numbers that had been served before, and what they cost."""

    losses: int
    answers: int
    batches: int
    first_us: int
    last_us: int
    attempts: Sequence[int]


def _moments() -> "array[int]":
    return array("q")


@dataclass(slots=True, kw_only=True)
class Course:
    """What runs told of one source.

    Attributes:
        told: when runs started that found it up or down, and in ``states`` which: whether it was
            up, and in how many of them in a row.
        untold: when the other runs started that wanted it.
        fastest: the shortest exchange of each run that brought numbers.
        is_stale: whether the last run that asked it got numbers that it had served before.
        run_id: the last run that wanted it.
    """

    told: "array[int]" = field(default_factory=_moments)
    states: list[tuple[bool, int]] = field(default_factory=list)
    untold: "array[int]" = field(default_factory=_moments)
    fastest: "array[int]" = field(default_factory=_moments)
    broken: list[Broken] = field(default_factory=list)
    retried: list[Retried] = field(default_factory=list)
    stale: list[Stale] = field(default_factory=list)
    is_stale: bool | None = None
    run_id: int = 0

    @property
    def runs(self) -> int:
        """Count the runs that wanted it."""
        return len(self.told) + len(self.untold)

    @property
    def moments(self) -> Sequence[int]:
        """Give when they started, in order."""
        return sorted([*self.told, *self.untold]) if self.untold else self.told

    def add(self, other: Self) -> None:
        """Go on with what was told later."""
        for name in ("told", "untold", "fastest", "broken", "retried", "stale"):
            getattr(self, name).extend(getattr(other, name))
        for is_up, n in other.states:
            self._add_state(is_up, n)
        self.is_stale = self.is_stale if other.is_stale is None else other.is_stale
        self.run_id = other.run_id

    def _add_state(self, is_up: bool, n: int) -> None:
        if self.states and self.states[-1][0] is is_up:
            n += self.states.pop()[1]
        self.states.append((is_up, n))

    def see(self, observation: Observation) -> None:
        """Go on with what one run told."""
        tally, is_up = observation.tally, find_state(observation)
        started_us = to_us(tally.started_at)
        if is_up is None:
            self.untold.append(started_us)
        else:
            self.told.append(started_us)
            self._add_state(is_up, 1)
        if tally.fastest_us is not None:
            self.fastest.append(tally.fastest_us)
        if tally.violations:
            broken = Broken(started_us, tally.violations, tally.rule, tally.violating_attempt)
            self.broken.append(broken)
        if tally.retries:
            counts = (1, tally.retries, tally.retries_helped)
            self.retried.append(Retried(*counts, started_us, started_us))
        stale = [loss for loss in observation.losses if loss.error is ErrorName.STALE]
        for loss in stale:
            ids = select_attempts((loss.first_attempt, loss.last_attempt))
            times = to_us(loss.first_at), to_us(loss.last_at)
            self.stale.append(Stale(1, loss.attempts, loss.batches, *times, ids))
        if tally.attempts:
            self.is_stale = bool(stale)
        self.run_id = tally.run_id

    def to_json(self, day_us: int) -> dict[str, Any]:
        """Make what is stored of a day: JSON types only, what can be added up in one."""
        return {
            "told": [us - day_us for us in self.told],
            "states": self.states,
            "untold": [us - day_us for us in self.untold],
            "fastest": self.fastest.tolist(),
            "broken": self.broken,
            "retried": [sum_retried(self.retried)] if self.retried else [],
            "stale": [sum_stale(self.stale)] if self.stale else [],
            "is_stale": self.is_stale,
            "run_id": self.run_id,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any], day_us: int) -> Self:
        """Read what ``to_json`` made."""
        return cls(
            told=array("q", [us + day_us for us in stored["told"]]),
            states=[(is_up, n) for is_up, n in stored["states"]],
            untold=array("q", [us + day_us for us in stored["untold"]]),
            fastest=array("q", stored["fastest"]),
            broken=[Broken(*of) for of in stored["broken"]],
            retried=[Retried(*of) for of in stored["retried"]],
            stale=[Stale(*of) for of in stored["stale"]],
            is_stale=stored["is_stale"],
            run_id=stored["run_id"],
        )


def sum_retried(found: Sequence[Retried]) -> Retried:
    """Add up one at least."""
    runs, retries, helped, first, last = zip(*found, strict=True)
    return Retried(sum(runs), sum(retries), sum(helped), min(first), max(last))


def sum_stale(found: Sequence[Stale]) -> Stale:
    """Add up one at least."""
    losses, answers, batches, first, last, attempts = zip(*found, strict=True)
    ids = select_attempts(i for some in attempts for i in some)
    return Stale(sum(losses), sum(answers), sum(batches), min(first), max(last), ids)


def find_state(observation: Observation) -> bool | None:
    """Tell whether a run found the source up; None if it tells nothing."""
    tally = observation.tally
    if tally.attempts == 0:
        return None
    if tally.attempts > tally.failed_attempts:
        return True
    parties = {
        loss.error.whose
        for loss in observation.losses
        if loss.attempts
        and not observation.is_ours(loss)
        and loss.error is not ErrorName.INTERCEPTED
    }
    if Whose.POLICY in parties:
        return True
    return False if parties - {Whose.OURS} else None


def follow(observations: Iterable[Observation]) -> dict[str, Course]:
    """Follow each source through *observations*, which are in the order of time."""
    courses: defaultdict[str, Course] = defaultdict(Course)
    for observation in observations:
        courses[observation.source].see(observation)
    return dict(courses)


def usual_interval_us(moments: Sequence[int]) -> int | None:
    """Give the median of the gaps between *moments*, which ascend; None if there is no gap."""
    gaps = sorted(map(sub, moments[1:], moments))
    return gaps[len(gaps) // 2] if gaps else None
