"""Making foreign text safe: secrets out, control characters visible. Pure."""

import html
import re
from base64 import b64encode
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category

REDACTED = b"[REDACTED]"
LINE_LENGTH = 300  # characters of one line of foreign text that we keep
MOST_MARKS = 4  # combining marks on one letter; more are an attack on the lines around it
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # to a spreadsheet (OWASP, "CSV Injection")
CLUE_LENGTH = 4  # characters at the start of a secret; fewer give nothing away
CODED_CLUE_LENGTH = 5  # the same in digits of base64
LONGEST_ESCAPE = 34
MOST_LAYERS = 10  # of escapes within escapes that are looked through
Span = tuple[int, int]  # where a part of a text begins and ends

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


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


# One escaped character, as URLs, JSON and Python's repr(), and HTML write it. One that is cut off
# at the end is none.
_ESCAPES = (
    rb"%(?:u[0-9a-f]{4}|[0-9a-f]{2})",
    rb"\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|u[0-9a-f]{4}|x[0-9a-f]{2}|[^ux])",
    rb"&(?:#(?:[0-9]{1,7}+|x[0-9a-f]{1,6}+)(?:;|(?![0-9a-f;]|\Z))|[a-z][a-z0-9]{1,31};)",
)
_KINDS = tuple(
    re.compile(escapes, re.IGNORECASE | re.DOTALL) for escapes in (b"|".join(_ESCAPES), *_ESCAPES)
)
_MARKS = frozenset(r"%\&")  # with which all of them begin
_CUT_ESCAPE = re.compile(
    rb"(?:%(?:[0-9a-f]?|u[0-9a-f]{0,3})|\\(?:x[0-9a-f]?|u[0-9a-f]{0,3})?|&#?[a-z0-9]{0,31})\Z",
    re.IGNORECASE,
)
_BREAKS = b" \t\r\n:"  # what hex and base64 digits are broken into pairs or lines with
_CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True, slots=True)
class _Layer:
    """A text, and where in the original each of its bytes begins."""

    text: bytes
    place: Callable[[int], int]


@lru_cache(maxsize=1024)
def _character(escape: bytes) -> bytes:
    """Give what *escape* stands for."""
    text, mark = escape.decode("latin-1"), escape[1:2].lower()
    if escape.startswith(b"&"):
        return _encoded(html.unescape(text))
    if mark == b"u" and len(escape) > len(r"\u"):
        units = bytes.fromhex(re.sub(r"[%\\]u", "", text, flags=re.IGNORECASE))
        return _encoded(units.decode("utf-16-be", "surrogatepass"))
    if escape.startswith(b"%"):
        return bytes.fromhex(text[1:])
    return bytes.fromhex(text[2:]) if len(escape) > len(r"\x") else _CONTROLS.get(mark, escape[1:])


def _peel(layer: _Layer, escape: re.Pattern[bytes]) -> _Layer:
    """Replace each *escape* by what it stands for."""
    text, kept = layer.text, bytearray()
    ends, ends_before = [0], [0]  # of the escapes, here and in the layer before
    for found in escape.finditer(text):
        kept += text[ends_before[-1] : found.start()] + _character(found[0])
        ends.append(len(kept))
        ends_before.append(found.end())

    def place(position: int) -> int:
        escape = bisect_right(ends, position) - 1
        return layer.place(ends_before[escape] + position - ends[escape])

    return _Layer(bytes(kept + text[ends_before[-1] :]), place)


def _without_cut_escape(layer: _Layer) -> _Layer | None:
    """Take off the beginning of an escape that *layer* ends with; its end stays where it was."""
    whole = len(layer.text)
    found = _CUT_ESCAPE.search(layer.text, max(0, whole - LONGEST_ESCAPE))
    if found is None:
        return None
    end = found.start()
    return _Layer(layer.text[:end], lambda at: layer.place(at if at < end else whole))


def _layers(data: bytes, secrets: Iterable[str], *, may_be_cut: bool) -> Iterator[_Layer]:
    """Give *data*, then with one layer of escapes less each time.

    All kinds of escapes go at once, unless a secret itself may look like one of another kind.
    """
    kinds = _KINDS if any(_MARKS.intersection(secret) for secret in secrets) else _KINDS[:1]
    seen, queue = {data}, deque([_Layer(data, int)])
    while queue:
        layers = [queue.popleft()]
        if may_be_cut and (shorter := _without_cut_escape(layers[0])):
            layers.append(shorter)
        for layer in layers:
            yield layer
            for peeled in (_peel(layer, kind) for kind in kinds):
                if peeled.text not in seen and len(seen) < MOST_LAYERS * len(kinds):
                    seen.add(peeled.text)
                    queue.append(peeled)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # any may stand in it: JSON can spell them all


def _coded_needles(secret: str) -> set[bytes]:
    """Give *secret* in hex, and in base64 wherever it may begin within a longer text.

    A very short one would be found everywhere.
    """
    data = _encoded(secret)
    if len(data) < CLUE_LENGTH:
        return set()
    needles = {data.hex().encode()}
    for shift, shared in enumerate((0, 2, 3)):  # digits that hold bits of what stands before
        digits = b64encode(bytes(shift) + data).rstrip(b"=")[shared:]
        inner = digits if (shift + len(data)) % 3 == 0 else digits[:-1]
        needles |= {digits, inner}
    return needles | {needle.translate(_URL_SAFE) for needle in needles}


@lru_cache(maxsize=64)
def _needles(secrets: tuple[str, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Give the needles to look for in layers and in codes, in lower case, the longest first."""

    def sort(needles: Iterable[bytes]) -> tuple[bytes, ...]:
        return tuple(sorted({needle.lower() for needle in needles}, key=len, reverse=True))

    given = [secret for secret in secrets if secret]
    return (
        sort(
            needle
            for secret in given
            for needle in (_encoded(secret), _encoded(secret.replace(" ", "+")))
        ),
        sort(needle for secret in given for needle in _coded_needles(secret)),
    )


@lru_cache(maxsize=64)
def _pattern(needles: tuple[bytes, ...]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, needles)))


def _cut_length(text: bytes, needles: Iterable[bytes], clue_length: int) -> int:
    """Count the bytes at the end of *text* with which one of *needles* begins."""
    return max(
        (
            n
            for needle in needles
            for n in range(clue_length, min(len(needle), len(text) + 1))
            if text.endswith(needle[:n])
        ),
        default=0,
    )


def _find(text: bytes, needles: tuple[bytes, ...], clue_length: int) -> Iterator[Span]:
    """Find *needles* in *text*; with a *clue_length* also what the end has cut off."""
    text = text.lower()
    for found in _pattern(needles).finditer(text):
        yield found.span()
    if clue_length and (length := _cut_length(text, needles, clue_length)):
        yield len(text) - length, len(text)


def _find_coded(layer: _Layer, needles: tuple[bytes, ...], clue_length: int) -> list[Span]:
    """Do the same in hex and base64, broken into lines or not."""
    if not needles:
        return []
    spans = list(_find(layer.text.translate(None, _BREAKS), needles, clue_length))
    if not spans:
        return []
    places = [place for place, byte in enumerate(layer.text) if byte not in _BREAKS]
    return [(layer.place(places[start]), layer.place(places[end - 1] + 1)) for start, end in spans]


def _spans(data: bytes, secrets: tuple[str, ...], *, may_be_cut: bool) -> list[Span]:
    """Find where *secrets* begin and end in *data*, in whatever spelling; none overlaps another."""
    plain, coded = _needles(secrets)
    if not plain:
        return []
    spans: list[Span] = []
    for layer in _layers(data, secrets, may_be_cut=may_be_cut):
        found = _find(layer.text, plain, CLUE_LENGTH if may_be_cut else 0)
        spans += ((layer.place(start), layer.place(end)) for start, end in found)
        spans += _find_coded(layer, coded, CODED_CLUE_LENGTH if may_be_cut else 0)
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _replace(data: bytes, spans: Iterable[Span], stand_in: bytes) -> bytes:
    kept, done = bytearray(), 0
    for start, end in spans:
        kept += data[done:start] + stand_in
        done = end
    return bytes(kept + data[done:])


def redact(data: bytes, secrets: Iterable[str], stand_in: bytes = REDACTED) -> bytes:
    """Replace each of *secrets* in *data*, however it is spelled, by *stand_in*."""
    return _replace(data, _spans(data, tuple(secrets), may_be_cut=False), stand_in)


def redact_cut(data: bytes, secrets: Iterable[str]) -> bytes:
    """Do the same for data that may have been cut in the middle of a secret."""
    return _replace(data, _spans(data, tuple(secrets), may_be_cut=True), REDACTED)


def redact_text(text: str, secrets: Iterable[str], *, may_be_cut: bool = False) -> str:
    """Replace each of *secrets* in *text*, and what stands at its end of one if it *may_be_cut*."""
    data = _encoded(text)
    spans = _spans(data, tuple(secrets), may_be_cut=may_be_cut)
    return _replace(data, spans, REDACTED).decode("utf-8", "surrogatepass")
