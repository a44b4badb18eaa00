r"""An imitation of CSRNG Lite: one number per request, one request a second, errors inside a 200.

Wire facts: csrng.net/documentation/csrng-lite/. Not recorded and therefore ours: the codes other
than 5 with their sentences, the status of an error, which can be chosen, and that the second
counts from the last number that was served.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from pipeline.sandbox.entropy import draw_integers
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    Numbers,
    Request,
    Response,
    answer_numbers,
    answer_text,
    parse_integer,
    remember,
)
from pipeline.sandbox.options import SandboxOptions

PATH = "/csrng/csrng.php"
HIGHEST = 9_007_199_254_740_991
WINDOW_SECONDS = 1.0
TOO_FAST = (
    "Reached maximum queries in the last second. To remove limitation, please get our PRO service"
    " at https:\\/\\/www.csrng.net"
)


def _numbers(low: int, high: int) -> Numbers:
    def render(tokens: Sequence[str]) -> bytes:
        each = (
            f'{{"status":"success","min":{low},"max":{high},"random":{token}}}' for token in tokens
        )
        return f"[{','.join(each)}]".encode()

    return Numbers(tokens=[str(draw_integers(1, low, high)[0])], high=high, render=render)


class Csrng:
    """One client, one number, one second."""

    example = f"{PATH}?min=1&max=6"

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._served: dict[str, float] = {}

    def answer(self, request: Request, /) -> Response:
        """Serve one number, or refuse within a second of the last one."""
        if request.path != PATH:
            return answer_text("<h1>Not Found</h1>", 404, HTML)
        served = self._served.get(request.client, -inf)
        if self._options.rules and request.seconds - served < WINDOW_SECONDS:
            return replace(self.refuse(request), violations=("rate",))
        low, high = (parse_integer(request.param(name)) for name in ("min", "max"))
        if high is None:
            return self._error("1", "max is missing")
        low = low or 0
        if not 0 <= low <= high <= HIGHEST:
            return self._error("2", "min and max are out of bounds")
        remember(self._served, request.client, request.seconds)
        return answer_numbers(_numbers(low, high))

    def _error(self, code: str, reason: str) -> Response:
        body = f'[{{"status":"error","code":"{code}","reason":"{reason}"}}]'
        return answer_text(body, self._options.json_error_status, JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Refuse because of the second."""
        return self._error("5", TOO_FAST)
