"""An imitation of qrandom.io: integers and dice, each answer with a message and its signature.

Wire facts: qrandom.io/docs and its clients. Not recorded and therefore ours: what the signed
message says, the signature, which nobody can verify, all refusals, and the largest ``n``.
"""

from base64 import b64encode
from collections.abc import Sequence

from pipeline.sandbox.entropy import draw_bytes, draw_integers, draw_request_id
from pipeline.sandbox.exchange import (
    HTML,
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

PATHS = {
    "/api/random/int": ("randomInt", "number"),
    "/api/random/ints": ("randomIntArray", "numbers"),
    "/api/random/dice": ("diceArray", "dice"),
}
DICE = (1, 6)
MAX_NUMBERS = 1_000
LIMIT = 2**31
HIGHEST_OF_MANY = 1_000_000_000  # beyond it /ints was seen to fail
SIGNATURE_BYTES = 666  # what Falcon-512 takes


def _numbers(request: Request, n: int, low: int, high: int) -> Numbers:
    kind, key = PATHS[request.path]
    signature = b64encode(bytes(draw_bytes(SIGNATURE_BYTES))).decode()
    head = {
        "id": draw_request_id(),
        "message": f"sandbox {request.target}",
        "signature": signature,
        "resultType": kind,
        "timestamp": request.utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "elapsedTime": 0.001,
    }

    def render(tokens: Sequence[str]) -> bytes:
        value = ",".join(tokens) if key == "number" else f"[{','.join(tokens)}]"
        return f'{compact(head)[:-1]},"{key}":{value}}}'.encode()

    tokens = [str(value) for value in draw_integers(n, low, high)]
    return Numbers(tokens=tokens, high=high, render=render)


class Qrandom:
    """Whoever asks is served, also with more than once a second: no rule is published."""

    example = "/api/random/ints?min=1&max=6&n=10"

    def __init__(self, _options: SandboxOptions) -> None:
        pass

    def answer(self, request: Request, /) -> Response:
        """Serve integers within [min, max], both included, or dice."""
        if request.path not in PATHS:
            return answer_text("<h1>Not Found</h1>", 404, HTML)
        is_one = request.path.endswith("/int")
        n = 1 if is_one else parse_integer(request.param("n"))
        low, high = DICE
        if not request.path.endswith("/dice"):
            low, high = (parse_integer(request.param(name)) or 0 for name in ("min", "max"))
        if n is None or not (1 <= n <= MAX_NUMBERS and -LIMIT <= low <= high < LIMIT):
            return answer_text('{"error":"Bad Request"}', 400, JSON)
        if high > HIGHEST_OF_MANY and not is_one:
            return answer_text("Service Unavailable\n", 503)
        return answer_numbers(_numbers(request, n, low, high))

    def refuse(self, _request: Request, /) -> Response:
        """Refuse without a word of when to come back."""
        return answer_text("Too Many Requests\n", 429)
