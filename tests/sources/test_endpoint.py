"""Tests for pipeline/sources/endpoint.py."""

import pytest

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.sources.endpoint import Endpoint


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("https://h.test", "https://h.test/a/b/?n=1"),
        ("https://h.test/", "https://h.test/a/b/?n=1"),
        ("http://127.0.0.1:8765/kind", "http://127.0.0.1:8765/kind/a/b/?n=1"),
        ("http://127.0.0.1:8765/kind/", "http://127.0.0.1:8765/kind/a/b/?n=1"),
        ("https://h.test/a/b/", "https://h.test/a/b/?n=1"),
        ("https://h.test/a/b", "https://h.test/a/b?n=1"),
        ("https://h.test/x%2Fy?k=v", "https://h.test/x%2Fy/a/b/?k=v&n=1"),
    ],
)
def test_the_path_is_appended_unless_it_is_there(base_url: str, asked: str) -> None:
    """People paste either form, and both mean the same."""
    assert str(Endpoint(base_url, "/a/b/").get(n=1).url) == asked


@pytest.mark.parametrize("base_url", ["http://h.test/kind", "http://h.test/kind/"])
def test_a_root_path_keeps_its_slash(base_url: str) -> None:
    """The AQN service is asked at `/`, also below a prefix."""
    assert Endpoint(base_url, "/").get().url.path == "/kind/"


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "h.test",
        "ftp://h.test",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://a\r\nb",
        "::",
    ],
)
def test_an_unusable_address_is_a_matter_of_configuration(base_url: str) -> None:
    """Some of these raise no HTTP error in httpx, but an ExceptionGroup much later."""
    with pytest.raises(ConfigError, match="valid http or https URL"):
        Endpoint(base_url, "/")


def test_an_unusable_address_is_not_quoted() -> None:
    """It may hold a password, which a `/` has made part of the port."""
    with pytest.raises(ConfigError) as caught:
        Endpoint("http://user:can/ary@h.test", "/")

    assert "can" not in str(caught.value)


def test_requests_say_who_asks_and_refuse_codings() -> None:
    """A gzip body may be cut or grow a thousandfold; numbers gain nothing by it."""
    headers = Endpoint("https://h.test", "/", headers={"x-api-key": "k"}).get(n=1).headers

    assert headers["User-Agent"] == f"pipeline/{__version__}"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["x-api-key"] == "k"
    assert headers["Host"] == "h.test"


def test_the_same_question_is_made_once() -> None:
    """A hundred thousand batches ask the same thing, and making a request takes 80 µs."""
    endpoint = Endpoint("https://h.test", "/")

    assert endpoint.get(n=1) is endpoint.get(n=1)
    assert endpoint.get(n=1) is not endpoint.get(n=2)


def test_a_body_is_posted() -> None:
    """Without a length some servers wait for more."""
    request = Endpoint("https://h.test", "/rpc").post(b"{}")

    assert (request.method, request.read()) == ("POST", b"{}")
    assert request.headers["Content-Length"] == "2"
