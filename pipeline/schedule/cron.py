"""The moments that a cron expression names. Pure.

The dialect is that of the ``cronsim`` package, which follows Debian's cron: five fields with ``*``,
lists, ranges, steps and English names; day of month and day of week must both match if one of
them begins with ``*``, else either will do. Beyond Debian's it knows ``L`` (the last day of the
month), ``LW`` (its last working day), ``5L`` (its last Friday) and ``MON#2`` (its second Monday).

Where the clock is changed, Debian's rule holds as well. If the minute or the hour begins with
``*``, a slot is due whenever the clock shows such a time: never in the hour that is left out, twice
in the one that comes twice. If neither does, a slot of the hour that is left out is due as soon as
that is over, and one of the hour that comes twice is due the first time only.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import partial
from itertools import takewhile
from operator import gt
from zoneinfo import ZoneInfo

from cronsim import CronSim

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
HOUR, HOURS = timedelta(hours=1), 24
MICROSECOND = timedelta(microseconds=1)
# No clock is ever changed by more, except where a country moves to the other side of the date line.
LARGEST_CHANGE = timedelta(hours=3)

_EVERY = {
    "s": "*/{} * * * * *",  # six fields begin with the seconds
    "m": "*/{} * * * *",
    "h": "0 */{} * * *",
    "d": "0 0 * * *",
}


def expression_of(every: str) -> str:
    """Write a distance such as ``5m`` as an expression; with seconds it has six fields."""
    return _EVERY[every[-1]].format(every[:-1])


def find_zone(name: str) -> tzinfo:
    """Find a time zone by its name; UTC needs no database of them."""
    return UTC if name == "UTC" else ZoneInfo(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A checked cron expression, and the name of the time zone whose clock it goes by."""

    expression: str
    timezone: str = "UTC"

    @property
    def parsed(self) -> CronSim:
        """Give its fields, at some moment or other."""
        return CronSim(self.expression, datetime(2000, 1, 1, tzinfo=UTC))

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Give the slots due after *moment*, in UTC and in order, each once, without an end."""
        last = moment
        for due in CronSim(self.expression, moment.astimezone(find_zone(self.timezone))):
            due_at = due.astimezone(UTC)
            # cronsim goes by the clock on the wall: begun in an hour that comes for the second
            # time, it names slots of the first time once more.
            if due_at > last:
                yield due_at
                last = due_at

    def latest(self, moment: datetime) -> datetime:
        """Give the newest slot that was due at *moment*, in UTC."""
        zone = find_zone(self.timezone)
        begin = moment
        # Backwards, cronsim does not mind a change of the clock; so it goes back to before one,
        # and from there forwards.
        if _offset(moment, zone) != _offset(moment - LARGEST_CHANGE, zone):
            begin -= LARGEST_CHANGE
        start = (begin + SECOND).replace(microsecond=0).astimezone(zone)
        earlier = next(CronSim(self.expression, start, reverse=True)).astimezone(UTC)
        known = takewhile(lambda due_at: due_at <= moment, self.after(earlier - SECOND))
        return max(known, default=earlier)

    def count(self, begin: datetime, end: datetime) -> int:
        """Count the slots from *begin* to before *end*, by whole days where it can: for decades."""
        zone, cron = find_zone(self.timezone), self.parsed
        per_day, is_hourly = self.per_day(), len(cron.hours) == HOURS
        total = 0
        while begin < end:
            day = begin.astimezone(zone).date()
            first, last = _midnight(day, zone), _midnight(day + DAY, zone)
            is_whole = first == begin and last <= end
            is_even = last - first == DAY or (is_hourly and not (last - first) % HOUR)
            if is_whole and is_even:
                is_due = day.month in cron.months and cron.match_day(day)
                total += round(per_day * ((last - first) / DAY)) if is_due else 0
            else:  # at the ends, and where the clock is changed
                known = takewhile(partial(gt, min(last, end)), self.after(begin - MICROSECOND))
                total += sum(1 for _ in known)
            begin = last
        return total

    def per_day(self) -> int:
        """Count the slots of a day that has any."""
        cron = self.parsed
        return len(cron.seconds) * len(cron.minutes) * len(cron.hours)

    def per_month(self, today: date) -> int:
        """Count the slots of the fullest of the next twelve months."""
        cron = self.parsed
        first = today.replace(day=1)
        days = Counter(
            (day.year, day.month)
            for day in (first + number * DAY for number in range(366))
            if day.month in cron.months and cron.match_day(day)
        )
        return max(days.values(), default=0) * self.per_day()


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
