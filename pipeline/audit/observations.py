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
        is_our_side: whether in this run so many sources failed on the way that it must have been
            our side of it.
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
    """Pick the runs in which sources failed together before they could be reached."""
    asked: defaultdict[int, int] = defaultdict(int)
    unreached: defaultdict[int, int] = defaultdict(int)
    for tally, losses in found:
        is_unreached = any(loss.batches and loss.error in PATH_ERRORS for loss in losses)
        asked[tally.run_id] += is_unreached or tally.attempts > 0
        unreached[tally.run_id] += is_unreached
    return {
        run_id for run_id, n in unreached.items() if n >= FEWEST_AT_ONCE and 2 * n >= asked[run_id]
    }


def usual_interval(moments: Sequence[datetime]) -> timedelta | None:
    """Give the median of the gaps between *moments*, which ascend; None if there is no gap."""
    if len(moments) <= 1:
        return None
    gaps = sorted(later - earlier for earlier, later in pairwise(moments))
    return gaps[len(gaps) // 2]
