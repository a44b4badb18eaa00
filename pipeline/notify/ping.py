"""Pings to a monitor that speaks the protocol of healthchecks.io: it raises the alarm in silence.

https://healthchecks.io/docs/http_api/ says what is sent. The address is a secret: who has it can
keep the monitor quiet. So no complaint holds more of it than the host.
"""

import re
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID

import httpx2 as httpx

import pipeline
from pipeline.notify.harmless import SECONDS, within
from pipeline.sanitize import printable_lines
from pipeline.sources.http import make_ssl_context

MOST_TEXT = 10_000  # characters; a server keeps the first 100 kB
WHAT = "the ping"

_ERRNO = r"^\[Errno -?\d+\] "


def ping_start(url: str, *, uid: str, seconds: float = SECONDS) -> str | None:
    """Say that the run *uid* (32 hex digits) has begun, so that the monitor can time it."""
    return within(seconds, WHAT, partial(_send, url, "/start", uid, None, seconds))


def ping_end(
    url: str, *, uid: str, exit_status: int, text: str, seconds: float = SECONDS
) -> str | None:
    """Say that the run *uid* has ended: well if *exit_status* is 0; *text* is kept for people."""
    suffix = f"/{exit_status}" if exit_status else ""
    return within(seconds, WHAT, partial(_send, url, suffix, uid, text, seconds))


def _send(url: str, suffix: str, uid: str, text: str | None, seconds: float) -> str | None:
    host = urlsplit(url).hostname
    request = httpx.Request(
        "GET" if text is None else "POST",
        f"{url.rstrip('/')}{suffix}",
        params={"rid": str(UUID(uid))},
        headers={"User-Agent": f"pipeline/{pipeline.__version__}"},
        content=None if text is None else printable_lines(text)[:MOST_TEXT].encode(),
        extensions={"timeout": httpx.Timeout(seconds).as_dict()},
    )
    context = make_ssl_context(None) if request.url.scheme == "https" else False
    # The bare transport: a client would log the whole address, and heed proxies and redirects.
    with httpx.HTTPTransport(verify=context, trust_env=False) as transport:
        try:
            response = transport.handle_request(request)
            response.close()
        except httpx.HTTPError as exc:
            reason = re.sub(_ERRNO, "", str(exc)) or type(exc).__name__
            return f"{WHAT} to {host} failed: {reason}"
    if not response.is_success:
        return f"{WHAT} to {host} was answered with {response.status_code}"
    return None
