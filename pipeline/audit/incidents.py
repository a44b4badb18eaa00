"""Incidents: runs in a row in which a source lost batches through the same party. Pure.

The party and not the error is the cause: a server that is overloaded times out in one run, resets
the connection in the next and answers 503 in the third, and it is one bad night all the same. The
errors are listed with what each cost.

An incident ends with the first run that got numbers from the source and lost none through that
party. A run that tells neither (it was not asked, or it failed for another reason alone) neither
ends it nor counts; of those that failed so between two that count the finding says how many there
are. Where several sources failed on the way at once, it is one incident of all of
them, on our side of the path.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.audit.observations import Observation
from pipeline.audit.wording import counted, select_attempts
from pipeline.errors import ERRORS, ErrorName, Whose
from pipeline.models import Finding, FindingKind, Loss, Severity

LONG = 3  # runs in a row that brought nothing: no glitch any more
OUR_SIDE = ""  # in place of a source, none of which has an empty name

# A run that somebody stopped is no incident; stale answers have a finding of their own.
NO_INCIDENT = frozenset({ErrorName.CANCELLED, ErrorName.STALE})


def rate_incident(*, runs: int, collected: int, whose: Whose, is_over: bool) -> Severity:
    """Say how bad an incident is, by the one rule that there is.

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


@dataclass(slots=True)
class _Streak:
    """An incident while the runs go by."""

    whose: Whose
    since: datetime
    is_from_the_start: bool
    is_our_side: bool
    sources: list[str] = field(default_factory=list)
    runs: int = 0
    last_run: int | None = None
    lost_otherwise: set[int] = field(default_factory=set)  # runs since the last that counts
    between: int = 0
    collected: int = 0
    errors: Counter[ErrorName] = field(default_factory=Counter)
    attempts: list[int] = field(default_factory=list)

    def add(self, observation: Observation, losses: Iterable[Loss]) -> None:
        """Count one more run and source."""
        tally = observation.tally
        if tally.source not in self.sources:
            self.sources.append(tally.source)
        self.runs += tally.run_id != self.last_run
        self.last_run = tally.run_id
        self.between += len(self.lost_otherwise - {tally.run_id})
        self.lost_otherwise.clear()
        self.collected += tally.collected
        for loss in losses:
            self.since = min(self.since, loss.first_at)
            self.errors[loss.error] += loss.batches
            self.attempts += [i for i in (loss.first_attempt, loss.last_attempt) if i is not None]

    def note_other_losses(self, observation: Observation) -> None:
        """Take in that a run lost batches, none of them through this party."""
        if observation.source in self.sources and any(loss.batches for loss in observation.losses):
            self.lost_otherwise.add(observation.tally.run_id)

    def is_ended_by(self, observation: Observation, lost_through: Iterable[object]) -> bool:
        """Tell whether *observation* shows that it is over."""
        return (
            observation.tally.collected > 0
            and observation.source in self.sources
            and self.whose not in lost_through
            and not (self.is_our_side and observation.is_our_side)
        )

    def finding(self, until: datetime | None) -> Finding:
        """Put it into words."""
        batches = self.errors.total()
        return Finding(
            kind=FindingKind.REFUSED if self.whose is Whose.POLICY else FindingKind.INCIDENT,
            severity=rate_incident(
                runs=self.runs,
                collected=self.collected,
                whose=self.whose,
                is_over=until is not None,
            ),
            sources=tuple(sorted(self.sources)),
            since=self.since,
            until=until,
            reason=self._reason(batches),
            whose=self.whose,
            batches=batches,
            attempts=select_attempts(self.attempts),
            figures={
                "runs": self.runs,
                "collected": self.collected,
                "is_our_side": self.is_our_side,
                "errors": {str(error): n for error, n in self.errors.most_common()},
            },
        )

    def _reason(self, batches: int) -> str:
        runs = counted(self.runs, "run", "runs")
        if self.runs > 1 and not self.between:
            runs += " in a row"
        losses = ", ".join(
            f"{error} ({ERRORS[error].meaning}{f'; {n:,}' if len(self.errors) > 1 else ''})"
            for error, n in self.errors.most_common()
        )
        told = [f"{runs} lost {counted(batches, 'batch', 'batches')} to {losses}"]
        if self.between:
            others = counted(self.between, "run", "runs")
            told.append(f"{others} between them lost batches through others alone")
        if self.is_our_side:
            told.append(f"{len(self.sources)} sources at once, so on our side of the path")
        if self.is_from_the_start:
            told.append("from the first run of this window on")
        return "; ".join(told)


def find_incidents(observations: Iterable[Observation]) -> Iterator[Finding]:
    """Find the incidents of each source, and those of several at once; by their end.

    *observations* must be in the order of time.
    """
    going_on: dict[tuple[str, Whose], _Streak] = {}
    seen: set[str] = set()
    for observation in observations:
        lost = _group_losses(observation)
        if going_on:
            yield from _end(going_on, observation, lost)
        for key, losses in lost.items():
            if key not in going_on:
                going_on[key] = _Streak(
                    whose=key[1],
                    since=losses[0].first_at,
                    is_from_the_start=observation.source not in seen,
                    is_our_side=key[0] == OUR_SIDE,
                )
            going_on[key].add(observation, losses)
        for key, streak in going_on.items():
            if key not in lost:
                streak.note_other_losses(observation)
        seen.add(observation.source)
    for streak in going_on.values():
        yield streak.finding(until=None)


def _group_losses(observation: Observation) -> dict[tuple[str, Whose], list[Loss]]:
    """Group what cost batches by source (or our side) and party."""
    groups: dict[tuple[str, Whose], list[Loss]] = {}
    for loss in observation.losses:
        if loss.batches and loss.error not in NO_INCIDENT:
            where = OUR_SIDE if observation.is_ours(loss) else loss.source
            groups.setdefault((where, ERRORS[loss.error].whose), []).append(loss)
    return groups


def _end(
    going_on: dict[tuple[str, Whose], _Streak],
    observation: Observation,
    lost: Iterable[tuple[str, Whose]],
) -> Iterator[Finding]:
    lost_through = {whose for _, whose in lost}
    for key, streak in list(going_on.items()):
        if streak.is_ended_by(observation, lost_through):
            yield going_on.pop(key).finding(until=observation.tally.started_at)
