"""An imitation of the quantum random numbers of the LfD: bytes in hex, no key, no published rule.

Wire facts: lfdr.de/QRNG/. Not recorded and therefore ours: the status of an error, which can be
chosen; that HEXDUMP is not imitated; and that no answer is longer than a megabyte.
"""

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
    compact,
    parse_integer,
)
from pipeline.sandbox.options import SandboxOptions

PATH = "/qrng_api/qrng"
MAX_LENGTH = 2**20
DIGITS = {"HEX": "02x", "BINARY": "08b"}


def _numbers(length: int, layout: str) -> Numbers:
    def render(tokens: Sequence[str]) -> bytes:
        return f'{{"qrn":"{"".join(tokens)}","length":{length}}}'.encode()

    tokens = [format(byte, DIGITS[layout]) for byte in draw_bytes(length)]
    return Numbers(tokens=tokens, high=0xFF, render=render)


class Lfd:
    """Whoever asks is served."""

    example = f"{PATH}?length=16&format=HEX"

    def __init__(self, options: SandboxOptions) -> None:
        self._status = options.json_error_status

    def answer(self, request: Request, /) -> Response:
        """Serve as many bytes as are asked for."""
        if request.path != PATH:
            return answer_text("<h1>Not Found</h1>", 404, HTML)
        length = parse_integer(request.param("length"))
        if length is None:
            return self._error("Failed to convert length param to string")
        layout = request.param("format") or "HEX"
        if not 1 <= length <= MAX_LENGTH or layout not in DIGITS:
            return self._error("length param out of bounds")
        return answer_numbers(_numbers(length, layout))

    def _error(self, reason: str) -> Response:
        return answer_text(compact({"error": reason}), self._status, JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Fail because the card does not answer."""
        return self._error("Failed to read device")
