"""Where an adapter asks, and the headers that all of our requests carry."""

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

import httpx2 as httpx

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.sources.base import Answer

USER_AGENT = f"pipeline/{__version__}"
# `identity`: a coding would only buy truncation and decompression bombs.
COMMON_HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
_HIGHEST_PORT = 65535
_IS_PAID = "pipeline.is_paid"  # marks requests that must not be sent twice without a word
_SEES_OTHER = "pipeline.sees_other"  # marks requests whose answer may stand elsewhere


def check_url(text: str) -> httpx.URL:
    """Read an address.

    Raises:
        ConfigError: it is not a valid http or https URL.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > _HIGHEST_PORT:
        # Not quoted: a user name, a password or a key may stand in it.
        raise ConfigError("the base URL is no valid http or https URL")
    return url


def _join(base_url: str, path: str) -> httpx.URL:
    """Append *path* to *base_url*, unless that ends in it already."""
    url = check_url(base_url)
    prefix, mark, query = url.raw_path.partition(b"?")
    prefix, tail = prefix.rstrip(b"/"), path.rstrip("/").encode()
    if tail and prefix.endswith(tail):
        return url
    return url.copy_with(raw_path=prefix + path.encode() + mark + query)


def is_paid(request: httpx.Request) -> bool:
    """Tell whether *request* is charged for, and its answer can be had again if it is lost."""
    return bool(request.extensions.get(_IS_PAID))


def find_other(request: httpx.Request, answer: Answer) -> httpx.Request | None:
    """Give the request for where *answer* says, by 303, that what was asked for stands.

    None unless the adapter expects that of *request*, the place is on the same server, and nobody
    asks to wait before it; and what the new request brings leads nowhere else.
    """
    if not request.extensions.get(_SEES_OTHER) or answer.status != HTTPStatus.SEE_OTHER:
        return None
    location = answer.headers.get("location")
    if not location or "retry-after" in answer.headers:
        return None
    try:
        url = request.url.join(location)
    except httpx.InvalidURL:
        return None
    if url.userinfo or any(
        getattr(url, part) != getattr(request.url, part) for part in ("scheme", "host", "port")
    ):
        return None
    return httpx.Request("GET", url, headers=request.headers)


class Endpoint:
    """One address of one upstream; asking the same thing again costs microseconds.

    *base_url* may stop at the host or at a prefix, then *path* is appended, or end in *path*.
    *sees_other*: whether it may answer that what is asked for stands elsewhere on its server.

    Raises:
        ConfigError: *base_url* is not a valid http or https URL.
    """

    def __init__(
        self,
        base_url: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        sees_other: bool = False,
    ) -> None:
        self._url = _join(base_url, path)
        self._headers = httpx.Headers({**COMMON_HEADERS, **(headers or {})})
        self._extensions = {_SEES_OTHER: sees_other}
        # Making a request takes 80 µs, and a run asks the same thing thousands of times. Without
        # a body nothing of it is used up, so it can be sent again, even while it is being sent.
        self._requests = lru_cache(maxsize=256)(self._make)

    def _make(self, params: tuple[tuple[str, int | str], ...]) -> httpx.Request:
        url = self._url.copy_merge_params(dict(params))
        return httpx.Request("GET", url, headers=self._headers, extensions=dict(self._extensions))

    def get(self, **params: int | str) -> httpx.Request:
        """Give the GET request with *params* as its query, in the order given."""
        return self._requests(tuple(params.items()))

    def post(self, body: bytes, *, is_paid: bool = False) -> httpx.Request:
        """Make a POST request that carries *body*; *is_paid*: never to be sent twice unnoticed."""
        extensions = {_IS_PAID: is_paid}
        return httpx.Request(
            "POST", self._url, headers=self._headers, content=body, extensions=extensions
        )
