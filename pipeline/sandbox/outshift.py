"""An imitation of Cisco Outshift's quantum random numbers: a key, and 100,000 bits a day.

Wire facts: its clients. Not recorded and therefore ours: the bodies of all refusals (that of the
quota holds the words that clients look for), the names of the formats other than decimal in the
answer, that the day is UTC's, and that bits are charged as blocks times bits.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.sandbox.entropy import draw_integers
from pipeline.sandbox.exchange import (
    JSON,
    Numbers,
    Request,
    Response,
    answer_numbers,
    answer_text,
    compact,
    remember,
)
from pipeline.sandbox.options import SandboxOptions

PATH = "/api/v1/random_numbers"
WRONG_KEY = "wrong"
BITS_PER_DAY = 100_000
MAX_BITS = 10_000
MAX_BLOCKS = 1_000
DIGITS = {"decimal": "d", "binary": "b", "octal": "o", "hexadecimal": "x"}


@dataclass(frozen=True, slots=True)
class _Order:
    blocks: int
    bits: int
    formats: tuple[str, ...]
    is_wrapped: bool


def _integer(call: Mapping[str, object], name: str, most: int) -> int | None:
    value = call.get(name)
    return value if type(value) is int and 1 <= value <= most else None


def _parse_order(body: bytes) -> _Order | None:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    bits = _integer(call, "bits_per_block", MAX_BITS)
    blocks = _integer(call, "number_of_blocks", MAX_BLOCKS)
    layout, encoding = call.get("format"), call.get("encoding")
    is_known = layout in ("all", *DIGITS) and encoding in ("raw", "base64")
    if bits is None or blocks is None or not is_known:
        return None
    formats = tuple(DIGITS) if layout == "all" else (str(layout),)
    return _Order(blocks, bits, formats, encoding == "base64")


def _numbers(order: _Order) -> Numbers:
    values = draw_integers(order.blocks, 0, 2**order.bits - 1)

    def written(value: int, layout: str) -> str:
        text = format(value, DIGITS[layout])
        return compact(b64encode(text.encode()).decode() if order.is_wrapped else text)

    def render(tokens: Sequence[str]) -> bytes:
        blocks = []
        first, *others = order.formats
        for token, value in zip(tokens, [*values, *values[-1:]], strict=False):
            fields = [f'"{first}":{token}']
            fields += [f'"{layout}":{written(value, layout)}' for layout in others]
            blocks.append(f"{{{','.join(fields)}}}")
        return f'{{"random_numbers":[{",".join(blocks)}]}}'.encode()

    tokens = [written(value, order.formats[0]) for value in values]
    return Numbers(tokens=tokens, high=2**order.bits - 1, render=render)


def _error(status: int, message: str) -> Response:
    return answer_text(compact({"message": message}), status, JSON)


class Outshift:
    """Any key but ``wrong`` is good for the bits of a day."""

    example = f"{PATH}  (POST)"

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._used: dict[str, tuple[str, int]] = {}

    def answer(self, request: Request, /) -> Response:
        """Serve blocks to a key that has bits left today."""
        if request.path != PATH:
            return _error(404, "Not Found")
        if request.method != "POST":
            return _error(405, "Method Not Allowed")
        key = request.headers.get("x-id-api-key", "")
        if self._options.rules and key in ("", WRONG_KEY):
            return replace(_error(401, "Unauthorized"), violations=("key",))
        order = _parse_order(request.body)
        if order is None:
            return _error(400, "Bad Request")
        today = request.utc.date().isoformat()
        since, used = self._used.get(key, (today, 0))
        used = (used if since == today else 0) + order.blocks * order.bits
        if self._options.rules and used > BITS_PER_DAY:
            return replace(self.refuse(request), violations=("quota",))
        remember(self._used, key, (today, used))
        return answer_numbers(_numbers(order))

    def refuse(self, _request: Request, /) -> Response:
        """Refuse because the bits of the day are used up."""
        return _error(429, f"This request exceeds your daily limit of {BITS_PER_DAY} bits")
