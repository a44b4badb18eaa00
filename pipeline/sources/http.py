"""The one place that talks HTTP: client, limits, size caps; every failure becomes a SourceError."""

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

import anyio
import httpcore2 as httpcore
import httpx2 as httpx

from pipeline.errors import ConfigError, ErrorName, Phase, SourceError
from pipeline.models import Evidence, Request
from pipeline.sanitize import one_line, redact_cut, redact_text
from pipeline.sources.base import Answer
from pipeline.sources.wire import OneConnection, PhaseClock

MAX_EVIDENCE_HEADERS = 64

# What it means that an attempt's time was up in a phase; in any other its answer was too slow.
TOO_LATE = {
    Phase.DNS: ErrorName.DNS,
    Phase.CONNECT: ErrorName.CONNECT_TIMEOUT,
    Phase.TLS: ErrorName.CONNECT_TIMEOUT,
    Phase.SEND: ErrorName.WRITE_TIMEOUT,
    Phase.FIRST_BYTE: ErrorName.READ_TIMEOUT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how large one attempt may get.

    Attributes:
        connect_seconds: for name resolution and TCP together, and again for TLS.
        read_seconds: between two bytes of an answer.
        attempt_seconds: for all of it.
        max_bytes: of body.
    """

    connect_seconds: float
    read_seconds: float
    attempt_seconds: float
    max_bytes: int

    def timeout(self) -> httpx.Timeout:
        """Give what the connection has to keep; the limit of the whole attempt is kept here."""
        is_limited = self.read_seconds < self.attempt_seconds
        return httpx.Timeout(
            self.read_seconds if is_limited else None, connect=self.connect_seconds
        )


@dataclass(slots=True)
class Exchange:
    """What is known of one attempt so far: filled as it goes, so that a failure finds it here.

    Attributes:
        request: what is sent, fit to be kept.
        answer: known once it is whole; ``status``, ``headers`` and ``body`` are so earlier.
        tls_issuer: who issued the server's certificate, as far as it was trusted.
    """

    clock: PhaseClock = field(default_factory=PhaseClock)
    request: Request | None = None
    answer: Answer | None = None
    tls_issuer: str | None = None
    is_reused: bool = False
    status: int | None = None
    headers: httpx.Headers | None = None
    body: bytearray = field(default_factory=bytearray)

    def evidence(self, secrets: Iterable[str], max_bytes: int) -> Evidence | None:
        """Record the answer as far as it came, redacted and cut to *max_bytes* of body."""
        if self.status is None or self.headers is None:
            return None
        secrets = tuple(secrets)
        headers = tuple(
            (one_line(redact_text(name, secrets)), one_line(redact_text(value, secrets)))
            for name, value in self.headers.multi_items()[:MAX_EVIDENCE_HEADERS]
        )
        body = redact_cut(bytes(self.body[:max_bytes]), secrets)[:max_bytes]
        return Evidence(status=self.status, headers=headers, body=body, body_bytes=len(self.body))


@cache  # a schedule is held against the rules before its run: 20 ms for each source otherwise
def make_ssl_context(ca_file: str | None) -> ssl.SSLContext:
    """Trust what the system trusts, or in its place the certificates of *ca_file* alone.

    The environment (``SSL_CERT_FILE``, ``SSLKEYLOGFILE``) has no say.

    Raises:
        ConfigError: *ca_file* cannot be read or holds no certificate.
    """
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca_file)
    except OSError as exc:  # an SSLError is one, too
        raise ConfigError(f"ca_file {ca_file}: {exc.strerror or exc}") from exc
    return context


class Client:
    """One worker's way to its source, over one connection of its own.

    One connection each, and not a pool for all: the same library serves several times the requests
    per second when nobody has to look for a free one.
    """

    def __init__(self, connection: OneConnection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits

    async def fetch_answer(self, request: httpx.Request, exchange: Exchange) -> Answer:
        """Send *request* and read the whole answer; *exchange* keeps what is known meanwhile.

        Raises:
            SourceError: anything else came of it. Statuses are for the adapter to judge.
        """
        seconds = self._limits.attempt_seconds
        self._connection.clock = exchange.clock
        try:
            with anyio.fail_after(seconds):
                return await self._exchange(request, exchange)
        except TimeoutError as exc:
            error = TOO_LATE.get(exchange.clock.phase, ErrorName.DEADLINE)
            is_coming = " while it was still coming" if exchange.body else ""
            detail = f"no whole answer within {seconds:g} s{is_coming}"
            # Not again: it took all the time that it was given, and would starve the run.
            raise SourceError(error, detail, may_retry=False) from exc
        except httpcore.RemoteProtocolError as exc:
            is_cut = self._connection.saw_eof
            error = ErrorName.INCOMPLETE if is_cut else ErrorName.PROTOCOL
            raise SourceError(error, str(exc)) from exc
        finally:
            exchange.is_reused = self._connection.is_reused
            exchange.tls_issuer = self._connection.tls_issuer

    async def _exchange(self, request: httpx.Request, exchange: Exchange) -> Answer:
        response = await self._connection.handle_async_request(request)
        try:
            exchange.status, exchange.headers = response.status_code, response.headers
            await self._read_body(response, exchange.body)
        finally:
            await response.aclose()
        exchange.answer = Answer(
            status=response.status_code, headers=response.headers, body=bytes(exchange.body)
        )
        return exchange.answer

    async def _read_body(self, response: httpx.Response, body: bytearray) -> None:
        max_bytes = self._limits.max_bytes
        coding = response.headers.get("content-encoding", "identity")
        if coding.strip().lower() not in ("", "identity"):
            raise SourceError(ErrorName.DECODE, f"content coding {coding[:40]!a}, asked for none")
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise SourceError(
                ErrorName.TOO_LARGE, f"{announced} bytes announced, at most {max_bytes} are read"
            )
        async with aclosing(response.aiter_raw()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > max_bytes:
                    del body[max_bytes:]
                    raise SourceError(ErrorName.TOO_LARGE, f"more than {max_bytes} bytes came")


@asynccontextmanager
async def open_client(
    limits: Limits, ssl_context: ssl.SSLContext | None = None, *, is_public: bool = False
) -> AsyncIterator[Client]:
    """Open one worker's client; nothing is connected before the first request.

    With *is_public* a name that leads to a private address is refused: an answer of the resolver
    may be forged, and what listens within our own network is none of the upstream's.

    The transport is driven without httpx's own client around it: what that adds is what must not
    happen here, as redirects, cookies, proxies and passwords of the environment, and log lines
    with whole URLs.
    """
    async with OneConnection(limits.timeout(), ssl_context, is_public=is_public) as connection:
        yield Client(connection, limits)
