"""Imitations of both ANU APIs: three parameters, and a block of numbers that answers them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

from pipeline.sandbox.entropy import draw_bytes, draw_hex, draw_words
from pipeline.sandbox.exchange import (
    HTML,
    JSON,
    Headers,
    Request,
    Response,
    Upstream,
    answer_numbers,
    answer_text,
    not_found,
    parse_integer,
    remember,
)

MAX_LENGTH = 1024

LEGACY_PATH = "/API/jsonI.php"
LEGACY_HEX_BYTES = {"hex16": 1}
LEGACY_MAX_SIZE = 1024
WINDOW_SECONDS = 60.0
REFUSAL = (
    "The QRNG API is limited to 1 requests per minute. For more requests, please visit "
    "https://quantumnumbers.anu.edu.au or contact qrng@anu.edu.au."
)

WRONG_KEY = "wrong"
REQUESTS_PER_MONTH = 100
AQN_HEX_BYTES = {"hex8": 1, "hex16": 2}
AQN_MAX_SIZE = 10


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


class AnuLegacy(Upstream):
    """ANU's old quantum number API: no key; one client, one request, one minute.

    Wire facts: github.com/lmacken/quantumrandom (code, issue 34) and github.com/api-evangelist/anu.
    Recorded nowhere and therefore ours: the answers to bad parameters and unknown paths, and that
    the minute counts from the last request that was served.
    """

    example = f"{LEGACY_PATH}?length=10&type=uint8"

    def answer(self, request: Request, /) -> Response:
        """Serve numbers, or refuse within a minute of the client's last served request."""
        if request.path != LEGACY_PATH:
            return not_found()
        if self.is_early(request, WINDOW_SECONDS):
            return replace(self.refuse(request), violations=("rate",))
        block = draw_block(request, hex_bytes=LEGACY_HEX_BYTES, max_size=LEGACY_MAX_SIZE)
        if block is None:
            return answer_text('{"success":false}', content_type=JSON)
        remember(self.memory, request.client, request.seconds)
        label = f'"{block.kind}","length":{block.length}'
        if block.kind in LEGACY_HEX_BYTES:  # older clients know these as "string", the size echoed
            label = f'"string","length":{block.length},"size":{block.size}'
        return answer_numbers(
            block.tokens,
            block.high,
            lambda tokens: f'{{"type":{label},"data":[{",".join(tokens)}],"success":true}}',
        )

    def refuse(self, _request: Request, /) -> Response:
        """Refuse in the upstream's words; the status was seen as 500 and as 200."""
        return answer_text(REFUSAL, self.options.anu_refusal_status, HTML)


def _gateway_headers(error_type: str = "") -> Headers:
    headers = (("x-amzn-requestid", str(uuid4())),)
    return (*headers, ("x-amzn-errortype", error_type)) if error_type else headers


def _gateway_error(status: int, message: str, error_type: str) -> Response:
    return answer_text(f'{{"message":"{message}"}}', status, JSON, _gateway_headers(error_type))


class AnuAqn(Upstream):
    """ANU Quantum Numbers: any key but ``wrong`` is good for a hundred served requests a month.

    Wire facts: github.com/sbalian/quantum-random (recorded answers) and github.com/ligos/terninger;
    the errors are the defaults of the gateway that the service runs behind. Not recorded and
    therefore ours: the body of a 400, and that the month is UTC's.
    """

    example = "/?length=10&type=uint16"

    def answer(self, request: Request, /) -> Response:
        """Serve numbers to a key that has requests left this month."""
        if request.path != "/":
            token = "MissingAuthenticationTokenException"  # noqa: S105 - the gateway's error name
            return _gateway_error(403, "Missing Authentication Token", token)
        key = request.headers.get("x-api-key", "")
        if self.options.rules and key in ("", WRONG_KEY):
            forbidden = _gateway_error(403, "Forbidden", "ForbiddenException")
            return replace(forbidden, violations=("key",))
        month = request.utc.strftime("%Y-%m")
        used = self.used(key, month)
        if self.options.rules and used >= REQUESTS_PER_MONTH:
            exceeded = _gateway_error(429, "Limit Exceeded", "LimitExceededException")
            return replace(exceeded, violations=("quota",))
        block = draw_block(request, hex_bytes=AQN_HEX_BYTES, max_size=AQN_MAX_SIZE)
        if block is None:
            return answer_text('{"success":false}', 400, JSON, _gateway_headers())
        remember(self.memory, key, (month, used + 1))
        # The length is a string in every recorded answer.
        head = f'{{"success":true,"type":"{block.kind}","length":"{block.length}","data":['
        return answer_numbers(
            block.tokens,
            block.high,
            lambda tokens: f"{head}{','.join(tokens)}]}}",
            headers=_gateway_headers(),
        )

    def refuse(self, _request: Request, /) -> Response:
        """Refuse as a burst: the quota's own wording comes when the month is used up."""
        return _gateway_error(429, "Too Many Requests", "TooManyRequestsException")
