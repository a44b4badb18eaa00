"""ANU Quantum Numbers (AQN): an API key, and 100 requests a month with a free one.

Wire facts: the recordings of its clients. An AWS gateway stands in front, so 403 and 429 carry
the gateway's bodies: ``Forbidden``, ``Too Many Requests``, ``Limit Exceeded`` (documented by AWS
for used-up usage plans).
"""

from datetime import datetime
from http import HTTPStatus

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.sources import anu
from pipeline.sources.answers import check_status, read_json, retry_after
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import Endpoint
from pipeline.sources.hints import hint_of_renewal, longest_hint, read_headers

_USED_UP = b"Limit Exceeded"
_BLOCKS = anu.HexBlocks(bits=16, max_size=10)  # `hex16&size=4` brought 16 digits a word


def _is_used_up(answer: Answer) -> bool:
    return answer.status == HTTPStatus.TOO_MANY_REQUESTS and _USED_UP in answer.body


class AnuAqn:
    """The service at api.quantumnumbers.anu.edu.au."""

    def __init__(self, *, base_url: str, api_key: str) -> None:
        self._api_key = api_key
        self._endpoint = Endpoint(base_url, "/", headers={"x-api-key": api_key})

    def max_numbers(self, low: int, high: int) -> int:
        """Count the numbers that the 1024 words of one request bring for sure."""
        return anu.max_numbers(low, high, _BLOCKS)

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Ask for words enough to make up for those that will be rejected."""
        return self._endpoint.get(**anu.build_query(fetch, _BLOCKS))

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Map the words of *answer*; of the two kinds of 429 one ends with the month."""
        if _is_used_up(answer):
            detail = f"status {answer.status}: the requests of this month are used up"
            raise SourceError(ErrorName.QUOTA_EXHAUSTED, detail, retry_after=retry_after(answer))
        check_status(answer)
        return anu.read_numbers(read_json(answer), fetch, _BLOCKS, secret=self._api_key)

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers, and the kind of 429 that ends with the month.

        An allowance that is used up is expected back on the first of next month, UTC. The day on
        which ANU renews it is not known; if it is a later one, the refusal comes once more.
        """
        said = read_headers(answer, now)
        if _is_used_up(answer):
            why = "ANU AQN: monthly allowance used up"
            return longest_hint(said, hint_of_renewal(now, "month", why))
        return said

    def cost_bits(self, _fetch: Fetch, /) -> int:
        """Count none: the service counts requests."""
        return 0
