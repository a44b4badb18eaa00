"""How much of the time a source was up, as far as anybody looked, and how soon it recovered. Pure.

``ACCOUNTING_RULE`` is printed wherever the figures are: a percentage without its rule is a claim
and not a measurement.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from pipeline.audit.observations import Observation, usual_interval
from pipeline.errors import ERRORS, Whose

HOLDS = 2  # usual intervals for which a state is believed
MICROSECOND = timedelta(microseconds=1)

ACCOUNTING_RULE = (
    "A run that asked the source found it up if an answer was accepted or its policy refused us,"
    " and down if every attempt failed for reasons of the upstream, the path or the contract."
    " Failures of our own, and of our side of the path, tell nothing."
    f" A state holds until the next run that tells, but no longer than {HOLDS} usual intervals"
    " (the median gap between such runs); all other time is unknown and counts as neither."
    " Availability is the share of up in the time that is known. Recovery is the time from the"
    " first run that found it down to the first that found it up again; outages during which we"
    " stopped looking are left out."
)


class _State(Enum):
    UP = auto()
    DOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What is known of one source's time in a window, by ``ACCOUNTING_RULE``.

    Attributes:
        observations: runs that found it up or down.
        interval_us: the usual gap between them; None if there were fewer than two.
        share: up / (up + down); None if nothing is known.
        unknown_share: of the whole window.
        outages: stretches of time in which it was down.
        recoveries: those whose end was seen; the two figures below are about them.
    """

    source: str
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


@dataclass(slots=True)
class _Outages:
    """Stretches of down time while the observations go by."""

    n: int = 0
    recoveries: list[timedelta] = field(default_factory=list)
    since: datetime | None = None
    was_watched: bool = True

    def add(self, state: _State, moment: datetime) -> None:
        if state is _State.DOWN and self.since is None:
            self.n += 1
            self.since, self.was_watched = moment, True
        elif state is _State.UP and self.since is not None:
            if self.was_watched:
                self.recoveries.append(moment - self.since)
            self.since = None

    def note_gap(self) -> None:
        """Take in that nobody looked for a while."""
        self.was_watched = False


def _state(observation: Observation) -> _State | None:
    """Say in which state a run found the source; None if it tells nothing."""
    tally = observation.tally
    if tally.attempts == 0:
        return None
    if tally.attempts > tally.failed_attempts:
        return _State.UP
    parties = {
        ERRORS[loss.error].whose
        for loss in observation.losses
        if loss.attempts and not observation.is_ours(loss)
    }
    if Whose.POLICY in parties:
        return _State.UP
    return _State.DOWN if parties - {Whose.OURS} else None


def measure_availability(
    observations: Iterable[Observation], *, since: datetime | None, until: datetime
) -> list[Availability]:
    """Measure each source that was wanted in the window, by name.

    *observations* must be in the order of time. Without *since* the window begins with the first.
    """
    found: defaultdict[str, list[tuple[datetime, _State]]] = defaultdict(list)
    for observation in observations:
        began_at = observation.tally.started_at
        since = since or began_at
        states = found[observation.source]
        if (state := _state(observation)) is not None:
            states.append((began_at, state))
    return [
        _measure(source, states, since=since or until, until=until)
        for source, states in sorted(found.items())
    ]


def _measure(
    source: str, states: Sequence[tuple[datetime, _State]], *, since: datetime, until: datetime
) -> Availability:
    interval = usual_interval([moment for moment, _ in states])
    longest = HOLDS * (interval or timedelta(0))
    spent = {_State.UP: timedelta(0), _State.DOWN: timedelta(0)}
    outages = _Outages()
    ends = [moment for moment, _ in states[1:]] + [until]
    for (moment, state), end in zip(states, ends, strict=False):
        outages.add(state, moment)
        # A run that started after the end was recorded by a clock that has been set back since.
        gap = max(min(end, until) - moment, timedelta(0))
        spent[state] += min(gap, longest)
        if gap > longest:
            outages.note_gap()
    up_us, down_us = spent[_State.UP] // MICROSECOND, spent[_State.DOWN] // MICROSECOND
    known_us, window_us = up_us + down_us, max(until - since, timedelta(0)) // MICROSECOND
    unknown_us = max(window_us - known_us, 0)
    times_us = [time // MICROSECOND for time in outages.recoveries]
    return Availability(
        source=source,
        observations=len(states),
        interval_us=None if interval is None else interval // MICROSECOND,
        up_us=up_us,
        down_us=down_us,
        unknown_us=unknown_us,
        share=up_us / known_us if known_us else None,
        unknown_share=unknown_us / window_us if window_us else 1.0,
        outages=outages.n,
        recoveries=len(times_us),
        mean_recovery_us=sum(times_us) // len(times_us) if times_us else None,
        longest_recovery_us=max(times_us, default=None),
    )
