"""The runs that are simulated, put together from the store: what each asked of each source."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from pipeline.models import Attempt, BatchRecord, RunStatus, RunSummary, Verdict
from pipeline.run.breaker import is_failure
from pipeline.store import queries
from pipeline.store.configurations import find_limits
from pipeline.store.window import Window

MICROSECOND = timedelta(microseconds=1)
LEFT_ALONE = "not asked: "  # how the detail begins of what the breaker kept from being asked


@dataclass(slots=True)
class Asked:
    """A fetch: its batches, which all share one outcome, and its tries, the first one first."""

    batches: list[BatchRecord] = field(default_factory=list)
    tries: list[Attempt] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Count its batches that did not come."""
        return 0 if self.is_collected else len(self.batches)

    @property
    def is_collected(self) -> bool:
        """Tell whether its batches came."""
        return self.batches[0].verdict is Verdict.COLLECTED

    @property
    def is_left_alone(self) -> bool:
        """Tell whether the breaker kept it from being asked, or asked again."""
        return (self.batches[0].detail or "").startswith(LEFT_ALONE)


@dataclass(frozen=True, slots=True)
class Case:
    """What one run asked of one source, and the limits then in force.

    Attributes:
        limits: of the source, named as in the configuration.
        failures: attempts in a row that had failed before it, as far as the window shows.
        is_budget_spent: whether the run had no retry left for it in the end.
    """

    run: RunSummary
    source: str
    limits: Mapping[str, Any]
    deadline_seconds: float
    fetches: Sequence[Asked]
    failures: int
    is_budget_spent: bool

    @property
    def tries(self) -> list[Attempt]:
        """List all of its tries in the order in which they were let go."""
        return sorted((t for f in self.fetches for t in f.tries), key=lambda t: t.sent_at)

    @property
    def deadline(self) -> datetime:
        """Tell when the run was to end."""
        return self.run.started_at + timedelta(seconds=self.deadline_seconds)


@dataclass(slots=True)
class Cases:
    """Walks over the cases of a window; counts the runs whose limits nobody knows any more."""

    session: Session
    window: Window
    source: str | None
    runs: int = 0
    left_out: int = 0
    _failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __iter__(self) -> Iterator[Case]:
        for run in queries.ended_runs(self.session, self.window):
            limits = find_limits(self.session, run_id=run.id)
            fetches = _fetches(self.session, run)
            if limits is None or not fetches or run.status is RunStatus.INTERRUPTED:
                self.left_out += bool(run.ordered)
                continue
            self.runs += 1
            for source, asked in fetches.items():
                if source in limits["sources"] and self.source in (None, source):
                    is_spent = _count_retries(*fetches.values()) >= limits["retry_budget"]
                    yield self._case(run, source, limits, asked, is_spent=is_spent)

    def _case(
        self,
        run: RunSummary,
        source: str,
        limits: Mapping[str, Any],
        asked: Sequence[Asked],
        *,
        is_spent: bool,
    ) -> Case:
        of_source = limits["sources"][source]
        case = Case(
            run=run,
            source=source,
            limits=of_source,
            deadline_seconds=limits["deadline_seconds"],
            fetches=asked,
            failures=self._failures[source],
            is_budget_spent=is_spent or _count_retries(asked) >= of_source["retry_budget"],
        )
        for each in sorted(case.tries, key=lambda t: t.ended_at):
            self._failures[source] = count_failures(self._failures[source], each)
        return case


def count_failures(before: int, made: Attempt) -> int:
    """Count the failures in a row after one more try, as a breaker does."""
    failed = is_failure(made.error)
    return before if failed is None else before + 1 if failed else 0


def _fetches(session: Session, run: RunSummary) -> dict[str, list[Asked]]:
    """Put batches and attempts together, by source; batches without a fetch are one each."""
    found: defaultdict[str, dict[object, Asked]] = defaultdict(dict)
    for batch in queries.batches_of_run(session, run_id=run.id):
        key = batch.fetch if batch.fetch is not None else f"w{batch.number}"
        found[batch.source].setdefault(key, Asked()).batches.append(batch)
    for record in queries.attempts_of_run(session, run_id=run.id):
        made = record.attempt
        if (asked := found[made.source].get(made.fetch)) is not None:
            asked.tries.append(made)
    return {source: list(of.values()) for source, of in found.items()}


def _count_retries(*groups: Sequence[Asked]) -> int:
    return sum(max(len(asked.tries) - 1, 0) for group in groups for asked in group)
