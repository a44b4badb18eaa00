"""Tests for pipeline/sources/waits.py: one reading for every field that says "not before"."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.waits import read_wait

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
UNIX_NOW = int(NOW.timestamp())


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test in another time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 22 Nov 2026 08:00:30 GMT",
        "Sunday, 22-Nov-26 08:00:30 GMT",
        "Sun Nov 22 08:00:30 2026",
    ],
)
@pytest.mark.usefixtures("zone")
def test_all_three_http_dates_are_utc(value: str) -> None:
    """RFC 9110 allows three forms and one zone, whatever TZ says."""
    assert read_wait(value, NOW) == 30.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("007", 7.0),
        (" 120\t", 120.0),
        ("+1", 1.0),
        ("1.5", 2.0),
        ("64.57", 65.0),
        ("0.001", 1.0),
        ("5.", 5.0),
        ("5, 10", 10.0),
        ("10, soon, 5", 10.0),
        ('"30"', 30.0),
        ("999999999", 999_999_999.0),
        ("Sun, 22 Nov 2026 07:00:00 GMT", 0.0),
        ("Sun Dec  6 08:00:00 2026", 14 * 86_400.0),
        ("Sun, 22 Nov 2026 08:00:60 GMT", 60.0),
        ("Wednesday, 22-Nov-76 08:00:00 GMT", 18263 * 86_400.0),
        ("Tuesday, 22-Nov-77 08:00:00 GMT", 0.0),
    ],
)
def test_a_wait_is_read_as_it_was_sent(value: str, seconds: float) -> None:
    """A past date is no wait; a long one is kept, and a two-digit year is within 50 years."""
    assert read_wait(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "-1", "-1.5", "1e3", "\u00b2", "\u0663\u0660", "9" * 300, "9" * 5000),
        *(
            "soon",
            "0x10",
            "1_0",
            "\x00",
            "Sun",
            "Sun, 22 Nov 2026",
            "3 dogs",
            "m",
            "5sx",
            "1,5" * 400,
        ),
        "Sun, 22 Nov 99999 08:00:00 GMT",
        "Sun, 31 Feb 2027 08:00:00 GMT",
        "Sun, 22 Foo 2026 08:00:00 GMT",
        "Sun, 22 Nov 2026 24:00:00 GMT",
        "Sun, 22 Nov 2026 08:00:61 GMT",
        "Sun, 22 Nov 2026 08:00:00 CET",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+10:00",
        "2026-11-22T25:00:00Z",
        "Fri, 31 Dec 9999 23:59:60 GMT",
        "Sun, 00 Nov 2026 08:00:00 GMT",
        "Sat, 22 Nov 0000 08:00:00 GMT",
        "Sun, \u0662\u0662 Nov 2026 08:00:00 GMT",
    ],
)
def test_an_absurd_wait_is_none(value: str) -> None:
    """A pause of our own is better than a guess, and much better than a traceback."""
    assert read_wait(value, NOW) is None


@given(st.text(max_size=40))
def test_no_wait_raises_or_is_negative(value: str) -> None:
    """The header is the upstream's to write."""
    seconds = read_wait(value, NOW)

    assert seconds is None or seconds >= 0


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - made aware below
def test_any_date_that_was_formatted_is_read(moment: datetime) -> None:
    """The standard library's formatter is a second opinion on the grammar."""
    later = moment.replace(microsecond=0, tzinfo=UTC)

    seconds = read_wait(format_datetime(later, usegmt=True), NOW)

    assert seconds == max(0.0, (later - NOW).total_seconds())


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 22 Nov 2026 08:00:30 UTC",
        "sun, 22 nov 2026 08:00:30 gmt",
        "Sun, 22 Nov 2026 08:00:30 Z",
        "Sun, 22 Nov 2026 08:00:30 +0000",
        "Sun, 22 Nov 2026 08:00:30 -00:00",
        "Sun, 22 Nov 2026 09:00:30 +0100",
        "Sun, 22 Nov 2026 03:30:30 -04:30",
        "Sun, 22 Nov 2026 08:00:30",
        "22 Nov 2026 08:00:30 GMT",
        "Sun, 22-Nov-2026 08:00:30 GMT",
        "Sun Nov 22 08:00:30 UTC 2026",
        "Sun, 22  Nov 2026  08:00:30 GMT",
        "Sun, 22 Nov 2026 08:00:29.5 GMT",
        "Sun, 22 Nov 2026 08:00:10 GMT, Sun, 22 Nov 2026 08:00:30 GMT",
        "2026-11-22T08:00:30Z",
        "2026-11-22t08:00:30z",
        "2026-11-22 08:00:30",
        "2026-11-22 08:00:30 UTC",
        "2026-11-22T08:00:29.123456Z",
        "2026-11-22T09:00:30+01:00",
        "2026-11-22T08:00:30 +0000",
        "20261122T080030Z",
    ],
)
@pytest.mark.usefixtures("zone")
def test_a_date_is_read_however_it_is_written(value: str) -> None:
    """Who writes UTC for GMT, or ISO 8601, means the same moment; a ban is the price of doubt."""
    assert read_wait(value, NOW) == 30.0


@pytest.mark.parametrize("unit_seconds", [1.0, 0.001])
@pytest.mark.parametrize(
    "value",
    [
        str(UNIX_NOW + 30),
        f"{UNIX_NOW + 29}.123",
        str((UNIX_NOW + 30) * 10**3),
        str((UNIX_NOW + 30) * 10**6),
        str((UNIX_NOW + 30) * 10**9),
    ],
)
def test_a_number_of_that_size_is_a_moment(value: str, unit_seconds: float) -> None:
    """As a delay it would be decades; nobody tells seconds from what is smaller by the name."""
    # A moment in seconds, in a field of milliseconds, is a delay of three weeks: that is safe.
    is_delay = unit_seconds < 1 and float(value) < 10**11

    wait = read_wait(value, NOW, unit_seconds=unit_seconds)

    assert wait == (pytest.approx(float(value) / 1000, abs=1) if is_delay else 30.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1m30s", 90),
        ("1M 30S", 90),
        ("6ms", 1),
        ("1.5s", 2),
        ("250us", 1),
        ("2h", 7200),
        ("1d12h", 129_600),
        ("120 seconds", 120),
        ("120 secs", 120),
        ("2 min", 120),
        ("2 minutes", 120),
        ("1 hour 1 second", 3601),
        ("3 days", 259_200),
        ("PT1M30S", 90),
        ("P1DT2H", 93_600),
        (f"{UNIX_NOW + 30}s", 30),
    ],
)
def test_a_duration_may_name_its_units(value: str, seconds: float) -> None:
    """What Go prints, what ISO 8601 calls a duration, and what people write."""
    assert read_wait(value, NOW) == seconds


def test_a_huge_field_is_turned_down_quickly() -> None:
    """An upstream must not be able to keep us busy with a header."""
    began = time.process_time()

    for field in ("1," * 50_000, "Mon," * 200, "1m" * 400, "1 " * 30, "Mon, 1" * 150, "." * 900):
        read_wait(field, NOW)

    assert time.process_time() - began < 2
