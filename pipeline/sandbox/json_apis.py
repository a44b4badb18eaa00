"""Imitations of the APIs that ``settings/presets.py`` describes, in the same order.

Each class says where its wire facts come from, and what nobody has recorded and is therefore ours.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from pipeline.sandbox.entropy import draw_bytes, draw_integers
from pipeline.sandbox.exchange import (
    JSON,
    Request,
    Response,
    Upstream,
    answer_numbers,
    answer_text,
    compact,
    not_found,
    parse_integer,
    remember,
)

WRONG_KEY = "wrong"


class Lfd(Upstream):
    """The quantum random numbers of the LfD: bytes in hex; whoever asks is served.

    Wire facts: lfdr.de/QRNG/. Ours: the status of an error, which can be chosen; that HEXDUMP is
    not imitated; and that no answer is longer than a megabyte.
    """

    path = "/qrng_api/qrng"
    example = f"{path}?length=16&format=HEX"
    most = 2**20

    def answer(self, request: Request, /) -> Response:
        """Serve as many bytes as are asked for."""
        if request.path != self.path:
            return not_found()
        length = parse_integer(request.param("length"))
        if length is None:
            return self._error("Failed to convert length param to string")
        digits = {"HEX": "02x", "BINARY": "08b"}.get(request.param("format") or "HEX")
        if not 1 <= length <= self.most or digits is None:
            return self._error("length param out of bounds")
        return answer_numbers(
            [format(byte, digits) for byte in draw_bytes(length)],
            0xFF,
            lambda tokens: f'{{"qrn":"{"".join(tokens)}","length":{length}}}',
        )

    def _error(self, reason: str) -> Response:
        return answer_text(compact({"error": reason}), self.options.json_error_status, JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Fail because the card does not answer."""
        return self._error("Failed to read device")


class Padova(Upstream):
    """The University of Padova's numbers at VSIX: bytes in base64; whoever asks is served.

    Wire facts: one client. Ours: all refusals, and the longest answer.
    """

    path = "/api/get_string_get"
    example = f"{path}?string_length=16"
    most = 4096

    def answer(self, request: Request, /) -> Response:
        """Serve as many bytes as are asked for."""
        if request.path != self.path:
            return not_found()
        length = parse_integer(request.param("string_length")) or 0
        if not 1 <= length <= self.most:
            return answer_text('{"error":"string_length is out of bounds"}', 400, JSON)
        data = bytes(draw_bytes(length))
        triples = (data[at : at + 3] for at in range(0, length, 3))  # four characters each
        return answer_numbers(
            [b64encode(triple).decode() for triple in triples],
            0xFF,
            lambda tokens: f'{{"string":"{"".join(tokens)}"}}',
        )

    def refuse(self, _request: Request, /) -> Response:
        """Fail without a word of the numbers."""
        return answer_text('{"error":"temporarily unavailable"}', 503, JSON)


class Csrng(Upstream):
    r"""CSRNG Lite: one client, one number, one second; its errors stand inside a 200.

    Wire facts: csrng.net/documentation/csrng-lite/. Ours: the codes other than 5 with their
    sentences, the status of an error, which can be chosen, and that the second counts from the last
    number that was served.
    """

    path = "/csrng/csrng.php"
    example = f"{path}?min=1&max=6"
    highest = 9_007_199_254_740_991
    window_seconds = 1.0
    too_fast = (
        "Reached maximum queries in the last second. To remove limitation, please get our PRO"
        " service at https:\\/\\/www.csrng.net"
    )

    def answer(self, request: Request, /) -> Response:
        """Serve one number, or refuse within a second of the last one."""
        if request.path != self.path:
            return not_found()
        if self.is_early(request, self.window_seconds):
            return replace(self.refuse(request), violations=("rate",))
        low, high = (parse_integer(request.param(name)) for name in ("min", "max"))
        if high is None:
            return self._error("1", "max is missing")
        low = low or 0
        if not 0 <= low <= high <= self.highest:
            return self._error("2", "min and max are out of bounds")
        remember(self.memory, request.client, request.seconds)
        head = f'{{"status":"success","min":{low},"max":{high},"random":'
        return answer_numbers(
            [str(draw_integers(1, low, high)[0])],
            high,
            lambda tokens: f"[{','.join(f'{head}{token}}}' for token in tokens)}]",
        )

    def _error(self, code: str, reason: str) -> Response:
        body = f'[{{"status":"error","code":"{code}","reason":"{reason}"}}]'
        return answer_text(body, self.options.json_error_status, JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Refuse because of the second."""
        return self._error("5", self.too_fast)


BITS_PER_DAY = 100_000
DIGITS = {"decimal": "d", "binary": "b", "octal": "o", "hexadecimal": "x"}


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What is ordered of Outshift."""

    blocks: int
    bits: int
    formats: tuple[str, ...]
    is_wrapped: bool

    def spell(self, value: int, layout: str) -> str:
        """Write one value as JSON."""
        text = format(value, DIGITS[layout])
        return compact(b64encode(text.encode()).decode() if self.is_wrapped else text)


def _integer(call: Mapping[str, object], name: str, most: int) -> int | None:
    value = call.get(name)
    return value if type(value) is int and 1 <= value <= most else None


def _parse_blocks(body: bytes) -> _Blocks | None:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    bits = _integer(call, "bits_per_block", 10_000)
    blocks = _integer(call, "number_of_blocks", 1_000)
    layout, encoding = call.get("format"), call.get("encoding")
    is_known = layout in ("all", *DIGITS) and encoding in ("raw", "base64")
    if bits is None or blocks is None or not is_known:
        return None
    formats = tuple(DIGITS) if layout == "all" else (str(layout),)
    return _Blocks(blocks, bits, formats, encoding == "base64")


class Outshift(Upstream):
    """Cisco Outshift: any key but ``wrong`` is good for 100,000 bits a day.

    Wire facts: its clients. Ours: the bodies of all refusals (that of the quota holds the words
    that clients look for), the names of the formats other than decimal in the answer, that the day
    is UTC's, and that bits are charged as blocks times bits.
    """

    path = "/api/v1/random_numbers"
    example = f"{path}  (POST)"

    def answer(self, request: Request, /) -> Response:
        """Serve blocks to a key that has bits left today."""
        if request.path != self.path:
            return self._error(404, "Not Found")
        if request.method != "POST":
            return self._error(405, "Method Not Allowed")
        key = request.headers.get("x-id-api-key", "")
        if self.options.rules and key in ("", WRONG_KEY):
            return replace(self._error(401, "Unauthorized"), violations=("key",))
        order = _parse_blocks(request.body)
        if order is None:
            return self._error(400, "Bad Request")
        today = request.utc.date().isoformat()
        used = self.used(key, today) + order.blocks * order.bits
        if self.options.rules and used > BITS_PER_DAY:
            return replace(self.refuse(request), violations=("quota",))
        remember(self.memory, key, (today, used))
        return _answer_blocks(order)

    @staticmethod
    def _error(status: int, message: str) -> Response:
        return answer_text(compact({"message": message}), status, JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Refuse because the bits of the day are used up."""
        return self._error(429, f"This request exceeds your daily limit of {BITS_PER_DAY} bits")


def _answer_blocks(order: _Blocks) -> Response:
    first, *others = order.formats
    values = draw_integers(order.blocks, 0, 2**order.bits - 1)

    def write(tokens: Sequence[str]) -> str:
        blocks = []
        for token, value in zip(tokens, [*values, *values[-1:]], strict=False):
            fields = [f'"{first}":{token}']
            fields += [f'"{layout}":{order.spell(value, layout)}' for layout in others]
            blocks.append(f"{{{','.join(fields)}}}")
        return f'{{"random_numbers":[{",".join(blocks)}]}}'

    tokens = [order.spell(value, first) for value in values]
    return answer_numbers(tokens, 2**order.bits - 1, write)


QRANDOM = {  # by path, what the answer calls itself and its numbers
    "/api/random/int": ("randomInt", "number"),
    "/api/random/ints": ("randomIntArray", "numbers"),
    "/api/random/dice": ("diceArray", "dice"),
}


class Qrandom(Upstream):
    """qrandom.io: integers and dice, each answer with a message and its signature.

    Whoever asks is served, also with more than once a second: no rule is published. Wire facts:
    qrandom.io/docs and its clients. Ours: what the signed message says, the signature, which nobody
    can verify, all refusals, and the largest ``n``.
    """

    example = "/api/random/ints?min=1&max=6&n=10"
    most = 1_000
    limit = 2**31
    highest_of_many = 1_000_000_000  # beyond it /ints was seen to fail
    signature_bytes = 666  # what Falcon-512 takes

    def answer(self, request: Request, /) -> Response:
        """Serve integers within [min, max], both included, or dice."""
        if request.path not in QRANDOM:
            return not_found()
        is_one = request.path.endswith("/int")
        n = 1 if is_one else parse_integer(request.param("n"))
        low, high = 1, 6
        if not request.path.endswith("/dice"):
            low, high = (parse_integer(request.param(name)) or 0 for name in ("min", "max"))
        if n is None or not (1 <= n <= self.most and -self.limit <= low <= high < self.limit):
            return answer_text('{"error":"Bad Request"}', 400, JSON)
        if high > self.highest_of_many and not is_one:
            return answer_text("Service Unavailable\n", 503)
        head, key = self._head(request), QRANDOM[request.path][1]

        def write(tokens: Sequence[str]) -> str:
            value = ",".join(tokens) if is_one else f"[{','.join(tokens)}]"
            return f'{head[:-1]},"{key}":{value}}}'

        return answer_numbers([str(value) for value in draw_integers(n, low, high)], high, write)

    def _head(self, request: Request) -> str:
        now = request.utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        signature = b64encode(bytes(draw_bytes(self.signature_bytes))).decode()
        return compact(
            {
                "id": str(uuid4()),
                "message": f"sandbox {request.target}",
                "signature": signature,
                "resultType": QRANDOM[request.path][0],
                "timestamp": now,
                "elapsedTime": 0.001,
            }
        )

    def refuse(self, _request: Request, /) -> Response:
        """Refuse without a word of when to come back."""
        return answer_text("Too Many Requests\n", 429)


TYPES = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}
REFUSED = {  # by token
    "": (401, "Invalid or expired job token"),
    "wrong": (401, "Invalid or expired job token"),
    "broke": (401, "Not enough credits"),
    "barred": (403, "No permission to use algorithm"),
}
PHRASES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


class Quandela(Upstream):
    """Quandela Entropy: a Bell value with each draw; any token is good that names no refusal.

    Wire facts: the vendor's OpenAPI as others read it, and their probe. Ours: which tokens are
    refused, the largest count, what the figures of a draw are, and what stands in ``error`` beside
    the text in ``detail``.
    """

    path = "/qt/qrng/ints"
    example = f"{path}?count=10&type=uint8"
    most = 10_000

    def answer(self, request: Request, /) -> Response:
        """Serve words of the type that is asked for."""
        if request.path != self.path:
            return self._error(404, "Not Found")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.options.rules and token in REFUSED:
            return replace(self._error(*REFUSED[token]), violations=("key",))
        bits = TYPES.get(request.param("type") or "")
        if bits is None:
            return self._error(400, f"Must be one of: {', '.join(TYPES)}.")
        count = parse_integer(request.param("count")) or 0
        if not 1 <= count <= self.most:
            return self._error(400, "count is out of range")
        # A CHSH value of a good device lies a little below 2 * sqrt(2).
        chsh = draw_integers(1, 2_600, 2_820)[0] / 1000
        min_entropy = draw_integers(1, 800, 999)[0] / 1000
        head = f'{{"jobs":[{{"id":{compact(str(uuid4()))},"ints":['
        figures = f'"chsh":{chsh},"min_entropy":{min_entropy}'
        return answer_numbers(
            [str(value) for value in draw_integers(count, 0, 2**bits - 1)],
            2**bits - 1,
            lambda tokens: f"{head}{','.join(tokens)}],{figures}}}]}}",
        )

    def _error(self, status: int, detail: str) -> Response:
        body = {"detail": detail, "error": PHRASES[status]}
        return answer_text(compact(body), status, JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Say that there is nothing left for now, in the words of "not found"."""
        return self._error(404, "Entropy Pool empty")
