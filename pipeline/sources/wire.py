"""One timed HTTP/1.1 connection: the network below httpx, which knows when each phase began.

httpx's own trace puts name resolution inside its connect event, so the phases are taken where they
happen: in a network backend. It also raises our errors at the spot where their cause is known.
"""

import errno
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from ipaddress import ip_address
from math import inf
from time import perf_counter_ns
from typing import cast

import anyio
import httpcore2 as httpcore
import httpx2 as httpx
from anyio import from_thread
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import current_token
from anyio.streams.tls import TLSAttribute, TLSStream

from pipeline.errors import ErrorName, Phase, SourceError
from pipeline.models import Timings

HEAD_START_SECONDS = 0.25  # before the next address is tried as well: RFC 8305, section 5
READ_BYTES = 1 << 20  # all that has arrived, so that no surplus hides in anyio's own buffer
PROTOCOL = b"HTTP/1."  # h11 would take any digits
HEAD_END = re.compile(rb"\n\r?\n")  # as forgiving as h11, which reads the head after us
MAX_HEAD_BYTES = 64 * 1024  # h11's own limit depends on how the bytes happen to arrive

CONNECT_ERRORS = {
    errno.ECONNREFUSED: ErrorName.CONNECT_REFUSED,
    errno.ECONNRESET: ErrorName.RESET,
    errno.ETIMEDOUT: ErrorName.CONNECT_TIMEOUT,
    errno.EMFILE: ErrorName.INTERNAL,
    errno.ENFILE: ErrorName.INTERNAL,
    errno.ENOMEM: ErrorName.INTERNAL,
}

# OpenSSL's verification codes, X509_V_ERR_* of x509_vfy.h.
TLS_REASONS = {
    9: "not yet valid (or the clock here is wrong)",
    10: "expired (or the clock here is wrong)",
    18: "unknown issuer",
    19: "unknown issuer",
    20: "unknown issuer",
    21: "unknown issuer",
    62: "wrong host",
    64: "wrong host",
}


# What of an issuer's name tells it apart, and how it is commonly written.
ISSUER_PARTS = (("O", "organizationName"), ("CN", "commonName"))


class PhaseClock:
    """A stopwatch for one attempt: each phase begins where the one before it ended.

    So the phases add up to the whole, without a gap and without an overlap.
    """

    __slots__ = ("_since", "_spent", "phase")

    def __init__(self) -> None:
        self.phase = Phase.WAIT
        self._spent: dict[Phase, int] = {}
        self._since = perf_counter_ns()

    def enter(self, phase: Phase) -> None:
        """End the current phase and begin *phase*; entering the current one changes nothing."""
        if phase is not self.phase:
            self.stop()
            self.phase = phase

    def stop(self) -> None:
        """Book the time up to now on the current phase."""
        now = perf_counter_ns()
        self._spent[self.phase] = self._spent.get(self.phase, 0) + now - self._since
        self._since = now

    def timings(self) -> Timings:
        """Give what has been booked; a phase that was never entered is None."""
        spent = self._spent.get

        def us(phase: Phase) -> int | None:
            ns = spent(phase)
            return None if ns is None else ns // 1000

        return Timings(
            wait_us=us(Phase.WAIT),
            dns_us=us(Phase.DNS),
            connect_us=us(Phase.CONNECT),
            tls_us=us(Phase.TLS),
            send_us=us(Phase.SEND),
            first_byte_us=us(Phase.FIRST_BYTE),
            body_us=us(Phase.BODY),
            check_us=us(Phase.CHECK),
        )


def _issuer(tls: ssl.SSLObject) -> str | None:
    """Name who issued the certificate that was shown, as ``O=Example, CN=Example R3``."""
    certificate = tls.getpeercert() or {}
    parts = cast("Iterable[tuple[tuple[str, str], ...]]", certificate.get("issuer", ()))
    names = dict(pair for part in parts for pair in part)
    shown = [f"{short}={names[name]}" for short, name in ISSUER_PARTS if name in names]
    return ", ".join(shown) or None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> list[str]:
    """Look up the addresses of *host*, in the resolver's order.

    A thread in the resolver cannot be cancelled. anyio's and asyncio's own are waited for when the
    loop ends, so a hung resolver would hold the process past its deadline; a daemon is not.
    """
    found: list[str] = []
    failed: list[OSError | UnicodeError] = []
    done = anyio.Event()
    token = current_token()

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as exc:
            failed.append(exc)
        with suppress(RuntimeError):  # the loop has ended: nobody waits for the answer
            from_thread.run_sync(done.set, token=token)

    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    await done.wait()
    if failed:
        reason = getattr(failed[0], "strerror", None) or failed[0]
        raise SourceError(ErrorName.DNS, f"{host}: {reason}") from failed[0]
    return found


def _public(addresses: list[str], host: str) -> list[str]:
    """Leave out what no public service has, or a forged answer could lead us anywhere within."""
    public = [address for address in addresses if ip_address(address).is_global]
    if not public:
        raise SourceError(ErrorName.DNS, f"{host}: leads to {addresses[0]}, which is not public")
    return public


async def _connect_first(addresses: list[str], port: int) -> ByteStream:
    """Connect to the first address that answers, the next one joining in after a head start."""
    winners: list[ByteStream] = []
    failures: list[OSError] = []

    async def connect(address: str, tried: anyio.Event) -> None:
        try:
            stream = await anyio.connect_tcp(address, port)
        except OSError as exc:
            cause = exc.__cause__
            failures.append(cause if isinstance(cause, OSError) else exc)
        else:
            winners.append(stream)
            tasks.cancel_scope.cancel()
        finally:
            tried.set()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                tried = anyio.Event()
                tasks.start_soon(connect, address, tried)
                with anyio.move_on_after(HEAD_START_SECONDS):
                    await tried.wait()
        if not winners:
            raise failures[0]
        return winners.pop(0)
    finally:
        for unused in winners:  # came second, or in the moment in which we were cancelled
            await anyio.aclose_forcefully(unused)


def _connect_error(exc: OSError, host: str, port: int) -> SourceError:
    code = exc.errno or 0
    reason = os.strerror(code) if code else str(exc)  # asyncio and Trio reword it
    error = CONNECT_ERRORS.get(code, ErrorName.UNREACHABLE)
    return SourceError(error, f"{host} port {port}: {reason}")


def _tls_error(exc: ssl.SSLError) -> SourceError:
    if isinstance(exc, ssl.SSLCertVerificationError):
        reason = TLS_REASONS.get(exc.verify_code, "not trusted")
        return SourceError(ErrorName.TLS, f"certificate: {reason}: {exc.verify_message}")
    return SourceError(ErrorName.TLS, f"handshake: {exc.reason or exc}")


def _within(seconds: float | None) -> AbstractContextManager[object]:
    """Limit a block to *seconds*; a limit that the whole attempt has anyway is not set twice."""
    return nullcontext() if seconds is None else anyio.fail_after(seconds)


class TimedStream(httpcore.AsyncNetworkStream):
    """A byte stream that moves the phase clock and knows how much of an answer has come."""

    def __init__(self, tcp: ByteStream, connection: "OneConnection") -> None:
        self._tcp = tcp
        self._stream = tcp  # or TLS on top of it
        self._tls: ssl.SSLObject | None = None
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(tcp.extra(SocketAttribute.raw_socket), select.POLLIN)
        self.begin_exchange()

    def begin_exchange(self) -> None:
        """Forget the exchange before: this connection may carry another one now."""
        self._received = 0
        self._head = b""
        self._head_bytes: int | None = None

    def has_read_exactly(self, body_bytes: int) -> bool:
        """Tell whether one head and *body_bytes* bytes came, and not a byte more."""
        return self._head_bytes is not None and self._received == self._head_bytes + body_bytes

    def _count(self, data: bytes) -> None:
        """Count *data*, and look for the end of the head as long as it has not come."""
        self._received += len(data)
        if self._head_bytes is not None:
            return
        self._head += data
        if not PROTOCOL.startswith(self._head[: len(PROTOCOL)]):
            # Not quoted: cut short, a key that is repeated there could not be recognised.
            raise SourceError(ErrorName.PROTOCOL, "this is not HTTP/1")
        end = HEAD_END.search(self._head)
        if (end.end() if end else self._received) > MAX_HEAD_BYTES:
            raise SourceError(ErrorName.PROTOCOL, f"the head is over {MAX_HEAD_BYTES} bytes long")
        if end:
            self._head_bytes = end.end()
            self._head = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - httpcore's signature
        """Give what has arrived, ``b""`` at the end of the stream."""
        clock = self._connection.clock
        if clock.phase is Phase.SEND:
            clock.enter(Phase.FIRST_BYTE)
        try:
            with _within(timeout):
                data = await self._stream.receive(READ_BYTES)
        except TimeoutError as exc:
            raise SourceError(ErrorName.READ_TIMEOUT, f"no byte for {timeout:g} s") from exc
        except anyio.EndOfStream:
            self._connection.saw_eof = True
            return b""
        except anyio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLError):
                raise SourceError(
                    ErrorName.INCOMPLETE, "the connection ended without TLS's goodbye"
                ) from exc
            raise SourceError(ErrorName.RESET, "the server reset the connection") from exc
        except ssl.SSLError as exc:
            detail = f"after the handshake: {exc.reason or exc}"
            raise SourceError(ErrorName.TLS, detail) from exc
        if clock.phase is Phase.FIRST_BYTE:
            clock.enter(Phase.BODY)
        self._count(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        """Send all of *buffer*."""
        if not buffer:
            return
        self._connection.clock.enter(Phase.SEND)
        try:
            with _within(timeout):
                await self._stream.send(buffer)
        except TimeoutError as exc:
            raise SourceError(ErrorName.WRITE_TIMEOUT, f"not sent within {timeout:g} s") from exc
        except anyio.BrokenResourceError as exc:
            # httpcore goes on to read: a server may answer, then hang up on the rest of a request.
            raise httpcore.WriteError(str(exc)) from exc

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Make this connection a TLS one; the certificate must fit *server_hostname*."""
        self._connection.clock.enter(Phase.TLS)
        try:
            with anyio.fail_after(timeout):
                # Standard compatible: a missing goodbye mid-body must not pass for its end.
                self._stream = await TLSStream.wrap(
                    self._tcp, ssl_context=ssl_context, hostname=server_hostname
                )
                self._tls = self._stream.extra(TLSAttribute.ssl_object)
                self._connection.tls_issuer = _issuer(self._tls)
        except ssl.SSLError as exc:
            raise _tls_error(exc) from exc
        except TimeoutError as exc:
            raise SourceError(ErrorName.CONNECT_TIMEOUT, f"no TLS within {timeout:g} s") from exc
        except anyio.BrokenResourceError as exc:
            raise SourceError(ErrorName.TLS, "handshake: the server hung up") from exc
        return self

    async def aclose(self) -> None:
        """Hang up at once, without TLS's goodbye.

        A dead server would keep us waiting for its own, and OpenSSL takes bytes that nobody read
        for an error.
        """
        await anyio.aclose_forcefully(self._tcp)

    def get_extra_info(self, info: str) -> object:
        """Tell httpcore, the only caller, whether an idle connection has something to read."""
        return self._has_more() if info == "is_readable" else None

    def _has_more(self) -> bool:
        """Tell whether the server has said something since, be it goodbye."""
        if self._poll.poll(0):
            return True
        if self._tls is None:
            return False
        try:
            self._tls.read(1)  # TLS may have taken more from the socket than it has given us
        except ssl.SSLError as exc:
            return not isinstance(exc, ssl.SSLWantReadError)
        return True


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens timed TCP connections; name resolution is a phase of its own."""

    def __init__(self, connection: "OneConnection") -> None:
        self._connection = connection

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,  # noqa: ARG002 - httpcore's signature
        socket_options: Iterable[object] | None = None,  # noqa: ARG002 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        clock = self._connection.clock
        give_up_at = anyio.current_time() + (inf if timeout is None else timeout)
        addresses = [host]
        if not _is_address(host):
            clock.enter(Phase.DNS)
            try:
                with anyio.fail_at(give_up_at):
                    addresses = await _resolve(host, port)
            except TimeoutError as exc:
                raise SourceError(ErrorName.DNS, f"{host}: no answer in {timeout:g} s") from exc
            if self._connection.is_public:
                addresses = _public(addresses, host)
        clock.enter(Phase.CONNECT)
        try:
            with anyio.fail_at(give_up_at):
                stream = await _connect_first(addresses, port)
        except TimeoutError as exc:
            raise SourceError(
                ErrorName.CONNECT_TIMEOUT, f"{host} port {port}: no answer in {timeout:g} s"
            ) from exc
        except OSError as exc:
            raise _connect_error(exc, host, port) from exc
        return self._connection.take(stream)


class _Body(httpx.AsyncByteStream):
    """The body of an answer; when it is closed, the connection is kept only if that is safe."""

    def __init__(self, connection: "OneConnection", response: httpcore.Response) -> None:
        self._connection = connection
        self._response = response
        self._bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._response.aiter_stream()) as chunks:
            async for chunk in chunks:
                self._bytes += len(chunk)
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()
        await self._connection.end_exchange(self._bytes)


class OneConnection(httpx.AsyncBaseTransport):
    """Carries requests one after the other, over one connection as long as that is safe.

    Attributes:
        clock: the attempt's stopwatch; set a new one before each request.
        is_reused: whether the last request went over a connection that was already open.
        saw_eof: whether the server closed the connection during the last request.
        tls_issuer: who issued the certificate that the connection's server showed.
        is_public: whether a name must lead to an address that all the world can reach.
    """

    def __init__(
        self,
        timeout: httpx.Timeout,
        ssl_context: ssl.SSLContext | None = None,
        *,
        is_public: bool = False,
    ) -> None:
        self._timeout = timeout.as_dict()
        self.is_public = is_public
        self.tls_issuer: str | None = None
        self.clock = PhaseClock()
        self.is_reused = False
        self.saw_eof = False
        self._ssl_context = ssl_context
        self._backend = _Backend(self)
        self._http: httpcore.AsyncHTTPConnection | None = None
        self._stream: TimedStream | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, over the open connection or a new one, and give the answer's head."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        http = await self._usable(url.origin)
        try:
            response = await http.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions={"timeout": self._timeout},
                )
            )
        except BaseException:
            await self.aclose()  # httpcore forgets a connection that it could not finish
            raise
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(self, response),
            extensions=response.extensions,
        )

    async def _usable(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        self.saw_eof = False
        # An idle connection with something to read was closed by the server, or carries an answer
        # that nobody asked for; either way the next answer on it would not be ours.
        if self._http and self._http.can_handle_request(origin) and self._is_quiet(self._http):
            self.is_reused = True
            return self._http
        self.is_reused, self.tls_issuer = False, None
        await self.aclose()
        if self._ssl_context is None and origin.scheme == b"https":
            self._ssl_context = httpx.create_ssl_context(trust_env=False)
        self._http = httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._ssl_context, network_backend=self._backend
        )
        return self._http

    @staticmethod
    def _is_quiet(http: httpcore.AsyncHTTPConnection) -> bool:
        return http.is_idle() and not http.has_expired()

    def take(self, stream: ByteStream) -> TimedStream:
        """Make *stream*, just connected, the open connection."""
        self._stream = TimedStream(stream, self)
        return self._stream

    async def end_exchange(self, body_bytes: int) -> None:
        """Keep the connection only if it carried one head, *body_bytes* bytes and no more.

        A server that sends one answer too many would otherwise have its surplus taken for the
        answer to the next request. Bodies framed by chunks fail the test as well: they cost a new
        connection each, which is the safe side of a rare case.
        """
        if self._stream is not None and self._stream.has_read_exactly(body_bytes):
            self._stream.begin_exchange()
        else:
            await self.aclose()

    async def aclose(self) -> None:
        """Hang up, if a connection is open."""
        stream, self._http, self._stream = self._stream, None, None
        if stream is not None:
            await stream.aclose()
