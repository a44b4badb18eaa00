"""An HTTP proxy on the way to an upstream: who it is, and how it is asked for a tunnel."""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

import anyio
from anyio.abc import ByteStream

from pipeline.errors import ErrorName, SourceError

HEAD_END = re.compile(rb"\n\r?\n")
STATUS = re.compile(rb"HTTP/1[.][0-9] ([0-9]{3})[ \r\n]")
MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that is spoken to in plain HTTP.

    Attributes:
        secrets: what must never be written down.
        authorization: the value of ``Proxy-Authorization``; None: it wants none.
    """

    host: str
    port: int
    secrets: tuple[str, ...] = field(default=(), repr=False)
    authorization: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Give what a request needs to be let through."""
        return [(b"Proxy-Authorization", self.authorization)] if self.authorization else []

    def refusal(self) -> SourceError:
        """Say that it wants to know who we are."""
        wrong = "refused its credentials" if self.authorization else "wants credentials: proxy_env"
        return SourceError(ErrorName.UNAUTHORIZED, f"{self}: status 407: {wrong}")

    def __str__(self) -> str:
        return f"proxy {self.host} port {self.port}"


def parse_proxy(url: str) -> Proxy:
    """Read *url*, which was checked: ``http://user:password@host:port``."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    if parts.username is None:
        return Proxy(host=host, port=port)
    password = unquote(parts.password or "")
    pair = f"{unquote(parts.username)}:{password}"
    return Proxy(
        host=host,
        port=port,
        secrets=tuple(filter(None, (password, pair))),
        authorization=b"Basic " + b64encode(pair.encode()),
    )


async def open_tunnel(stream: ByteStream, proxy: Proxy, host: str, port: int) -> None:
    """Ask *proxy*, to which *stream* leads, to connect it to *host*.

    Raises:
        SourceError: it did not; its words are not quoted.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [(b"Host", target.encode()), *proxy.headers]
    lines = [b"CONNECT %b HTTP/1.1" % target.encode(), *(b"%b: %b" % each for each in headers)]
    head = b""
    try:
        await stream.send(b"\r\n".join([*lines, b"", b""]))
        while not (end := HEAD_END.search(head)) and len(head) <= MAX_HEAD_BYTES:
            head += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError) as exc:
        raise SourceError(ErrorName.UNREACHABLE, f"{proxy}: hung up") from exc
    status = STATUS.match(head)
    if status is None or end is None:
        raise SourceError(ErrorName.UNREACHABLE, f"{proxy}: its answer is not HTTP/1")
    if int(status[1]) == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise proxy.refusal()
    if int(status[1]) // 100 != HTTPStatus.OK // 100:
        detail = f"{proxy}: no way to {host} port {port}: status {int(status[1])}"
        is_passing = int(status[1]) >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise SourceError(ErrorName.UNREACHABLE, detail, may_retry=is_passing)
    if end.end() < len(head):
        raise SourceError(ErrorName.UNREACHABLE, f"{proxy}: sent something of its own")
