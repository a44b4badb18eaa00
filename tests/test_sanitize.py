"""Tests for pipeline/sanitize.py: nothing foreign steers a terminal, nothing secret is kept."""

import base64
import html
import json
import re
import time
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

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


KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=48)

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in capitals": str.upper,
    "in a query": quote_plus,
    "in a path": quote,
    "quoted whole": lambda text: quote(text, safe=""),
    "quoted in small letters": lambda text: re.sub("%..", lambda m: m[0].lower(), quote(text)),
    "quoted in mixed letters": lambda text: re.sub(
        "%(.)(.)", lambda found: f"%{found[1].lower()}{found[2].upper()}", quote(text)
    ),
    "quoted with some safe": lambda text: quote(text, safe="+=@:$,"),
    "each byte quoted": lambda text: "".join(f"%{ord(char):02x}" for char in text),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "PHP's JSON": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "JSON in numbers": lambda text: "".join(rf"\u{ord(char):04x}" for char in text),
    "JSON in capital numbers": lambda text: "".join(rf"\u{ord(char):04X}" for char in text),
    "Go's JSON": lambda text: re.sub(
        "[+<>&]", lambda found: rf"\u{ord(found[0]):04x}", json.dumps(text)[1:-1]
    ),
    "HTML": html.escape,
    "HTML in decimals": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML in hex": lambda text: "".join(f"&#x{ord(char):x};" for char in text),
    "HTML by name": lambda text: text.translate({0x2B: "&plus;", 0x2F: "&sol;", 0x3D: "&equals;"}),
    "repr": lambda text: repr(text.encode())[2:-1],
    "bytes in hex": lambda text: "".join(rf"\x{ord(char):02x}" for char in text),
}
# Capitals are not for a chain: `&SOL;` is no HTML.
spellings = st.sampled_from([name for name in SPELLINGS if name != "in capitals"])


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(secret=KEYS)
@example(secret=SECRET)
@example(secret="0d6f/3e2a+canary==")
def test_a_secret_is_found_however_it_is_spelled(spelling: str, secret: str) -> None:
    """An upstream echoes what it was sent in its own way."""
    text = SPELLINGS[spelling](secret)

    assert redact(f"<{text}> <{text}>".encode(), [secret]) == b"<[REDACTED]> <[REDACTED]>"


@given(secret=KEYS, chain=st.lists(spellings, min_size=2, max_size=3))
@example(secret=SECRET, chain=["quoted whole", "quoted whole", "JSON"])
def test_a_spelling_of_a_spelling_is_found(secret: str, chain: list[str]) -> None:
    """A parser quotes a line of JSON, a proxy quotes its address once more."""
    text = secret
    for spelling in chain:
        text = SPELLINGS[spelling](text)

    assert redact(f"<{text}>".encode(), [secret]) == b"<[REDACTED]>"


def test_what_a_parser_shows_of_a_line_is_clean() -> None:
    """It writes the bytes down as Python does."""
    line = bytearray(b"X-Key " + SECRET.encode())

    assert redact_text(f"illegal header line: {line!r}", [SECRET]) == (
        "illegal header line: bytearray(b'X-Key [REDACTED]')"
    )


def _bytes_in(text: bytes) -> list[bytes]:
    """Read base64 from each of its digits on, as whoever looks for a key would."""
    digits = re.sub(rb"[\s=]", b"", text).translate(bytes.maketrans(b"-_", b"+/"))
    parts = [digits[start:] for start in range(4)]
    return [base64.b64decode(part[: len(part) // 4 * 4]) for part in parts]


@given(
    secret=KEYS,
    before=st.binary(max_size=80),
    after=st.binary(max_size=80),
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]),
)
@example(secret=SECRET, before=b"user:", after=b"", encode=base64.b64encode)
@example(secret=SECRET, before=b"", after=b":", encode=base64.b64encode)
def test_a_secret_within_base64_is_found(
    secret: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    """As in `Authorization: Basic`, whatever stands beside it there."""
    shown = redact(encode(before + secret.encode() + after), [secret])

    assert REDACTED in shown
    left = [found for part in shown.split(REDACTED) for found in _bytes_in(part)]
    known = before + after
    parts = {secret[at : at + CLUE_LENGTH].encode() for at in range(len(secret) - CLUE_LENGTH + 1)}
    assert not [part for part in parts if part not in known and any(part in each for each in left)]


@pytest.mark.parametrize("separator", ["", " ", ":", "\n"])
@given(secret=KEYS)
def test_a_secret_in_hex_is_found(separator: str, secret: str) -> None:
    """A dump of what came has pairs of digits."""
    digits = secret.encode().hex(separator) if separator else secret.encode().hex()

    assert redact(f"<{digits}> {digits.upper()}".encode(), [secret]) == b"<[REDACTED]> [REDACTED]"


@pytest.mark.parametrize("secret", ["a", "12", "abc"])
def test_a_very_short_secret_is_no_code(secret: str) -> None:
    """Two digits of hex are in every answer."""
    codes = b"<%b %b>" % (base64.b64encode(secret.encode()), secret.encode().hex().encode())

    assert redact(codes, [secret]) == codes


def test_digits_of_several_numbers_are_no_secret() -> None:
    """Only codes are looked for across lines."""
    assert redact(b"12\n34\n5678\n", ["12345678"]) == b"12\n34\n5678\n"


@pytest.mark.parametrize(
    "piece", [b"%25", b"%41", b"\\", b"&", b"&amp;", b"\\u0041", b" ", b"canary&", b"%", b"Y2Fu"]
)
def test_time_grows_with_the_text_alone(piece: bytes) -> None:
    """Whatever an upstream invents: this takes a tenth of a second."""
    data = piece * (2**16 // len(piece))

    began = time.process_time()
    redact_cut(data, [SECRET, OTHER])
    assert time.process_time() - began < 5


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


CHARACTER_BY_CHARACTER = [
    spelling
    for spelling in SPELLINGS
    if "".join(map(SPELLINGS[spelling], SECRET)) == SPELLINGS[spelling](SECRET)
    and spelling not in ("in capitals", "quoted in mixed letters")
]


@given(
    secret=KEYS, chain=st.lists(st.sampled_from(CHARACTER_BY_CHARACTER), max_size=2), at=st.data()
)
def test_a_cut_leaves_no_clue_in_any_spelling(
    secret: str, chain: list[str], at: st.DataObject
) -> None:
    """Nor where it goes through the middle of an escape."""
    pieces = list(secret)
    for spelling in chain:
        pieces = [SPELLINGS[spelling](piece) for piece in pieces]
    whole = at.draw(st.integers(CLUE_LENGTH, len(pieces) - 1))
    of_next = at.draw(st.integers(0, len(pieces[whole]) - 1))
    cut = "".join(pieces[:whole]) + pieces[whole][:of_next]

    assert redact_cut(f"<{cut}".encode(), [secret]) == b"<[REDACTED]"


@given(secret=KEYS, before=st.binary(max_size=8), at=st.data())
def test_a_cut_leaves_no_clue_in_base64(secret: str, before: bytes, at: st.DataObject) -> None:
    """Of a user name with a key the answer may hold the beginning."""
    whole = base64.b64encode(before + secret.encode())
    end = at.draw(st.integers(0, len(whole)))
    left = redact_cut(whole[:end], [secret]).split(REDACTED)[0]

    clue = secret[:CLUE_LENGTH].encode()
    known = [found for fill in (b"AAA", b"///") for found in _bytes_in(left + fill)]
    assert clue in before or sum(clue in found for found in known) < len((b"AAA", b"///"))


def test_of_two_beginnings_the_longer_one_goes() -> None:
    """The end of one secret may be the beginning of another."""
    assert redact_cut(b"my-canary", ["canary-1", "my-canary-2"]) == REDACTED


@pytest.mark.parametrize("data", [b"", b"bird", b"canary", b"can", b"canary nest"])
def test_a_cut_that_gives_nothing_away_stays(data: bytes) -> None:
    """Too few letters to be a clue, a whole secret, or none at the end."""
    assert redact_cut(data, ["canary"]) == data.replace(b"canary", REDACTED)
