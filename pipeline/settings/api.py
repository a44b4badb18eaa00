"""The ``api`` table of a source: how to ask a JSON API, and how to read what it answers."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.settings.base import Table
from pipeline.settings.complaints import Location
from pipeline.settings.templates import (
    KEY,
    PLACEHOLDERS,
    Form,
    check_placeholders,
    check_template,
    checked_by,
    fill,
    find_placeholders,
    parse_pointer,
    parse_range,
    parse_values,
)

_MOST_WAIT = 31 * 86_400
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[ -~]{0,1000}")
_OURS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "user-agent"}
)
_SECRET = r"(?:api[_-]?key|key|token|secret|password|auth(?:orization)?|cookie)"  # noqa: S105 - no secret
_SECRET_HEADER = re.compile(rf"(?i)(?:.*[_-])?{_SECRET}")
_SECRET_PARAMETER = re.compile(rf"(?i)[?&](?:[^=&]*[_-])?{_SECRET}=(?!\{{key\}})[^&]")
_PROBLEM_WITH_KEY = "would hold the key itself; write {key}, and name api_key_env or api_key_file"

Problem = tuple[Location, str]


def check_api_address(text: str) -> str:
    """Let the template of an address pass."""
    if re.search(r"[^!-~]", text):
        raise ValueError("must be ASCII without blanks; write others as %20 and so on")
    if "#" in text:
        raise ValueError("must not contain #; it is never sent")
    if _SECRET_PARAMETER.search(text):
        raise ValueError(_PROBLEM_WITH_KEY)
    return check_template(text)


def _check_path(text: str) -> str:
    if text and not text.startswith(("/", "?", "&")):
        raise ValueError("must begin with / or, where url has a path already, with ?")
    return check_api_address(text)


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        shown = name if _HEADER.fullmatch(name) else "a name"
        if shown != name:
            raise ValueError("has a name that is no name of an HTTP header")
        if name.lower() in _OURS:
            raise ValueError(f"{name} is written by the program; remove it")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} must be printable ASCII")
        if _SECRET_HEADER.fullmatch(name) and KEY not in find_placeholders(value):
            raise ValueError(f"{name} {_PROBLEM_WITH_KEY}")
        if find_placeholders(check_template(value)) - {KEY}:
            raise ValueError(f"{name} can hold {{key}} only; all else belongs into path or body")
    return headers


def _check_measure(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise ValueError("a name has 1 to 40 of a-z 0-9 _ and begins with a letter")
    return name


def _as_list(value: object) -> object:
    """Take one value where several are allowed."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


Pointer = Annotated[str, AfterValidator(checked_by(parse_pointer))]
Wait = Annotated[float, Field(gt=0, le=_MOST_WAIT)]
Period = Literal["day", "month"]
RuleError = Literal[
    "rate_limited",
    "quota_exhausted",
    "unauthorized",
    "blocked",
    "http_4xx",
    "http_5xx",
    "refused",
]


class ErrorRule(Table):
    """One of ``errors``: what all of these conditions together mean.

    Attributes:
        status: one of these HTTP statuses.
        field: where in the JSON something must stand; alone: anything but null or false.
        equals: what must stand there.
        text: one of these must stand there, in capitals or not; without *field*: in the body.
        error: the published name.
        wait_seconds: how long the source is then left alone; ``until``: the next day or month, UTC.
        retry: whether asking again in the same run can help, where the name says otherwise.
    """

    status: Annotated[
        tuple[Annotated[int, Field(ge=100, le=599)], ...],
        BeforeValidator(_as_list),
        Field(strict=False),
    ] = ()
    field: Pointer | None = None
    equals: bool | int | str | None = None
    text: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        BeforeValidator(_as_list),
        Field(strict=False),
    ] = ()
    error: RuleError
    wait_seconds: Wait | None = None
    until: Period | None = None
    retry: bool | None = None


class Allowance(Table):
    """One of ``allowances``: where answers count what is left; at 0 the source is left alone.

    Attributes:
        field: where in the JSON it stands; or ``header``.
        wait_seconds: how long; or ``until`` the next day or month, UTC.
    """

    field: Pointer | None = None
    header: Annotated[str, Field(min_length=1)] | None = None
    wait_seconds: Wait | None = None
    until: Period | None = None


class MeasureRule(Table):
    """One of ``measures``: a figure that answers hold beside their numbers, to be kept.

    Attributes:
        field: where it stands; of several the lowest counts.
        at_least: less is a finding of ``pipeline audit``.
    """

    name: Annotated[str, AfterValidator(_check_measure)]
    field: Pointer
    at_least: float | None = None


class ApiSettings(Table):
    """The ``api`` table of a source.

    Attributes:
        path: a template, appended to ``url``.
        headers: by name; ``{key}`` stands for the key.
        body: a template; JSON unless a header ``Content-Type`` says otherwise.
        numbers: a JSON Pointer to the array of values, or to one; ``*``: each of an array.
        encoding: how a value is written.
        values: what a value may be, see ``templates.parse_values``.
        bounds: the lowest and highest number that may be asked for, where the upstream maps.
        most: what one request may ask for: values, or bytes where these are what is asked for.
        errors: how refusals are told; the first that fits counts.
        allowances: where answers say what is left.
        measures: what is kept of what answers say of their numbers.
    """

    method: Literal["GET", "POST"] = "GET"
    path: Annotated[str, AfterValidator(_check_path)] = ""
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field({}, repr=False)
    body: Annotated[str, AfterValidator(check_placeholders)] = Field("", repr=False)
    numbers: Pointer
    encoding: Literal["integer", "decimal", "hex", "base64"] = "integer"
    values: Annotated[str, AfterValidator(checked_by(parse_values))] = "asked"
    bounds: Annotated[str, AfterValidator(checked_by(parse_range))] | None = None
    most: int = Field(ge=1, le=1_000_000)
    errors: tuple[ErrorRule, ...] = Field((), strict=False)
    allowances: tuple[Allowance, ...] = Field((), strict=False)
    measures: tuple[MeasureRule, ...] = Field((), strict=False)

    def placeholders(self, url: str) -> set[str]:
        """List what a request to *url* wants to be told."""
        texts = (url, self.path, self.body, *self.headers.values())
        return set().union(*map(find_placeholders, texts))


def is_json(api: ApiSettings) -> bool:
    """Tell whether the body that is sent is JSON."""
    named = {name.lower(): value for name, value in api.headers.items()}
    return "json" in named.get("content-type", "application/json")


def _about_request(api: ApiSettings, url: str) -> Iterator[Problem]:
    form, used = parse_values(api.values).form, api.placeholders(url)
    for name in sorted(used - {*PLACEHOLDERS[form], KEY}):
        yield ("values",), f'with "{api.values}" nothing can be told as {{{name}}}; remove it'
    if api.most > 1 and not used & {"n", "bytes"}:
        yield ("most",), "is more than 1, and the request has no {n} or {bytes} to say how many"
    if form is Form.BITS and "bits" not in used:
        yield ("values",), 'with "bits" the request must say {bits}'
    if form is Form.ASKED and not ("min" in used and used & {"max", "max+1"}):
        yield ("values",), 'with "asked" the request must say {min} and {max} (or {max+1})'
    if api.bounds and form is not Form.ASKED:
        yield ("bounds",), 'is for values = "asked"; remove it'


def _about_body(api: ApiSettings) -> Iterator[Problem]:
    if api.method == "GET" and api.body:
        yield ("body",), 'is sent with method = "POST" only'
    if api.body and is_json(api):
        try:
            json.loads(fill(api.body, dict.fromkeys(find_placeholders(api.body), "1")))
        except (ValueError, RecursionError):
            yield ("body",), "is no JSON, once its placeholders are filled in"


def _about_encoding(api: ApiSettings) -> Iterator[Problem]:
    form, is_binary = parse_values(api.values).form, api.encoding in ("hex", "base64")
    if is_binary and form not in (Form.BYTES, Form.WORD):
        yield ("values",), f'must be "bytes" or "uint8" to "uint64" with encoding {api.encoding}'
    if form is Form.BYTES and not is_binary:
        yield ("encoding",), 'must be "hex" or "base64" with values = "bytes"'


def _about_waits(api: ApiSettings) -> Iterator[Problem]:
    for place, rule in enumerate(api.errors):
        at = ("errors", place)
        if not (rule.status or rule.field is not None or rule.text):
            yield at, "needs a condition: status, field or text"
        if rule.equals is not None and rule.field is None:
            yield (*at, "equals"), "needs field, to say where"
        if rule.wait_seconds and rule.until:
            yield (*at, "until"), "give this or wait_seconds, not both"
    for place, allowance in enumerate(api.allowances):
        at = ("allowances", place)
        if (allowance.field is None) == (allowance.header is None):
            yield at, "needs field or header, and not both"
        if (allowance.wait_seconds is None) == (allowance.until is None):
            yield at, "needs wait_seconds or until, and not both"


def _about_measures(api: ApiSettings) -> Iterator[Problem]:
    names = [rule.name for rule in api.measures]
    for place, name in enumerate(names):
        if name in names[:place]:
            yield ("measures", place, "name"), f"{name} is there twice; rename one"


def find_in_api(api: ApiSettings, url: str) -> Iterator[Problem]:
    """Find what contradicts itself in *api*, where *url* is what is asked."""
    yield from _about_request(api, url)
    yield from _about_body(api)
    yield from _about_encoding(api)
    yield from _about_waits(api)
    yield from _about_measures(api)
