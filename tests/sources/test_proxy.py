"""Tests for pipeline/sources/proxy.py: the way through a proxy, and what goes wrong on it."""

import base64
import socket
import ssl
from pathlib import Path
from typing import Never

import anyio
import pytest
import trustme

from pipeline.sources.http import Client, make_ssl_context, open_client
from pipeline.sources.proxy import parse_proxy
from pipeline.sources.transport import OneConnection
from tests.sources.edge import (
    GONE,
    PATIENT,
    QUICK_TO_CONNECT,
    Got,
    RawServer,
    Script,
    Visit,
    ask,
    happens,
    raw_server,
    replying,
    response,
)

pytestmark = pytest.mark.anyio

GOOD = b"[1, 2, 3]"
USER, PASSWORD = "me", "c4nary/0001+x="
CREDENTIALS = "me:c4nary%2F0001%2Bx="
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode())
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def by_way_of(server: RawServer, credentials: str = "") -> str:
    """Give the address of *server* as a proxy."""
    return f"http://{credentials and credentials + '@'}127.0.0.1:{server.port}"


async def ask_through(
    proxy: str, url: str, *urls: str, tls: ssl.SSLContext | None = None, is_public: bool = False
) -> list[Got]:
    """Send a request for each URL through *proxy*."""
    way = parse_proxy(proxy)
    async with open_client(PATIENT, tls, is_public=is_public, proxy=way) as client:
        return [await ask(client, each) for each in (url, *urls)]


def tunnelling(to: RawServer) -> Script:
    """Connect whoever asks to *to*, whatever host is asked for."""

    async def play(visit: Visit) -> None:
        await visit.read_head()
        async with await anyio.connect_tcp("127.0.0.1", to.port) as beyond:
            await visit.send(ESTABLISHED)

            async def carry_back() -> None:
                try:
                    while True:
                        await visit.send(await beyond.receive())
                except GONE:
                    tasks.cancel_scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(carry_back)
                try:
                    while True:
                        await beyond.send(await visit.stream.receive())
                except GONE:
                    tasks.cancel_scope.cancel()

    return play


# Plain HTTP.


async def test_a_proxy_is_given_the_whole_address() -> None:
    """It looks up the name itself: one that leads nowhere from here is asked all the same."""
    async with raw_server(replying(response(GOOD), response(GOOD))) as proxy:
        url = "http://upstream.invalid/numbers?n=3"
        got = await ask_through(by_way_of(proxy), url, url, is_public=True)

    assert [each.body for each in got] == [GOOD, GOOD]
    assert [each.exchange.is_reused for each in got] == [False, True]
    assert proxy.heads[0].startswith(b"GET http://upstream.invalid/numbers?n=3 HTTP/1.1\r\n")
    assert b"Host: upstream.invalid\r\n" in proxy.heads[0]
    assert b"Proxy-Authorization" not in proxy.heads[0]
    assert got[0].timings.dns_us is None


async def test_credentials_go_to_the_proxy() -> None:
    """As the URL spells them, decoded."""
    async with raw_server(replying(response(GOOD))) as proxy:
        (got,) = await ask_through(by_way_of(proxy, CREDENTIALS), "http://upstream.invalid/")

    assert got.body == GOOD
    assert b"Proxy-Authorization: Basic " + BASIC + b"\r\n" in proxy.heads[0]


# A tunnel.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make one authority for all: keys take time."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make the contexts of an upstream and of who trusts it."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("upstream.invalid").configure_cert(server)
    return server, make_ssl_context(str(tmp_path / "ca.pem"))


async def test_https_goes_through_a_tunnel(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The certificate is the upstream's, and the credentials are for the proxy alone."""
    async with (
        raw_server(replying(response(GOOD), response(GOOD)), tls=tls[0]) as upstream,
        raw_server(tunnelling(upstream)) as proxy,
    ):
        url = "https://upstream.invalid/numbers"
        got = await ask_through(by_way_of(proxy, CREDENTIALS), url, url, tls=tls[1])

    assert [each.body for each in got] == [GOOD, GOOD]
    assert got[1].exchange.is_reused
    assert proxy.heads == [
        b"CONNECT upstream.invalid:443 HTTP/1.1\r\nHost: upstream.invalid:443\r\n"
        b"Proxy-Authorization: Basic " + BASIC + b"\r\n\r\n"
    ]
    assert upstream.heads[0].startswith(b"GET /numbers HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in b"".join(upstream.heads)
    reached = [name for name in got[0].timings.__slots__ if getattr(got[0].timings, name)]
    assert {"connect_us", "tls_us"} <= set(reached)


# What goes wrong.


async def test_a_proxy_that_is_not_there_is_named() -> None:
    """Or people would look for the fault at the upstream."""
    async with raw_server(replying()) as gone:
        pass
    (got,) = await ask_through(by_way_of(gone), "http://upstream.invalid/")

    assert got.error == ("connect_refused", "connect")
    assert got.detail.startswith(f"proxy 127.0.0.1 port {gone.port}: ")


async def test_a_proxy_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the upstream is not the one that is wrong."""

    def fail(*_: object, **__: object) -> Never:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    (got,) = await ask_through("http://proxy.invalid:3128", "http://127.0.0.1/")

    assert got.error == ("dns", "dns")
    assert got.detail.startswith("proxy proxy.invalid: ")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["", CREDENTIALS])
async def test_a_proxy_that_wants_credentials_is_ours_to_please(
    scheme: str, credentials: str
) -> None:
    """The upstream has not been asked."""
    reply = response(b"who are you", status=b"407 Proxy Authentication Required")

    async with raw_server(replying(reply)) as proxy:
        way = by_way_of(proxy, credentials)
        (got,) = await ask_through(way, f"{scheme}://upstream.invalid/")

    assert got.error == ("unauthorized", "connect" if scheme == "https" else "check")
    assert got.detail == f"proxy 127.0.0.1 port {proxy.port}: status 407: " + (
        "refused its credentials" if credentials else "wants credentials: proxy_env"
    )


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", "no way to upstream.invalid port 443: status 403"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "no way to upstream.invalid port 443: status 502"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "its answer is not HTTP/1"),
        (b"x" * 70_000, "its answer is not HTTP/1"),
        (b"HTTP/1.1 200 OK", "hung up"),
        (b"", "hung up"),
        (ESTABLISHED + b"\x16", "sent something of its own"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_no_way(reply: bytes, detail: str) -> None:
    """It stands on the path, and the upstream knows nothing of it."""
    async with raw_server(replying(reply, hold=False)) as proxy:
        (got,) = await ask_through(by_way_of(proxy), "https://upstream.invalid/")

    assert got.error == ("unreachable", "connect")
    assert got.detail == f"proxy 127.0.0.1 port {proxy.port}: {detail}"
    assert got.failure is not None
    assert got.failure.may_retry is (b"403" not in reply)


async def test_a_silent_proxy_is_bounded_by_the_connect_limit() -> None:
    """Like a connection that never completes, and hung up on."""

    async def play(visit: Visit) -> None:
        await visit.until_gone()

    async with raw_server(play) as proxy:
        connection = OneConnection(QUICK_TO_CONNECT.timeout(), proxy=parse_proxy(by_way_of(proxy)))
        async with connection:
            got = await ask(Client(connection, QUICK_TO_CONNECT), "https://upstream.invalid/")
        is_closed = await happens(lambda: proxy.gone == 1)

    assert is_closed
    assert got.error == ("connect_timeout", "connect")
    assert got.detail.startswith("proxy 127.0.0.1 port ")


# Secrets.


def test_credentials_are_in_no_repr() -> None:
    """They are secrets like a key."""
    proxy = parse_proxy(f"http://{CREDENTIALS}@proxy.invalid:3128")

    assert (proxy.host, proxy.port) == ("proxy.invalid", 3128)
    assert proxy.secrets == (PASSWORD, f"{USER}:{PASSWORD}")
    assert not [text for text in (repr(proxy), str(proxy)) if "c4nary" in text or USER in text]
