"""random.org's HTTP interface: ``/integers/``, no key, but an e-mail address in User-Agent.

Wire facts: random.org's pages "HTTP clients" and "guidelines for automated clients". Refusals
begin with ``Error:`` and come with 503; older scripts of the same host sent such with 200.
"""

import re
from datetime import datetime
from typing import Literal

import httpx2 as httpx

from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.sources.answers import (
    check_content_type,
    check_status,
    describe_unfit,
    quote,
    read_integers,
    retry_after,
)
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import USER_AGENT, Endpoint
from pipeline.sources.hints import hint_of_renewal, longest_hint, read_headers
from pipeline.validation import check_numbers

MAX_NUMBERS = 10_000
BOUND = 1_000_000_000  # of min and max, either sign
ALLOWANCE_USED_UP = "random.org: daily allowance used up, renewed at 00:00 UTC"

_REFUSAL = b"Error:"
_USED_UP = "used your quota of random bits"

_PLAIN = re.compile("text/plain")
_HTML = re.compile(r"text/html|application/xhtml\+xml")

# Not html.parser: an unclosed `<a "` repeated over 40 kB keeps it busy for nine seconds (3.11),
# and the time grows with the square. Here every `<` ends what the one before it began.
_PRE = re.compile(r"<pre(\s[^<>]*)>([^<]*)</pre\s*>", re.IGNORECASE)
_CLASSES = re.compile(r"\sclass\s*=\s*[\"']?([^\"']*)", re.IGNORECASE)


def check_bounds(low: int, high: int) -> None:
    """Hold a range to what both interfaces of random.org serve.

    Raises:
        ConfigError: a bound beyond ±1e9, or a range of a single number.
    """
    if not -BOUND <= low < high <= BOUND:
        raise ConfigError(f"random.org serves min < max within ±{BOUND}, not [{low}, {high}]")


def _is_data(attributes: str) -> bool:
    classes = _CLASSES.search(attributes)
    return classes is not None and "data" in classes[1].split()


def _find_rows(page: str) -> str:
    """Take the text of the first ``pre.data``; its end tag vouches for the last line."""
    text = next((found[2] for found in _PRE.finditer(page) if _is_data(found[1])), None)
    if text is None:
        raise SourceError(ErrorName.SCHEMA, "the page has no whole pre.data")
    return text.strip("\r\n") + "\n"


def _find_refusal(answer: Answer) -> str | None:
    if not answer.body.startswith(_REFUSAL):
        return None
    return answer.body.splitlines()[0].decode("ascii", "replace")


def _check_refusal(answer: Answer) -> None:
    line = _find_refusal(answer)
    if line is None:
        return
    error = ErrorName.QUOTA_EXHAUSTED if _USED_UP in line else ErrorName.REFUSED
    detail = f"status {answer.status}: {quote(line)}"
    raise SourceError(error, detail, retry_after=retry_after(answer))


class RandomOrg:
    """The interface at www.random.org, in either of its two formats."""

    def __init__(
        self,
        *,
        base_url: str,
        email: str,
        format: Literal["plain", "html"] = "plain",  # noqa: A002 - the wire's and the setting's name
    ) -> None:
        self._format = format
        user_agent = f"{USER_AGENT} ({email})"
        self._endpoint = Endpoint(base_url, "/integers/", headers={"User-Agent": user_agent})

    def max_numbers(self, low: int, high: int) -> int:
        """Give the documented maximum: random.org does the mapping itself."""
        check_bounds(low, high)
        return MAX_NUMBERS

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Ask for true randomness (``rnd=new``) in one column."""
        return self._endpoint.get(
            num=fetch.n,
            min=fetch.min,
            max=fetch.max,
            col=1,
            base=10,
            format=self._format,
            rnd="new",
        )

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Read the rows of *answer*; a line that begins with ``Error:`` is a refusal."""
        _check_refusal(answer)
        check_status(answer, has_key=False)
        # What is not ASCII becomes U+FFFD, which is in no number.
        text = answer.body.decode("ascii", "replace")
        if self._format == "html":
            check_content_type(answer, _HTML)
            text = _find_rows(text)
        else:
            check_content_type(answer, _PLAIN)
            if what := describe_unfit(answer.body, "numbers"):
                raise SourceError(ErrorName.SCHEMA, what)
        return check_numbers(read_integers(text), n=fetch.n, low=fetch.min, high=fetch.max)

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers, and the refusal that ends with the day.

        The allowance is topped up "soon after 00:00 UTC". A page that bans us (its form was never
        recorded) names no end, so it is no hint.
        """
        renewal = None
        if _USED_UP in (_find_refusal(answer) or ""):
            renewal = hint_of_renewal(now, "day", ALLOWANCE_USED_UP)
        return longest_hint(read_headers(answer, now), renewal)

    def cost_bits(self, fetch: Fetch, /) -> int:
        """Count the bits that are drawn on average: those of rejected draws are charged as well.

        A client was charged some 6,500 for 1,000 numbers in 0..9; this says 6,400.
        """
        span = fetch.max - fetch.min + 1
        bits = (span - 1).bit_length()
        return -(-fetch.n * bits * (1 << bits) // span)  # rounded up
