"""Numbers, durations and times in words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.rendering.words import count_of, iso_time, show_ago, show_duration, show_time

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("n", "noun", "written"),
    [
        (1, "run", "1 run"),
        (0, "run", "0 runs"),
        (2, "batch", "2 batches"),
        (2, "loss", "2 losses"),
        (3, "retry", "3 retries"),
        (1, "retry", "1 retry"),
        (1_200, "batch", "1,200 batches"),
    ],
)
def test_the_noun_agrees_with_its_number(n: int, noun: str, written: str) -> None:
    """A report of 1 runs looks as if nobody had ever read one."""
    assert count_of(n, noun) == written


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (None, "-"),
        (0, "0 ms"),
        (340, "0.34 ms"),
        (12_000, "12 ms"),
        (999_499, "999 ms"),
        (999_500, "1 s"),
        (1_034_000, "1.03 s"),
        (59_940_000, "59.9 s"),
        (60_000_000, "1 min 0 s"),
        (125_900_000, "2 min 5 s"),
        (3_600_000_000, "1 h 0 min"),
        (100_000_000_000, "27 h 46 min"),
    ],
)
def test_a_duration_reads_as_a_person_would_say_it(us: int | None, text: str) -> None:
    """Three digits are enough, an exponent never; and all of it is ASCII."""
    assert show_duration(us) == text


def test_a_time_is_shown_in_utc_to_the_second() -> None:
    """Whatever zone it came in; nothing is "-"."""
    assert show_time(NOON.astimezone(timezone(timedelta(hours=2)))) == "2026-03-01 12:00:00Z"
    assert show_time(None) == "-"


def test_times_for_programs_are_utc_and_of_one_length() -> None:
    """So that they sort as texts, whichever zone they were known in."""
    kolkata = timezone(timedelta(hours=5, minutes=30))

    assert iso_time(NOON) == "2026-03-01T12:00:00.000000Z"
    assert iso_time(NOON.astimezone(kolkata)) == iso_time(NOON)


@pytest.mark.parametrize(
    ("distance", "shown"),
    [
        (timedelta(0), "0 s ago"),
        (timedelta(seconds=-5.9), "5 s ago"),
        (timedelta(minutes=-59, seconds=-59), "59 min ago"),
        (timedelta(hours=-2), "2 h ago"),
        (timedelta(hours=-47), "1 d ago"),
        (timedelta(days=-6, hours=-23), "6 d ago"),
        (timedelta(days=-7), "2026-02-22 12:00:00Z"),
        (timedelta(seconds=90), "in 1 min"),
        (timedelta(days=8), "2026-03-09 12:00:00Z"),
    ],
)
def test_times_of_about_now_are_told_by_their_distance(distance: timedelta, shown: str) -> None:
    """Whoever looks on wants to know how long ago; of last month the date says more."""
    assert show_ago(NOON + distance, NOON) == shown
