"""Where an adapter asks, and the headers that all of our requests carry."""

from collections.abc import Mapping
from functools import lru_cache

import httpx2 as httpx

from pipeline import __version__
from pipeline.errors import ConfigError

USER_AGENT = f"pipeline/{__version__}"
_HIGHEST_PORT = 65535


def _join(base_url: str, path: str) -> httpx.URL:
    """Append *path* to *base_url*, unless that ends in it already."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > _HIGHEST_PORT:
        # Not quoted: a user name, a password or a key may stand in it.
        raise ConfigError("the base URL is no valid http or https URL")
    prefix, mark, query = url.raw_path.partition(b"?")
    prefix, tail = prefix.rstrip(b"/"), path.rstrip("/").encode()
    if tail and prefix.endswith(tail):
        return url
    return url.copy_with(raw_path=prefix + path.encode() + mark + query)


class Endpoint:
    """One address of one upstream; asking the same thing again costs microseconds.

    *base_url* may stop at the host or at a prefix, then *path* is appended, or end in *path*.

    Raises:
        ConfigError: *base_url* is not a valid http or https URL.
    """

    def __init__(
        self, base_url: str, path: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        self._url = _join(base_url, path)
        # `identity`: a coding would only buy truncation and decompression bombs.
        common = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        self._headers = httpx.Headers({**common, **(headers or {})})
        # Making a request takes 80 µs, and a run asks the same thing thousands of times. Without
        # a body nothing of it is used up, so it can be sent again, even while it is being sent.
        self._requests = lru_cache(maxsize=256)(self._make)

    def _make(self, params: tuple[tuple[str, int | str], ...]) -> httpx.Request:
        url = self._url.copy_merge_params(dict(params))
        return httpx.Request("GET", url, headers=self._headers)

    def get(self, **params: int | str) -> httpx.Request:
        """Give the GET request with *params* as its query, in the order given."""
        return self._requests(tuple(params.items()))

    def post(self, body: bytes) -> httpx.Request:
        """Make a POST request that carries *body*."""
        return httpx.Request("POST", self._url, headers=self._headers, content=body)
