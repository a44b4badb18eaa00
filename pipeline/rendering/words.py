"""Numbers, durations and times in words. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

MILLISECOND = 1_000  # all in microseconds
SECOND = 1_000 * MILLISECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LONG_AGO = 7 * DAY  # a person knows better by the date
_ROUGHLY = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s"))

STEPS = (("week", timedelta(weeks=1)), ("day", timedelta(days=1)), ("hour", timedelta(hours=1)))


def count_of(n: int, noun: str) -> str:
    """Write a number and what it counts: ``1 batch``, ``3 retries``, ``1,200 batches``."""
    if n == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{n:,} {noun[:-1]}ies"
    return f"{n:,} {noun}{'es' if noun.endswith(('ch', 's')) else 's'}"


def show_duration(us: int | None) -> str:
    """Write microseconds for a person: ``0.34 ms``, ``1.03 s``, ``2 min 5 s``."""
    if us is None:
        return "-"
    if us < SECOND - MILLISECOND // 2:  # above, three digits of it would be 1e+03
        return f"{us / MILLISECOND:.3g} ms"
    if us < MINUTE:
        return f"{us / SECOND:.3g} s"
    if us < HOUR:
        return f"{us // MINUTE} min {us % MINUTE // SECOND} s"
    return f"{us // HOUR} h {us % HOUR // MINUTE} min"


def show_step(step: timedelta) -> str:
    """Write how wide a column of a chart is, by whole weeks, days or hours: ``8 hours``."""
    name, unit = next((each for each in STEPS if not step % each[1]), STEPS[-1])
    return name if step == unit else f"{step / unit:.3g} {name}s"


def show_time(moment: datetime | None) -> str:
    """Write a time for a person, in UTC and to the second: ``2026-01-31 23:59:59Z``."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def show_ago(moment: datetime, now: datetime) -> str:
    """Write a time of about now for a person who looks on: ``2 h ago``, ``in 5 min``."""
    distance = moment - now
    us = abs(distance) // timedelta(microseconds=1)
    if us >= LONG_AGO:
        return show_time(moment)
    size, unit = next((each for each in _ROUGHLY if us >= each[0]), _ROUGHLY[-1])
    text = f"{us // size} {unit}"
    return f"in {text}" if distance > timedelta(0) else f"{text} ago"


def iso_time(moment: datetime) -> str:
    """Write a time for a program, in UTC: ``2026-01-31T23:59:59.000000Z``.

    All such texts have one length, so they sort like the times.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def tell_limits(limits: Mapping[str, Any]) -> Iterator[str]:
    """Tell the limits that were in force in a run, named as in the file: a line, and one a source.

    *limits* are as ``run.limits`` describes them.
    """
    yield f"Limits in force: {_settings(limits)}"
    for source, of in limits["sources"].items():
        yield f"  {source}: {_settings(of)}"


def _settings(table: Mapping[str, Any]) -> str:
    """Write the plain values of *table*."""
    return ", ".join(
        f"{key}={_value(value)}"  # without blanks, at which a line could break
        for key, value in table.items()
        if not isinstance(value, dict) and key != "impossible"
    )


def _value(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value}"
