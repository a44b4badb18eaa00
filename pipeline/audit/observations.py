"""What each run learnt of each source: the tally and its losses side by side. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from pipeline.errors import ErrorName
from pipeline.models import Loss, Tally

# Where several sources fail so at once, what they have in common is our end of the way.
PATH_ERRORS = frozenset(
    {
        ErrorName.DNS,
        ErrorName.CONNECT_REFUSED,
        ErrorName.CONNECT_TIMEOUT,
        ErrorName.UNREACHABLE,
    }
)
FEWEST_AT_ONCE = 2  # sources; and they must be half of those that were asked


@dataclass(frozen=True, slots=True)
class Observation:
    """What one run got and lost at one source.

    Attributes:
        is_our_side: whether so many sources failed on the way when this run did that it must have
            been our side of it.
    """

    tally: Tally
    losses: Sequence[Loss]
    is_our_side: bool

    @property
    def source(self) -> str:
        """Name the source."""
        return self.tally.source

    def is_ours(self, loss: Loss) -> bool:
        """Tell whether *loss* is due to our side of the path."""
        return self.is_our_side and loss.error in PATH_ERRORS


def observe(tallies: Iterable[Tally], losses: Iterable[Loss]) -> list[Observation]:
    """Put the tallies and losses of each run and source together, in the order of the tallies."""
    lost: defaultdict[tuple[int, str], list[Loss]] = defaultdict(list)
    for loss in losses:
        lost[loss.run_id, loss.source].append(loss)
    found = [(tally, lost.get((tally.run_id, tally.source), ())) for tally in tallies]
    ours = _runs_cut_off(found)
    return [Observation(tally, of, tally.run_id in ours) for tally, of in found]


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


def usual_interval(moments: Sequence[datetime]) -> timedelta | None:
    """Give the median of the gaps between *moments*, which ascend; None if there is no gap."""
    if len(moments) <= 1:
        return None
    gaps = sorted(later - earlier for earlier, later in pairwise(moments))
    return gaps[len(gaps) // 2]
