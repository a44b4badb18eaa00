"""Tests for pipeline/sources/hints.py, and for what each adapter adds to it."""

import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.anu_aqn import AnuAqn
from pipeline.sources.anu_legacy import AnuLegacy
from pipeline.sources.base import Answer, Hint, Source
from pipeline.sources.hints import hint_of_renewal, longest_hint, pause_of_our_own, read_headers
from pipeline.sources.random_org import RandomOrg
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
from pipeline.sources.randomnumberapi import RandomNumberApi
from tests.sources.samples import (
    FEW_EXAMPLES,
    SECRET,
    answer_of,
    fetch_of,
    hostile_answers,
    json_values,
    mutated,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
UNTIL_TOMORROW = 16 * 3600 + 300.0  # to 00:05
UNTIL_DECEMBER = 8 * 86400 + UNTIL_TOMORROW

ANU_LEGACY = AnuLegacy(base_url="https://qrng.anu.edu.au")
ANU_AQN = AnuAqn(base_url="https://api.quantumnumbers.anu.edu.au", api_key=SECRET)
RANDOM_ORG = RandomOrg(base_url="https://www.random.org", email="someone@example.org")
JSONRPC = RandomOrgJsonrpc(base_url="https://api.random.org", api_key=SECRET)
RANDOMNUMBERAPI = RandomNumberApi(base_url="https://www.randomnumberapi.com")
SOURCES: list[Source] = [ANU_LEGACY, ANU_AQN, RANDOM_ORG, JSONRPC, RANDOMNUMBERAPI]


def _bare_answer(*headers: tuple[str, str], status: int = 200) -> Answer:
    """Make an answer without a body; its headers may be any bytes, as on the wire."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Answer(status=status, headers=httpx.Headers(raw), body=b"")


def _wait(*headers: tuple[str, str], now: datetime = NOW) -> float | None:
    hint = read_headers(_bare_answer(*headers), now)
    return None if hint is None else hint.wait_seconds


def _wait_of_limit(limit: str, policy: str | None = None) -> float | None:
    declared = () if policy is None else (("RateLimit-Policy", policy),)
    return _wait(("RateLimit", limit), *declared)


def _hint(
    source: Source, body: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> Hint:
    hint = source.find_hint(answer_of(body, status=status, headers=headers), NOW)
    assert hint is not None
    return hint


def _result(**members: object) -> dict[str, object]:
    said = {"bitsUsed": 8, "bitsLeft": 249_992, "requestsLeft": 999, "advisoryDelay": 1020}
    random = {"data": [4, 1, 6], "completionTime": "2026-11-22 08:00:00Z"}
    return {"jsonrpc": "2.0", "result": {"random": random, **said, **members}, "id": 7}


def _error(code: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": "no", "data": None}, "id": 7}


def test_the_longest_wait_wins() -> None:
    """None of those who speak is to be undercut."""
    short, long = Hint(wait_seconds=1, why="short"), Hint(wait_seconds=2, why="long")

    assert longest_hint(short, None, long) is long
    assert longest_hint(long, short) is long


def test_no_wait_is_no_hint() -> None:
    """A busy server that sends `Retry-After: 0` must not hide a better rule."""
    assert longest_hint(Hint(wait_seconds=0, why="at once"), None) is None
    assert longest_hint() is None


@pytest.mark.parametrize("status", [200, 202, 301, 403, 429, 500, 503, 599])
def test_retry_after_is_read_whatever_the_status(status: int) -> None:
    """A server may ask for a pause with any answer, good ones included."""
    hint = read_headers(_bare_answer(("Retry-After", "120"), status=status), NOW)

    assert hint == Hint(wait_seconds=120, why="Retry-After: 120")


@pytest.mark.parametrize(
    ("value", "seconds", "shown"),
    [("1234567", 1_234_567, "1234567"), ("999999999", 999_999_999, "999999999")],
)
def test_a_long_wait_is_not_clipped(value: str, seconds: float, shown: str) -> None:
    """What is too long, the caller decides; the reason stays one short line all the same."""
    hint = read_headers(_bare_answer(("Retry-After", value)), NOW)

    assert hint == Hint(wait_seconds=seconds, why=f"Retry-After: {shown}")


@pytest.mark.parametrize(
    "value", ["", "-1", "²", "٣٠", "9" * 5000, "31 Feb", "soon", "0", "1000000000"]
)
def test_an_absurd_retry_after_is_ignored(value: str) -> None:
    """Our own backoff is better than a guess."""
    assert _wait(("Retry-After", value)) is None


def test_of_two_retry_after_the_longer_counts() -> None:
    """Which of them was meant is not known; the longer undercuts neither."""
    assert _wait(("Retry-After", "5"), ("Retry-After", "10")) == 10


@pytest.fixture(params=["UTC", "Asia/Kathmandu", "America/St_Johns"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test in another time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_no_wait_depends_on_the_time_zone() -> None:
    """Dates, Unix times and midnights are UTC, whatever TZ says."""
    unix_time = str(int(NOW.timestamp()) + 30)

    assert _wait(("Retry-After", "Sun Nov 22 08:00:30 2026")) == 30
    assert _wait(("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", unix_time)) == 30
    assert hint_of_renewal(NOW, "day", "").wait_seconds == UNTIL_TOMORROW


@pytest.mark.parametrize(
    "later",
    ["Sun, 22 Nov 2026 08:00:30 GMT", "Sunday, 22-Nov-26 08:00:30 GMT", "Sun Nov 22 08:00:30 2026"],
)
def test_dates_count_from_the_answers_own_clock(later: str) -> None:
    """Our clock may be wrong by hours; the difference of the server's two dates is right."""
    date = ("Date", "Sun, 22 Nov 2026 08:00:00 GMT")

    assert _wait(date, ("Retry-After", later), now=NOW + timedelta(hours=5)) == 30


@pytest.mark.parametrize("date", ["Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", ""])
def test_a_senseless_clock_is_not_asked(date: str) -> None:
    """A server that believes in 1970 would have us wait for decades."""
    later = ("Retry-After", format_datetime(NOW + timedelta(seconds=30), usegmt=True))

    assert _wait(("Date", date), later) == 30


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ('"default";r=0;t=30', 30),
        ("default;r=0;t=30", 30),
        ('"minute";r=0;t=30, "day";r=0;t=36000', 36000),
        ('"minute";r=5;t=30, "hour";r=0;t=600\t,"day";r=9;t=36000', 600),
        ('"a, \\"b\\\\;r=9";r=0;t=7', 7),
        ('"default"; r=0;  t=8', 8),
        ('"k";pk=:cHNzdA==:;r=0;t=9;acme-x="y;t=1";acme-y=1.5;acme-z;q=?0', 9),
        ('"twice";r=5;r=0;t=4', 4),
        ('"default";r=0.0;t=1.5', 2),
        ("limit=100, remaining=0, reset=5", 5),
        ("remaining=0, reset=5.5", 6),
        ("reset=5 ,remaining=0", 5),
    ],
)
def test_a_spent_rate_limit_is_waited_for(limit: str, seconds: float) -> None:
    """The current draft names each limit; its revision 07, still in use, sends three numbers."""
    assert _wait_of_limit(limit) == seconds


def test_the_reason_names_the_field() -> None:
    """The owner of an embargo wants to know who laid it; upstream text stays out."""
    hint = read_headers(_bare_answer(("RateLimit", f'"{SECRET}";r=0;t=30')), NOW)

    assert hint == Hint(wait_seconds=30, why="RateLimit: nothing left for 30 s")


@pytest.mark.parametrize(
    "limit",
    [
        '"default";r=1;t=30',
        '"default";t=30',
        '"default";r=0',
        '"default";r=0;t',
        '"default";r=0;t=0',
        '"default";r=-1;t=30',
        '"default";r="0";t=30',
        '"default";r=0;t=-30',
        '"default";r=0;t=1234567890123456',
        '"default;r=0;t=30',
        '"default\\x";r=0;t=30',
        '"dé";r=0;t=30',
        "1;r=0;t=30",
        '"default";R=0;t=30',
        '"default";r=0;t=30,',
        '"default";r=0;t=30 "next"',
        '"default";r=0;t=30;',
        ';r=0;t=30, "default"',
        '"default";r=0;t=30, "broken',
        "remaining=0",
        "remaining=0, reset=-1",
        "remaining=0, reset=5, ",
        "remaining=0; reset=5",
        "0",
        "",
    ],
)
def test_any_other_rate_limit_is_ignored(limit: str) -> None:
    """The draft: what is malformed must be ignored, the whole field of it; and never an error."""
    assert _wait_of_limit(limit) is None


def test_the_policy_tells_the_window_where_the_limit_does_not() -> None:
    """`t` is optional; then nothing is left for the length of the window at most."""
    policy = '"minute";q=10;w=60, "day";q=100;qu="requests";w=86400, "none";q=1'

    assert _wait_of_limit('"day";r=0', policy) == 86400
    assert _wait_of_limit('"day";r=0;t=30', policy) == 30
    assert _wait_of_limit('"none";r=0', policy) is None
    assert _wait_of_limit('"other";r=0', policy) is None
    assert _wait_of_limit('"day";r=0', "100;w=86400") is None
    assert _wait(("RateLimit-Policy", policy)) is None


@pytest.mark.parametrize("prefix", ["RateLimit", "X-RateLimit", "x-ratelimit"])
@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("30", 30),
        ("999999999", 999_999_999),
        (str(int(NOW.timestamp()) + 30), 30),
        (str(int(NOW.timestamp()) * 1000 + 1500), 2),
        ("1.2", 2),
        ("1m30s", 90),
        ("30, 60", 60),
        ("2026-11-22T08:00:30Z", 30),
    ],
)
def test_the_older_fields_send_delays_and_times(prefix: str, reset: str, seconds: float) -> None:
    """Delay, Unix seconds or milliseconds: no two services agree, but the size tells."""
    headers = (
        (f"{prefix}-Limit", "100"),
        (f"{prefix}-Remaining", "0"),
        (f"{prefix}-Reset", reset),
    )

    assert _wait(*headers) == seconds


def test_a_unix_time_counts_from_the_answers_own_clock() -> None:
    """It is a date like any other."""
    reset = ("X-RateLimit-Reset", str(int(NOW.timestamp()) + 30))
    date = ("Date", format_datetime(NOW, usegmt=True))

    late = NOW + timedelta(hours=5)

    assert _wait(date, ("X-RateLimit-Remaining", "0"), reset, now=late) == 30


@pytest.mark.parametrize(
    ("remaining", "reset"),
    [
        ("1", "30"),
        ("-1", "30"),
        ("none", "30"),
        ("", "30"),
        ("0", ""),
        ("0", "-30"),
        ("0", "1e3"),
        ("0", "٣٠"),
        ("0", "9" * 5000),
        ("0", "1000000000"),
    ],
)
def test_older_fields_that_make_no_sense_are_ignored(remaining: str, reset: str) -> None:
    """A missing half, a negative number (for some: unlimited), a moment long past."""
    assert _wait(("X-RateLimit-Remaining", remaining), ("X-RateLimit-Reset", reset)) is None


def test_of_a_field_that_was_sent_twice_the_longest_wait_counts() -> None:
    """Two gateways, each with its limit."""
    spent = ("X-RateLimit-Remaining", "0")
    resets = (("X-RateLimit-Reset", "30"), ("X-RateLimit-Reset", "60"))

    assert _wait(spent, spent, *resets) == 60
    assert _wait(spent, ("X-RateLimit-Remaining", "3"), *resets) == 60


@pytest.mark.parametrize(
    ("remaining", "reset", "value", "seconds"),
    [
        ("X-Rate-Limit-Remaining", "X-Rate-Limit-Reset", "30", 30),
        ("Rate-Limit-Remaining", "Rate-Limit-Reset", "30", 30),
        ("X-RateLimit-Remaining", "X-RateLimit-Reset-After", "1.25", 2),
        ("X-RateLimit-Remaining", "X-RateLimit-Reset-Ms", "1250", 2),
        ("X-RateLimit-Remaining", "X-RateLimit-Reset-Ms", f"{int(NOW.timestamp()) + 30}000", 30),
        ("X-RateLimit-Remaining", "X-RateLimit-Reset-At", "2026-11-22T08:00:30Z", 30),
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "1m30s", 90),
        ("x-ratelimit-requests-remaining", "x-ratelimit-requests-reset", "30", 30),
        ("acme-ratelimit-tokens-remaining", "acme-ratelimit-tokens-reset", "30", 30),
        ("x-ms-ratelimit-remaining-calls", "x-ms-ratelimit-reset-calls", "30", 30),
    ],
)
def test_a_limit_is_known_however_it_is_spelled(
    remaining: str, reset: str, value: str, seconds: float
) -> None:
    """Nobody specified these names, and each service has its own."""
    assert _wait((remaining, "0"), (reset, value)) == seconds
    assert _wait((remaining, "1"), (reset, value)) is None


def test_of_several_limits_only_the_spent_one_counts() -> None:
    """Requests are left, tokens are not."""
    headers = (
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-reset-requests", "8h"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "6s"),
    )

    assert _wait(*headers) == 6


@pytest.mark.parametrize("name", ["Retry-After", "X-Retry-After", "x-ratelimit-retry-after"])
def test_retry_after_has_siblings(name: str) -> None:
    """They mean what it means."""
    assert _wait((name, "64.57")) == 65
    assert _wait((f"{name}-Ms", "1500")) == 2


def test_a_refusal_needs_no_remainder() -> None:
    """The status has said that a limit is spent; one that says it is not, is another one."""
    reset = ("X-RateLimit-Reset", "30")

    for remaining in ((), (("X-RateLimit-Remaining", "none"),)):
        hint = read_headers(_bare_answer(reset, *remaining, status=429), NOW)
        assert hint is not None
        assert hint.wait_seconds == 30
    left = ("X-RateLimit-Remaining", "9")
    assert read_headers(_bare_answer(reset, left, status=429), NOW) is None
    assert read_headers(_bare_answer(reset, status=503), NOW) is None


@pytest.mark.parametrize(("status", "seconds"), [(200, 1), (429, 2), (503, 2)])
def test_who_refuses_is_never_asked_again_within_two_seconds(status: int, seconds: float) -> None:
    """`Retry-After: 0.1` is a server that rounds badly, not one that wants ten a second."""
    hint = read_headers(_bare_answer(("Retry-After", "0.1"), status=status), NOW)

    assert hint is not None
    assert hint.wait_seconds == seconds


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, None, 60),
        (429, "0", 60),
        (429, "soon", 60),
        (429, "-1", 60),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", 60),
        (503, None, 2),
        (503, "soon", 60),
        (403, "soon", 60),
        (500, "Sun, 22 Nov 2026 08:00:00 CET", 60),
        (500, None, None),
        (500, "0", None),
        (403, None, None),
        (200, "soon", None),
        (200, None, None),
    ],
)
def test_who_does_not_say_until_when_is_given_a_pause(
    status: int, value: str | None, seconds: float | None
) -> None:
    """A refusal is a reason to wait, and so is a field that nobody can read."""
    headers = () if value is None else (("Retry-After", value),)

    hint = pause_of_our_own(_bare_answer(*headers, status=status), NOW)

    assert (hint and hint.wait_seconds) == seconds
    assert hint is None or hint.is_ours


def test_halves_of_two_families_make_no_whole() -> None:
    """The remainder of one window says nothing about the reset of another."""
    assert _wait(("RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "30")) is None


def test_of_mixed_families_each_speaks_for_itself() -> None:
    """Gateways add their fields to those of the service behind them; a broken one is no reason."""
    headers = (
        ("Retry-After", "10"),
        ("RateLimit", '"broken'),
        ("RateLimit-Remaining", "0"),
        ("RateLimit-Reset", "20"),
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", "30"),
    )

    hint = read_headers(_bare_answer(*headers, status=429), NOW)

    assert hint == Hint(wait_seconds=30, why="X-RateLimit: nothing left for 30 s")


def test_a_huge_field_is_read_in_one_pass() -> None:
    """An upstream must not be able to keep us busy with a header."""
    began = time.process_time()

    for field in ('"' + "a" * 100_000, "a;" * 50_000, "a=1, " * 20_000, "a" + " " * 100_000 + "b"):
        assert _wait_of_limit(field, field) is None

    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("now", "renewed_at"),
    [
        (datetime(2026, 11, 22, 0, 5, tzinfo=UTC), datetime(2026, 11, 23, 0, 5, tzinfo=UTC)),
        (datetime(2026, 11, 22, 23, 59, tzinfo=UTC), datetime(2026, 11, 23, 0, 5, tzinfo=UTC)),
        (datetime(2026, 11, 23, 0, 4, 59, tzinfo=UTC), datetime(2026, 11, 23, 0, 5, tzinfo=UTC)),
    ],
)
def test_a_day_begins_five_minutes_late(now: datetime, renewed_at: datetime) -> None:
    """Refused by a server whose day has not ended yet, we must not lose the next day as well."""
    hint = hint_of_renewal(now, "day", "used up")

    assert hint == Hint(wait_seconds=(renewed_at - now).total_seconds(), why="used up")


@pytest.mark.parametrize("month", range(1, 13))
def test_a_month_ends_on_the_first_of_the_next(month: int) -> None:
    """Whatever its length; and December's is in another year."""
    now = datetime(2026, month, 28, 12, tzinfo=UTC)

    ends_at = now + timedelta(seconds=hint_of_renewal(now, "month", "").wait_seconds)

    following = (2027, 1) if month == 12 else (2026, month + 1)
    assert ends_at == datetime(*following, 1, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize("status", [200, 500])
def test_anu_legacy_is_left_alone_for_its_minute(status: int) -> None:
    """The refusal has come with either status, and never with a Retry-After."""
    body = "The QRNG API is limited to 1 requests per minute. For more requests, please visit ..."

    hint = _hint(ANU_LEGACY, body, status=status)

    assert hint == Hint(wait_seconds=60, why="ANU legacy: 1 request per minute")
    assert _hint(ANU_LEGACY, body, headers=(("Retry-After", "90"),)).wait_seconds == 90
    assert _hint(ANU_LEGACY, body, headers=(("Retry-After", "30"),)).wait_seconds == 60


def test_aqn_is_left_alone_until_its_allowance_returns() -> None:
    """100 requests a month: asking again today only costs both sides a refusal."""
    hint = _hint(ANU_AQN, {"message": "Limit Exceeded"}, status=429)

    assert hint == Hint(wait_seconds=UNTIL_DECEMBER, why="ANU AQN: monthly allowance used up")


def test_of_a_burst_at_aqn_only_the_gateway_knows_the_end() -> None:
    """No Retry-After is documented; where one comes, it is the gateway's own word."""
    body = {"message": "Too Many Requests"}
    silent = answer_of(body, status=429)

    assert _hint(ANU_AQN, body, status=429, headers=(("Retry-After", "5"),)).wait_seconds == 5
    assert ANU_AQN.find_hint(silent, NOW) is None
    assert pause_of_our_own(silent, NOW) is not None


@pytest.mark.parametrize("status", [200, 503])
def test_random_org_is_left_alone_until_tomorrow(status: int) -> None:
    """The allowance is topped up soon after 00:00 UTC; who goes on asking is banned."""
    body = (
        "Error: You have used your quota of random bits for today.  "
        "See the quota page for details.\n"
    )

    hint = _hint(RANDOM_ORG, body, status=status)

    why = "random.org: daily allowance used up, renewed at 00:00 UTC"
    assert hint == Hint(wait_seconds=UNTIL_TOMORROW, why=why)


@pytest.mark.parametrize("code", [402, 403])
def test_an_allowance_of_the_jsonrpc_that_is_used_up_ends_the_day(code: int) -> None:
    """The documentation: back off to midnight UTC."""
    hint = _hint(JSONRPC, _error(code))

    why = "random.org: daily allowance used up, renewed at 00:00 UTC"
    assert hint == Hint(wait_seconds=UNTIL_TOMORROW, why=why)


@pytest.mark.parametrize(
    "left", [{"requestsLeft": 0}, {"bitsLeft": 0}, {"bitsLeft": -5}, {"requestsLeft": -1}]
)
def test_a_success_that_took_the_last_of_an_allowance_ends_the_day(left: dict[str, int]) -> None:
    """The refusal that would follow can be spared."""
    assert _hint(JSONRPC, _result(**left)).wait_seconds == UNTIL_TOMORROW


def test_the_advisory_delay_is_a_hint() -> None:
    """It comes with each success, and flooding gets the address blocked."""
    assert _hint(JSONRPC, _result()) == Hint(wait_seconds=1.02, why="advisoryDelay of 1020 ms")


def test_no_advisory_delay_is_none() -> None:
    """0 is an answer: ask when you like."""
    assert JSONRPC.find_hint(answer_of(_result(advisoryDelay=0)), NOW) is None


@pytest.mark.parametrize("delay", [None, -1, True, "1020", 1.5, 10**16, 10**400, [], {}])
def test_without_a_usable_delay_the_default_counts(delay: object) -> None:
    """The official clients wait a second where the member is missing."""
    hint = _hint(JSONRPC, _result(advisoryDelay=delay))

    assert hint == Hint(wait_seconds=1, why="no advisoryDelay: 1000 ms by default")


@pytest.mark.parametrize("left", [True, False, None, "0", 0.0, [], 1])
def test_an_allowance_that_is_no_integer_is_ignored(left: object) -> None:
    """Python's False is 0, JSON's is not."""
    assert _hint(JSONRPC, _result(requestsLeft=left, bitsLeft=left)).wait_seconds == 1.02


def test_a_service_that_is_offline_gets_a_minute() -> None:
    """Error 101: "try again later", and no word about when."""
    hint = _hint(JSONRPC, _error(101))

    assert hint == Hint(wait_seconds=60, why="random.org: service offline")


def test_headers_and_document_are_both_heard() -> None:
    """A gateway in front may know more than the service, or less."""
    long, short = (("Retry-After", "90"),), (("Retry-After", "1"),)

    assert _hint(JSONRPC, _result(), headers=long).why == "Retry-After: 90"
    assert _hint(JSONRPC, _result(), headers=short).why == "advisoryDelay of 1020 ms"
    assert _hint(JSONRPC, "<html>", headers=long).why == "Retry-After: 90"


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        (ANU_LEGACY, answer_of({"success": True})),
        (ANU_LEGACY, answer_of(b"", status=503)),
        (ANU_AQN, answer_of({"message": "Forbidden"}, status=403)),
        (ANU_AQN, answer_of({"message": "Limit Exceeded"}, status=403)),
        (RANDOM_ORG, answer_of("421\n77\n", content_type="text/plain")),
        (RANDOM_ORG, answer_of("<html>banned", status=403, content_type="text/html")),
        (RANDOM_ORG, answer_of("Error: The maximum value must be an integer", status=503)),
        (RANDOM_ORG, answer_of("Error: no\nused your quota of random bits", status=503)),
        (JSONRPC, answer_of(_error(400))),
        (JSONRPC, answer_of(_error("402"))),
        (JSONRPC, answer_of({"error": 402})),
        (JSONRPC, answer_of({"error": None, "result": []})),
        (JSONRPC, answer_of([402])),
        (JSONRPC, answer_of("forbidden", status=403, content_type="text/html")),
        (RANDOMNUMBERAPI, answer_of([1, 2, 3])),
        (RANDOMNUMBERAPI, answer_of({"error": "Bad Gateway"}, status=502)),
    ],
)
def test_most_answers_say_nothing(source: Source, answer: Answer) -> None:
    """An embargo that nobody asked for would cost numbers."""
    assert source.find_hint(answer, NOW) is None


@pytest.mark.parametrize("source", SOURCES)
def test_every_adapter_reads_the_headers(source: Source) -> None:
    """They belong to no upstream, so any may start to send them."""
    headers = (("RateLimit", '"default";r=0;t=90000'),)

    assert _hint(source, b"", status=503, headers=headers).wait_seconds == 90000


_FIELDS = st.sampled_from(
    [
        "Retry-After",
        "Date",
        "RateLimit",
        "RateLimit-Policy",
        "RateLimit-Remaining",
        "RateLimit-Reset",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    ]
)
_VALUES = (
    st.text("0123456789.-", max_size=20)
    | st.text(max_size=20).filter(lambda text: text.isprintable())
    | st.from_regex(r'"[ -~]{0,9}";r=[0-9]{1,3};t=[0-9]{1,17}', fullmatch=True)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-3][0-9] Nov [0-9]{4} 08:00:[0-9]{2} GMT", fullmatch=True)
    | st.sampled_from(["0", "30", "9" * 400, 'a;w=60, "b";w=9', 'a;r=0, "b";r=0;t', SECRET])
)
_DOCUMENTS = [
    json.dumps(_result()).encode(),
    json.dumps(_error(402)).encode(),
    b"Error: You have used your quota of random bits for today.\n",
    b"The QRNG API is limited to 1 requests per minute.",
]


def _hold_promise(answer: Answer) -> None:
    """Ask every adapter, which must give None or a hint that is fit to use and to show."""
    for source in SOURCES:
        hint = source.find_hint(answer, NOW)
        if hint is not None:
            assert type(hint.wait_seconds) is float
            assert 0 < hint.wait_seconds < math.inf
            assert hint.why.isascii()
            assert hint.why.isprintable()
            assert 0 < len(hint.why) <= 80
            assert SECRET not in hint.why


@FEW_EXAMPLES
@given(st.lists(st.tuples(_FIELDS, _VALUES), max_size=6), st.sampled_from([200, 429, 503]))
def test_no_header_raises(headers: list[tuple[str, str]], status: int) -> None:
    """Hints are looked for in every answer; one that raised would cost a batch."""
    _hold_promise(_bare_answer(*headers, status=status))


@FEW_EXAMPLES
@given(hostile_answers() | st.sampled_from(_DOCUMENTS).flatmap(mutated).map(answer_of))
def test_no_body_raises(answer: Answer) -> None:
    """Neither may any bytes, broken recordings included."""
    _hold_promise(answer)


@FEW_EXAMPLES
@given(
    st.dictionaries(
        st.sampled_from(["advisoryDelay", "bitsLeft", "requestsLeft", "code"]), json_values
    )
)
def test_no_result_raises(result: dict[str, object]) -> None:
    """Nor may a well-formed document with members of any type."""
    _hold_promise(answer_of({"result": result}))
    _hold_promise(answer_of({"error": result}))


@pytest.mark.parametrize(
    ("n", "low", "high", "bits"),
    [
        (1000, 0, 9, 6400),
        (100, 0, 255, 800),
        (3, 1, 6, 12),
        (1, 0, 2, 3),
        (10_000, -1_000_000_000, 1_000_000_000, 332_860),
    ],
)
def test_random_org_charges_for_rejected_draws(n: int, low: int, high: int, bits: int) -> None:
    """The bits n * ceil(log2 R) * 2**ceil(log2 R) / R are what its clients saw on their quota."""
    assert RANDOM_ORG.cost_bits(fetch_of(n, low, high)) == bits


@pytest.mark.parametrize(
    ("n", "low", "high", "bits"),
    [(3, 1, 6, 8), (100, 0, 255, 800), (1, 0, 1, 1), (10_000, -(10**9), 10**9, 308_974)],
)
def test_the_jsonrpc_charges_for_the_numbers(n: int, low: int, high: int, bits: int) -> None:
    """`bitsUsed` of the recorded answers is n * log2 R, rounded up."""
    assert JSONRPC.cost_bits(fetch_of(n, low, high)) == bits


@pytest.mark.parametrize("source", [ANU_LEGACY, ANU_AQN, RANDOMNUMBERAPI])
def test_the_others_count_no_bits(source: Source) -> None:
    """Their rules are about requests."""
    assert source.cost_bits(fetch_of(100, 0, 255)) == 0
