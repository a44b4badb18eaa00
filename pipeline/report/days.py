"""What became of the batches of each source, day by day: a strip of cells, as status pages have."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pipeline.models.sums import state_of
from pipeline.rendering.document import Column, Kind, Lane, Lanes, SourceName, show_cell
from pipeline.rendering.words import count_of
from pipeline.report.sources import SourceLine
from pipeline.report.trends import Buckets
from pipeline.store.totals import SourceTotals

NOT_ASKED = "not asked"
SHARE = Column("share", Kind.SHARE)


def lanes_of(
    points: Iterable[SourceTotals],
    found: Iterable[SourceLine],
    days: Buckets,
    worst: Mapping[str, str],
) -> Lanes:
    """Make a lane of each source, of what each hour or day brought.

    *worst* are the sources that something is wrong with now, and how bad that is.
    """
    of: defaultdict[tuple[str, datetime], list[SourceTotals]] = defaultdict(list)
    for point in points:
        if point.began_at is not None:
            of[point.source, days.begin_of(point.began_at)].append(point)
    lanes = [
        _lane(line, [of[line.totals.source, moment] for moment in days.moments], worst)
        for line in found
    ]
    return Lanes(title="Batches of each source", step=days.step, moments=days.moments, lanes=lanes)


def _lane(
    line: SourceLine, days: Sequence[Sequence[SourceTotals]], worst: Mapping[str, str]
) -> Lane:
    name, totals = line.totals.source, line.totals
    share = show_cell(totals.share, SHARE)
    return Lane(
        name=str(SourceName(name, line.is_sandbox)),
        words=[_word(day) for day in days],
        notes=[_note(day) for day in days],
        state=worst.get(name, "ok" if totals.collected else NOT_ASKED),
        sum=f"{share} of {count_of(totals.ordered, 'batch')}",
    )


def _word(day: Sequence[SourceTotals]) -> str:
    """Say what became of the batches of a day."""
    collected = sum(each.collected for each in day)
    if not any(each.ordered for each in day):
        return NOT_ASKED
    return state_of(collected, sum(each.lost for each in day))


def _note(day: Sequence[SourceTotals]) -> str:
    ordered = sum(each.ordered for each in day)
    collected = sum(each.collected for each in day)
    return f"{collected:,} of {count_of(ordered, 'batch')}" if ordered else ""
