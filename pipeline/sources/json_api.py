"""Any API that answers in JSON, as an ``api`` table describes it: ask, recognise refusals, read.

What the table can say is documented in ``settings/api.py``; how its values are read and mapped in
``sources/json_values.py``.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote as percent_encode

import httpx2 as httpx

from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.models import Fetch
from pipeline.pacing import OUR_PAUSE
from pipeline.settings.api import Allowance, ApiSettings, ErrorRule, is_json
from pipeline.settings.templates import KEY, Form, Values, fill, parse_range, parse_values
from pipeline.sources.answers import check_status, quote, read_json, retry_after
from pipeline.sources.base import Answer, Hint
from pipeline.sources.endpoint import COMMON_HEADERS, check_url
from pipeline.sources.hints import hint_of_renewal, longest_hint, read_headers
from pipeline.sources.json_values import (
    Word,
    choose_word,
    decode,
    find_values,
    number_in,
    read_values,
    read_words,
)
from pipeline.sources.words import map_words, numbers_within, words_needed
from pipeline.validation import check_numbers

_PAUSE_SECONDS = 60.0  # after a refusal that says nothing of when to come back; it grows
_REFUSALS = (ErrorName.RATE_LIMITED, ErrorName.QUOTA_EXHAUSTED)


def _json_or_none(answer: Answer) -> object:
    try:
        return read_json(answer)
    except SourceError:
        return None


class JsonApi:
    """A JSON API as its ``api`` table describes it.

    Raises:
        ConfigError: *base_url* with its path is no valid http or https URL.
    """

    def __init__(self, *, base_url: str, api: ApiSettings, api_key: str | None = None) -> None:
        self._api, self._secret = api, api_key
        self._url = (base_url.rstrip("/") if api.path else base_url) + api.path
        self._values: Values = parse_values(api.values)
        self._headers = dict(COMMON_HEADERS)
        if api.body and is_json(api):
            self._headers["Content-Type"] = "application/json"
        for name, value in api.headers.items():
            self._headers = {k: v for k, v in self._headers.items() if k.lower() != name.lower()}
            self._headers[name] = fill(value, {KEY: api_key or ""})
        self._word = lru_cache(maxsize=64)(self._choose_word)
        # Asked the same thing, it is the same request: to make one takes 80 µs.
        self._request = lru_cache(maxsize=256)(self._make_request)
        check_url(self._fill(self._url, n=1, low=0, high=0, is_url=True))

    def _choose_word(self, low: int, high: int) -> Word:
        return choose_word(self._values, span=high - low + 1)

    def _count_values(self, n: int, low: int, high: int) -> int:
        """Count the values to ask for, to get *n* numbers."""
        if self._values.form is Form.ASKED:
            return n
        return words_needed(n, span=high - low + 1, size=self._word(low, high).size)

    def max_numbers(self, low: int, high: int) -> int:
        """Count the numbers that the most values of one request bring for sure."""
        most, form = self._api.most, self._values.form
        if form is Form.ASKED:
            self._check_bounds(low, high)
            return most
        word = self._word(low, high)
        words = most // word.bytes if form is Form.BYTES else most
        numbers = numbers_within(words, span=high - low + 1, size=word.size)
        if not numbers:
            raise ConfigError(
                f"one request, of at most {most} values, brings no number in [{low}, {high}] for"
                " sure; choose another range or raise api.most"
            )
        return numbers

    def _check_bounds(self, low: int, high: int) -> None:
        if self._api.bounds is None:
            return
        lowest, highest = parse_range(self._api.bounds)
        if low < lowest or high > highest:
            raise ConfigError(
                f"min and max must be within api.bounds, [{lowest}, {highest}], not [{low}, {high}]"
            )

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Fill the templates in for *fetch*."""
        return self._request(fetch.n, fetch.min, fetch.max)

    def _make_request(self, n: int, low: int, high: int) -> httpx.Request:
        url = self._fill(self._url, n=n, low=low, high=high, is_url=True)
        body = self._fill(self._api.body, n=n, low=low, high=high)
        content = body.encode() if self._api.method == "POST" else None
        return httpx.Request(self._api.method, url, headers=self._headers, content=content)

    def _fill(self, template: str, *, n: int, low: int, high: int, is_url: bool = False) -> str:
        key = self._secret or ""
        if is_url:
            key = percent_encode(key, safe="")
        elif is_json(self._api):
            key = json.dumps(key)[1:-1]
        told = {"n": self._count_values(n, low, high), "min": low, "max": high, "max+1": high + 1}
        if self._values.form not in (Form.ASKED, Form.FIXED):
            word = self._word(low, high)
            told |= {"bytes": told["n"] * word.bytes, "bits": word.bits}
            key_and_type = {KEY: key, "type": f"uint{word.bits}"}
        else:
            key_and_type = {KEY: key}
        return fill(template, {name: str(value) for name, value in told.items()} | key_and_type)

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Recognise the refusals that the table tells of, then read and map the values."""
        self._check_rules(answer)
        check_status(answer, has_key=self._secret is not None)
        found = read_values(read_json(answer), self._api.numbers)
        if self._values.form is Form.ASKED:
            numbers = decode(found, self._api.encoding)
            return check_numbers(numbers, n=fetch.n, low=fetch.min, high=fetch.max)
        word, n = (
            self._word(fetch.min, fetch.max),
            self._count_values(fetch.n, fetch.min, fetch.max),
        )
        words = read_words(found, self._api.encoding, word, n)
        mapped = map_words(words, size=word.size, low=fetch.min, high=fetch.max)
        return check_numbers(mapped[: fetch.n], n=fetch.n, low=fetch.min, high=fetch.max)

    def _check_rules(self, answer: Answer) -> None:
        rule = self._find_rule(answer)
        if rule is None:
            return
        says = f"status {answer.status}"
        if rule.field is not None:
            said = next(iter(find_values(_json_or_none(answer), rule.field)), None)
            says += f": {quote(said, secret=self._secret)}"
        elif rule.text:
            says += f": {quote(answer.body.decode('utf-8', 'replace'), secret=self._secret)}"
        raise SourceError(
            ErrorName(rule.error), says, retry_after=retry_after(answer), may_retry=rule.retry
        )

    def _find_rule(self, answer: Answer) -> ErrorRule | None:
        return next((rule for rule in self._api.errors if _holds(rule, answer)), None)

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Read the headers, the wait of the refusal that fits, and what is left of allowances.

        A refusal for asking too often that says nowhere when to come back gets a pause of ours.
        """
        hints = [read_headers(answer, now)]
        rule = self._find_rule(answer)
        if rule is not None:
            hints.append(_hint(rule, f"api.errors: {rule.error}", now))
        for allowance in self._api.allowances:
            if (left := _left(allowance, answer)) is not None and left <= 0:
                where = allowance.header or allowance.field
                hints.append(_hint(allowance, f"api.allowances: nothing left in {where}", now))
        said = longest_hint(*hints)
        if said is None and rule is not None and rule.error in _REFUSALS:
            return Hint(wait_seconds=_PAUSE_SECONDS, why=OUR_PAUSE, is_ours=True)
        return said

    def cost_bits(self, fetch: Fetch, /) -> int:
        """Count the bits of all values that are asked for, rejected ones included."""
        if self._values.form is Form.ASKED:
            return fetch.n * (fetch.max - fetch.min).bit_length()
        words = self._count_values(fetch.n, fetch.min, fetch.max)
        return words * self._word(fetch.min, fetch.max).bits


def _holds(rule: ErrorRule, answer: Answer) -> bool:
    """Tell whether all conditions of *rule* hold."""
    if rule.status and answer.status not in rule.status:
        return False
    if rule.field is None:
        return not rule.text or _has_text(rule, answer.body.decode("utf-8", "replace"))
    return any(_fits(rule, value) for value in find_values(_json_or_none(answer), rule.field))


def _fits(rule: ErrorRule, value: object) -> bool:
    if rule.equals is not None:
        return type(value) is type(rule.equals) and value == rule.equals
    if rule.text:
        return _has_text(rule, value if isinstance(value, str) else json.dumps(value))
    return value is not None and value is not False


def _has_text(rule: ErrorRule, text: str) -> bool:
    text = text.casefold()
    return any(each.casefold() in text for each in rule.text)


def _hint(wait: ErrorRule | Allowance, why: str, now: datetime) -> Hint | None:
    if wait.until is not None:
        return hint_of_renewal(now, wait.until, why)
    return None if wait.wait_seconds is None else Hint(wait_seconds=wait.wait_seconds, why=why)


def _left(allowance: Allowance, answer: Answer) -> float | None:
    """Read what is left; None if the answer does not say, or nobody can read it."""
    if allowance.header is not None:
        return number_in(answer.headers.get(allowance.header))
    lefts: Iterator[float | None] = map(
        number_in, find_values(_json_or_none(answer), allowance.field or "")
    )
    return next((left for left in lefts if left is not None), None)
