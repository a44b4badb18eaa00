"""Tests for pipeline/sources/answerer.py: the service, a wall before it, or somebody on the way."""

from dataclasses import replace

import httpx2 as httpx
import pytest

from pipeline.errors import ErrorName, SourceError
from pipeline.sources.answers import check_status, read_json
from pipeline.sources.anu_aqn import AnuAqn
from pipeline.sources.anu_legacy import AnuLegacy
from pipeline.sources.base import Answer
from pipeline.sources.random_org import RandomOrg
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
from pipeline.sources.randomnumberapi import RandomNumberApi
from tests.sources.samples import SECRET, answer_of, fetch_of, refusal_of

HTML = "text/html; charset=utf-8"
PAGE = "<!DOCTYPE html><html><head><title>Access denied</title></head></html>"
FETCH = fetch_of(3, 0, 99)
WITHOUT_KEY = [
    AnuLegacy(base_url="https://qrng.anu.edu.au"),
    RandomOrg(base_url="https://www.random.org", email="someone@example.org"),
    RandomNumberApi(base_url="https://www.randomnumberapi.com"),
]
WITH_KEY = [
    AnuAqn(base_url="https://api.quantumnumbers.anu.edu.au", api_key=SECRET),
    RandomOrgJsonrpc(base_url="https://api.random.org", api_key=SECRET),
]


def page(
    text: str = PAGE, status: int = 200, *headers: tuple[str, str], asked: str | None = None
) -> Answer:
    """Make a page for people, as the answer to a request to *asked*."""
    answer = answer_of(text, status=status, content_type=HTML, headers=headers)
    return replace(answer, asked=None if asked is None else httpx.URL(asked))


def named(answer: Answer) -> ErrorName:
    """Judge *answer* as an adapter with a key does that agreed upon JSON."""
    with pytest.raises(SourceError) as caught:
        _judge(answer)
    return caught.value.error


def _judge(answer: Answer) -> None:
    check_status(answer)
    read_json(answer)


@pytest.mark.parametrize("source", WITHOUT_KEY)
@pytest.mark.parametrize("content_type", [HTML, "text/plain", "application/json", None])
def test_without_a_key_a_403_is_not_about_one(source: RandomNumberApi, content_type: str) -> None:
    """Nobody is to look for a wrong key where there is none."""
    answer = answer_of("{}", status=403, content_type=content_type)

    refused = refusal_of(source, FETCH, answer)

    assert (refused.error, refused.may_retry) == (ErrorName.BLOCKED, False)
    assert "status 403" in refused.detail


@pytest.mark.parametrize("source", WITH_KEY)
def test_with_a_key_the_look_of_a_403_decides(source: AnuAqn) -> None:
    """Who has agreed upon JSON refuses in JSON; a page is a wall's, whatever the key."""
    passed_on = (("Server", "cloudflare"), ("CF-Ray", "8c1f-TXL"), ("Via", "1.1 varnish"))
    by_service = answer_of({"message": "Forbidden"}, status=403, headers=passed_on)

    assert refusal_of(source, FETCH, by_service).error is ErrorName.UNAUTHORIZED
    assert refusal_of(source, FETCH, page(PAGE, 403)).error is ErrorName.BLOCKED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cf-mitigated", "challenge"),
        ("x-vercel-mitigated", "deny"),
        ("x-amzn-waf-action", "captcha"),
        ("X-Sucuri-Block", "BL01"),
        ("Server", "AkamaiGHost"),
        ("server", "ddos-guard"),
    ],
)
@pytest.mark.parametrize("status", [401, 403, 405, 503])
def test_a_wall_is_known_by_its_marks(field: str, value: str, status: int) -> None:
    """They come with what it answers itself, whatever the body."""
    assert named(answer_of({}, status=status, headers=((field, value),))) is ErrorName.BLOCKED


@pytest.mark.parametrize("status", [200, 202, 403, 503])
@pytest.mark.parametrize(
    "text",
    [
        "<title>Just a moment...</title>",
        "<title>Attention Required! | Cloudflare</title>",
        '<iframe src="/_Incapsula_Resource?CWUDNSAI=1">',
        "Reference #18.2d https://errors.edgesuite.net/18.2d",
        "The requested URL was rejected. Please consult with your administrator.",
        "<form>Solve this CAPTCHA</form>",
    ],
)
def test_a_wall_is_known_by_its_page(text: str, status: int) -> None:
    """Some of them come with 200."""
    assert named(page(f"<html>{text}</html>", status)) is ErrorName.BLOCKED


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (page("<html>captcha</html>", 404), ErrorName.HTTP_4XX),
        (page("<html>captcha</html>", 500), ErrorName.HTTP_5XX),
        (page(PAGE, 401), ErrorName.UNAUTHORIZED),
        (page(PAGE, 502, ("Server", "cloudflare")), ErrorName.HTTP_5XX),
        (page(PAGE, 522, ("Server", "cloudflare")), ErrorName.HTTP_5XX),
        (page(PAGE, 503, ("Server", "nginx")), ErrorName.HTTP_5XX),
        (page(PAGE, 503, ("Server", "AkamaiNetStorage")), ErrorName.HTTP_5XX),
        (page(PAGE, 504, ("Server", "AkamaiGHost")), ErrorName.HTTP_5XX),
        (page(PAGE, 429, ("cf-mitigated", "challenge")), ErrorName.RATE_LIMITED),
        (page(PAGE, 200, ("Server", "cloudflare"), ("CF-Ray", "8c1f")), ErrorName.CONTENT_TYPE),
        (page(PAGE, 200, asked="http://api.example/"), ErrorName.CONTENT_TYPE),
    ],
)
def test_what_a_gateway_passes_on_is_the_services(answer: Answer, error: ErrorName) -> None:
    """Most answers of most services have come through one."""
    assert named(answer) is error


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/login",
        "https://portal.hotel.example/?to=here",
        "http://hotspot.lan/",
        "http://gate.example/?orig=http://api.example.org/x",
    ],
)
def test_a_portal_redirects_elsewhere(location: str) -> None:
    """The service knows nothing of it, so it is not to blame; behind TLS it cannot be a portal."""
    for scheme, error in (
        ("http", ErrorName.INTERCEPTED),
        ("https", ErrorName.REDIRECT_REFUSED),
    ):
        headers = httpx.Headers({"Location": location})
        asked = httpx.URL(f"{scheme}://api.example.org/x")
        answer = Answer(status=302, headers=headers, body=b"", asked=asked)
        assert named(answer) is error


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (301, "http://login.elsewhere.example/"),
        (302, "http://www.example.org/login"),
        (302, "/login"),
        (302, "http://elsewhere.example/api"),
        (302, "http://[login"),
        (302, ""),
    ],
)
def test_a_service_that_moves_is_no_portal(status: int, location: str) -> None:
    """For good, within its domain, or plainly to another one."""
    answer = Answer(
        status=status,
        headers=httpx.Headers({"Location": location}),
        body=b"",
        asked=httpx.URL("http://api.example.org/x"),
    )

    assert named(answer) is ErrorName.REDIRECT_REFUSED


@pytest.mark.parametrize(
    "answer",
    [
        page("<html><!-- <WISPAccessGatewayParam> --></html>", asked="http://api.example.org/"),
        page(
            '<html><meta http-equiv="refresh" content="0; url=http://10.1.1.1/">',
            asked="http://api.example.org/",
        ),
        page(PAGE, 403, ("Server", "Zscaler/6.2"), asked="http://api.example.org/"),
        page(PAGE, 503, ("X-Squid-Error", "ERR_DNS_FAIL 0"), asked="http://api.example.org/"),
        page(PAGE, 407, ("Proxy-Authenticate", "Basic")),
        page(PAGE, 421),
        page(PAGE, 511, asked="https://api.example.org/"),
    ],
)
def test_who_answers_on_the_way_is_named(answer: Answer) -> None:
    """A portal's page, a proxy's error, a status that no service gives."""
    assert named(answer) is ErrorName.INTERCEPTED
