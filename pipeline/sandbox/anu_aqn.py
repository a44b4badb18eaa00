"""An imitation of ANU Quantum Numbers: a key, a hundred requests a month.

Wire facts: github.com/sbalian/quantum-random (recorded answers) and github.com/ligos/terninger;
the errors are the defaults of the gateway that the service runs behind. Not recorded and
therefore ours: the body of a 400, and that the month is UTC's.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.sandbox.anu import Block, draw_block
from pipeline.sandbox.entropy import draw_request_id
from pipeline.sandbox.exchange import (
    JSON,
    Headers,
    Numbers,
    Request,
    Response,
    answer_numbers,
    answer_text,
    remember,
)
from pipeline.sandbox.options import SandboxOptions

WRONG_KEY = "wrong"
REQUESTS_PER_MONTH = 100
HEX_BYTES = {"hex8": 1, "hex16": 2}
MAX_SIZE = 10


def _gateway_headers(error_type: str = "") -> Headers:
    headers = (("x-amzn-requestid", draw_request_id()),)
    return (*headers, ("x-amzn-errortype", error_type)) if error_type else headers


def _gateway_error(status: int, message: str, error_type: str) -> Response:
    return answer_text(f'{{"message":"{message}"}}', status, JSON, _gateway_headers(error_type))


def _numbers(block: Block) -> Numbers:
    # The length is a string in every recorded answer.
    head = f'{{"success":true,"type":"{block.kind}","length":"{block.length}","data":['

    def render(tokens: Sequence[str]) -> bytes:
        return f"{head}{','.join(tokens)}]}}".encode()

    return Numbers(tokens=block.tokens, high=block.high, render=render)


class AnuAqn:
    """Any key but ``wrong`` is good for a hundred served requests a month."""

    example = "/?length=10&type=uint16"

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._used: dict[str, tuple[str, int]] = {}

    def answer(self, request: Request, /) -> Response:
        """Serve numbers to a key that has requests left this month."""
        if request.path != "/":
            token = "MissingAuthenticationTokenException"  # noqa: S105 - the gateway's error name
            return _gateway_error(403, "Missing Authentication Token", token)
        key = request.headers.get("x-api-key", "")
        if self._options.rules and key in ("", WRONG_KEY):
            forbidden = _gateway_error(403, "Forbidden", "ForbiddenException")
            return replace(forbidden, violations=("key",))
        month = request.utc.strftime("%Y-%m")
        used = self._used_in(month, key)
        if self._options.rules and used >= REQUESTS_PER_MONTH:
            exceeded = _gateway_error(429, "Limit Exceeded", "LimitExceededException")
            return replace(exceeded, violations=("quota",))
        block = draw_block(request, hex_bytes=HEX_BYTES, max_size=MAX_SIZE)
        if block is None:
            return answer_text('{"success":false}', 400, JSON, _gateway_headers())
        remember(self._used, key, (month, used + 1))
        return answer_numbers(_numbers(block), JSON, _gateway_headers())

    def _used_in(self, month: str, key: str) -> int:
        since, used = self._used.get(key, (month, 0))
        return used if since == month else 0

    def refuse(self, _request: Request, /) -> Response:
        """Refuse as a burst: the quota's own wording comes when the month is used up."""
        return _gateway_error(429, "Too Many Requests", "TooManyRequestsException")
