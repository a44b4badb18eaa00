"""How long a field asks us to wait, however it is written. Pure, and generous towards waiting.

One reading serves all fields: a number is a duration unless it is too large for one, and then it
is a moment since 1970. Dates are UTC unless they say otherwise. A part of a second counts as one.
"""

import math
import re
from datetime import UTC, datetime, timedelta

LONGEST_TEXT = 1000  # characters of a field that is read
LONGEST_PIECE = 64  # of one number, duration or date

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_WEEKDAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?"
_YEAR = r"(?P<year>\d{4}|\d\d)"
_ZONE = r"(?: ?(?:gmt|utc|ut|z|(?P<offset>[+-]\d\d:?\d\d)))?"
_TIME = (  # :60 is a leap second
    rf"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>[0-5]\d|60)(?P<fraction>\.\d+)?)?{_ZONE}"
)
_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (  # RFC 9110, 5.6.7, with any zone: IMF-fixdate and RFC 850, asctime
        rf"(?:{_WEEKDAY} ?)?(?P<day>\d\d?)[ -](?P<month>[a-z]{{3}})[ -]{_YEAR} {_TIME}",
        rf"(?:{_WEEKDAY} )?(?P<month>[a-z]{{3}}) (?P<day>\d\d?) {_TIME} (?P<year>\d{{4}})",
    )
)
_ISO_DATE = re.compile(r"\d{4}-?\d\d-?\d\d\D.*", re.ASCII)
_ISO_ZONE = re.compile(r" ?(?:UTC|GMT|Z)$")
_BLANK_BEFORE_OFFSET = re.compile(r" (?=[+-]\d\d:?\d\d$)", re.ASCII)
_WEEKDAY_COMMA = re.compile(rf"{_WEEKDAY[:-1]} *", re.IGNORECASE)

_NUMBER = r"(?:[0-9]{1,20}(?:\.[0-9]*)?|\.[0-9]+)"
_BARE_NUMBER = re.compile(rf"\+?({_NUMBER})")
_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
}
_AMOUNT = re.compile(
    rf"({_NUMBER}) ?(?:([num\u00b5\u03bc]s)"
    r"|([smhd])(?:econds?|ecs?|inutes?|ins?|ours?|rs?|ays?)?)(?![a-z])"
)
# Least size that makes a number of seconds a moment, and how many of its units make a second: as
# a delay 10**9 s were 31 years, as a moment they were in 2001.
_MOMENTS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3), (10**9, 1))
_NO_MOMENT = 10**20  # too large for anything


def parse_date(text: str, now: datetime) -> datetime | None:
    """Read a date of HTTP (RFC 9110, 5.6.7) or of ISO 8601, loosely; None if it is none.

    *now* tells the century of a year of two digits.
    """
    if len(text) > LONGEST_PIECE or not text.isascii():
        return None
    text = " ".join(text.split())
    try:
        if _ISO_DATE.fullmatch(text):
            return _parse_iso(text.upper())
        found = next(filter(None, (date.fullmatch(text) for date in _DATES)), None)
        return None if found is None else _date_of(found, now)
    except (ValueError, OverflowError):
        return None


def _parse_iso(text: str) -> datetime:
    spelled = _BLANK_BEFORE_OFFSET.sub("", _ISO_ZONE.sub("+00:00", text))
    date = datetime.fromisoformat(spelled)
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def _date_of(found: re.Match[str], now: datetime) -> datetime:
    year = int(found["year"])
    if len(found["year"]) == len("94"):
        year += 100 * round((now.year - year) / 100)  # the nearest year that ends so
    month, day = _MONTHS.index(found["month"].title()) + 1, int(found["day"])
    minute = datetime(year, month, day, int(found["hour"]), int(found["minute"]), tzinfo=UTC)
    offset = (found["offset"] or "+0000").replace(":", "")
    ahead = timedelta(hours=int(offset[:3]), minutes=int(offset[0] + offset[3:]))
    seconds = int(found["second"] or 0) + bool(found["fraction"])
    return minute + timedelta(seconds=seconds) - ahead


def read_wait(text: str, clock: datetime, *, unit_seconds: float = 1.0) -> float | None:
    """Read how many seconds from *clock* on a field asks to wait; None if nobody can tell.

    A number, a duration (``1m30s``, ``PT1M``) or a date; of several the longest counts, and a
    moment in the past is 0.0. *unit_seconds* is what a bare number counts.
    """
    if len(text) > LONGEST_TEXT:
        return None
    pieces = _WEEKDAY_COMMA.sub("", text).split(",")
    waits = [_read_piece(piece.strip(' \t"'), clock, unit_seconds) for piece in pieces]
    return max((seconds for seconds in waits if seconds is not None), default=None)


def _read_piece(text: str, clock: datetime, unit_seconds: float) -> float | None:
    if len(text) > LONGEST_PIECE:
        return None
    if number := _BARE_NUMBER.fullmatch(text):
        return _seconds_until(float(number[1]) * unit_seconds, clock)
    if (duration := _read_duration(text.lower())) is not None:
        return _seconds_until(duration, clock)
    date = parse_date(text, clock)
    return None if date is None else _rounded((date - clock).total_seconds())


def _read_duration(text: str) -> float | None:
    if text.startswith("p"):  # ISO 8601: P1DT2H
        text = text[1:].replace("t", "")
    seconds, position = 0.0, 0
    while amount := _AMOUNT.match(text, position):
        seconds += float(amount[1]) * _UNIT_SECONDS[amount[2] or amount[3]]
        position = amount.end() + text.startswith(" ", amount.end())
    return seconds if position and position >= len(text) else None


def _seconds_until(number: float, clock: datetime) -> float | None:
    """Tell a duration from a moment by its size: no two services agree on what they send."""
    if number >= _NO_MOMENT:
        return None
    for least, per_second in _MOMENTS:
        if number >= least:
            return _rounded(number / per_second - clock.timestamp())
    return _rounded(number)


def _rounded(seconds: float) -> float:
    return float(max(0, math.ceil(round(seconds, 6))))
