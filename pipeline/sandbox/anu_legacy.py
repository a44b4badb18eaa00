"""An imitation of ANU's old quantum number API: no key, one request a minute.

Wire facts: github.com/lmacken/quantumrandom (code, issue 34) and github.com/api-evangelist/anu.
Recorded nowhere and therefore ours: the answers to bad parameters and unknown paths, and that
the minute counts from the last request that was served.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from pipeline.sandbox.anu import Block, draw_block
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    Numbers,
    Request,
    Response,
    answer_numbers,
    answer_text,
    remember,
)
from pipeline.sandbox.options import SandboxOptions

PATH = "/API/jsonI.php"
WINDOW_SECONDS = 60.0
HEX_BYTES = {"hex16": 1}
MAX_SIZE = 1024
REFUSAL = (
    "The QRNG API is limited to 1 requests per minute. For more requests, please visit "
    "https://quantumnumbers.anu.edu.au or contact qrng@anu.edu.au."
)


def _numbers(block: Block) -> Numbers:
    label = f'"{block.kind}","length":{block.length}'
    if block.kind in HEX_BYTES:  # older clients know these as "string", with the size echoed
        label = f'"string","length":{block.length},"size":{block.size}'

    def render(tokens: Sequence[str]) -> bytes:
        return f'{{"type":{label},"data":[{",".join(tokens)}],"success":true}}'.encode()

    return Numbers(tokens=block.tokens, high=block.high, render=render)


class AnuLegacy:
    """One client, one request, one minute."""

    example = f"{PATH}?length=10&type=uint8"

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._served: dict[str, float] = {}

    def answer(self, request: Request, /) -> Response:
        """Serve numbers, or refuse within a minute of the client's last served request."""
        if request.path != PATH:
            return answer_text("<h1>Not Found</h1>", 404, HTML)
        if self._options.rules and self._is_too_early(request):
            return replace(self.refuse(request), violations=("rate",))
        block = draw_block(request, hex_bytes=HEX_BYTES, max_size=MAX_SIZE)
        if block is None:
            return answer_text('{"success":false}', content_type=JSON)
        remember(self._served, request.client, request.seconds)
        return answer_numbers(_numbers(block))

    def _is_too_early(self, request: Request) -> bool:
        served = self._served.get(request.client, -inf)
        return request.seconds - served < WINDOW_SECONDS

    def refuse(self, _request: Request, /) -> Response:
        """Refuse in the upstream's words; the status was seen as 500 and as 200."""
        return answer_text(REFUSAL, self._options.anu_refusal_status, HTML)
