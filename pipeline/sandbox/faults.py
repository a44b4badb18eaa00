"""The faults that can be switched on by name, and how they are chosen and applied.

``FAULTS`` at the end is the list. What lies on the wire is a script of steps, which the server
plays before it closes the connection: no fault touches a socket.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, repeat
from math import inf
from random import SystemRandom

from pipeline.errors import ConfigError
from pipeline.sandbox import bodies
from pipeline.sandbox.bodies import (
    chunk,
    chunked,
    drip,
    half,
    length_of,
    sized_head,
    whole,
    write_head,
)
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    TEXT,
    Headers,
    Numbers,
    Request,
    Response,
    Signal,
    Step,
    Upstream,
    answer_text,
    remember,
)

NOTHING = re.compile(r"")
NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
SHARE = re.compile(r"0?\.[0-9]{1,9}")
ALL = re.compile(r"1")
COUNT = re.compile(r"[1-9][0-9]{0,8}")
STATUS = re.compile(r"[2-5][0-9]{2}")
LINE = re.compile(r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?")

NESTING = 100_000
HUGE_HEADER_BYTES = 300_000
MANY_HEADERS = 5_000
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_PAUSE_SECONDS = 0.01
IDLE_SECONDS = 0.05
CONTENT_TYPE = "Content-Type"
CHANCE = SystemRandom()
MAINTENANCE = "<!DOCTYPE html>\n<title>Maintenance</title>\n<h1>We will be back soon</h1>\n"
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b]52;c;b3duZWQ=\x07\u202egnihton\u202c [/x]\r\n"
    "2026-01-01T00:00:00Z ERROR pipeline: this line was forged by the upstream\r\n"
)


Served = dict[tuple[int, int], Sequence[str]]
"""Numbers as an upstream wrote them, by how many they are and how high they go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request under a fault.

    Attributes:
        value: what stood behind ``=``, or the fault's default.
        nth: which request of this client for this path it is, from 1.
        served: what a fault remembers of the upstream's earlier answers.
        others: the faults behind this one.
    """

    request: Request
    upstream: Upstream
    value: str
    nth: int
    served: Served
    others: Sequence["Fault"]

    def answer(self) -> Response:
        """Ask what is behind this fault: the next one, or the upstream."""
        return answer_with(self.others, self.request, self.upstream, self.nth, self.served)


Apply = Callable[[Case], Response]


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the table.

    Attributes:
        meaning: one line for ``--list-faults``.
        accepts: what may stand behind ``=``.
        value: what stands there if nobody says anything else.
    """

    meaning: str
    apply: Apply
    accepts: re.Pattern[str] = NOTHING
    value: str = ""


def parse_fault(chosen: str) -> Fault:
    """Read ``NAME`` or ``NAME=VALUE``.

    Raises:
        ConfigError: there is no such fault, or it does not take that value.
    """
    name, _, value = chosen.partition("=")
    fault = FAULTS.get(name)
    if fault is None:
        raise ConfigError(f"no fault is named {name!r}; see pipeline sandbox --list-faults")
    value = value or fault.value
    if not fault.accepts.fullmatch(value):
        raise ConfigError(f"fault {name} does not take the value {value!r}")
    return replace(fault, value=value)


def answer_with(
    chosen: Sequence[Fault], request: Request, upstream: Upstream, nth: int, served: Served
) -> Response:
    """Answer *request* with the faults around the upstream, the first one outermost.

    *served* is the faults' memory of this upstream.
    """
    if not chosen:
        return upstream.answer(request)
    first, *others = chosen
    case = Case(
        request=request,
        upstream=upstream,
        value=first.value,
        nth=nth,
        served=served,
        others=others,
    )
    return first.apply(case)


def _instead(body: str, status: int = 200, content_type: str = TEXT) -> Apply:
    response = answer_text(body, status, content_type)
    return lambda _case: response


def _alone(script: Callable[[], Iterable[Step]]) -> Apply:
    """Play a script that needs no answer, so that the upstream is not asked."""
    return lambda _case: Response(script=iter(script()))


def _playing(script: Callable[[Response], Iterable[Step]]) -> Apply:
    return _dripping(lambda response, _seconds: script(response))


def _dripping(script: Callable[[Response, float], Iterable[Step]]) -> Apply:
    def apply(case: Case) -> Response:
        response = case.answer()
        return replace(response, script=iter(script(response, float(case.value or 0))))

    return apply


def _body(change: Callable[[bytes], bytes], *, headers: Headers = ()) -> Apply:
    def apply(case: Case) -> Response:
        response = case.answer()
        return replace(response, body=change(response.body), headers=(*response.headers, *headers))

    return apply


def _tokens(change: Callable[[Numbers], Sequence[str]]) -> Apply:
    """Tell other numbers; an answer without numbers stays as it is."""

    def apply(case: Case) -> Response:
        response = case.answer()
        if response.numbers is None:
            return response
        return replace(response, body=response.numbers.render(change(response.numbers)))

    return apply


def _sometimes(is_faulty: Callable[[int, int], bool]) -> Apply:
    def apply(case: Case) -> Response:
        if not is_faulty(case.nth, int(case.value)):
            return case.upstream.answer(case.request)
        return case.answer() if case.others else answer_text("Service Unavailable\n", 503)

    return apply


def _add_latency(case: Case) -> Response:
    response = case.answer()
    return replace(response, delay_seconds=response.delay_seconds + float(case.value))


def _tell_what_is_left(case: Case) -> Response:
    """Count down to nothing in a field of the body and in a header; then refuse."""
    left = max(int(case.value) - case.nth, 0)
    if case.nth > int(case.value):
        spent = '{"error":"Too many funtastic requests! Please try again later"}'
        response = answer_text(spent, 429, JSON)
    else:
        response = case.answer()
    headers = (*response.headers, ("x-ratelimit-remaining", str(left)))
    return replace(response, body=bodies.add_quota(response.body, left), headers=headers)


def _echo(case: Case) -> Response:
    request = case.request
    headers = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    echo = f"cannot serve {request.method} {request.target}\n{headers}\n"
    return answer_text(echo + request.body.decode(errors="replace"), 400)


def _change_type(case: Case) -> Response:
    response = case.answer()
    given = dict(response.headers)
    wrong = JSON if given.get(CONTENT_TYPE) == TEXT else TEXT
    return replace(response, headers=tuple((given | {CONTENT_TYPE: wrong}).items()))


def _add_charset(case: Case) -> Response:
    response = case.answer()
    headers = (
        (name, f"{value}; charset=utf-8" if name == CONTENT_TYPE else value)
        for name, value in response.headers
    )
    return replace(response, headers=tuple(headers))


def _serve_again(case: Case) -> Response:
    response = case.answer()
    if (fresh := response.numbers) is None:
        return response
    shape = len(fresh.tokens), fresh.high
    tokens = case.served.get(shape, fresh.tokens)
    remember(case.served, shape, tokens)
    return replace(response, body=fresh.render(tokens))


def _favour_one(case: Case) -> Response:
    """Put the first number of its kind that this upstream served in the place of others."""
    response = case.answer()
    if (fresh := response.numbers) is None or not fresh.tokens:
        return response
    kind, share = (1, fresh.high), float(case.value)
    favourite, *_ = case.served.get(kind, fresh.tokens)
    remember(case.served, kind, [favourite])
    tokens = [favourite if CHANCE.random() < share else token for token in fresh.tokens]
    return replace(response, body=fresh.render(tokens))


def _sign_short(case: Case) -> Response:
    response = case.answer()
    sign = response.signed_short
    return response if sign is None else replace(response, body=sign())


GZIP: Headers = (("Content-Encoding", "gzip"),)
CLOSE = ("Connection", "close")

FAULTS = {
    # No answer, or only a part of one.
    "stall": Fault("never answers", _alone(lambda: [inf])),
    "close": Fault("closes the connection without a byte", _alone(list)),
    "lost": Fault(
        "serves the request, and closes the connection without a byte", _playing(lambda _: [])
    ),
    "reset": Fault(
        "resets the connection in mid-body",
        # The pause is there lest the reset overtakes the bytes.
        _playing(lambda r: [sized_head(r) + half(r.body), IDLE_SECONDS, Signal.RESET]),
    ),
    "truncated": Fault(
        "closes before the announced length", _playing(lambda r: [sized_head(r) + half(r.body)])
    ),
    "chunked_truncated": Fault(
        "closes before the last chunk", _playing(lambda r: [chunked(r, chunk(r.body))])
    ),
    "short_close": Fault(
        "announces no length and closes early",
        _playing(lambda r: [write_head(r, CLOSE) + half(r.body)]),
    ),
    "idle_close": Fault(
        "answers well, then closes the kept connection",
        _playing(lambda r: [whole(r), IDLE_SECONDS]),
    ),
    # Time.
    "latency": Fault("answers VALUE seconds late", _add_latency, NUMBER, "1"),
    "slow_headers": Fault(
        "sends a byte of the head every VALUE seconds",
        _dripping(lambda r, seconds: chain(drip(sized_head(r), seconds), [r.body])),
        NUMBER,
        "0.2",
    ),
    "slow_body": Fault(
        "sends a byte of the body every VALUE seconds",
        _dripping(lambda r, seconds: chain([sized_head(r)], drip(r.body, seconds))),
        NUMBER,
        "0.2",
    ),
    "endless_100": Fault(
        "sends 100 Continue for ever", _alone(lambda: cycle((CONTINUE, CONTINUE_PAUSE_SECONDS)))
    ),
    "endless_body": Fault(
        "sends an array without an end",
        _playing(lambda r: chain([write_head(r, CLOSE) + b"["], repeat(b"1," * 8_192))),
    ),
    # Not quite HTTP.
    "garbage": Fault(
        "does not speak HTTP", _alone(lambda: [b"SSH-2.0-OpenSSH_9.9\r\n\x00\x01\xfe\xff\r\n"])
    ),
    "bad_version": Fault(
        "claims HTTP/9.9", _playing(lambda r: [sized_head(r, version="HTTP/9.9") + r.body])
    ),
    "wrong_length": Fault(
        "announces two bytes too few",
        _playing(lambda r: [write_head(r, length_of(r, -2)) + r.body]),
    ),
    "two_lengths": Fault(
        "announces two different lengths",
        _playing(lambda r: [sized_head(r, length_of(r, 7)) + r.body]),
    ),
    "bad_length": Fault(
        "announces a negative length",
        _playing(lambda r: [write_head(r, ("Content-Length", "-1")) + r.body]),
    ),
    # And keeps the connection open for whoever reuses it.
    "two_responses": Fault("sends one answer too many", _playing(lambda r: [whole(r) * 2, inf])),
    "bad_chunk": Fault(
        "sends a chunk size that is no number",
        _playing(lambda r: [chunked(r, b"ZZ\r\n" + r.body + b"\r\n0\r\n\r\n")]),
    ),
    "tiny_chunks": Fault(
        "sends every byte as a chunk (valid)",
        _playing(
            lambda r: [chunked(r, b"".join(chunk(bytes((b,))) for b in r.body) + b"0\r\n\r\n")]
        ),
    ),
    "huge_header": Fault(
        "sends a header of 300 kB",
        _playing(lambda r: [sized_head(r, ("X-Huge", "x" * HUGE_HEADER_BYTES)), r.body]),
    ),
    "many_headers": Fault(
        "sends 5000 headers",
        _playing(
            lambda r: [
                sized_head(r, *((f"X-Header-{n}", "x") for n in range(MANY_HEADERS))) + r.body
            ]
        ),
    ),
    # Refusals and errors.
    "refusal": Fault(
        "refuses in the upstream's own words", lambda case: case.upstream.refuse(case.request)
    ),
    "refusal_200": Fault(
        "refuses in the upstream's own words, with 200",
        lambda case: replace(case.upstream.refuse(case.request), status=200),
    ),
    "success_false": Fault(
        "says success: false, with 200", _instead('{"success":false}', 200, JSON)
    ),
    "rate_limited": Fault(
        "answers 429 with Retry-After: VALUE",
        lambda case: answer_text(
            "Too Many Requests\n", 429, headers=(("Retry-After", case.value),)
        ),
        LINE,
        "2",
    ),
    "ratelimit_fields": Fault(
        "tells what is left of VALUE requests: in QUOTA and in x-ratelimit-remaining",
        _tell_what_is_left,
        COUNT,
        "3",
    ),
    "unavailable": Fault("answers 503", _instead("Service Unavailable\n", 503)),
    "server_error": Fault("answers 500", _instead("Internal Server Error\n", 500)),
    "not_found": Fault("answers 404", _instead("Not Found\n", 404)),
    "forbidden": Fault("answers 403", _instead("Forbidden\n", 403)),
    "status": Fault(
        "answers the status VALUE, with no body",
        lambda case: answer_text("", int(case.value)),
        STATUS,
        "418",
    ),
    "redirect": Fault(
        "answers 302 to VALUE",
        lambda case: answer_text("Found\n", 302, headers=(("Location", case.value),)),
        LINE,
        "http://127.0.0.2/",
    ),
    "html": Fault("answers a maintenance page, with 200", _instead(MAINTENANCE, 200, HTML)),
    "ansi": Fault("answers 500 with escape sequences and a forged line", _instead(HOSTILE, 500)),
    "echo_secret": Fault("answers 400 and repeats the whole request", _echo),
    # Coding and type.
    "gzip": Fault("compresses the body, unasked", _body(bodies.compress, headers=GZIP)),
    "gzip_cut": Fault(
        "compresses the body and drops the end",
        _body(lambda body: bodies.compress(body)[:-12], headers=GZIP),
    ),
    "gzip_bomb": Fault(
        "sends 64 MiB of zeros, compressed", _body(lambda _: bodies.bomb(), headers=GZIP)
    ),
    "wrong_type": Fault("names the wrong content type", _change_type),
    "charset": Fault("names a charset beside the content type (valid)", _add_charset),
    # JSON.
    "empty": Fault("answers an empty body", _body(lambda _: b"")),
    "null": Fault("answers null", _body(lambda _: b"null")),
    "not_json": Fault("answers half of the body, as if whole", _body(bodies.half)),
    "deep": Fault("answers 100000 brackets", _body(lambda _: b"[" * NESTING + b"]" * NESTING)),
    "duplicate_keys": Fault("names keys twice", _body(bodies.duplicate_keys)),
    "extra_key": Fault("adds a key to an object (valid)", _body(bodies.add_key)),
    "renamed_key": Fault(
        'calls "data" "numbers"', _body(lambda body: body.replace(b'"data":', b'"numbers":'))
    ),
    "bad_signature": Fault("changes one digit of the signature", _body(bodies.change_signature)),
    "short_signature": Fault(
        "signs a pulse of NIST's format with half as many bytes as its key makes", _sign_short
    ),
    # Numbers.
    "nan": Fault(
        "puts NaN for the first number", _tokens(lambda numbers: ["NaN", *numbers.tokens[1:]])
    ),
    "short": Fault("leaves out the last number", _tokens(lambda numbers: numbers.tokens[:-1])),
    "long": Fault(
        "repeats the last number", _tokens(lambda numbers: [*numbers.tokens, *numbers.tokens[-1:]])
    ),
    "out_of_range": Fault(
        "puts the highest number plus one first",
        _tokens(lambda numbers: [str(numbers.high + 1), *numbers.tokens[1:]]),
    ),
    "stale": Fault("serves the first numbers of their kind again and again", _serve_again),
    "stuck": Fault("serves the same number for ever", _favour_one, ALL, "1"),
    "biased": Fault("puts one number in the place of a share VALUE", _favour_one, SHARE, "0.3"),
    "floats": Fault("writes 5.0 for 5", _tokens(bodies.written_as_float)),
    "strings": Fault('writes "5" for 5', _tokens(bodies.written_as_string)),
    # When the others hold; alone they answer 503.
    "fail_first": Fault(
        "only the first VALUE requests of a client for a path fail",
        _sometimes(lambda nth, count: nth <= count),
        COUNT,
        "1",
    ),
    "fail_every": Fault(
        "only every VALUE-th request fails, the first included",
        _sometimes(lambda nth, count: nth % count == 1 % count),
        COUNT,
        "2",
    ),
}
