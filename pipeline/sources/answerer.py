"""Who answered: the service, a wall before it, or somebody on the way. Pure.

That decides whose fault a refusal is, and whether the service was down at all. A wall (of
Cloudflare, Akamai, Imperva and their like) belongs to the service and stands in front of it; a
portal or a proxy on the way belongs to whoever gave us the network. That a gateway has passed an
answer on (``Server: cloudflare``, ``CF-Ray``, ``Via``, ``X-Cache``) says nothing: most answers of
most services carry such marks. Behind TLS nobody on the way can answer unnoticed: there only a
status that no service gives tells of one.
"""

import re
from http import HTTPStatus
from urllib.parse import urlsplit

from pipeline.errors import ErrorName
from pipeline.sources.base import Answer

Stranger = tuple[ErrorName, str]

_LOOKED_AT = 4096  # bytes of a body

# What walls send with what they answer themselves, and with nothing else.
_WALL_FIELDS = {
    "cf-mitigated": "Cloudflare",
    "x-vercel-mitigated": "Vercel",
    "x-amzn-waf-action": "AWS WAF",
    "x-sucuri-block": "Sucuri",
}
_WALL_SERVERS = re.compile(r"(AkamaiGHost|ddos-guard)", re.IGNORECASE)
_WALL_PAGES = re.compile(
    rb"just a moment\.\.\.|attention required! \| cloudflare|sorry, you have been blocked|cf-chl-"
    rb"|_incapsula_resource|incapsula incident id|errors\.edgesuite\.net"
    rb"|sucuri website firewall|the requested url was rejected|captcha",
    re.IGNORECASE,
)
_PROXY_SERVERS = re.compile(
    r"(squid|zscaler|blue ?coat|fortigate|websense|mikrotik)", re.IGNORECASE
)
_PORTAL_PAGES = re.compile(rb"wispaccessgatewayparam|captive.?portal", re.IGNORECASE)
_PORTAL_URLS = re.compile(r"portal|hotspot|login|wifi|guest|captive", re.IGNORECASE)
_REFRESH = re.compile(
    rb"http-equiv=[\"']?refresh[\"']?[^>]{0,80}url=[\"' ]{0,2}(https?://[^\"'>\s]{1,200})",
    re.IGNORECASE,
)

_HTML = re.compile(r"text/html|application/xhtml\+xml")
_HTML_BODY = re.compile(rb"\s*<(?:!doctype html|html)\b", re.IGNORECASE)

_ON_THE_WAY: dict[int, str] = {
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "a proxy on the way wants a login",
    HTTPStatus.MISDIRECTED_REQUEST: "another server answered, which does not serve this host",
    HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED: "the network here wants a login first",
}
_REFUSALS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_BRIEF_REDIRECTS = (HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT)


def is_html(answer: Answer) -> bool:
    """Tell whether *answer* is a page for people, by its type or, where it has none, its body."""
    declared = answer.headers.get("content-type")
    if declared is None:
        return _HTML_BODY.match(answer.body[:_LOOKED_AT]) is not None
    return _HTML.fullmatch(declared.partition(";")[0].strip().lower()) is not None


def find_stranger(answer: Answer) -> Stranger | None:
    """Tell who but the service gave *answer*, which is none that was agreed upon; None: nobody."""
    return _find_on_the_way(answer) or _find_wall(answer)


def _find_on_the_way(answer: Answer) -> Stranger | None:
    what = _ON_THE_WAY.get(answer.status)
    if what is None and answer.asked is not None and answer.asked.scheme == "http":
        what = _portal(answer, answer.asked.host)
    return None if what is None else (ErrorName.INTERCEPTED, what)


def _portal(answer: Answer, host: str) -> str | None:
    """Say what shows that an answer to plain HTTP came from the way."""
    if answer.status in _BRIEF_REDIRECTS:
        location = answer.headers.get("location", "")
        is_portal = is_html(answer) or _PORTAL_URLS.search(location) or host in location
        is_from_the_way = is_portal and _is_elsewhere(location, host)
        return "a portal on the way leads to another host" if is_from_the_way else None
    proxy = _PROXY_SERVERS.search(answer.headers.get("server", ""))
    if "x-squid-error" in answer.headers or (proxy and answer.status >= HTTPStatus.BAD_REQUEST):
        return "a proxy on the way answered"
    page = answer.body[:_LOOKED_AT]
    if not is_html(answer):
        return None
    leads = _REFRESH.search(page)
    if _PORTAL_PAGES.search(page) or (leads and _is_elsewhere(leads[1].decode("latin-1"), host)):
        return "a portal on the way answered with a page of its own"
    return None


def _is_elsewhere(url: str, host: str) -> bool:
    """Tell whether *url* leads to a host that shares no domain with *host*."""
    try:
        other = (urlsplit(url).hostname or host).rstrip(".")
    except ValueError:
        return False
    host = host.lower().rstrip(".")
    if host.replace(".", "").isdecimal() or ":" in host:
        return other != host
    return other.split(".")[-2:] != host.split(".")[-2:]


def _find_wall(answer: Answer) -> Stranger | None:
    status, wall = answer.status, None
    if marked := next(
        (name for field, name in _WALL_FIELDS.items() if field in answer.headers), None
    ):
        wall = marked
    elif status in _REFUSALS and (server := _WALL_SERVERS.search(answer.headers.get("server", ""))):
        wall = server[1]
    elif status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
        wall = "for legal reasons"
    elif is_html(answer) and (status == HTTPStatus.FORBIDDEN or _is_wall_page(answer)):
        wall = "a page for people, where data was asked for"
    return None if wall is None else (ErrorName.BLOCKED, f"a wall before the service: {wall}")


def _is_wall_page(answer: Answer) -> bool:
    # Others (404, 500) are the service's own pages, and may hold a form with a captcha.
    is_possible = answer.status in range(200, 300) or answer.status in _REFUSALS
    return is_possible and _WALL_PAGES.search(answer.body[:_LOOKED_AT]) is not None
