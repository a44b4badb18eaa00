"""Put what each run got and lost at each source side by side, as one observation. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import ErrorName, Whose
from pipeline.models import Loss, Tally

# If several sources fail like this at once, the cause is on our side of the network.
PATH_ERRORS = frozenset(
    {
        ErrorName.DNS,
        ErrorName.CONNECT_REFUSED,
        ErrorName.CONNECT_TIMEOUT,
        ErrorName.UNREACHABLE,
        ErrorName.INTERCEPTED,
    }
)
FEWEST_AT_ONCE = 2  # sources; and they must be half of those that were asked
MOST_ATTEMPTS = 10  # named by a finding


@dataclass(frozen=True, slots=True)
class Observation:
    """What one run got and lost at one source.

    Attributes:
        is_our_side: whether so many sources could not be reached at that time that the cause must
            have been on our side.
        is_clock_off: whether our clock was wrong: then certificates tell nothing.
    """

    tally: Tally
    losses: Sequence[Loss]
    is_our_side: bool
    is_clock_off: bool = False

    @property
    def source(self) -> str:
        """Name the source."""
        return self.tally.source

    def is_ours(self, loss: Loss) -> bool:
        """Tell whether *loss* is due to our side of the path."""
        return (self.is_our_side and loss.error in PATH_ERRORS) or self.is_by_clock(loss)

    def is_by_clock(self, loss: Loss) -> bool:
        """Tell whether *loss* is due to our clock."""
        return self.is_clock_off and loss.error is ErrorName.TLS

    def whose(self, loss: Loss) -> Whose:
        """Tell at whose door *loss* lies."""
        return Whose.OURS if self.is_by_clock(loss) else loss.error.whose


def observe(
    tallies: Iterable[Tally], losses: Iterable[Loss], off: Collection[int] = ()
) -> list[Observation]:
    """Put the tallies and losses of each run and source together, in the order of the tallies.

    *off* are the runs whose clock was wrong.
    """
    lost: defaultdict[tuple[int, str], list[Loss]] = defaultdict(list)
    for loss in losses:
        lost[loss.run_id, loss.source].append(loss)
    found = [(tally, lost.get((tally.run_id, tally.source), ())) for tally in tallies]
    ours = _runs_cut_off(found)
    return [
        Observation(tally, of, tally.run_id in ours, tally.run_id in off) for tally, of in found
    ]


def _runs_cut_off(found: Iterable[tuple[Tally, Sequence[Loss]]]) -> set[int]:
    """Pick the runs in which sources failed together before they could be reached.

    Together is what begins in the same minute: sources with schedules of their own meet at a tick
    of the clock, and not in one run.
    """
    asked: defaultdict[datetime, set[str]] = defaultdict(set)
    unreached: defaultdict[datetime, set[str]] = defaultdict(set)
    runs: defaultdict[datetime, set[int]] = defaultdict(set)
    for tally, losses in found:
        is_unreached = any(loss.batches and loss.error in PATH_ERRORS for loss in losses)
        if is_unreached or tally.attempts:
            minute = tally.started_at.replace(second=0, microsecond=0)
            asked[minute].add(tally.source)
            if is_unreached:
                unreached[minute].add(tally.source)
                runs[minute].add(tally.run_id)
    return {
        run_id
        for minute, sources in unreached.items()
        if len(sources) >= FEWEST_AT_ONCE and 2 * len(sources) >= len(asked[minute])
        for run_id in runs[minute]
    }


def select_attempts(ids: Iterable[int | None]) -> tuple[int, ...]:
    """Pick some ten of *ids*, in order: the first and the last ones; None stands for no attempt."""
    known = sorted({attempt_id for attempt_id in ids if attempt_id is not None})
    if len(known) <= MOST_ATTEMPTS:
        return tuple(known)
    half = MOST_ATTEMPTS // 2
    return (*known[:half], *known[-half:])
