"""Measure how much of the time each source was up, and how soon it recovered. Pure.

``ACCOUNTING_RULE`` is printed with the figures: nobody can judge a percentage without knowing how
it was counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from operator import sub

from pipeline.audit.courses import Course, usual_interval_us
from pipeline.store.columns import to_us

HOLDS = 2  # usual intervals for which a state is taken to last

ACCOUNTING_RULE = (
    "A run that asked the source found it up if an answer was accepted or its policy refused us,"
    " and down if every attempt failed for reasons of the upstream, the path or the contract."
    " A wall before it that shuts us out is the upstream's. Failures of our own, of our side of the"
    " path, and answers that somebody on the way gave in its place, tell nothing."
    f" A state holds until the next run that tells, but no longer than {HOLDS} usual intervals"
    " (the median gap between such runs). A run whose clock was wrong tells no time, and nothing of"
    " certificates. All other time is unknown and counts as neither."
    " Availability is the share of up in the time that is known. Recovery is the time from the"
    " first run that found it down to the first that found it up again; outages during which we"
    " stopped looking are left out."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What is known of one source's time in a window, by ``ACCOUNTING_RULE``."""

    source: str
    is_sandbox: bool | None
    observations: int
    interval_us: int | None
    up_us: int
    down_us: int
    unknown_us: int
    share: float | None
    unknown_share: float
    outages: int
    recoveries: int
    mean_recovery_us: int | None
    longest_recovery_us: int | None


def measure_availability(
    courses: Mapping[str, Course],
    sandbox: Mapping[str, bool | None],
    *,
    since: datetime | None,
    until: datetime,
    source: str | None = None,
) -> list[Availability]:
    """Measure each source that was wanted in the window, by name; or one *source* alone.

    *sandbox* tells of each whether the sandbox played it. Without *since* the window
    begins with the first run.
    """
    until_us = to_us(until)
    first_us = min((us for of in courses.values() for us in of.moments[:1]), default=until_us)
    since_us = to_us(since) if since else first_us
    return [
        _measure(name, course, sandbox.get(name, False), since_us=since_us, until_us=until_us)
        for name, course in sorted(courses.items())
        if source in (None, name)
    ]


def _measure(
    source: str, course: Course, is_sandbox: bool | None, *, since_us: int, until_us: int
) -> Availability:
    told = course.told
    interval_us = usual_interval_us(told)
    longest_us = HOLDS * (interval_us or 0)
    gaps = list(map(sub, [*told[1:], until_us], told))
    if told and told[-1] > until_us:  # by a clock that has been set back since
        ends = map(min, [*told[1:], until_us], repeat(until_us))
        gaps = list(map(max, map(sub, ends, told), repeat(0)))
    spent_us = {True: 0, False: 0}
    outages, recoveries_us, first = 0, list[int](), 0
    for is_up, n in course.states:
        held = gaps[first : first + n]
        was_watched = max(held) <= longest_us
        spent_us[is_up] += sum(held if was_watched else map(min, held, repeat(longest_us)))
        if not is_up:
            outages += 1
            if was_watched and first + n < len(told):
                recoveries_us.append(told[first + n] - told[first])
        first += n
    known_us, window_us = sum(spent_us.values()), max(until_us - since_us, 0)
    unknown_us = max(window_us - known_us, 0)
    return Availability(
        source=source,
        is_sandbox=is_sandbox,
        observations=len(told),
        interval_us=interval_us,
        up_us=spent_us[True],
        down_us=spent_us[False],
        unknown_us=unknown_us,
        share=spent_us[True] / known_us if known_us else None,
        unknown_share=unknown_us / window_us if window_us else 1.0,
        outages=outages,
        recoveries=len(recoveries_us),
        mean_recovery_us=sum(recoveries_us) // len(recoveries_us) if recoveries_us else None,
        longest_recovery_us=max(recoveries_us, default=None),
    )
