"""The small languages of an ``api`` table: templates, JSON Pointers, and what values mean. Pure.

Each is read when the file is read; a ``ValueError`` carries the complaint.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from pipeline.settings.complaints import nearest, shown

EVERY = "*"  # in a pointer: each element of an array
KEY = "key"
MOST_DIGITS = 40  # of a bound

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*(?:\+1)?)\}")
_RANGE = re.compile(rf"(-?[0-9]{{1,{MOST_DIGITS}}})\.\.(-?[0-9]{{1,{MOST_DIGITS}}})")
_WORD = re.compile(r"uint(8|16|32|64)")


class Form(Enum):
    """Who decides which values come, and so who maps them to the range that is wanted."""

    ASKED = auto()
    FIXED = auto()
    WORD = auto()
    BYTES = auto()
    BITS = auto()


# What a request can be told, by form; the key always.
PLACEHOLDERS: dict[Form, tuple[str, ...]] = {
    Form.ASKED: ("n", "min", "max", "max+1"),
    Form.FIXED: ("n",),
    Form.WORD: ("n", "bytes", "bits", "type"),
    Form.BYTES: ("n", "bytes", "bits"),
    Form.BITS: ("n", "bits"),
}
KNOWN = (*dict.fromkeys(name for names in PLACEHOLDERS.values() for name in names), KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What one value of an answer may be.

    Attributes:
        low: the lowest one of a fixed range or a word.
        size: how many there are, all equally likely; 0: as many as are asked for.
    """

    form: Form
    low: int = 0
    size: int = 0


def find_placeholders(template: str) -> set[str]:
    """List what *template* wants to be told."""
    return set(_PLACEHOLDER.findall(template))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put *values* in place of the placeholders."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def check_placeholders(template: str) -> str:
    """Let a template pass whose placeholders are known; other braces are nobody's business."""
    for name in sorted(find_placeholders(template)):
        if name not in KNOWN:
            known = ", ".join(f"{{{each}}}" for each in KNOWN)
            guess = nearest(name, KNOWN)
            hint = guess or f"; known are {known}"
            raise ValueError(f"has no placeholder {shown('{' + name + '}')}{hint}")
    return template


def check_template(template: str) -> str:
    """Let a template pass that holds braces as placeholders only."""
    if re.search(r"[{}]", _PLACEHOLDER.sub("", check_placeholders(template))):
        raise ValueError("has a brace that belongs to no placeholder")
    return template


def parse_pointer(text: str) -> tuple[str, ...]:
    """Read a JSON Pointer (RFC 6901) into its parts; ``*`` stands for each element of an array."""
    if text and not text.startswith("/"):
        raise ValueError(
            'must be a JSON Pointer: "" (the whole answer), "/data", "/0/random",'
            f' "/jobs/*/ints"; not {shown(text)}'
        )
    if re.search("~(?![01])", text):
        raise ValueError(f"is no JSON Pointer: ~ is written ~0, / in a name ~1; not {shown(text)}")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def parse_range(text: str) -> tuple[int, int]:
    """Read ``LOW..HIGH``."""
    found = _RANGE.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f'must be a range such as "1..6", not {shown(text)}')
    return int(found[1]), int(found[2])


def parse_values(text: str) -> Values:
    """Read what the values of an answer are."""
    forms = {"asked": Form.ASKED, "bytes": Form.BYTES, "bits": Form.BITS}
    if text in forms:
        return Values(form=forms[text])
    if word := _WORD.fullmatch(text):
        return Values(form=Form.WORD, size=int(2 ** int(word[1])))
    try:
        low, high = parse_range(text)
    except ValueError as error:
        words = "asked, bytes, bits, uint8, uint16, uint32, uint64"
        raise ValueError(
            f'must be one of {words}, or a range such as "1..6"; not {shown(text)}'
        ) from error
    return Values(form=Form.FIXED, low=low, size=high - low + 1)


def checked_by(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Make of what reads a text what lets it pass if it can be read."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check
