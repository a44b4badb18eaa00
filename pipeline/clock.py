"""What a clock that was wrong has left behind in the store. Pure: time is an argument.

A run is believed as long as it fits in with the others: their numbers are given one after the
other, so their times must ascend. The longest row of runs that do is taken for right, and what
lies beside it, or in the future, was recorded by a clock that was wrong.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TOLERANCE = timedelta(minutes=1)  # so much the clocks of machines with one store may differ
# Before this program was made it recorded nothing: a clock that shows less has no battery.
MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
ENOUGH = 10  # runs in the future, before it is this clock that is doubted
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When a run started, by its own clock, and how far that was ahead of the upstreams' clocks."""

    run_id: int
    started_at: datetime
    offset_us: int | None = None


def is_future(moment: datetime, now: datetime) -> bool:
    """Tell whether a clock that showed *moment* was ahead of one that shows *now*."""
    return moment - now > TOLERANCE


def is_behind(now: datetime, *, runs: int, in_future: int) -> bool:
    """Tell whether it is rather *now* that is wrong, by how many of the *runs* lie after it."""
    return in_future > 0 and (now < MADE_AT or (in_future >= ENOUGH and 2 * in_future > runs))


def show_distance(distance: timedelta) -> str:
    """Say roughly how far a clock is off: ``366 days``, ``90 minutes``, ``75 s``."""
    distance = abs(distance)
    if distance >= 2 * DAY:
        return f"{distance // DAY:,} days"
    seconds = round(distance.total_seconds())
    return f"{seconds} s" if seconds < 10 * 60 else f"{seconds // 60} minutes"


def show_error(error: timedelta) -> str:
    """Say it with the direction: ``366 days ahead``."""
    return f"{show_distance(error)} {'ahead' if error > timedelta(0) else 'behind'}"


def find_untimely(stamps: Sequence[Stamp], now: datetime) -> dict[int, timedelta]:
    """Find the runs whose clock was wrong, and how far it was ahead; below zero: behind.

    *stamps* come in the order of their runs. How far is measured from the nearest run that is
    right: the one after it if the clock was ahead, else the one before.
    """
    right = _longest_row([each for each in stamps if MADE_AT <= each.started_at <= now + TOLERANCE])
    is_right = {each.run_id for each in right}
    found: dict[int, timedelta] = {}
    before: datetime | None = None
    after = iter([*(each.started_at for each in right), now])
    following = next(after)
    for each in stamps:
        if each.run_id in is_right:
            before, following = each.started_at, next(after)
        elif is_future(each.started_at, following):
            found[each.run_id] = each.started_at - following
        elif is_future(anchor := before or following, each.started_at):
            found[each.run_id] = each.started_at - anchor
    return found


def _longest_row(stamps: Sequence[Stamp]) -> list[Stamp]:
    """Pick as many as possible whose times ascend (by patience sorting)."""
    tails: list[datetime] = []  # the earliest end of a row of each length
    ends: list[int] = []
    previous: list[int] = []
    for place, stamp in enumerate(stamps):
        length = bisect_right(tails, stamp.started_at)
        previous.append(ends[length - 1] if length else -1)
        tails[length : length + 1] = [stamp.started_at]
        ends[length : length + 1] = [place]
    row: list[Stamp] = []
    place = ends[-1] if ends else -1
    while place >= 0:
        row.append(stamps[place])
        place = previous[place]
    return row[::-1]


def find_doubt(last: Sequence[Stamp], now: datetime, *, runs: int, in_future: int) -> str | None:
    """Say in one line what is odd about the *last* two runs before one that starts *now*."""
    if not last:
        return None
    newest = last[-1]
    shown = f"{now:%Y-%m-%d %H:%M:%SZ}"
    started = f"run {newest.run_id} started at {newest.started_at:%Y-%m-%d %H:%M:%SZ}"
    if is_behind(now, runs=runs, in_future=in_future):
        return (
            f"the clock here shows {shown}, and {in_future:,} of {runs:,} runs started later:"
            " it seems to be behind, so what they left is kept as it is"
        )
    if is_future(newest.started_at, now):
        error = show_error(newest.started_at - now)
        return f"{started}, and now it is {shown}: a clock was {error}"
    if newest.started_at < MADE_AT:
        return f"{started}, before this program was made: its clock was behind"
    before = last[0].started_at
    if is_future(before, newest.started_at) and not is_future(before, now):
        return f"{started}, and the one before it later: a clock was wrong"
    return None


def middle_offset(by_source: Mapping[str, Sequence[int]]) -> int | None:
    """Give the median over the sources of how far our clock was ahead of theirs, in microseconds.

    Where two disagree it is the smaller one: one of them may be wrong, and need not be we.
    """
    middles = sorted(_middle(offsets) for offsets in by_source.values() if offsets)
    return _middle(middles) if middles else None


def _middle(ascending: Sequence[int]) -> int:
    values = sorted(ascending)
    half = len(values) // 2
    return values[half] if len(values) % 2 else min(values[half - 1 : half + 1], key=abs)
