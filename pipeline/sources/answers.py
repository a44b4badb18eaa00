"""What the adapters share in reading answers: statuses, ``Retry-After``, strict JSON and text.

Everything here is strict where the standard library is kind, because a kind reader turns a broken
answer into wrong numbers. No function raises anything but SourceError, whatever the bytes.
"""

import codecs
import json
import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Never

from pipeline.errors import ErrorName, SourceError
from pipeline.sanitize import redact_text
from pipeline.sources.answerer import find_stranger
from pipeline.sources.base import Answer
from pipeline.sources.waits import parse_date, read_wait
from pipeline.validation import json_name

_QUOTED = 80  # characters of upstream text that an error may show; the evidence keeps more
_READ = 4096  # characters of it that are searched for a secret

_NO_DATA = {HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED}
_WITH_BODY = frozenset(range(200, 300)) - _NO_DATA

# By 520 and above Cloudflare tells what became of its own request to the service.
_GATEWAYS = dict.fromkeys(
    (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, *range(520, 531)),
    "the gateway before the service had no good answer from it",
)

_PASSING = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.TOO_EARLY,
)

_MEDIA_TYPE = re.compile("[a-z]{1,20}/[a-z0-9.+-]{1,60}")  # what we show of a Content-Type
_JSON_TYPE = re.compile(r"application/json|[^/\s]+/[^/\s]+\+json")
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\"]*)")

_MARKS = {  # UTF-32's begins as UTF-16's does
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_UNFIT = (
    (re.compile(rb"\s*+\Z"), "the body is empty"),
    (re.compile(rb"\s*+<"), "the body is a page (HTML or XML)"),
    (re.compile(rb"\x1f\x8b"), "the body is compressed (gzip), and no header says so"),
    (re.compile(rb"\x00+[ -~]|[ -~]\x00"), "the body is UTF-16 or UTF-32, not UTF-8"),
)

# Possessive (`++`), so that a body of any size is turned down in one pass.
_ROWS = re.compile(r"(?:-?[0-9]++(?:\t-?[0-9]++)*+\r?\n)++")


def quote(value: object, *, secret: str | None = None) -> str:
    """Show upstream text in one printable ASCII line, at most 80 characters of it.

    *secret* is taken out before the text is cut, so that no part of it stays. What is no text
    is named by its type only.
    """
    if not isinstance(value, str):
        return json_name(value)
    text = value[:_READ]
    if secret:
        text = redact_text(text, [secret], may_be_cut=True)
    return ascii(text[:_QUOTED])


def retry_after(answer: Answer) -> float | None:
    """Say how many seconds *answer* asks us to wait by ``Retry-After``, None if it does not.

    A date counts from the answer's own ``Date`` where it has one, so that neither a wrong local
    clock nor a replay months later changes the wait.
    """
    clock = datetime.now(UTC)
    sent_at = parse_date(answer.headers.get("date", ""), clock) or clock
    return read_wait(answer.headers.get("retry-after", ""), sent_at)


def _name_status(answer: Answer, *, has_key: bool) -> tuple[ErrorName, str]:
    status = answer.status
    if status == HTTPStatus.TOO_MANY_REQUESTS:  # of whomever: what it asks for is the same
        return ErrorName.RATE_LIMITED, "too many requests"
    if status in _NO_DATA:
        return ErrorName.SCHEMA, "no data"
    if stranger := find_stranger(answer):
        return stranger
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _name_refusal(status, has_key=has_key)
    families = {
        3: (ErrorName.REDIRECT_REFUSED, "redirects are not followed"),
        4: (ErrorName.HTTP_4XX, "the request was refused"),
        5: (ErrorName.HTTP_5XX, _GATEWAYS.get(status, "the server failed")),
    }
    return families.get(status // 100, (ErrorName.PROTOCOL, "no final HTTP status"))


def _name_refusal(status: int, *, has_key: bool) -> tuple[ErrorName, str]:
    if has_key:
        return ErrorName.UNAUTHORIZED, "not allowed; check the API key"
    if status == HTTPStatus.UNAUTHORIZED:
        return ErrorName.UNAUTHORIZED, "it wants a login, and this source has no key"
    return ErrorName.BLOCKED, "it shuts us out, and not for a key: it takes none"


def check_status(answer: Answer, *, says: str | None = None, has_key: bool = True) -> None:
    """Let a success with a body pass.

    *says* is the reason that the upstream gave, fit to show; it replaces ours. Without a key no
    refusal is about one.

    Raises:
        SourceError: named after the status and who answered; the text carries the status; with the
            wait that the upstream asked for.
    """
    status = answer.status
    if status in _WITH_BODY:
        return
    error, meaning = _name_status(answer, has_key=has_key)
    raise SourceError(
        error,
        f"status {status}: {says or meaning}",
        retry_after=retry_after(answer),
        may_retry=True if status in _PASSING else None,
    )


def check_content_type(answer: Answer, agreed: re.Pattern[str]) -> None:
    """Let a media type pass that matches *agreed* as a whole or is accepted, or that is missing.

    Raises:
        SourceError: ``content_type``; also where the header was sent twice. Another name where it
            is somebody else's page.
    """
    declared = answer.headers.get("content-type")
    if declared is None:
        return
    media_type = _media_type(declared)
    if not agreed.fullmatch(media_type) and media_type not in answer.accepted_types:
        if stranger := find_stranger(answer):
            raise SourceError(*stranger)
        shown = media_type if _MEDIA_TYPE.fullmatch(media_type) else "malformed"
        raise SourceError(ErrorName.CONTENT_TYPE, f"the content type is {shown}")


@lru_cache(maxsize=64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=64)
def find_charset(content_type: str) -> str | None:
    """Find the charset that a ``Content-Type`` names, in lower case; None if it names none."""
    found = _CHARSET.search(content_type.lower())
    return found[1] if found else None


def _refuse_json(detail: str) -> Never:
    raise SourceError(ErrorName.NOT_JSON, detail)


def describe_unfit(body: bytes, wanted: str) -> str | None:
    """Say what *body* is that was to be what is *wanted*, where that can be told."""
    charset = next((name for mark, name in _MARKS.items() if body.startswith(mark)), None)
    if charset:
        return f"a byte order mark (BOM) of {charset} stands before the {wanted}"
    return next((what for form, what in _UNFIT if form.match(body)), None)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse_json("a key stands twice in one object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse_json("a number beyond what a float holds")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_finite,
    parse_constant=lambda name: _refuse_json(f"{name} is no JSON"),
)


def read_json(answer: Answer) -> object:
    """Read the body as strict JSON (RFC 8259), whatever the status.

    The content type must be ``application/json`` or end in ``+json`` or be missing; the charset
    UTF-8, without a byte order mark. NaN, infinities and repeated keys are refused. Reading the
    same answer again costs nothing.

    Raises:
        SourceError: ``content_type``, ``not_json``, or ``range`` for an integer so long
            (over 4300 digits) that Python does not read it.
    """
    if answer.documents:
        return answer.documents[0]
    check_content_type(answer, _JSON_TYPE)
    charset = find_charset(answer.headers.get("content-type", ""))
    if charset not in (None, "utf-8", "utf8"):
        raise SourceError(ErrorName.CONTENT_TYPE, "the charset is not UTF-8")
    try:
        value: object = _DECODER.decode(answer.body.decode("utf-8"))
    except UnicodeDecodeError as exc:
        detail = describe_unfit(answer.body, "JSON") or f"no UTF-8 at byte {exc.start}"
        raise SourceError(ErrorName.NOT_JSON, detail) from exc
    except json.JSONDecodeError as exc:
        detail = describe_unfit(answer.body, "JSON") or f"{exc.msg}, at character {exc.pos}"
        raise SourceError(ErrorName.NOT_JSON, detail) from exc
    except RecursionError as exc:
        raise SourceError(ErrorName.NOT_JSON, "nested too deeply") from exc
    except ValueError as exc:
        raise SourceError(ErrorName.RANGE, "an integer of more than 4300 digits") from exc
    answer.documents.append(value)
    return value


def read_json_or_status(answer: Answer, *, has_key: bool = True) -> object:
    """Read JSON from an upstream that explains its refusals in JSON, whatever the status.

    Raises:
        SourceError: as `check_status` where it has something to say, else as `read_json`.
    """
    try:
        return read_json(answer)
    except SourceError:
        check_status(answer, has_key=has_key)  # "status 502" says more than "not JSON"
        raise


def member(document: object, *path: str) -> object:
    """Find the value under *path* in nested JSON objects.

    Raises:
        SourceError: ``schema``, and the path.
    """
    value = document
    for key in path:
        if not isinstance(value, dict) or key not in value:
            raise SourceError(ErrorName.SCHEMA, f"the answer has no {'.'.join(path)}")
        value = value[key]
    return value


def read_array(document: object, *path: str) -> list[object]:
    """Find the JSON array under *path*; without a path *document* itself must be one.

    Raises:
        SourceError: ``schema``.
    """
    value = member(document, *path)
    if not isinstance(value, list):
        name = ".".join(path) or "the answer"
        raise SourceError(ErrorName.SCHEMA, f"{name} is {json_name(value)}, not an array")
    return value


def read_integers(text: str) -> tuple[int, ...]:
    r"""Read rows of integers, left to right: cells end in TAB, rows in LF or CRLF.

    A cell is ``-?[0-9]+`` in ASCII: leading zeros and ``-0`` are fine, blanks, ``+1``, ``1_0``,
    ``1,000`` and other digits are not. The last row needs its line end as well: without it, a
    text cut inside ``1234`` would pass as ``12``.

    Raises:
        SourceError: ``incomplete`` where only the last line end is missing, ``schema`` for any
            other text, ``range`` for an integer so long that Python does not read it.
    """
    if not _ROWS.fullmatch(text):
        if _ROWS.fullmatch(text + "\n"):
            raise SourceError(ErrorName.INCOMPLETE, "the last line has no end")
        raise SourceError(ErrorName.SCHEMA, f"no rows of integers: {quote(text)}")
    try:
        return tuple(map(int, text.split()))
    except ValueError as exc:
        raise SourceError(ErrorName.RANGE, "an integer of more than 4300 digits") from exc
