"""Tests for pipeline/sources/answers.py."""

import gzip
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ErrorName, SourceError
from pipeline.sources.answers import (
    check_status,
    member,
    quote,
    read_array,
    read_integers,
    read_json,
    read_json_or_status,
    retry_after,
)
from tests.sources.samples import FEW_EXAMPLES, answer_of

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def _status_error(status: int, **headers: str) -> SourceError:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    with pytest.raises(SourceError) as caught:
        check_status(answer_of(b"", status=status, headers=named))
    return caught.value


def _json_error(body: bytes, content_type: str | None = "application/json") -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_json(answer_of(body, content_type=content_type))
    return caught.value


def _text_error(text: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_integers(text)
    return caught.value


@pytest.mark.parametrize("status", [200, 201, 203, 206, 299])
def test_success_passes(status: int) -> None:
    """Whether there is a good body, the content decides."""
    check_status(answer_of(b"[]", status=status))


@pytest.mark.parametrize(
    ("status", "error", "may_retry"),
    [
        (100, ErrorName.PROTOCOL, True),
        (199, ErrorName.PROTOCOL, True),
        (204, ErrorName.SCHEMA, False),
        (205, ErrorName.SCHEMA, False),
        (301, ErrorName.REDIRECT_REFUSED, False),
        (304, ErrorName.SCHEMA, False),
        (400, ErrorName.HTTP_4XX, False),
        (401, ErrorName.UNAUTHORIZED, False),
        (403, ErrorName.UNAUTHORIZED, False),
        (404, ErrorName.HTTP_4XX, False),
        (408, ErrorName.HTTP_4XX, True),
        (407, ErrorName.INTERCEPTED, False),
        (410, ErrorName.HTTP_4XX, False),
        (421, ErrorName.INTERCEPTED, True),
        (425, ErrorName.HTTP_4XX, True),
        (429, ErrorName.RATE_LIMITED, True),
        (451, ErrorName.BLOCKED, False),
        (500, ErrorName.HTTP_5XX, True),
        (502, ErrorName.HTTP_5XX, True),
        (503, ErrorName.HTTP_5XX, True),
        (504, ErrorName.HTTP_5XX, True),
        (511, ErrorName.INTERCEPTED, False),
        (520, ErrorName.HTTP_5XX, True),
        (530, ErrorName.HTTP_5XX, True),
        (600, ErrorName.PROTOCOL, True),
        (999, ErrorName.PROTOCOL, True),
        (0, ErrorName.PROTOCOL, True),
    ],
)
def test_a_status_has_one_name(status: int, error: ErrorName, *, may_retry: bool) -> None:
    """Reports count by name, and a retry where none helps is a lockout or a ban."""
    raised = _status_error(status)

    assert (raised.error, raised.may_retry) == (error, may_retry)
    assert f"status {status}" in raised.detail


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_was_asked_for_is_kept(status: int) -> None:
    """What the upstream asks for comes before any backoff of ours."""
    assert _status_error(status, Retry_After="2").retry_after == 2.0
    assert _status_error(status).retry_after is None


def test_the_reason_given_by_the_upstream_replaces_ours() -> None:
    """Nobody knows better why than the one who refused."""
    with pytest.raises(SourceError, match="status 400: 'count is too large'"):
        check_status(answer_of(b"", status=400), says=quote("count is too large"))


def test_a_date_counts_from_the_answers_own_clock() -> None:
    """So a wrong clock here, or a replay next year, changes nothing."""
    headers = (
        ("Date", "Sun, 22 Nov 2020 08:00:00 GMT"),
        ("Retry-After", "Sun, 22 Nov 2020 08:01:00 GMT"),
    )

    assert retry_after(answer_of(b"", headers=headers)) == 60.0


def test_without_its_own_clock_ours_counts() -> None:
    """Date is optional for a server without a clock."""
    moment = datetime.now(UTC) + timedelta(minutes=5)
    answer = answer_of(b"", headers=(("Retry-After", format_datetime(moment, usegmt=True)),))

    seconds = retry_after(answer)

    assert seconds is not None
    assert 290 < seconds <= 300


def test_of_two_waits_the_longer_counts() -> None:
    """Which was meant is not known; the longer undercuts neither."""
    headers = (("Retry-After", "5"), ("Retry-After", "10"))

    assert retry_after(answer_of(b"", headers=headers)) == 10.0


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json; charset=utf8",
        "application/problem+json",
        "text/vnd.x+json",
    ],
)
def test_json_may_be_called_so(content_type: str | None) -> None:
    """A missing header is common; the body decides then."""
    assert read_json(answer_of(b' {"a": [1, -0, 2.5]}\r\n', content_type=content_type)) == {
        "a": [1, 0, 2.5]
    }


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/plain", "text/html; charset=utf-8", "application/octet-stream", "json"),
        *("application/jsonp", "application/json, text/html", "text/html;+json", "+json"),
        *("application/json; charset=utf-7", "application/json; charset=iso-8859-1"),
    ],
)
def test_json_may_not_be_called_anything_else(content_type: str) -> None:
    """An error page or a captive portal with 200 is told apart by its type."""
    assert _json_error(b"[1]", content_type).error is ErrorName.CONTENT_TYPE


_NOT_JSON = [
    *(b"", b" ", b"\n\t\r\n", b"nul", b"NaN", b"[NaN]", b"[Infinity]", b"[-Infinity]"),
    *(b"[1e400]", b"[-1e400]", b"[1] [2]", b"[1]\n[2]", b"[1],", b"[1]]", b"[1", b"[1,"),
    *(b"[1,]", b"[,1]", b"[1 2]", b"[01]", b"[-01]", b"[+1]", b"[1.]", b"[.5]", b"[1e]"),
    *(b"[1e+]", b"[0x10]", b"[-]", b"['a']", b"[a]", b"[True]", b"[None]", b"[1_0]", b"{a:1}"),
    *(b'{"a"}', b'{"a":}', b'{"a":1,}', b'{"a":1 "b":2}', b"{1:2}", b'["a', b'["\\x41"]'),
    *(b'["\\u00g0"]', b'["a\nb"]', b'["a\x00b"]', b"/* x */[1]", b"[1] // x", b"[1]\x00"),
    *(b"\x00", b"\x0c[1]", b"\xc2\xa0[1]", b"[1]\xe2\x80\xa8", b'{"a":1,"a":1}'),
    *(b'{"data":[1],"data":[2]}', b'[{"b":{"a":1,"a":2}}]', b'{"a":1,"\\u0061":2}'),
    *(b"\xef\xbb\xbf[1]", b'["\xff"]', b'["\xe4"]', b'["\xc0\xaf"]', b'["\xed\xa0\x80"]'),
    *("[1]".encode(coding) for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    *(b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000, b"[[" * 50_000 + b"1"),
    b"<html><body>502</body></html>",
]


@pytest.mark.parametrize("body", _NOT_JSON, ids=lambda body: ascii(body[:20]))
def test_what_is_not_strict_json_is_not_json(body: bytes) -> None:
    """Each of these is accepted by some parser, or makes one raise what nobody expects."""
    assert _json_error(body).error is ErrorName.NOT_JSON


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("utf-8-sig", "UTF-8"),
        *((f"utf-16-{order}", "UTF-16") for order in ("le", "be")),
        *((f"utf-32-{order}", "UTF-32") for order in ("le", "be")),
    ],
)
def test_a_byte_order_mark_is_named(codec: str, name: str) -> None:
    """It cannot be seen, and "Expecting value" before what looks like good JSON misleads."""
    body = ("" if codec == "utf-8-sig" else "\ufeff") + "[1, 2]"

    assert _json_error(body.encode(codec)).detail == (
        f"a byte order mark (BOM) of {name} stands before the JSON"
    )


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty"),
        (b"\r\n ", "the body is empty"),
        (b"\n<!DOCTYPE html><title>Log in</title>", "the body is a page (HTML or XML)"),
        (b'<?xml version="1.0"?><error/>', "the body is a page (HTML or XML)"),
        (gzip.compress(b"[1, 2]", mtime=0), "the body is compressed (gzip), and no header says so"),
        *(
            ("[1, 2]".encode(f"utf-{bits}-{order}"), "the body is UTF-16 or UTF-32, not UTF-8")
            for bits in (16, 32)
            for order in ("le", "be")
        ),
        (b"\0[1, 2", "the body is UTF-16 or UTF-32, not UTF-8"),
        (b"oops", "Expecting value, at character 0"),
        (b"[1, 2]\0", "Extra data, at character 6"),
    ],
)
def test_what_is_no_json_is_named(body: bytes, detail: str) -> None:
    """Where a reader would otherwise look for a fault at a character that he cannot see."""
    assert _json_error(body).detail == detail


@pytest.mark.parametrize(
    "body",
    [
        *(b"null", b"true", b'""', b"[]", b"{}", b"-0", b"[[[]]]", b'{"":0}', b"\t[1 , 2]\n"),
        *(b'["\\ud800"]', b'["\\u0000"]', b'["\x7f"]', b"[1e-400]", b"[1E+2]", b"[0.1e1]"),
        *(b"[9007199254740993]", b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]', b"[" * 200 + b"]" * 200),
    ],
)
def test_strict_json_is_json(body: bytes) -> None:
    """Strange is not wrong; the adapters look at the values."""
    read_json(answer_of(body))


def test_large_integers_are_exact() -> None:
    """A float on the way would make 9007199254740993 even."""
    assert read_json(answer_of(b"[9007199254740993, -9223372036854775809]")) == [
        2**53 + 1,
        -(2**63) - 1,
    ]


@pytest.mark.parametrize("digits", [4301, 1_000_000])
def test_an_integer_too_long_for_python_is_out_of_range(digits: int) -> None:
    """Python's limit raises a bare ValueError; no range that we serve reaches so far."""
    assert _json_error(b"[" + b"1" * digits + b"]").error is ErrorName.RANGE


def test_the_status_explains_a_body_that_is_no_json() -> None:
    """A gateway's page with 502 is not a breach of the JSON contract."""
    with pytest.raises(SourceError) as bad_gateway:
        read_json_or_status(answer_of(b"<html>", status=502, content_type="text/html"))
    with pytest.raises(SourceError) as ok:
        read_json_or_status(answer_of(b"<html>"))

    assert bad_gateway.value.error is ErrorName.HTTP_5XX
    assert ok.value.error is ErrorName.NOT_JSON


@pytest.mark.parametrize("document", [None, [], 1, "a", {}, {"a": 1}, {"a": []}, {"a": {"c": 1}}])
def test_a_missing_member_is_named_by_its_path(document: object) -> None:
    """Whoever reads the error has to find the place in the evidence."""
    with pytest.raises(SourceError, match=r"the answer has no a\.b") as caught:
        member(document, "a", "b")

    assert caught.value.error is ErrorName.SCHEMA


def test_a_member_may_be_null() -> None:
    """Null is a value; what it means, the caller knows."""
    assert member({"a": {"b": None}}, "a", "b") is None


@pytest.mark.parametrize("value", [None, 1, "12", {"0": 1}, True])
def test_only_an_array_is_an_array(value: object) -> None:
    """Text is a sequence too, and `"12"` must not become two values."""
    with pytest.raises(SourceError, match="not an array") as caught:
        read_array(value)

    assert caught.value.error is ErrorName.SCHEMA


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("421\n77\n938\n", (421, 77, 938)),
        ("1\t2\n3\t4\n", (1, 2, 3, 4)),
        ("1\r\n-2\r\n", (1, -2)),
        ("-0\n007\n", (0, 7)),
        ("9007199254740993\n", (9007199254740993,)),
    ],
)
def test_rows_are_read_left_to_right(text: str, numbers: tuple[int, ...]) -> None:
    """-0 is 0 and leading zeros mean nothing; CRLF is a line end."""
    assert read_integers(text) == numbers


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=5), min_size=1, max_size=20))
def test_what_was_written_is_read(rows: list[list[int]]) -> None:
    """Any table of integers survives the way through text."""
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)

    assert read_integers(text) == tuple(number for row in rows for number in row)


@pytest.mark.parametrize("text", ["1\n2\n12", "1", "-5", "1\t2", "1\n2\r"])
def test_a_text_without_its_last_line_end_was_cut(text: str) -> None:
    """12 may be the first half of 1234; asking again can help."""
    error = _text_error(text)

    assert error.error is ErrorName.INCOMPLETE
    assert error.may_retry


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "\n1\n", "1\n\n2\n", "1\n\n", " 1\n", "1 \n", "1 2\n", "1\t\n", "\t1\n"),
        *("1\t\t2\n", "+1\n", "--1\n", "-\n", "1-\n", "1_0\n", "1,000\n", "1.000\n", "1.5\n"),
        *("1e3\n", "0x1F\n", "\u0663\n", "\u00b2\n", "\uff11\n", "\u22121\n", "1\r2\n"),
        *("1\x0b2\n", "1\x0c\n", "1\u20282\n", "1\x00\n", "# 1\n", "1 # one\n", "[1]\n"),
        *("<html>\n", "\ufeff1\n", "1\n-", "1\n2\t"),
    ],
)
def test_no_other_text_is_numbers(text: str) -> None:
    """int() takes several of these for numbers."""
    assert _text_error(text).error is ErrorName.SCHEMA


def test_a_text_integer_too_long_for_python_is_out_of_range() -> None:
    """One megabyte of digits must cost neither a traceback nor seconds."""
    assert _text_error("1" * 1_000_000 + "\n").error is ErrorName.RANGE


@pytest.mark.parametrize("unit", ["1", "1\t", "1\n", "1\n\n", "-", "-1\t", "1\r"])
def test_hopeless_text_is_turned_down_in_one_pass(unit: str) -> None:
    """A pattern that backtracks would hold up every other source for minutes."""
    began = time.process_time()

    with pytest.raises(SourceError):
        read_integers(unit * (1_000_000 // len(unit)) + "x")

    assert time.process_time() - began < 4


@given(st.text(max_size=300))
@FEW_EXAMPLES
def test_quoted_text_is_short_printable_and_one_line(text: str) -> None:
    """It reaches terminals, logs and cron mails."""
    shown = quote(text)

    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 80 * len("\\U0001f600") + 2


def test_no_part_of_a_secret_is_quoted() -> None:
    """Cut first and blotted out later, the half before the cut would stay."""
    text = "x" * 75 + "secret-key"

    assert "secre" in quote(text)
    assert "se" not in quote(text, secret="secret-key")


def test_no_part_of_a_secret_is_quoted_in_another_spelling() -> None:
    """Where the text is cut, and where it is shown as Python would write it."""
    secret = r"canary\key/0001"
    spelled = secret.replace("/", "%2F")

    assert "canary" not in quote("x" * 70 + spelled, secret=secret)
    assert "canary" not in quote(spelled * 4000, secret=secret)
    assert quote(f"key {spelled} is unknown", secret=secret) == "'key [REDACTED] is unknown'"


def test_what_is_no_text_is_named_by_its_type() -> None:
    """The repr of a deep list raises a RecursionError, and a huge integer's a ValueError."""
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]

    assert quote(deep) == "an array"
