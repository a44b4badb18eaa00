"""random.org's JSON-RPC API, release 4: ``generateIntegers``, with an API key in the body.

Wire facts: random.org's pages "basic API" and "error codes". Errors come with HTTP 200; for some
the status is not known, so an error object counts whatever the status.
"""

import json
import math
from datetime import datetime

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.sources.answers import (
    check_status,
    member,
    quote,
    read_array,
    read_json,
    read_json_or_status,
    retry_after,
)
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.hints import hint_of_renewal, longest_hint, read_headers
from pipeline.sources.random_org import ALLOWANCE_USED_UP, MAX_NUMBERS, check_bounds
from pipeline.validation import check_numbers

_CODES = {
    400: ErrorName.UNAUTHORIZED,  # the key does not exist
    401: ErrorName.UNAUTHORIZED,  # the key is not running
    404: ErrorName.UNAUTHORIZED,  # the key is not for this method
    405: ErrorName.UNAUTHORIZED,  # the key is not for this release
    402: ErrorName.QUOTA_EXHAUSTED,  # no requests left before 00:00 UTC
    403: ErrorName.QUOTA_EXHAUSTED,  # fewer bits left than this request takes
}
_PASSING = (101, 32000, -32603)  # service offline, unknown error, internal error
_OFFLINE_SECONDS = 60.0
_DEFAULT_DELAY_MS = 1000  # the official clients' where advisoryDelay is missing
_MAX_DELAY_MS = 10**15  # beyond it, and below zero, it is no delay


def _hint_of_delay(delay: object) -> Hint:
    if type(delay) is int and 0 <= delay <= _MAX_DELAY_MS:
        return Hint(wait_seconds=delay / 1000, why=f"advisoryDelay of {delay} ms")
    why = f"no advisoryDelay: {_DEFAULT_DELAY_MS} ms by default"
    return Hint(wait_seconds=_DEFAULT_DELAY_MS / 1000, why=why)


def _hint_of_result(result: dict[str, object], now: datetime) -> Hint | None:
    left = (result.get("requestsLeft"), result.get("bitsLeft"))
    is_used_up = any(type(amount) is int and amount <= 0 for amount in left)
    renewal = hint_of_renewal(now, "day", ALLOWANCE_USED_UP) if is_used_up else None
    return longest_hint(_hint_of_delay(result.get("advisoryDelay")), renewal)


def _hint_of_document(document: object, now: datetime) -> Hint | None:
    match document:
        case {"error": {"code": 402 | 403}}:
            return hint_of_renewal(now, "day", ALLOWANCE_USED_UP)
        case {"error": {"code": 101}}:
            return Hint(wait_seconds=_OFFLINE_SECONDS, why="random.org: service offline")
        case {"result": dict(result)}:
            return _hint_of_result(result, now)
    return None


class RandomOrgJsonrpc:
    """The API at api.random.org."""

    method = "generateIntegers"

    def __init__(self, *, base_url: str, api_key: str) -> None:
        self._api_key = api_key
        headers = {"Content-Type": "application/json"}
        self._endpoint = Endpoint(base_url, "/json-rpc/4/invoke", headers=headers)

    def max_numbers(self, low: int, high: int) -> int:
        """Give the documented maximum: random.org does the mapping itself."""
        check_bounds(low, high)
        return MAX_NUMBERS

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Call the method; the fetch's number is the id, to be echoed."""
        return self._endpoint.post(self._spell(fetch, self.method, self._order(fetch)))

    @staticmethod
    def _order(fetch: Fetch) -> dict[str, object]:
        return {
            "n": fetch.n,
            "min": fetch.min,
            "max": fetch.max,
            "replacement": True,
            "base": 10,
        }

    def _spell(self, fetch: Fetch, method: str, params: dict[str, object]) -> bytes:
        call = {
            "jsonrpc": "2.0",
            "method": method,
            "params": {"apiKey": self._api_key, **params},
            "id": fetch.number,
        }
        return json.dumps(call, separators=(",", ":")).encode()

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Read ``result.random.data`` of the answer to this very call."""
        document = read_json_or_status(answer)
        self._check_refusal(document, answer)
        check_status(answer)
        echoed = member(document, "id")
        if type(echoed) is not int or echoed != fetch.number:
            raise SourceError(ErrorName.SCHEMA, f"the answer is not to call {fetch.number}")
        data = read_array(document, "result", "random", "data")
        return check_numbers(data, n=fetch.n, low=fetch.min, high=fetch.max)

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers and what the document says: the advisory delay and the allowances.

        Where too few bits are left (403) a smaller request might pass, but the next ones would
        not: the day is over for us as well.
        """
        said = read_headers(answer, now)
        try:
            document = read_json(answer)
        except SourceError:
            return said
        return longest_hint(said, _hint_of_document(document, now))

    def cost_bits(self, fetch: Fetch, /) -> int:
        """Count the bits of the numbers themselves: three dice were charged as 8."""
        return math.ceil(fetch.n * math.log2(fetch.max - fetch.min + 1))

    def _check_refusal(self, document: object, answer: Answer) -> None:
        if not isinstance(document, dict) or document.get("error") is None:
            return
        code = member(document, "error", "code")
        if type(code) is not int:
            raise SourceError(ErrorName.SCHEMA, "error.code is not an integer")
        says = quote(document["error"].get("message"), secret=self._api_key)
        raise SourceError(
            _CODES.get(code, ErrorName.REFUSED),
            f"code {code}: {says}",
            retry_after=retry_after(answer),
            may_retry=True if code in _PASSING else None,
        )
