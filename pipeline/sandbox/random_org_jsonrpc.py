"""An imitation of random.org's JSON-RPC API, release 4: keys, daily ledgers, advisory delay.

Wire facts: api.random.org/json-rpc/4/basic and /error-codes, and answers recorded by clients.
Imitated are ``generateIntegers``, the same signed with the sandbox's key, ``getResult`` for what
was signed, and ``getUsage``; another method does not exist here.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from hashlib import sha512
from math import ceil, inf, log2
from random import SystemRandom
from typing import Any

from pipeline.sandbox.entropy import draw_integers
from pipeline.sandbox.exchange import (
    JSON,
    Request,
    Response,
    Upstream,
    answer_numbers,
    answer_text,
    compact,
    remember,
)
from pipeline.sandbox.rsa import CERTIFICATE, sign

PATH = "/json-rpc/4/invoke"
KNOWN_KEYS = "00000000-0000-4000-8000-"  # what a key that exists begins with
STOPPED_KEY = f"{KNOWN_KEYS}000000000401"
KEY_LENGTH = 36
REQUESTS_PER_DAY = 1_000
BITS_PER_DAY = 250_000
MAX_NUMBERS = 10_000
LIMIT = 1_000_000_000  # of min and max, on both sides of 0
DIGITS = {2: "b", 8: "o", 10: "d", 16: "x"}
CREATED = "2013-02-01 17:53:40Z"
LICENSE = {
    "type": "developer",
    "text": "Random values licensed strictly for development and testing only",
    "infoUrl": None,
}


class _RpcError(Exception):
    """An ``error`` object; *data* holds the values that the message is made of."""

    def __init__(
        self, code: int, message: str, data: list[Any] | None = None, violation: str = ""
    ) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}
        self.violations = (violation,) if violation else ()


@dataclass(frozen=True, slots=True)
class _Order:
    n: int
    low: int
    high: int
    may_repeat: bool
    base: int

    @property
    def bits(self) -> int:
        return ceil(self.n * log2(self.high - self.low + 1))


@dataclass(slots=True)
class _Account:
    """What one key has used today, when it may ask again, and what was signed for it."""

    day: date
    requests: int = 0
    bits: int = 0
    total_requests: int = 0
    total_bits: int = 0
    ready_at: float = field(default=-inf)
    signed: int = 0
    results: dict[int, str] = field(default_factory=dict)  # by serial number

    def charge(self, bits: int) -> None:
        self.requests += 1
        self.bits += bits
        self.total_requests += 1
        self.total_bits += bits


def _integer(params: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = params.get(name)
    if value is None:
        raise _RpcError(-32602, "Invalid params")
    if not isinstance(value, int) or isinstance(value, bool):
        raise _RpcError(200, f"Parameter '{name}' is malformed", [name])
    if not low <= value <= high:
        allowed = f"allowable values are [{low},{high}]"
        message = f"Parameter '{name}' is out of range; {allowed}"
        raise _RpcError(202, message, [name, low, high])
    return value


def _parse_order(params: Mapping[str, Any]) -> _Order:
    order = _Order(
        n=_integer(params, "n", 1, MAX_NUMBERS),
        low=_integer(params, "min", -LIMIT, LIMIT),
        high=_integer(params, "max", -LIMIT, LIMIT),
        may_repeat=params.get("replacement", True) is not False,
        base=params.get("base", 10),
    )
    if order.low >= order.high:
        message = "Parameter 'min' must be less than parameter 'max'"
        raise _RpcError(300, message, ["min", "max"])
    if not isinstance(order.base, int) or order.base not in DIGITS:
        raise _RpcError(201, "Parameter 'base' has illegal value", ["base"])
    domain = order.high - order.low + 1
    if not order.may_repeat and order.n > domain:
        asked = f"You requested {order.n} values without replacement"
        message = f"{asked} but the domain you specified only contains {domain}"
        raise _RpcError(301, message, [order.n, domain])
    if params.get("pregeneratedRandomization") is not None:
        raise _RpcError(100, "Pregenerated randomization is not imitated here")
    return order


def _tokens(order: _Order) -> list[str]:
    if order.may_repeat:
        values = draw_integers(order.n, order.low, order.high)
    else:
        values = SystemRandom().sample(range(order.low, order.high + 1), order.n)
    if order.base == 10:  # noqa: PLR2004 - the decimal base is no magic number
        return [str(value) for value in values]
    return [f'"{value:{DIGITS[order.base]}}"' for value in values]


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _parse_call(body: bytes) -> dict[str, Any]:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        raise _RpcError(-32700, "Parse error") from None
    if not isinstance(call, dict) or call.get("jsonrpc") != "2.0":
        raise _RpcError(-32600, "Invalid Request")
    # An id of another type could nest too deeply to be echoed.
    if not isinstance(call.get("method"), str) or isinstance(call.get("id"), dict | list):
        raise _RpcError(-32600, "Invalid Request")
    return call


def _error_response(error: _RpcError, call_id: object) -> Response:
    answer = {"jsonrpc": "2.0", "error": error.error, "id": call_id}
    return replace(answer_text(compact(answer), content_type=JSON), violations=error.violations)


class RandomOrgJsonRpc(Upstream):
    """Keeps an account per key, and notices who does not wait as advised."""

    example = f"{PATH}  (POST)"

    def answer(self, request: Request, /) -> Response:
        """Serve one call, or the certificate."""
        if request.path == "/server.crt":
            return answer_text(CERTIFICATE, content_type="application/x-x509-ca-cert")
        if request.path != PATH:
            return answer_text("Not Found\n", 404)
        return self._serve(request)

    def _serve(self, request: Request) -> Response:
        """Serve one call; its errors are 200 with an ``error``, as upstream."""
        if request.method != "POST":
            return answer_text("Method Not Allowed\n", 405, headers=(("Allow", "POST"),))
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != JSON:
            return answer_text("Unsupported Media Type\n", 415)
        try:
            call = _parse_call(request.body)
        except _RpcError as error:
            return _error_response(error, None)
        try:
            response = self._invoke(request, call)
        except _RpcError as error:
            response = _error_response(error, call.get("id"))
        if "id" not in call:
            return Response(status=204, violations=response.violations)
        return response

    def _invoke(self, request: Request, call: Mapping[str, Any]) -> Response:
        if not isinstance(call.get("params"), dict):
            raise _RpcError(-32602, "Invalid params")
        match call["method"]:
            case "generateIntegers" | "generateSignedIntegers":
                return self._generate_integers(request, call)
            case "getResult":
                return self._get_result(request, call)
            case "getUsage":
                return self._get_usage(request, call)
        raise _RpcError(-32601, "Method not found")

    def _account(self, request: Request, call: Mapping[str, Any]) -> _Account:
        key = call["params"].get("apiKey")
        if not isinstance(key, str) or len(key) != KEY_LENGTH:
            raise _RpcError(200, "Parameter 'apiKey' is malformed", ["apiKey"], "key")
        if self.options.rules and not key.startswith(KNOWN_KEYS):
            raise _RpcError(400, "The API key you specified does not exist", violation="key")
        if self.options.rules and key == STOPPED_KEY:
            raise _RpcError(401, "The API key you specified is not running", violation="key")
        today = request.utc.date()
        account: _Account = self.memory.get(key) or _Account(today)
        remember(self.memory, key, account)
        if account.day != today:
            account.day, account.requests, account.bits = today, 0, 0
        return account

    def _generate_integers(self, request: Request, call: Mapping[str, Any]) -> Response:
        account = self._account(request, call)
        order = _parse_order(call["params"])
        violations: tuple[str, ...] = ()
        if self.options.rules:
            violations = self._hurry(request, account)
            self._check_allowance(account, order.bits)
        account.charge(order.bits)
        latency = self.options.latency_seconds
        account.ready_at = request.seconds + latency + self.options.advisory_delay_ms / 1000
        tokens, tail = _tokens(order), self._tail(account, order.bits)
        write = _writer(request)
        if call["method"] == "generateSignedIntegers":
            account.signed += 1
            write = _signed_writer(request, call, order, account.signed)
            remember(account.results, account.signed, write(tokens))
        answer = answer_numbers(
            tokens, order.high, lambda tokens: _result(call, f"{write(tokens)},{tail}")
        )
        return replace(answer, violations=violations)

    @staticmethod
    def _hurry(request: Request, account: _Account) -> tuple[str, ...]:
        in_flight = ("in_flight",) if request.in_flight else ()
        return (*in_flight, "advisory_delay") if request.seconds < account.ready_at else in_flight

    @staticmethod
    def _check_allowance(account: _Account, bits: int) -> None:
        for code, what, needed, left in (
            (402, "requests", 1, REQUESTS_PER_DAY - account.requests),
            (403, "bits", bits, BITS_PER_DAY - account.bits),
        ):
            if left < needed:
                message = (
                    f"The operation requires {needed} {what}, but the API key only has {left} left"
                )
                raise _RpcError(code, message, [needed, left], "quota")

    def _tail(self, account: _Account, bits: int) -> str:
        """Write what stands behind the numbers in a result, and its end."""
        tail = {
            "bitsUsed": bits,
            "bitsLeft": BITS_PER_DAY - account.bits,
            "requestsLeft": REQUESTS_PER_DAY - account.requests,
            "advisoryDelay": self.options.advisory_delay_ms,
        }
        return compact(tail)[1:]

    def _get_result(self, request: Request, call: Mapping[str, Any]) -> Response:
        """Give an answer once more, free of charge."""
        account = self._account(request, call)
        result = account.results.get(_integer(call["params"], "serialNumber", 0, 2**53))
        if result is None:
            raise _RpcError(303, "The resource you requested could not be found")
        body = _result(call, f"{result},{self._tail(account, 0)}")
        return answer_text(body, content_type=JSON)

    def _get_usage(self, request: Request, call: Mapping[str, Any]) -> Response:
        account = self._account(request, call)
        usage = {
            "status": "running",
            "creationTime": CREATED,
            "bitsLeft": BITS_PER_DAY - account.bits,
            "requestsLeft": REQUESTS_PER_DAY - account.requests,
            "totalBits": account.total_bits,
            "totalRequests": account.total_requests,
        }
        return answer_text(_result(call, compact(usage)), content_type=JSON)

    def refuse(self, request: Request, /) -> Response:
        """Refuse because the day's requests are used up."""
        message = "The operation requires 1 requests, but the API key only has 0 left"
        try:
            call_id = _parse_call(request.body).get("id")
        except _RpcError:
            call_id = None
        return _error_response(_RpcError(402, message, [1, 0]), call_id)


def _result(call: Mapping[str, Any], result: str) -> str:
    """Put a *result* into the frame of an answer."""
    return f'{{"jsonrpc":"2.0","result":{result},"id":{compact(call.get("id"))}}}'


def _writer(request: Request) -> Callable[[Sequence[str]], str]:
    """Give what writes the begin of a result, up to the numbers' own time."""
    made_at = _stamp(request.utc)
    return lambda tokens: f'{{"random":{{"data":[{",".join(tokens)}],"completionTime":"{made_at}"}}'


def _signed_writer(
    request: Request, call: Mapping[str, Any], order: _Order, serial: int
) -> Callable[[Sequence[str]], str]:
    """Give what writes the same with all that is signed, and the signature."""
    key = sha512(str(call["params"]["apiKey"]).encode()).digest()
    first = {
        "method": "generateSignedIntegers",
        "hashedApiKey": b64encode(key).decode(),
        "n": order.n,
        "min": order.low,
        "max": order.high,
        "replacement": order.may_repeat,
        "base": order.base,
        "pregeneratedRandomization": None,
    }
    last = {
        "license": LICENSE,
        "licenseData": None,
        "userData": call["params"].get("userData"),
        "ticketData": None,
        "completionTime": _stamp(request.utc),
        "serialNumber": serial,
    }

    def write(tokens: Sequence[str]) -> str:
        random = f'{compact(first)[:-1]},"data":[{",".join(tokens)}],{compact(last)[1:]}'
        signature = b64encode(sign(random.encode())).decode()
        return f'{{"random":{random},"signature":"{signature}"'

    return write
