"""Put observations of a source that are alike, one after the other, together as one. Pure.

What incidents are made of: a source that fails all day, or is well all day, is one stretch of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

from pipeline.audit.observations import Observation, select_attempts
from pipeline.errors import ErrorName, Whose
from pipeline.models import Loss
from pipeline.store.columns import to_us

OUR_SIDE = ""  # in place of a source, none of which has an empty name

# A run that somebody stopped is no incident; stale answers have a finding of their own.
NO_INCIDENT = frozenset({ErrorName.CANCELLED, ErrorName.STALE})

# To look one up takes a third of the time that a call of the class does.
ERRORS = {str(error): error for error in ErrorName}
PARTIES = {str(whose): whose for whose in Whose}

Key = tuple[str, Whose]  # a source, or our side, and the party


@dataclass(slots=True)
class Cost:
    """What was lost at one place through one party.

    Attributes:
        batches: by error, the first one first.
        attempts: some of those that failed: the first and the last.
    """

    batches: dict[ErrorName, int]
    since_us: int
    attempts: Sequence[int]

    @classmethod
    def of(cls, losses: Iterable[Loss]) -> Self:
        """Add up *losses*, one at least."""
        costs = [
            cls(
                {loss.error: loss.batches},
                to_us(loss.first_at),
                select_attempts((loss.first_attempt, loss.last_attempt)),
            )
            for loss in losses
        ]
        return cls.sum(costs)

    @classmethod
    def sum(cls, costs: Sequence[Self]) -> Self:
        """Add up *costs*, one at least."""
        batches: Counter[ErrorName] = Counter()
        for each in costs:
            batches.update(each.batches)
        attempts = select_attempts(chain.from_iterable(each.attempts for each in costs))
        return cls(batches, min(each.since_us for each in costs), attempts)


@dataclass(slots=True, kw_only=True)
class Stretch:
    """Observations of one source, one after the other, that are alike in all that is said here.

    Attributes:
        began_us: when the first of its runs started.
        is_good: whether each of them collected something.
        is_our_side: as an observation has it.
        has_losses: whether each of them lost batches, whatever the reason.
        runs: their ids, if they lost batches: else nobody asks.
        collected: batches, in all of them.
        costs: what they lost, by place and party; each of them lost something to each.
    """

    source: str
    began_us: int
    is_good: bool
    is_our_side: bool
    has_losses: bool
    runs: list[int]
    collected: int
    costs: dict[Key, Cost]

    @classmethod
    def of(cls, observation: Observation) -> Self:
        """Make a stretch of one."""
        tally = observation.tally
        has_losses = any(loss.batches for loss in observation.losses)
        return cls(
            source=tally.source,
            began_us=to_us(tally.started_at),
            is_good=tally.collected > 0,
            is_our_side=observation.is_our_side,
            has_losses=has_losses,
            runs=[tally.run_id] if has_losses else [],
            collected=tally.collected if has_losses else 0,
            costs={key: Cost.of(losses) for key, losses in _group_losses(observation).items()},
        )

    def takes_in(self, other: Self) -> bool:
        """Take in the stretch that follows if it is alike, and tell whether it is."""
        is_alike = (
            (self.is_good, self.is_our_side, self.has_losses)
            == (other.is_good, other.is_our_side, other.has_losses)
        ) and self.costs.keys() == other.costs.keys()
        if is_alike:
            self.runs += other.runs
            self.collected += other.collected
            for key, cost in other.costs.items():
                self.costs[key] = Cost.sum((self.costs[key], cost))
        return is_alike

    def to_json(self, day_us: int) -> list[Any]:
        """Make what is stored: JSON types only, times as microseconds of the day."""
        costs = [
            (
                where == OUR_SIDE,
                whose,
                list(cost.batches.items()),
                cost.since_us - day_us,
                cost.attempts,
            )
            for (where, whose), cost in self.costs.items()
        ]
        flags = map(int, (self.is_good, self.is_our_side, self.has_losses))
        return [self.source, self.began_us - day_us, *flags, self.runs, self.collected, costs]

    @classmethod
    def from_json(cls, stored: list[Any], day_us: int) -> Self:
        """Read what ``to_json`` made."""
        source, began_us, is_good, is_our_side, has_losses, runs, collected, costs = stored
        return cls(
            source=source,
            began_us=day_us + began_us,
            is_good=bool(is_good),
            is_our_side=bool(is_our_side),
            has_losses=bool(has_losses),
            runs=runs,
            collected=collected,
            costs={
                (OUR_SIDE if is_ours else source, PARTIES[whose]): Cost(
                    {ERRORS[error]: n for error, n in batches}, day_us + since_us, attempts
                )
                for is_ours, whose, batches, since_us, attempts in costs
            },
        )


def _group_losses(observation: Observation) -> dict[Key, list[Loss]]:
    """Group what cost batches by source (or our side) and party."""
    groups: dict[Key, list[Loss]] = {}
    for loss in observation.losses:
        if loss.batches and loss.error not in NO_INCIDENT:
            where = OUR_SIDE if observation.is_ours(loss) else loss.source
            groups.setdefault((where, observation.whose(loss)), []).append(loss)
    return groups


def join(observations: Iterable[Observation]) -> Iterator[Stretch]:
    """Join the observations of each source, which are in the order of time, as far as they go.

    None goes on across an observation whose losses are on our side: these are told of several
    sources together, and then it matters what came before what.
    """
    going_on: dict[str, Stretch] = {}
    found: list[Stretch] = []
    for observation in observations:
        new = Stretch.of(observation)
        if any(where == OUR_SIDE for where, _ in new.costs):
            going_on.clear()
        known = going_on.get(new.source)
        if known is None or not known.takes_in(new):
            found.append(new)
            going_on[new.source] = new
    return iter(found)


def concerning(stretches: Sequence[Stretch], source: str | None) -> Sequence[Stretch]:
    """Choose those that decide over the incidents of *source*; None: of all sources.

    If any loss was on our side it takes all: the same cause may have cost others before or after.
    """
    if source is None or any(where == OUR_SIDE for each in stretches for where, _ in each.costs):
        return stretches
    return [each for each in stretches if each.source == source]
