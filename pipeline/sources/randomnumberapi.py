"""randomnumberapi.com: pseudo-random, no key, up to 100 numbers per request.

Wire facts: the operator's own sources. Three generations of the server are known, and which one
answers is not. ``max`` is exclusive since 2023 and was inclusive before; the server of 2023
replaces what it dislikes by defaults and says nothing, the one of 2026 answers
``{"error": text}``.
"""

from datetime import datetime

import httpx2 as httpx

from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.sources.answers import check_status, quote, read_array, read_json_or_status
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.hints import read_headers
from pipeline.validation import check_numbers

_MAX_NUMBERS = 100  # beyond it the server of 2023 sends one number
_MAX_INT = 2**63 - 1  # Go's


def _shift(low: int) -> int:
    return min(low, 0)  # the servers since 2023 know no negative min: ask from 0, add this


class RandomNumberApi:
    """The service at www.randomnumberapi.com."""

    def __init__(self, *, base_url: str) -> None:
        self._endpoint = Endpoint(base_url, "/api/v1.0/random")

    def max_numbers(self, low: int, high: int) -> int:
        """Give the maximum that no generation of the server replaces."""
        if high + 1 - _shift(low) > _MAX_INT:
            raise ConfigError(f"the range [{low}, {high}] is beyond the server's integers")
        return _MAX_NUMBERS

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Ask for an exclusive ``max``, and never for a negative ``min``."""
        shift = _shift(fetch.min)
        return self._endpoint.get(min=fetch.min - shift, max=fetch.max + 1 - shift, count=fetch.n)

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Read the bare array of *answer*; the ``max`` that was asked may not occur in it."""
        document = read_json_or_status(answer, has_key=False)
        if isinstance(document, dict) and "error" in document:
            says = quote(document["error"])
            check_status(answer, says=says, has_key=False)
            raise SourceError(ErrorName.REFUSED, says)
        check_status(answer, has_key=False)
        shift = _shift(fetch.min)
        asked_max = fetch.max + 1 - shift
        numbers = check_numbers(
            read_array(document), n=fetch.n, low=fetch.min - shift, high=asked_max
        )
        if asked_max in numbers:
            detail = f"{asked_max} came for max={asked_max}: the server treats max as inclusive"
            raise SourceError(ErrorName.RANGE, detail)
        return tuple(number + shift for number in numbers) if shift else numbers

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers: no generation of the server says more."""
        return read_headers(answer, now)

    def cost_bits(self, _fetch: Fetch, /) -> int:
        """Count none: nothing is counted here."""
        return 0
