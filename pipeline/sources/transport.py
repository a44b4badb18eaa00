"""One timed HTTP/1.1 connection: the network below httpx, which knows when each phase began."""

import math
import re
import select
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic
from typing import NamedTuple, TypeAlias

import anyio
import httpx2 as httpx
from anyio.abc import AsyncResource, ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from pipeline.errors import ErrorName, Phase, SourceError
from pipeline.sources.connecting import connect, issuer_of, start_tls
from pipeline.sources.direct import DirectStream, TimeIsUp, hasten
from pipeline.sources.endpoint import is_paid
from pipeline.sources.parser import MAX_HEAD_BYTES, AnswerParser
from pipeline.sources.phases import PhaseClock
from pipeline.sources.proxy import Proxy

__all__ = ["MAX_HEAD_BYTES", "OneConnection", "PhaseClock", "TimeIsUp"]

Origin: TypeAlias = tuple[str, str, int]  # scheme, host, port
Head: TypeAlias = tuple[int, list[tuple[bytes, bytes]]]  # status, headers

READ_BYTES = 1 << 20  # all that has arrived, so that no surplus hides in anyio's own buffer
PORTS = {"http": 80, "https": 443}
UNLIMITED = nullcontext()
# A key with a line end in it would make a request of its own.
REQUEST_HEAD = re.compile(
    rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(?:[!#-'*+.^-z|~A-Z0-9-]+: [\t -~\x80-\xff]*\r\n)*\r\n"
)


def _within(seconds: float | None) -> AbstractContextManager[object]:
    """Limit a block to *seconds*; a limit that the whole attempt has anyway is not set twice."""
    return UNLIMITED if seconds is None else anyio.fail_after(seconds)


def _origin(request: httpx.Request) -> Origin:
    url = request.url
    return url.scheme, url.raw_host.decode(), url.port or PORTS[url.scheme]


class _Written(NamedTuple):
    """A request, where it goes, and its bytes."""

    request: httpx.Request
    origin: Origin
    data: bytes


class OneConnection(AsyncResource):
    """Carries requests one after the other, over one connection as long as that is safe.

    Attributes:
        clock: the attempt's stopwatch; set a new one before each request.
        until: when the attempt ends in TimeIsUp, by ``time.monotonic``; set it as well.
        is_reused: whether the last request went over a connection that was already open.
        asked_again: whether the last request was sent again, over a new connection.
        tls_issuer: who issued the certificate that the connection's server showed.
        proxy: who is asked in the server's place.
    """

    def __init__(
        self,
        timeout: httpx.Timeout,
        ssl_context: ssl.SSLContext | None = None,
        *,
        is_public: bool = False,
        proxy: Proxy | None = None,
    ) -> None:
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._is_public = is_public
        self.proxy = proxy
        self.tls_issuer: str | None = None
        self.clock = PhaseClock()
        self.until = math.inf
        self.is_reused = self.asked_again = False
        self._answer = AnswerParser()
        self._origin: Origin | None = None
        self._tcp: ByteStream | None = None
        self._stream: ByteStream | None = None  # the same, or TLS on top of it
        self._poll = select.poll()
        self._written: _Written | None = None

    async def ask(self, request: httpx.Request) -> Head:
        """Send *request*, over the open connection or a new one; give the answer's head.

        Where the open one ends without a byte, its server had closed it or was about to: it is
        asked again, once, over a new one. Our requests change nothing but an allowance, so that
        holds for a POST as well (RFC 9110, 9.2.2); but not where the answer can be had again.
        """
        self.asked_again = False
        try:
            return await self._exchange(request)
        except SourceError as exc:
            is_gone = exc.error in (ErrorName.INCOMPLETE, ErrorName.RESET)
            if not self.is_reused or self._answer.has_begun or not is_gone or is_paid(request):
                raise
        self.asked_again = True
        return await self._exchange(request)

    async def _exchange(self, request: httpx.Request) -> Head:
        try:
            written = self._written
            if written is None or written.request is not request:
                # Most ask the same thing again and again.
                written = self._written = _Written(request, _origin(request), self._spell(request))
            stream = await self._usable(written.origin)
            answer = self._answer
            answer.begin()
            await self._write(stream, written.data)
            while answer.status is None:
                await self._read(stream)
        except BaseException:
            await self.aclose()
            raise
        return answer.status, answer.headers

    def _spell(self, request: httpx.Request) -> bytes:
        """Write *request* as it goes out.

        Raises:
            ValueError: it would not be one request.
        """
        url, headers = request.url, request.headers.raw
        target = url.raw_path
        if self.proxy and url.scheme == "http":
            # RFC 9112, 3.2.2: a proxy needs the whole address.
            target, headers = b"http://" + url.netloc + target, headers + self.proxy.headers
        lines = [b"%b %b HTTP/1.1" % (request.method.encode(), target)]
        lines += [b"%b: %b" % header for header in headers]
        head = b"\r\n".join([*lines, b"", b""])
        if not REQUEST_HEAD.fullmatch(head) or head.count(b"\n") != len(lines) + 1:
            raise ValueError("the address or a header holds what HTTP does not allow")
        return head + request.content

    async def _usable(self, origin: Origin) -> ByteStream:
        """Give the open connection, or a new one to *origin*."""
        # An idle connection with something to read was closed by the server, or carries an answer
        # that nobody asked for; either way the next answer on it would not be ours.
        if self._stream is not None and origin == self._origin and self._is_quiet():
            self.is_reused = True
            return self._stream
        self.is_reused, self.tls_issuer = False, None
        await self.aclose()
        with self._expiring():
            self._stream = await self._open(*origin)
        self._origin, self._answer = origin, AnswerParser()
        return self._stream

    async def _open(self, scheme: str, host: str, port: int) -> ByteStream:
        seconds, is_tls = self._timeout.connect, scheme == "https"
        tcp = await connect(
            host,
            port,
            self.clock,
            seconds=seconds,
            proxy=self.proxy,
            is_tunnelled=is_tls,
            is_public=self._is_public,
        )
        self._tcp = hasten(tcp)
        self._poll = select.poll()
        self._poll.register(tcp.extra(SocketAttribute.raw_socket), select.POLLIN)
        if not is_tls:
            return self._tcp
        if self._ssl_context is None:
            self._ssl_context = httpx.create_ssl_context(trust_env=False)
        self.clock.enter(Phase.TLS)
        tls = await start_tls(self._tcp, host, self._ssl_context, seconds=seconds)
        self.tls_issuer = issuer_of(tls)
        return tls

    @contextmanager
    def _expiring(self, seconds: float | None = None) -> Iterator[None]:
        """End the block when the time of the attempt is up, or after *seconds*."""
        deadline = anyio.current_time() + self.until - monotonic()
        with anyio.CancelScope(deadline=deadline) as scope, _within(seconds):
            yield
        if scope.cancelled_caught:
            raise TimeIsUp

    def _in_time(self, seconds: float | None) -> AbstractContextManager[object]:
        """Do the same for a wait for the server; a direct stream heeds the first by itself."""
        if isinstance(self._tcp, DirectStream):
            self._tcp.until = self.until
            return _within(seconds)
        return self._expiring(seconds)

    def _is_quiet(self) -> bool:
        """Tell whether the server has said nothing since, not even goodbye."""
        if isinstance(self._tcp, DirectStream) and self._tcp.has_news:
            return False
        if self._poll.poll(0):
            return False
        if not isinstance(self._stream, TLSStream):
            return True
        try:  # TLS may have taken more from the socket than it has given us
            self._stream.extra(TLSAttribute.ssl_object).read(1)
        except ssl.SSLError as exc:
            return isinstance(exc, ssl.SSLWantReadError)
        return False

    async def _write(self, stream: ByteStream, data: bytes) -> None:
        self.clock.enter(Phase.SEND)
        try:
            with self._in_time(self._timeout.write):
                await stream.send(data)
        except TimeoutError as exc:
            seconds = self._timeout.write
            raise SourceError(ErrorName.WRITE_TIMEOUT, f"not sent within {seconds:g} s") from exc
        except anyio.BrokenResourceError:
            pass  # a server may answer, then hang up on the rest of a request
        self.clock.enter(Phase.FIRST_BYTE)

    async def _read(self, stream: ByteStream) -> None:
        """Read what has come, or wait until something does."""
        if self._answer.fault:
            raise self._answer.fault
        try:
            with self._in_time(self._timeout.read):
                data = await stream.receive(READ_BYTES)
        except TimeoutError as exc:
            seconds = self._timeout.read
            raise SourceError(ErrorName.READ_TIMEOUT, f"no byte for {seconds:g} s") from exc
        except anyio.EndOfStream:
            self._answer.end()
            return
        except anyio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLError):
                detail = "the connection ended without TLS's goodbye"
                raise SourceError(ErrorName.INCOMPLETE, detail) from exc
            raise SourceError(ErrorName.RESET, "the server reset the connection") from exc
        except ssl.SSLError as exc:
            detail = f"after the handshake: {exc.reason or exc}"
            raise SourceError(ErrorName.TLS, detail) from exc
        if self.clock.phase is Phase.FIRST_BYTE:
            self.clock.enter(Phase.BODY)
        self._answer.feed(data)

    async def read_body(self) -> bytes:
        """Give what more has come of the body, all of it if it is here; ``b""`` at its end."""
        answer = self._answer
        while not (answer.body or answer.is_whole or self._stream is None):
            await self._read(self._stream)
        return answer.take_body()

    async def end_exchange(self) -> None:
        """Keep the connection only if it carried one answer, whole, and not a byte more.

        A server that sends one answer too many would otherwise have its surplus taken for the
        answer to the next request.
        """
        if self._answer.is_last or not self._answer.is_whole:
            await self.aclose()

    async def aclose(self) -> None:
        """Hang up at once, if a connection is open, without TLS's goodbye.

        A dead server would keep us waiting for its own, and OpenSSL takes bytes that nobody read
        for an error.
        """
        tcp, self._tcp, self._stream = self._tcp, None, None
        if tcp is not None:
            await anyio.aclose_forcefully(tcp)
