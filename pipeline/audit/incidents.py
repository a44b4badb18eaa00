"""Find incidents: runs in a row in which a source lost batches through the same party. Pure.

Runs are grouped by the party that is responsible, not by the error: an overloaded server may time
out in one run, reset the connection in the next and answer 503 in the third. The errors are listed
with how many batches each cost.

An incident ends with the first run that got numbers from the source and lost none through that
party. A run that did not ask the source, or failed for other reasons alone, neither ends it nor
counts; the finding says how many of the latter there were in between. If several sources could
not be reached at the same time, that is one incident of all of them, on our side of the path.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.audit.stretches import OUR_SIDE, Cost, Key, Stretch
from pipeline.errors import ErrorName, Whose
from pipeline.models import Finding, FindingKind, Severity
from pipeline.rendering.words import count_of
from pipeline.store.columns import from_us

LONG = 3  # runs in a row that brought nothing: more than a glitch


def rate_incident(runs: int, collected: int, whose: Whose, *, is_over: bool) -> Severity:
    """Rate how bad an incident is.

    A single run that failed is a glitch (info) once it is over. What lasts longer or still goes on
    is a warning, and critical if it goes on, has lasted for three runs or more, and nothing came
    in all of them. What the upstream's policy refused is one step lower: it is no fault.
    """
    if runs == 1 and is_over:
        return Severity.INFO
    is_lost = not is_over and runs >= LONG and not collected
    if whose is Whose.POLICY:
        return Severity.WARNING if is_lost else Severity.INFO
    return Severity.CRITICAL if is_lost else Severity.WARNING


@dataclass(slots=True, kw_only=True)
class Incident:
    """An incident, as far as the runs were looked at; a year may have many, and few are told of.

    Attributes:
        until_us: None if it still goes on.
        costs: what each stretch of it lost.
        runs: their ids; of several sources the same one counts once.
        lost_otherwise: runs since the last that counts which lost batches through other parties,
            ``between``: how many such runs there were before it.
    """

    whose: Whose
    is_from_the_start: bool
    is_our_side: bool
    until_us: int | None = None
    costs: list[Cost] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    runs: set[int] = field(default_factory=set)
    collected: int = 0
    lost_otherwise: set[int] = field(default_factory=set)
    between: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """Name the sources that it was of, in order."""
        return tuple(sorted(self.names))

    @property
    def since(self) -> datetime:
        """Tell when the first attempt of it failed."""
        return from_us(min(cost.since_us for cost in self.costs))

    @property
    def until(self) -> datetime | None:
        """Tell when the run started that showed its end; None if it still goes on."""
        return None if self.until_us is None else from_us(self.until_us)

    @property
    def severity(self) -> Severity:
        """Rate how bad it is."""
        is_over = self.until_us is not None
        return rate_incident(len(self.runs), self.collected, self.whose, is_over=is_over)

    def add(self, stretch: Stretch, cost: Cost) -> None:
        """Count the runs of one more source, and what they lost."""
        if self.lost_otherwise:
            self.between += len(self.lost_otherwise - {stretch.runs[0]})
            self.lost_otherwise.clear()
        self.costs.append(cost)
        self.names.add(stretch.source)
        self.runs.update(stretch.runs)
        self.collected += stretch.collected

    def note_other_losses(self, stretch: Stretch) -> None:
        """Note runs that lost batches, none of them through this party."""
        if stretch.source in self.names:
            self.lost_otherwise.update(stretch.runs)

    def is_ended_by(self, stretch: Stretch) -> bool:
        """Tell whether the first run of *stretch*, which collected something, shows the end."""
        return (
            stretch.source in self.names
            and self.whose not in {whose for _, whose in stretch.costs}
            and not (self.is_our_side and stretch.is_our_side)
        )

    def make_finding(self) -> Finding:
        """Say what it was."""
        cost = Cost.sum(self.costs)
        errors, runs = Counter(cost.batches), len(self.runs)
        return Finding(
            kind=FindingKind.REFUSED if self.whose is Whose.POLICY else FindingKind.INCIDENT,
            severity=self.severity,
            sources=self.sources,
            since=from_us(cost.since_us),
            until=self.until,
            reason=self._reason(runs, errors),
            whose=self.whose,
            batches=errors.total(),
            attempts=tuple(cost.attempts),
            figures={
                "runs": runs,
                "collected": self.collected,
                "is_our_side": self.is_our_side,
                "errors": {str(error): n for error, n in errors.most_common()},
            },
        )

    def _reason(self, runs: int, errors: Counter[ErrorName]) -> str:
        in_a_row = " in a row" if runs > 1 and not self.between else ""
        losses = ", ".join(
            f"{error} ({error.meaning}{f'; {n:,}' if len(errors) > 1 else ''})"
            for error, n in errors.most_common()
        )
        lost = count_of(errors.total(), "batch")
        told = [f"{count_of(runs, 'run')}{in_a_row} lost {lost} to {losses}"]
        if self.between:
            others = count_of(self.between, "run")
            told.append(f"{others} between them lost batches for other reasons only")
        if self.is_our_side and self.whose is Whose.OURS:
            told.append("the clock here was wrong")
        elif self.is_our_side:
            told.append(f"{len(self.names)} sources at once, so on our side of the path")
        if self.is_from_the_start:
            told.append("from the first run of this window on")
        return "; ".join(told)


def find_incidents(stretches: Iterable[Stretch]) -> Iterator[Incident]:
    """Find the incidents of each source, and those of several at once; by their end.

    *stretches* must be in the order of time.
    """
    going_on: dict[Key, Incident] = {}
    seen: set[str] = set()
    for stretch in stretches:
        if going_on and stretch.is_good:
            yield from _end(going_on, stretch)
        for key, cost in stretch.costs.items():
            if key not in going_on:
                going_on[key] = Incident(
                    whose=key[1],
                    is_from_the_start=stretch.source not in seen,
                    is_our_side=key[0] == OUR_SIDE,
                )
            going_on[key].add(stretch, cost)
        if stretch.has_losses and len(going_on) > len(stretch.costs):
            for key, incident in going_on.items():
                if key not in stretch.costs:
                    incident.note_other_losses(stretch)
        seen.add(stretch.source)
    yield from going_on.values()


def _end(going_on: dict[Key, Incident], stretch: Stretch) -> Iterator[Incident]:
    for key in [key for key, incident in going_on.items() if incident.is_ended_by(stretch)]:
        incident = going_on.pop(key)
        incident.until_us = stretch.began_us
        yield incident
