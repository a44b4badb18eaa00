"""Making foreign text safe: secrets out, control characters visible. Pure."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from functools import lru_cache
from unicodedata import category
from urllib.parse import quote

REDACTED = b"[REDACTED]"
LINE_LENGTH = 300  # characters of one line of foreign text that we keep
MOST_MARKS = 4  # combining marks on one letter; more are an attack on the lines around it
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # to a spreadsheet (OWASP, "CSV Injection")
CLUE_LENGTH = 4  # characters at the start of a secret that give nothing away


def printable(text: str) -> str:
    r"""Make every character that could steer a terminal or a log visible, as ``\x1b``.

    That is what Unicode calls "other" (controls, bidirectional and zero-width ones, surrogates)
    and all separators but the space.
    """
    if text.isascii() and text.isprintable():
        return text
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if category(char) in ("Mn", "Me") else 0
        if marks <= MOST_MARKS:
            kept.append(char if char.isprintable() else char.encode("unicode_escape").decode())
    return "".join(kept)


def printable_lines(text: str) -> str:
    """Do the same and keep line ends, for text that is shown as a block."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def sheet_text(text: str) -> str:
    """Make *text* printable, and text alone: an apostrophe keeps a spreadsheet from obeying it."""
    return printable(f"'{text}" if text.startswith(FORMULA_STARTS) else text)


def one_line(text: str) -> str:
    """Make *text* printable, one line and short."""
    safe = printable(text)
    return safe if len(safe) <= LINE_LENGTH else safe[: LINE_LENGTH - 1] + "…"


def _spellings(secret: str) -> set[str]:
    """Give the forms in which an upstream may repeat a secret, ASCII without blanks, to us."""
    data, as_json = secret.encode(), json.dumps(secret)[1:-1]
    return {
        secret,
        quote(secret, safe=""),
        html.escape(secret),
        as_json,
        as_json.replace("/", r"\/"),  # PHP's way
        b64encode(data).decode().rstrip("="),
        urlsafe_b64encode(data).decode().rstrip("="),
    }


@lru_cache(maxsize=64)
def _needles(secrets: tuple[str, ...]) -> tuple[bytes, ...]:
    """Give all spellings, the longest first: one secret may be the beginning of another."""
    spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
    return tuple(sorted((spelling.encode() for spelling in spellings), key=len, reverse=True))


def redact(data: bytes, secrets: Iterable[str], stand_in: bytes = REDACTED) -> bytes:
    """Replace each of *secrets* in *data*, however it is spelled, by *stand_in*."""
    needles = _needles(tuple(secrets))
    if not needles:
        return data
    # In one pass: a second one could find its secret in what the first one wrote.
    return re.sub(b"|".join(map(re.escape, needles)), stand_in, data, flags=re.IGNORECASE)


def _cut_length(data: bytes, needle: bytes) -> int:
    """Count the bytes at the end of *data* with which *needle* begins."""
    lengths = range(min(len(needle) - 1, len(data)), CLUE_LENGTH - 1, -1)
    return next((n for n in lengths if data[-n:].lower() == needle[:n].lower()), 0)


def redact_cut(data: bytes, secrets: Iterable[str]) -> bytes:
    """Do the same for data that may have been cut in the middle of a secret."""
    secrets = tuple(secrets)
    data = redact(data, secrets)
    length = max((_cut_length(data, needle) for needle in _needles(secrets)), default=0)
    return data[:-length] + REDACTED if length else data


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Replace each of *secrets* in *text*."""
    # Any surrogate may stand in it: JSON can spell them all.
    return redact(text.encode("utf-8", "surrogatepass"), secrets).decode("utf-8", "surrogatepass")
