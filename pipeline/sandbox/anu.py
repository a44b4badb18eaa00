"""What both ANU APIs share: three parameters, and a block of numbers that answers them."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.sandbox.entropy import draw_bytes, draw_hex, draw_words
from pipeline.sandbox.exchange import Request, parse_integer

MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Block:
    """Drawn items as they are written in JSON; *high* is the largest that could come up."""

    kind: str
    length: int
    size: int
    tokens: list[str]
    high: int


def _draw(kind: str, length: int, width: int) -> tuple[list[str], int]:
    if kind == "uint8":
        return [str(value) for value in draw_bytes(length)], 0xFF
    if kind == "uint16":
        return [str(value) for value in draw_words(length)], 0xFFFF
    return [f'"{digits}"' for digits in draw_hex(length, width)], 256**width - 1


def draw_block(request: Request, *, hex_bytes: Mapping[str, int], max_size: int) -> Block | None:
    """Draw what *request* asks for; None if a parameter is missing or out of bounds.

    The APIs differ in *hex_bytes*: the bytes that one unit of ``size`` means, by hex type.
    """
    kind = request.param("type") or ""
    length = parse_integer(request.param("length")) or 0
    size = parse_integer(request.param("size") or "1") or 0
    is_known = kind in {"uint8", "uint16", *hex_bytes}
    if not (is_known and 1 <= length <= MAX_LENGTH and 1 <= size <= max_size):
        return None
    tokens, high = _draw(kind, length, size * hex_bytes.get(kind, 1))
    return Block(kind, length, size, tokens, high)
