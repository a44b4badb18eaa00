"""An imitation of Quandela Entropy: a token, and a Bell value with each draw.

Wire facts: the vendor's OpenAPI as others read it, and their probe. Not recorded and therefore
ours: which tokens are refused, the largest count, what the figures of a draw are, and what stands
in ``error`` beside the text in ``detail``.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.sandbox.entropy import draw_integers, draw_request_id
from pipeline.sandbox.exchange import (
    JSON,
    Numbers,
    Request,
    Response,
    answer_numbers,
    answer_text,
    compact,
    parse_integer,
)
from pipeline.sandbox.options import SandboxOptions

PATH = "/qt/qrng/ints"
TYPES = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}
MAX_COUNT = 10_000
TOKEN = "Bearer "  # noqa: S105 - what stands before one
REFUSED = {  # by token
    "": (401, "Invalid or expired job token"),
    "wrong": (401, "Invalid or expired job token"),
    "broke": (401, "Not enough credits"),
    "barred": (403, "No permission to use algorithm"),
}
PHRASES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


def _error(status: int, detail: str) -> Response:
    return answer_text(compact({"detail": detail, "error": PHRASES[status]}), status, JSON)


def _numbers(count: int, bits: int) -> Numbers:
    # A CHSH value of a good device lies a little below 2 * sqrt(2).
    chsh = draw_integers(1, 2_600, 2_820)[0] / 1000
    min_entropy = draw_integers(1, 800, 999)[0] / 1000
    head, job = '{"jobs":[{"id":', compact(draw_request_id())

    def render(tokens: Sequence[str]) -> bytes:
        figures = f'"chsh":{chsh},"min_entropy":{min_entropy}'
        return f'{head}{job},"ints":[{",".join(tokens)}],{figures}}}]}}'.encode()

    high = 2**bits - 1
    tokens = [str(value) for value in draw_integers(count, 0, high)]
    return Numbers(tokens=tokens, high=high, render=render)


class Quandela:
    """Any token is good but those that name their refusal."""

    example = f"{PATH}?count=10&type=uint8"

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options

    def answer(self, request: Request, /) -> Response:
        """Serve words of the type that is asked for."""
        if request.path != PATH:
            return _error(404, "Not Found")
        token = request.headers.get("authorization", "").removeprefix(TOKEN)
        if self._options.rules and token in REFUSED:
            return replace(_error(*REFUSED[token]), violations=("key",))
        bits = TYPES.get(request.param("type") or "")
        if bits is None:
            return _error(400, f"Must be one of: {', '.join(TYPES)}.")
        count = parse_integer(request.param("count")) or 0
        if not 1 <= count <= MAX_COUNT:
            return _error(400, "count is out of range")
        return answer_numbers(_numbers(count, bits))

    def refuse(self, _request: Request, /) -> Response:
        """Say that there is nothing left for now, in the words of "not found"."""
        return _error(404, "Entropy Pool empty")
