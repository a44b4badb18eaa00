"""Which runs had a clock that was wrong, judged by their order, their answers, their certificates.

Of a run whose time is wrong nothing is said but that: when it learnt what it did nobody knows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import groupby

from sqlmodel import Session

from pipeline.audit.observations import FEWEST_AT_ONCE
from pipeline.clock import (
    MADE_AT,
    TOLERANCE,
    Stamp,
    find_untimely,
    is_behind,
    show_distance,
    show_error,
)
from pipeline.errors import Whose
from pipeline.models import Finding, FindingKind, Severity
from pipeline.rendering.words import count_of, iso_time
from pipeline.store.slots import gaps
from pipeline.store.stamps import (
    count_future,
    count_runs,
    doubtful_certificates,
    first_run,
    is_in_order,
    runs_without_tls,
    sources_asked,
    stamps,
)
from pipeline.store.window import Window

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """What is known of the clocks of the runs.

    Attributes:
        now: what the clock shows here.
        in_future: how many of all *runs* started later, if it is rather *now* that is wrong.
        stamps: of the runs that were looked at, in their order.
        untimely: how far the clock was ahead (below zero: behind) of runs with a wrong time.
        doubtful: runs whose sources' certificates, of several at once, were out of date.
    """

    now: datetime
    runs: int = 0
    in_future: int = 0
    stamps: Sequence[Stamp] = ()
    untimely: Mapping[int, timedelta] = field(default_factory=dict)
    doubtful: Collection[int] = frozenset()

    @cached_property
    def off(self) -> frozenset[int]:
        """Give the runs for which a certificate that is out of date says nothing."""
        off = (each.run_id for each in self.stamps if _is_off(each))
        return frozenset([*self.untimely, *self.doubtful, *off])

    def has_timely_runs(self, session: Session, window: Window) -> bool:
        """Tell whether a run started in *window* whose time can be believed."""
        untimely = [each.started_at for each in self.stamps if each.run_id in self.untimely]
        n = sum(window.has(moment) for moment in untimely)
        return n == 0 or n < count_runs(session, window)


def _is_off(stamp: Stamp) -> bool:
    return abs(stamp.offset_us or 0) * MICROSECOND > TOLERANCE


def read_clocks(session: Session, window: Window, *, now: datetime) -> Clocks:
    """Look at the runs of a window by their numbers, and at those that came between or after."""
    runs, in_future = count_future(session, now=now)
    first = first_run(session, window)
    if not in_future and is_in_order(session, first=first, earliest=MADE_AT):
        return Clocks(now=now, stamps=stamps(session, first=first, least_offset=TOLERANCE))
    found = stamps(session, first=first, later=now + TOLERANCE)
    if is_behind(now, runs=runs, in_future=in_future):
        return Clocks(now=now, runs=runs, in_future=in_future, stamps=found)
    return Clocks(now=now, stamps=found, untimely=find_untimely(found, now))


def find_doubtful(session: Session, window: Window) -> set[int]:
    """Find the runs in which most sources, and several, showed certificates out of date."""
    suspects = runs_without_tls(session, window, fewest=FEWEST_AT_ONCE)
    if not suspects:
        return set()
    asked = sources_asked(session, run_ids=suspects)
    found = doubtful_certificates(session, run_ids=suspects)
    return {
        run_id
        for run_id, sources in found.items()
        if len(sources) >= FEWEST_AT_ONCE and 2 * len(sources) >= asked.get(run_id, 0)
    }


def find_clocks(
    clocks: Clocks, wanted: Mapping[int, Sequence[str]], enabled: Collection[str]
) -> Iterator[Finding]:
    """Warn of clocks that were wrong: by their times, or by what the upstreams' clocks showed."""
    numbers = {run_id: place for place, run_id in enumerate(each.run_id for each in clocks.stamps)}
    started = {each.run_id: each.started_at for each in clocks.stamps}

    def finding(run_ids: Sequence[int], reason: str, **figures: object) -> Finding:
        sources = {name for run_id in run_ids for name in wanted.get(run_id, ())}
        moments = [started[run_id] for run_id in run_ids] or [clocks.now]
        return Finding(
            kind=FindingKind.CLOCK,
            severity=Severity.WARNING,
            sources=tuple(sorted(sources or enabled)),
            since=min(moments),
            until=max(moments),
            reason=reason,
            whose=Whose.OURS,
            figures={"runs": len(run_ids), "first_run": min(run_ids, default=None)} | figures,
        )

    if clocks.in_future:
        yield finding(
            [],
            f"the clock here shows {iso_time(clocks.now)}, and {clocks.in_future:,} of"
            f" {count_of(clocks.runs, 'run')} started later: it seems to be behind",
        )

    def row_of(placed: tuple[int, int]) -> tuple[int, bool]:
        place, run_id = placed  # of runs one after the other both grow alike
        return numbers[run_id] - place, clocks.untimely[run_id] > timedelta(0)

    for _, group in groupby(enumerate(clocks.untimely), key=row_of):
        row = [run_id for _, run_id in group]
        farthest = max((clocks.untimely[each] for each in row), key=abs)
        told = f"{_name(row)} had a clock that was {show_error(farthest)}"
        yield finding(row, told, offset_us=farthest // MICROSECOND)
    off = [each for each in clocks.stamps if _is_off(each) and each.run_id not in clocks.untimely]
    if off:
        offset_us = max((each.offset_us or 0 for each in off), key=abs)
        reason = f"by the Date of answers, {_name([each.run_id for each in off])} had a clock"
        told = f"{reason} that was {show_error(offset_us * MICROSECOND)}"
        yield finding([each.run_id for each in off], told, offset_us=offset_us)


def _name(run_ids: Sequence[int]) -> str:
    if len(run_ids) == 1:
        return f"run {run_ids[0]}"
    return f"{len(run_ids):,} runs from {run_ids[0]} to {run_ids[-1]}"


def find_gaps(session: Session, enabled: Collection[str], window: Window) -> Iterator[Finding]:
    """Warn of slots that nobody ran, so many in a row that they are one row."""
    for gap in gaps(session, window):
        own = gap.schedule.partition("/")[2]
        last = gap.last_due_at or gap.due_at
        sources = (own,) if own else tuple(sorted(enabled))
        yield Finding(
            kind=FindingKind.MISSED,
            severity=Severity.WARNING,
            sources=sources,
            since=gap.due_at,
            until=last,
            reason=f"nobody ran {gap.slots:,} slots in a row of {gap.schedule},"
            f" {show_distance(last - gap.due_at)} long",
            whose=Whose.OURS,
            figures={"schedule": gap.schedule, "slots": gap.slots},
        )
