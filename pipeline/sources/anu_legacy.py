"""ANU QRNG, the legacy service: ``/API/jsonI.php``, no key, one request a minute.

Wire facts: ANU's page "API documentation" and what its clients recorded. The refusal has been
seen with status 500 and with 200, so its text decides, before anything else.
"""

from datetime import datetime

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.sources import anu
from pipeline.sources.answers import check_status, read_json, retry_after
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.hints import longest_hint, read_headers

_REFUSAL = b"QRNG API is limited to"
_PAUSE_SECONDS = 60.0  # "limited to 1 requests per minute", and no Retry-After was ever seen
_BLOCKS = anu.HexBlocks(bits=8, max_size=1024)  # `hex16&size=2` brought four digits a word


class AnuLegacy:
    """The deprecated service at qrng.anu.edu.au."""

    def __init__(self, *, base_url: str) -> None:
        self._endpoint = Endpoint(base_url, "/API/jsonI.php")

    def max_numbers(self, low: int, high: int) -> int:
        """Count the numbers that the 1024 words of one request bring for sure."""
        return anu.max_numbers(low, high, _BLOCKS)

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Ask for words enough to make up for those that will be rejected."""
        return self._endpoint.get(**anu.build_query(fetch, _BLOCKS))

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Map the words of *answer*; the refusal in plain text counts whatever its status."""
        if _REFUSAL in answer.body:
            pause = max(_PAUSE_SECONDS, retry_after(answer) or 0.0)
            detail = f"status {answer.status}: limited to 1 requests per minute"
            raise SourceError(ErrorName.RATE_LIMITED, detail, retry_after=pause)
        check_status(answer, has_key=False)
        return anu.read_numbers(read_json(answer), fetch, _BLOCKS)

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers, and the refusal in plain text as the minute that it speaks of."""
        hint = read_headers(answer, now)
        if _REFUSAL not in answer.body:
            return hint
        refusal = Hint(wait_seconds=_PAUSE_SECONDS, why="ANU legacy: 1 request per minute")
        return longest_hint(hint, refusal)

    def cost_bits(self, _fetch: Fetch, /) -> int:
        """Count none: the service counts requests."""
        return 0
