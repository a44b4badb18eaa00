"""An imitation of the University of Padova's quantum random numbers at VSIX: bytes in base64.

Wire facts: one client. Not recorded and therefore ours: all refusals, and the longest answer.
"""

import base64
from collections.abc import Sequence

from pipeline.sandbox.entropy import draw_bytes
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    Numbers,
    Request,
    Response,
    answer_numbers,
    answer_text,
    parse_integer,
)
from pipeline.sandbox.options import SandboxOptions

PATH = "/api/get_string_get"
MAX_LENGTH = 4096
TRIPLE = 3  # bytes that make four characters


def _numbers(length: int) -> Numbers:
    data = bytes(draw_bytes(length))

    def render(tokens: Sequence[str]) -> bytes:
        return f'{{"string":"{"".join(tokens)}"}}'.encode()

    starts = range(0, length, TRIPLE)
    tokens = [base64.b64encode(data[at : at + TRIPLE]).decode() for at in starts]
    return Numbers(tokens=tokens, high=0xFF, render=render)


class Padova:
    """Whoever asks is served."""

    example = f"{PATH}?string_length=16"

    def __init__(self, _options: SandboxOptions) -> None:
        pass

    def answer(self, request: Request, /) -> Response:
        """Serve as many bytes as are asked for."""
        if request.path != PATH:
            return answer_text("<h1>Not Found</h1>", 404, HTML)
        length = parse_integer(request.param("string_length")) or 0
        if not 1 <= length <= MAX_LENGTH:
            return answer_text('{"error":"string_length is out of bounds"}', 400, JSON)
        return answer_numbers(_numbers(length))

    def refuse(self, _request: Request, /) -> Response:
        """Fail without a word of the numbers."""
        return answer_text('{"error":"temporarily unavailable"}', 503, JSON)
