"""Which slots a start is for, which were missed, and which of those are caught up on. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile

from pipeline.errors import ConfigError
from pipeline.models import Gap, SlotClaim
from pipeline.schedule.cron import MICROSECOND, Cron, expression_of
from pipeline.settings import Missed, ScheduleSettings, Settings, SourceScheduleSettings

EARLY = timedelta(seconds=2)  # who starts a slot's run may read a clock that is a little behind
EARLY_SHARE = 0.1  # of the distance between two slots: no start is early by more
LOOKED_AT = 10  # distances between slots that the jitter is held against

MOST_SINGLE = 1_000  # missed slots that are booked one by one; more in a row are a gap, in one row
MOST_CAUGHT_UP = 100  # runs of one start


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When some of the sources are collected.

    Attributes:
        key: what its slots are kept under: the name in ``[schedule]``, and for a source with slots
            of its own a slash and the source's name.
        sources: the enabled sources that it is for.
        jitter: how much later a machine may start on purpose.
        grace: how much later than that a start is not yet late.
        missed: what is done about slots that nobody ran.
    """

    key: str
    cron: Cron
    sources: tuple[str, ...]
    jitter: timedelta
    grace: timedelta
    missed: Missed

    def due(self, now: datetime) -> datetime:
        """Give the slot that a start *now* is for."""
        due_at, next_at = self.cron.latest(now), next(self.cron.after(now))
        # Not so much where slots lie close together: a slow start would pass for an early one.
        early = min(EARLY, EARLY_SHARE * (next_at - due_at))
        return next_at if next_at - now <= early else due_at

    def between(self, last: datetime, due_at: datetime) -> tuple[list[datetime], Gap | None]:
        """Give the slots after *last* and before *due_at*, oldest first.

        If they are too many, only the last of them, and the others as a gap: a clock that was
        wrong once must not cost millions of rows.
        """
        known = takewhile(lambda slot: slot < due_at, self.cron.after(last))
        slots = list(islice(known, MOST_SINGLE + 1))
        if len(slots) <= MOST_SINGLE:
            return slots, None
        newest = self.cron.latest(due_at - MICROSECOND)
        gap = Gap(
            schedule=self.key,
            due_at=slots[0],
            last_due_at=self.cron.latest(newest - MICROSECOND),
            slots=self.cron.count(slots[0], newest),
        )
        return [newest], gap

    def start_of(self, due_at: datetime, host: str) -> datetime:
        """Give the moment at which *host* starts a slot's run.

        Each machine has its own place within the jitter, the same for every slot, so that the
        distance between its runs stays even.
        """
        place = int.from_bytes(hashlib.sha256(host.encode()).digest()[:4])
        return due_at + self.jitter * (place / 2**32)

    def claim(self, due_at: datetime) -> SlotClaim:
        """Describe the slot of *due_at* to whoever runs it."""
        grace_us = (self.jitter + self.grace) // MICROSECOND
        return SlotClaim(schedule=self.key, due_at=due_at, grace_us=grace_us)


def pick_caught_up(missed: Sequence[datetime], policy: Missed) -> Sequence[datetime]:
    """Pick those of the *missed* slots, oldest first, that get a run after all.

    Of a gap that is its last slot at most: nobody meant to catch up on decades.
    """
    match policy:
        case "skip":
            return ()
        case "once":
            return missed[-1:]
        case "all":
            return missed[-MOST_CAUGHT_UP:]


def find_schedules(settings: Settings) -> tuple[Schedule, ...]:
    """Find the schedules of the enabled sources, the common one first; empty if there is none.

    Raises:
        ConfigError: the jitter is longer than the time between two slots.
    """
    common = settings.schedule
    own = {
        name: source.schedule
        for name, source in settings.enabled_sources.items()
        if source.schedule is not None
    }
    others = tuple(name for name in settings.enabled_sources if name not in own)
    schedules = []
    if others and (cron := _cron(common, common.timezone)):
        schedules.append(_schedule(common.name, cron, others, common))
    for name, of_source in own.items():
        if cron := _cron(of_source, of_source.timezone or common.timezone):
            schedules.append(_schedule(f"{common.name}/{name}", cron, (name,), common))
    _check_jitter(schedules)
    return tuple(schedules)


def _cron(slots: ScheduleSettings | SourceScheduleSettings, timezone: str) -> Cron | None:
    expression = slots.cron or (slots.every and expression_of(slots.every))
    return Cron(expression=expression, timezone=timezone) if expression else None


def _schedule(key: str, cron: Cron, sources: tuple[str, ...], common: ScheduleSettings) -> Schedule:
    return Schedule(
        key=key,
        cron=cron,
        sources=sources,
        jitter=timedelta(seconds=common.jitter_seconds),
        grace=timedelta(seconds=common.grace_seconds),
        missed=common.missed,
    )


def _check_jitter(schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        if not schedule.jitter:
            continue
        slots = islice(schedule.cron.after(datetime.now(UTC)), LOOKED_AT + 1)
        distance = min(later - earlier for earlier, later in pairwise(slots))
        if schedule.jitter >= distance:
            raise ConfigError(
                f"schedule.jitter_seconds: {schedule.jitter.total_seconds():g} must be less than"
                f" the {distance} between two slots of {schedule.key}"
            )
