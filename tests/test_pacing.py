"""Pacing, held to its promises by whatever comes to hypothesis' mind: rates, quotas, embargoes."""

from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pacing import (
    LONGEST_RUN,
    Embargo,
    Pace,
    Period,
    Quota,
    Rate,
    Rules,
    Spent,
    left,
    mend,
    next_moment,
    period_end,
    period_name,
    take,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PER_MINUTE = Rate(requests=1, period_seconds=60)
PER_DAY = Quota(unit="requests", amount=3, period="day")
BITS_PER_MONTH = Quota(unit="bits", amount=100, period="month")
BOTH = Rules(quotas=(PER_DAY, BITS_PER_MONTH))
NEW = Pace()

rates = st.builds(
    Rate,
    requests=st.integers(1, 999_999),
    period_seconds=st.one_of(st.sampled_from([0.001, 1.0, 60.0]), st.floats(0.001, 999_999)),
)
pauses = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=9))
jumps = st.timedeltas(min_value=timedelta(days=-40), max_value=timedelta(days=40))
moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants bounds without a zone


def spend(pace: Pace, rules: Rules, now: datetime, bits: int = 0) -> tuple[datetime, Pace]:
    """Take the next moment, as whoever waits for it does."""
    moment = next_moment(pace, rules, now=now, bits=bits)
    return moment.at, take(pace, rules, at=moment.at, bits=bits)


# ---- The rate ----


@given(rate=rates, waits=st.lists(st.floats(0, 3), max_size=30), lates=st.data())
def test_no_window_holds_more_than_the_rate(
    rate: Rate, waits: list[float], lates: st.DataObject
) -> None:
    """The upstream counts in windows that begin whenever it likes, and requests may go late."""
    rules = Rules(rate=rate)
    lateness = st.timedeltas(min_value=timedelta(0), max_value=rate.tolerance)
    window, now, pace = timedelta(seconds=rate.period_seconds), NOON, NEW
    requests = min(rate.requests, 40)
    scaled = replace(rate, requests=requests)
    sent: deque[datetime] = deque(maxlen=requests + 1)
    for wait in [*waits, *[0.0] * (requests + 1)]:
        now += wait * scaled.interval
        at, pace = spend(pace, replace(rules, rate=scaled), now)
        sent.append(at + lates.draw(lateness))

        if len(sent) > requests:
            assert max(sent) - min(sent) >= window


@given(rate=rates)
def test_an_interval_is_never_rounded_down(rate: Rate) -> None:
    """A million per second would be no rate at all if a microsecond's fraction were dropped."""
    assert rate.interval * rate.requests >= timedelta(seconds=rate.period_seconds)


def test_a_free_upstream_may_be_asked_at_once() -> None:
    """Whoever was never asked, or long ago, owes nobody a wait."""
    asked = Pace(next_at=NOON - timedelta(days=1))

    for pace in (NEW, asked):
        moment = next_moment(pace, Rules(rate=PER_MINUTE), now=NOON, bits=0)

        assert (moment.at, moment.why) == (NOON, "")


def test_a_pause_saves_nothing_up() -> None:
    """No burst: after a day without a request the next two are as far apart as ever."""
    rules = Rules(rate=PER_MINUTE)
    _, pace = spend(NEW, rules, NOON - timedelta(days=1))
    first, pace = spend(pace, rules, NOON)
    second, _ = spend(pace, rules, NOON)

    assert first == NOON
    assert second - first == PER_MINUTE.interval == timedelta(seconds=63.6)


def test_a_wait_for_the_rate_says_so() -> None:
    """The rule is in the books beside the batch that it put off."""
    pace = Pace(next_at=NOON + timedelta(seconds=5))

    moment = next_moment(pace, Rules(rate=PER_MINUTE), now=NOON, bits=0)

    assert (moment.at, moment.why) == (NOON + timedelta(seconds=5), "rate: 1 per 60 s")


def test_a_rate_that_was_switched_off_is_forgotten_for_good() -> None:
    """`rate = "none"` in the file: a moment from before must not hold anybody."""
    pace = Pace(next_at=NOON + timedelta(days=1))

    assert next_moment(pace, Rules(), now=NOON, bits=0).at == NOON
    assert take(pace, Rules(), at=NOON, bits=0) == pace


# ---- Quotas ----


@given(
    quotas=st.tuples(
        st.builds(Quota, unit=st.just("requests"), amount=st.integers(1, 9), period=st.just("day")),
        st.builds(Quota, unit=st.just("bits"), amount=st.integers(9, 99), period=st.just("month")),
    ),
    start=moments,
    asked=st.lists(st.tuples(st.one_of(pauses, jumps), st.integers(0, 9)), max_size=60),
)
def test_no_calendar_period_sees_more_than_its_quota(
    quotas: tuple[Quota, ...], start: datetime, asked: list[tuple[timedelta, int]]
) -> None:
    """Whatever the clock does, forwards and back, and whichever quota comes first."""
    rules, pace, now = Rules(quotas=quotas), NEW, start
    used: Counter[tuple[Quota, str]] = Counter()
    for jump, bits in asked:
        now += jump
        moment = next_moment(pace, rules, now=now, bits=bits)
        assert moment.at >= now
        pace = take(pace, rules, at=moment.at, bits=bits)
        for quota in quotas:
            cost = 1 if quota.unit == "requests" else bits
            used[quota, period_name(moment.at, quota.period)] += cost

    for (quota, period), amount in used.items():
        assert amount <= quota.amount, period


@given(start=moments, back=pauses, amount=st.integers(0, 2))
def test_a_clock_that_is_put_back_grants_nothing(
    start: datetime, back: timedelta, amount: int
) -> None:
    """A machine that wakes up in last week has still asked what it asked."""
    name, before = period_name(start, "day"), start - back
    pace = Pace(next_at=start, spent={"requests": Spent(period=name, amount=amount)})

    by_quota = next_moment(pace, Rules(quotas=(PER_DAY,)), now=before, bits=0)
    by_rate = next_moment(pace, Rules(rate=PER_MINUTE), now=before, bits=0)

    assert left(pace, PER_DAY, before) == PER_DAY.amount - amount
    assert period_name(by_quota.at, "day") == name
    assert by_rate.at == start


def test_a_quota_spent_in_a_period_to_come_waits_for_its_end() -> None:
    """Taken ahead of midnight for a moment after it: the new day's quota is what was used up."""
    tomorrow = period_name(NOON + timedelta(days=1), "day")
    pace = Pace(spent={"requests": Spent(period=tomorrow, amount=3)})

    moment = next_moment(pace, BOTH, now=NOON, bits=0)

    assert moment.at == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "name", "end"),
    [("day", "2026-11-22", (2026, 11, 23)), ("month", "2026-11", (2026, 12, 1))],
)
def test_periods_are_calendar_ones_in_utc(
    period: Period, name: str, end: tuple[int, int, int]
) -> None:
    """They are random.org's and AWS's; a local midnight would be hours off."""
    in_kiritimati = NOON.astimezone(ZoneInfo("Pacific/Kiritimati"))

    assert in_kiritimati.day == 23
    assert period_name(in_kiritimati, period) == name
    assert period_end(in_kiritimati, period) == datetime(*end, tzinfo=UTC)


@given(moment=moments)
def test_a_period_ends_where_the_next_one_begins(moment: datetime) -> None:
    """Neither leap years nor the turn of the year leave a gap or an overlap."""
    for period in ("day", "month"):
        end = period_end(moment, period)
        assert moment < end
        assert period_name(moment, period) < period_name(end, period)
        assert period_name(end - timedelta(microseconds=1), period) == period_name(moment, period)


def test_a_used_up_quota_says_which_and_until_when() -> None:
    """Of two quotas the one that lets go last is told."""
    pace = NEW
    for _ in range(3):
        at, pace = spend(pace, BOTH, NOON, bits=30)
        assert at == NOON

    by_day = next_moment(pace, BOTH, now=NOON, bits=10)
    by_month = next_moment(pace, BOTH, now=NOON, bits=11)

    assert (by_day.at, by_day.why) == (
        datetime(2026, 11, 23, tzinfo=UTC),
        "quota: 3 requests per day",
    )
    assert (by_month.at, by_month.why) == (
        datetime(2026, 12, 1, tzinfo=UTC),
        "quota: 100 bits per month",
    )


def test_the_next_period_begins_with_the_whole_quota() -> None:
    """What is left over is not carried on either."""
    pace = Pace(spent={"requests": Spent(period="2026-11-21", amount=2)})

    assert left(pace, PER_DAY, NOON) == 3
    assert take(pace, BOTH, at=NOON, bits=7).spent == {
        "requests": Spent(period="2026-11-22", amount=1),
        "bits": Spent(period="2026-11", amount=7),
    }


@pytest.mark.parametrize(
    ("stored", "period", "expected"),
    [("2026-11-22", "month", 1), ("2026-11", "day", 3), ("2026-10-31", "month", 3)],
)
def test_a_quota_of_another_period_keeps_what_is_still_true(
    stored: str, period: Period, expected: int
) -> None:
    """Somebody edits "day" into "month": today's requests are this month's; not the reverse."""
    pace = Pace(spent={"requests": Spent(period=stored, amount=2)})

    assert left(pace, replace(PER_DAY, period=period), NOON) == expected


def test_a_quota_that_was_lowered_is_overdrawn() -> None:
    """Less than nothing is left, and the wait is the same."""
    pace = Pace(spent={"requests": Spent(period="2026-11-22", amount=5)})

    assert left(pace, PER_DAY, NOON) == -2
    assert next_moment(pace, BOTH, now=NOON, bits=0).at == datetime(2026, 11, 23, tzinfo=UTC)


# ---- Embargoes ----


def test_an_embargo_wins_over_an_earlier_moment_only() -> None:
    """Both must have passed, so the later one is told."""
    rules, soon, later = Rules(rate=PER_MINUTE), timedelta(seconds=5), timedelta(seconds=9)
    embargo = Embargo(until=NOON + soon, why="Retry-After: 5")

    by_embargo = next_moment(Pace(embargo=embargo), rules, now=NOON, bits=0)
    by_rate = next_moment(Pace(embargo=embargo, next_at=NOON + later), rules, now=NOON, bits=0)
    by_none = next_moment(Pace(embargo=embargo), rules, now=NOON + later, bits=0)

    assert (by_embargo.at, by_embargo.why) == (NOON + soon, "Retry-After: 5")
    assert (by_rate.at, by_rate.why) == (NOON + later, "rate: 1 per 60 s")
    assert (by_none.at, by_none.why) == (NOON + later, "")


def test_an_embargo_into_another_period_is_charged_there() -> None:
    """After a month of silence it is not the old month's quota that counts."""
    embargo = Embargo(until=datetime(3025, 1, 1, tzinfo=UTC), why="Retry-After: 31536000000")
    pace = Pace(embargo=embargo, spent={"requests": Spent(period="2026-11-22", amount=3)})

    at, after = spend(pace, BOTH, NOON)

    assert at == embargo.until
    assert after.spent["requests"] == Spent(period="3025-01-01", amount=1)


# ---- Clocks that were wrong ----

INTERVAL = PER_MINUTE.interval
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("next_at", "taken_at", "mended"),
    [
        (INTERVAL, timedelta(0), None),
        (timedelta(hours=20), -timedelta(hours=1), None),  # of a run with a long deadline
        (-WEEK, -WEEK, None),
        (timedelta(hours=2) + INTERVAL, timedelta(hours=2), INTERVAL),
        (WEEK, None, INTERVAL),
        (WEEK, -WEEK, INTERVAL),
        (3 * WEEK, WEEK, LONGEST_RUN + INTERVAL),
    ],
)
def test_a_moment_lies_no_further_ahead_than_it_can_have_been_taken(
    next_at: timedelta, taken_at: timedelta | None, mended: timedelta | None
) -> None:
    """The longest run and an interval; or what it was ahead of the clock that took it."""
    pace = Pace(next_at=NOON + next_at, taken_at=None if taken_at is None else NOON + taken_at)

    found, said = mend(pace, Rules(rate=PER_MINUTE), now=NOON)

    assert found == (pace if mended is None else Pace(next_at=NOON + mended, taken_at=NOON))
    assert len(said) == (mended is not None)


@pytest.mark.parametrize(
    ("said_after", "until"), [(timedelta(0), WEEK), (WEEK, timedelta(minutes=1)), (-WEEK, 9 * WEEK)]
)
def test_an_embargo_laid_in_the_future_holds_from_now_on(
    said_after: timedelta, until: timedelta
) -> None:
    """One that was laid by a right clock is a fact, however long."""
    length = timedelta(minutes=1) if said_after > timedelta(0) else until - said_after
    embargo = Embargo(until=NOON + said_after + length, why="x", said_at=NOON + said_after)

    found, said = mend(Pace(embargo=embargo), Rules(), now=NOON)

    assert found.embargo == Embargo(until=NOON + until, why="x")
    assert len(said) == (said_after > timedelta(0))


@pytest.mark.parametrize(
    ("period", "mended"),
    [("2026-11-23", "2026-11-22"), ("2026-12", "2026-11"), ("2026-11-22", None), ("2026-11", None)],
)
def test_what_was_spent_in_a_period_to_come_was_spent_now(period: str, mended: str | None) -> None:
    """It is not given away, and does not shut the source until then."""
    pace = Pace(spent={"requests": Spent(period=period, amount=2)})

    found, said = mend(pace, Rules(), now=NOON)

    assert found.spent == {"requests": Spent(period=mended or period, amount=2)}
    assert len(said) == (mended is not None)
