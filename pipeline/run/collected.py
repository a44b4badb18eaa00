"""How a run ended: its totals, the exit status for scripts, and one line for people."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from signal import Signals

from pipeline.errors import ErrorName, ExitCode
from pipeline.models import RunStatus, RunSummary

MOST_CAUSES = 5  # on one line
MOST_NAMES = 3

BY_STATUS = {
    RunStatus.OK: ExitCode.OK,
    RunStatus.PARTIAL: ExitCode.PARTIAL,
    RunStatus.FAILED: ExitCode.NOTHING_COLLECTED,
}

LostBatches = tuple[str, ErrorName, int]  # source, error, how many batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How a run ended.

    Attributes:
        stopped_by: the signal that cut it short, None if none did.
        losses: batches lost by source and error, most first.
        has_bug: whether an attempt met an error of this program.
        remarks: what else a person must know, each one line.
    """

    summary: RunSummary
    stopped_by: int | None
    losses: tuple[LostBatches, ...]
    has_bug: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """Give what the process is to end with; a bug of ours comes before everything else."""
        if self.has_bug:
            return int(ExitCode.BUG)
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        return int(BY_STATUS[self.summary.status])

    @property
    def verdict(self) -> str:
        """Say in one line what a person must know who reads nothing else."""
        run = self.summary
        by = f" by {Signals(self.stopped_by).name}" if self.stopped_by is not None else ""
        known = run.collected + run.deferred + sum(n for *_, n in self.losses)
        causes = [*self._causes(), *([f"{n} never asked"] if (n := run.ordered - known) else [])]
        parts = [
            f"run {run.id} {run.status}{by}: {run.collected} of {run.ordered} batches collected",
            *([f"{run.deferred} deferred"] if run.deferred else []),
            *([f"lost: {', '.join(causes)}"] if causes else []),
            f"see `pipeline report --run {run.id}`",
        ]
        return "; ".join(parts)

    def _causes(self) -> Iterator[str]:
        """Say how many batches each error cost, and whom, most first; what one line holds."""
        batches: Counter[str] = Counter()
        sources: defaultdict[str, list[str]] = defaultdict(list)
        for source, error, n in self.losses:
            batches[error] += n
            sources[error].append(source)
        for name, n in batches.most_common(MOST_CAUSES):
            more = ", …" if len(sources[name]) > MOST_NAMES else ""
            yield f"{n} {name} ({', '.join(sources[name][:MOST_NAMES])}{more})"
        if len(batches) > MOST_CAUSES:
            yield f"{len(batches) - MOST_CAUSES} more errors"
