"""An imitation of randomnumberapi.com in its three published generations.

Wire facts: the operator's own sources, github.com/jameskozlowski/randomnumberapi (Flask, to
2022) and randomnumberapi-go (2023, and the rewrite of 2026). No generation has limits.
Imitated are the paths that answer with integers.
"""

import json
from uuid import uuid4

from pipeline.sandbox.entropy import draw_integers
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    Headers,
    Request,
    Response,
    Upstream,
    answer_numbers,
    answer_text,
    compact,
    parse_integer,
)
from pipeline.sandbox.options import RandomNumberApiMode

PATHS = frozenset(f"/api/v1.0/{what}" for what in ("random", "randomnumber", "randomredditnumber"))
MAX_COUNT = 100
WIDTH = 100  # of the range when max is not given, or not above min
SERVER_ERROR = "<h1>Internal Server Error</h1>\n"
CROSS_ORIGIN = (("Access-Control-Allow-Origin", "*"),)
HARDENED = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "deny"),
    ("Content-Security-Policy", "default-src 'none'"),
    ("Referrer-Policy", "no-referrer"),
)


def _serve(
    count: int, low: int, high: int, headers: Headers, *, separator: str, end: str
) -> Response:
    """Draw from [low, high], both ends included."""
    tokens = [str(value) for value in draw_integers(count, low, high)]
    return answer_numbers(
        tokens, high, lambda tokens: f"[{separator.join(tokens)}]{end}", headers=headers
    )


def _answer_flask(request: Request) -> Response:
    values = {"min": 0, "max": WIDTH, "count": 1}
    for name in values:
        given = request.param(name)
        if given is None:
            continue
        value = parse_integer(given)
        if value is None:
            complaint = f"invalid literal for int() with base 10: {given!r}"
            body = json.dumps({"message": {name: complaint}})
            return answer_text(f"{body}\n", 400, JSON, CROSS_ORIGIN)
        values[name] = value
    low, high, count = values.values()
    if high <= low:
        return answer_text(SERVER_ERROR, 500, HTML)
    count = min(count or 1, MAX_COUNT)
    return _serve(max(count, 0), low, high, CROSS_ORIGIN, separator=", ", end="")


def _answer_go2023(request: Request) -> Response:
    """Replace whatever does not fit, in silence: that is what the server did."""
    low = max(parse_integer(request.param("min")) or 0, 0)
    high = parse_integer(request.param("max"))
    if high is None or high <= low:
        high = low + WIDTH
    count = parse_integer(request.param("count")) or 1
    if not 1 <= count <= MAX_COUNT:
        count = 1
    return _serve(count, low, high - 1, HARDENED, separator=",", end="\n")


def _traced() -> Headers:
    return (*HARDENED, ("X-Request-ID", str(uuid4())))


def _error_go2026(status: int, message: str) -> Response:
    return answer_text(f"{compact({'error': message})}\n", status, JSON, _traced())


def _complaint_go2026(request: Request) -> str | None:
    for name in ("min", "max", "count"):
        given = request.query.get(name, ())
        if len(given) > 1:
            return f"{name} must be given once"
        if given and parse_integer(given[0]) is None:
            return f"{name} must be an integer"
    return None


def _answer_go2026(request: Request) -> Response:
    if request.method != "GET":
        return _error_go2026(405, "Method Not Allowed")
    complaint = _complaint_go2026(request)
    if complaint:
        return _error_go2026(400, complaint)
    low = parse_integer(request.param("min")) or 0
    high = parse_integer(request.param("max") or str(low + WIDTH)) or 0
    count = parse_integer(request.param("count") or "1") or 0
    if not 1 <= count <= MAX_COUNT:
        return _error_go2026(400, f"count must be between 1 and {MAX_COUNT}")
    if not 0 <= low < high:
        return _error_go2026(400, "min must not be negative, and max must be greater than min")
    return _serve(count, low, high - 1, _traced(), separator=",", end="\n")


ANSWERS = {
    RandomNumberApiMode.FLASK: _answer_flask,
    RandomNumberApiMode.GO2023: _answer_go2023,
    RandomNumberApiMode.GO2026: _answer_go2026,
}


class RandomNumberApi(Upstream):
    """Pseudo-random upstream, so there is nothing to ration."""

    example = "/api/v1.0/random?min=1&max=7&count=10"

    def answer(self, request: Request, /) -> Response:
        """Serve integers as the chosen generation does."""
        mode = self.options.random_number_api_mode
        if mode is RandomNumberApiMode.GO2026 and request.path == "/healthz":
            return Response(status=204, headers=_traced())
        if request.path.removesuffix("/") not in PATHS:
            return answer_text("404 page not found\n", 404)
        return ANSWERS[mode](request)

    def refuse(self, _request: Request, /) -> Response:
        """Fail as the rewrite does when its own upstream is down; it never says no itself."""
        return _error_go2026(502, "Bad Gateway")
