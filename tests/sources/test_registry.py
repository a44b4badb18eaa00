"""Tests for pipeline/sources/registry.py."""

import pytest

from pipeline.errors import ConfigError
from pipeline.sources.registry import KINDS, Kind, find_kind, make_source
from tests.sources.samples import SECRET, fetch_of

KNOWN = [name for name in KINDS if name != "json_api"]  # of that the file says all


@pytest.mark.parametrize("name", KNOWN)
def test_every_kind_serves_its_own_defaults(name: str) -> None:
    """A source that is configured by its kind alone must be able to ask."""
    kind = KINDS[name]

    source = make_source(name, api_key=SECRET, email="me@h.test")

    assert source.max_numbers(kind.default_min, kind.default_max) >= 1
    url = source.build_request(fetch_of(1, kind.default_min, kind.default_max)).url
    assert str(url).startswith(kind.default_url)
    assert url.scheme == "https"


@pytest.mark.parametrize("name", KNOWN)
def test_a_kind_can_be_asked_elsewhere(name: str) -> None:
    """The sandbox is."""
    source = make_source(name, url=f"http://127.0.0.1:1/{name}", api_key=SECRET, email="me@h.test")

    url = source.build_request(fetch_of(1, 0, 1)).url

    assert url.host == "127.0.0.1"
    assert url.path.startswith(f"/{name}/")


@pytest.mark.parametrize(
    ("name", "in_flight", "attempt_seconds", "merge"),
    [
        ("anu_legacy", 1, 30, True),
        ("anu_aqn", 1, 30, True),
        ("random_org", 1, 150, True),
        ("random_org_jsonrpc", 1, 150, True),
        ("randomnumberapi", 4, 30, True),
        ("lfd", 1, 30, True),
        ("csrng", 1, 30, True),
    ],
)
def test_manners_are_the_upstreams(
    name: str, in_flight: int, attempt_seconds: float, *, merge: bool
) -> None:
    """Two requests at once, or an aborted one, get an address banned at random.org."""
    kind = find_kind(name)

    assert (kind.in_flight, kind.attempt_seconds, kind.merge) == (in_flight, attempt_seconds, merge)


def test_an_api_without_a_preset_needs_its_table() -> None:
    """Nothing is known of it."""
    with pytest.raises(ConfigError, match="json_api needs an api table"):
        make_source("json_api", url="https://h.test/")


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    """A typo is mended in one look."""
    with pytest.raises(ConfigError, match=r"no kind 'anu'; there are anu_legacy, .*json_api"):
        make_source("anu")


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.needs_key])
@pytest.mark.parametrize("key", [None, "", "two words", "line\n", "\r\nX: y", "schl\u00fcssel"])
def test_a_key_must_be_there_and_safe_in_a_header(name: str, key: str | None) -> None:
    """Nothing is sent without it, nothing is injected by it, and it is never shown."""
    with pytest.raises(ConfigError, match="needs an API key") as caught:
        make_source(name, api_key=key)

    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("email", [None, "", "me", "me@", "a b@h.test", "a@h)\r\nX: y", "\u00e4@h"])
def test_an_address_must_be_there_and_safe_in_a_header(email: str | None) -> None:
    """random.org bans clients that it cannot write to."""
    with pytest.raises(ConfigError, match="needs an e-mail address"):
        make_source("random_org", email=email)


def test_the_format_is_one_of_the_kinds() -> None:
    """Only random.org has a choice."""
    source = make_source("random_org", email="me@h.test", format="html")

    assert source.build_request(fetch_of(1, 0, 1)).url.params["format"] == "html"
    with pytest.raises(ConfigError, match="random_org has no format 'xml': plain or html"):
        make_source("random_org", email="me@h.test", format="xml")
    with pytest.raises(ConfigError, match="anu_legacy has no format 'html': none to choose"):
        make_source("anu_legacy", format="html")


def test_a_kind_shows_no_secret() -> None:
    """Sources end up in logs by accident."""
    assert SECRET not in repr(make_source("anu_aqn", api_key=SECRET))
    assert isinstance(KINDS["anu_aqn"], Kind)
