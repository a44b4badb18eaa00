"""The faults that can be switched on by name, and how they are chosen and applied.

``FAULTS`` at the end is the list; ``scripts.py`` has the bytes of those that lie on the wire.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom

from pipeline.errors import ConfigError
from pipeline.sandbox import bodies, scripts
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    TEXT,
    Headers,
    Numbers,
    Request,
    Response,
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
        answer: ask what is behind this fault: the next one, or the upstream.
        answer_well: ask the upstream, past all other faults.
    """

    request: Request
    upstream: Upstream
    value: str
    nth: int
    served: Served
    answer: Callable[[], Response]
    answer_well: Callable[[], Response]


Apply = Callable[[Case], Response]


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the table.

    Attributes:
        meaning: one line for ``--list-faults``.
        accepts: what may stand behind ``=``.
        default: the value if nothing stands there.
    """

    meaning: str
    apply: Apply
    accepts: re.Pattern[str] = NOTHING
    default: str = ""


@dataclass(frozen=True, slots=True)
class ChosenFault:
    """A fault with its value, as somebody asked for it."""

    fault: Fault
    value: str


def parse_fault(chosen: str) -> ChosenFault:
    """Read ``NAME`` or ``NAME=VALUE``.

    Raises:
        ConfigError: there is no such fault, or it does not take that value.
    """
    name, _, value = chosen.partition("=")
    fault = FAULTS.get(name)
    if fault is None:
        raise ConfigError(f"no fault is named {name!r}; see pipeline sandbox --list-faults")
    value = value or fault.default
    if not fault.accepts.fullmatch(value):
        raise ConfigError(f"fault {name} does not take the value {value!r}")
    return ChosenFault(fault, value)


def answer_with(
    chosen: Sequence[ChosenFault], request: Request, upstream: Upstream, nth: int, served: Served
) -> Response:
    """Answer *request* with the faults around the upstream, the first one outermost.

    *served* is the faults' memory of this upstream.
    """

    def answer_well() -> Response:
        return upstream.answer(request)

    def wrap(each: ChosenFault, inner: Callable[[], Response]) -> Callable[[], Response]:
        case = Case(
            request=request,
            upstream=upstream,
            value=each.value,
            nth=nth,
            served=served,
            answer=inner,
            answer_well=answer_well,
        )
        return lambda: each.fault.apply(case)

    answer = answer_well
    for each in reversed(chosen):
        answer = wrap(each, answer)
    return answer()


def _instead(
    body: str, status: int = 200, content_type: str = TEXT, *, headers: Headers = ()
) -> Apply:
    response = answer_text(body, status, content_type, headers)
    return lambda _case: response


def _alone(script: Callable[[], Iterator[Step]]) -> Apply:
    """Play a script that needs no answer, so that the upstream is not asked."""
    return lambda _case: Response(script=script())


def _playing(script: Callable[[Response], Iterator[Step]]) -> Apply:
    def apply(case: Case) -> Response:
        response = case.answer()
        return replace(response, script=script(response))

    return apply


def _dripping(script: Callable[[Response, float], Iterator[Step]]) -> Apply:
    def apply(case: Case) -> Response:
        response = case.answer()
        return replace(response, script=script(response, float(case.value)))

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


def _first(token: str) -> Apply:
    return _tokens(lambda numbers: [token, *numbers.tokens[1:]])


def _sometimes(is_faulty: Callable[[int, int], bool]) -> Apply:
    def apply(case: Case) -> Response:
        if not is_faulty(case.nth, int(case.value)):
            return case.answer_well()
        is_alone = case.answer is case.answer_well
        return answer_text("Service Unavailable\n", 503) if is_alone else case.answer()

    return apply


def _add_latency(case: Case) -> Response:
    response = case.answer()
    return replace(response, delay_seconds=response.delay_seconds + float(case.value))


def _rate_limit(case: Case) -> Response:
    return answer_text("Too Many Requests\n", 429, headers=(("Retry-After", case.value),))


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


def _redirect(case: Case) -> Response:
    return answer_text("Found\n", 302, headers=(("Location", case.value),))


def _answer_status(case: Case) -> Response:
    return answer_text("", int(case.value))


def _refuse(case: Case) -> Response:
    return case.upstream.refuse(case.request)


def _refuse_with_200(case: Case) -> Response:
    return replace(_refuse(case), status=200)


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

FAULTS = {
    # No answer, or only a part of one.
    "stall": Fault("never answers", _alone(scripts.stall)),
    "close": Fault("closes the connection without a byte", _alone(scripts.close)),
    "lost": Fault(
        "serves the request, and closes the connection without a byte",
        _playing(lambda _response: scripts.close()),
    ),
    "reset": Fault("resets the connection in mid-body", _playing(scripts.reset)),
    "truncated": Fault("closes before the announced length", _playing(scripts.truncated)),
    "chunked_truncated": Fault("closes before the last chunk", _playing(scripts.chunked_truncated)),
    "short_close": Fault("announces no length and closes early", _playing(scripts.short_close)),
    "idle_close": Fault(
        "answers well, then closes the kept connection", _playing(scripts.idle_close)
    ),
    # Time.
    "latency": Fault("answers VALUE seconds late", _add_latency, NUMBER, "1"),
    "slow_headers": Fault(
        "sends a byte of the head every VALUE seconds",
        _dripping(scripts.slow_headers),
        NUMBER,
        "0.2",
    ),
    "slow_body": Fault(
        "sends a byte of the body every VALUE seconds", _dripping(scripts.slow_body), NUMBER, "0.2"
    ),
    "endless_100": Fault("sends 100 Continue for ever", _alone(scripts.endless_100)),
    "endless_body": Fault("sends an array without an end", _playing(scripts.endless_body)),
    # Not quite HTTP.
    "garbage": Fault("does not speak HTTP", _alone(scripts.garbage)),
    "bad_version": Fault("claims HTTP/9.9", _playing(scripts.bad_version)),
    "wrong_length": Fault("announces two bytes too few", _playing(scripts.wrong_length)),
    "two_lengths": Fault("announces two different lengths", _playing(scripts.two_lengths)),
    "bad_length": Fault("announces a negative length", _playing(scripts.bad_length)),
    "two_responses": Fault("sends one answer too many", _playing(scripts.two_responses)),
    "bad_chunk": Fault("sends a chunk size that is no number", _playing(scripts.bad_chunk)),
    "tiny_chunks": Fault("sends every byte as a chunk (valid)", _playing(scripts.tiny_chunks)),
    "huge_header": Fault("sends a header of 300 kB", _playing(scripts.huge_header)),
    "many_headers": Fault("sends 5000 headers", _playing(scripts.many_headers)),
    # Refusals and errors.
    "refusal": Fault("refuses in the upstream's own words", _refuse),
    "refusal_200": Fault("refuses in the upstream's own words, with 200", _refuse_with_200),
    "success_false": Fault(
        "says success: false, with 200", _instead('{"success":false}', 200, JSON)
    ),
    "rate_limited": Fault("answers 429 with Retry-After: VALUE", _rate_limit, LINE, "2"),
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
    "status": Fault("answers the status VALUE, with no body", _answer_status, STATUS, "418"),
    "redirect": Fault("answers 302 to VALUE", _redirect, LINE, "http://127.0.0.2/"),
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
    "nan": Fault("puts NaN for the first number", _first("NaN")),
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
