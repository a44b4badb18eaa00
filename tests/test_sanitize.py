"""Tests for pipeline/sanitize.py: nothing foreign steers a terminal, nothing secret is kept."""

import base64
import html
import json
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.sandbox.faults import HOSTILE
from pipeline.sanitize import (
    CLUE_LENGTH,
    LINE_LENGTH,
    MOST_MARKS,
    REDACTED,
    one_line,
    printable,
    printable_lines,
    redact,
    redact_cut,
    redact_text,
)

# With what each spelling changes: a quote, a slash, a backslash, a plus, an ampersand.
SECRET = 'k3y?"/\\+&-canary~~~'
OTHER = "another-canary"

any_text = st.text(st.characters())  # surrogates included


# Printable.


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b]52;c;b3duZWQ=\x07", r"\x1b]52;c;b3duZWQ=\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\r\n2026 ERROR", r"a\r\n2026 ERROR"),
        ("a\tb\x00\x7f", r"a\tb\x00\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("pay\u200bpal\u2066\ufeff", r"pay\u200bpal\u2066\ufeff"),
        ("line\u2028separator", r"line\u2028separator"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_steers_is_made_visible(raw: str, shown: str) -> None:
    """Clipboards, titles, cleared screens, forged lines, text that reads backwards."""
    assert printable(raw) == shown


@pytest.mark.parametrize("text", ["", "plain [/x] text", "Grüße, 世界, Ελλάδα", "e\u0301", "🎲"])
def test_what_can_be_read_stays(text: str) -> None:
    """Not everybody writes English; and markup is for whoever renders it."""
    assert printable(text) == text


def test_a_flood_of_marks_is_cut() -> None:
    """Ten thousand accents on one letter cover the lines around it."""
    assert printable("Z" + "\u0301" * 10_000 + "a") == "Z" + "\u0301" * MOST_MARKS + "a"


@given(any_text)
@example(HOSTILE)
def test_no_character_gets_past(text: str) -> None:
    """The promise holds for all of Unicode, and twice is as good as once."""
    shown = printable(text)

    assert shown.isprintable()
    assert not {unicodedata.category(char)[0] for char in shown} & {"C"}
    assert printable(shown) == shown


def test_a_block_keeps_its_lines_and_nothing_else() -> None:
    """A body is shown as it is laid out; a lone carriage return would overwrite its line."""
    assert printable_lines("a\r\nb\n\x1b[2J\rc") == "a\nb\n" + r"\x1b[2J\rc"


@given(any_text)
@example("x" * LINE_LENGTH)
@example("x" * (LINE_LENGTH + 1))
@example("\x00" * LINE_LENGTH)
def test_a_line_is_one_and_short(text: str) -> None:
    """One record of a log or a report stays one line."""
    line = one_line(text)

    assert line.isprintable()
    assert len(line) <= LINE_LENGTH
    assert line == printable(text) or line.endswith("…")


# Redacted.


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        html.escape(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", r"\/"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        SECRET.upper(),
    ],
)
def test_a_secret_is_found_however_it_is_spelled(spelling: str) -> None:
    """An upstream echoes what it was sent in its own way."""
    shown = redact(f"<{spelling}> <{spelling}>".encode(), [SECRET])

    assert shown.replace(b"=", b"") == b"<[REDACTED]> <[REDACTED]>"


def test_the_rest_stays_as_it_is() -> None:
    """Evidence that was changed elsewhere proves nothing."""
    data = bytes(range(256))

    assert redact(data, [SECRET, OTHER]) == data
    assert redact(data, []) == data


def test_one_secret_may_begin_with_another() -> None:
    """Redacting the short one first would leave the end of the long one."""
    assert redact(b"canary-long", ["canary", "canary-long"]) == REDACTED


def test_what_stands_for_a_secret_is_not_redacted_again() -> None:
    """A second pass would find its secret in what the first one wrote."""
    assert redact(b"canary", ["canary", "RED"]) == REDACTED


def test_an_empty_secret_is_none() -> None:
    """It is everywhere."""
    assert redact(b"abc", [""]) == b"abc"


@given(st.text(min_size=1), any_text, any_text)
def test_text_is_redacted_whatever_stands_around(secret: str, before: str, after: str) -> None:
    """Lone surrogates included, which JSON can spell and UTF-8 cannot."""
    shown = redact_text(f"{before}{secret}{after}", [secret])

    assert REDACTED.decode() in shown


@given(st.integers(CLUE_LENGTH, len(OTHER) - 1), st.binary(max_size=20))
def test_the_beginning_of_a_secret_goes_as_well(length: int, before: bytes) -> None:
    """Where the answer broke off or was cut, most of a key may stand."""
    cut = b"<" + OTHER.upper().encode()[:length]

    assert redact_cut(before + cut, [OTHER]) == before + b"<" + REDACTED


def test_of_two_beginnings_the_longer_one_goes() -> None:
    """The end of one secret may be the beginning of another."""
    assert redact_cut(b"my-canary", ["canary-1", "my-canary-2"]) == REDACTED


@pytest.mark.parametrize("data", [b"", b"bird", b"canary", b"can", b"canary nest"])
def test_a_cut_that_gives_nothing_away_stays(data: bytes) -> None:
    """Too few letters to be a clue, a whole secret, or none at the end."""
    assert redact_cut(data, ["canary"]) == data.replace(b"canary", REDACTED)
