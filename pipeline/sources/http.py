"""The one place that talks HTTP: client, limits, size caps; every failure becomes a SourceError."""

import re
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from time import monotonic
from typing import Any

import httpx2 as httpx

from pipeline.errors import ConfigError, ErrorName, Phase, SourceError
from pipeline.models import Evidence, Request
from pipeline.sanitize import one_line, redact_cut, redact_text
from pipeline.sources.base import Answer
from pipeline.sources.endpoint import find_other
from pipeline.sources.proxy import Proxy
from pipeline.sources.transport import OneConnection, PhaseClock, TimeIsUp

MAX_EVIDENCE_HEADERS = 64
MAX_SHOWN = 40  # characters of a header

# Names of charsets stand in Content-Encoding now and then, where they mean nothing.
NO_CODING = re.compile(r"identity|utf-?\d+|(?:us-)?ascii|iso-8859-\d+|latin-?1|windows-\d+|")
GZIP = frozenset({"gzip", "x-gzip"})  # RFC 9110, 8.4.1.3
GZIP_WINDOW = 16 + zlib.MAX_WBITS

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Leniency:
    """What one source may send beyond what is agreed.

    Attributes:
        content_types: media types, in lower case.
        takes_gzip: whether a body may be compressed; we do not ask for it.
    """

    content_types: frozenset[str] = frozenset()
    takes_gzip: bool = False


@dataclass(slots=True)
class Exchange:
    """What is known of one attempt so far: filled as it goes, so that a failure finds it here.

    Attributes:
        request: what is sent, fit to be kept.
        answer: known once it is whole; ``status``, ``headers`` and ``body`` are so earlier.
        tls_issuer: who issued the server's certificate, as far as it was trusted.
        is_reused: whether it went over a connection that was already open.
        asked_again: whether that one had been closed, so that it was sent over a new one.
    """

    clock: PhaseClock = field(default_factory=PhaseClock)
    request: Request | None = None
    answer: Answer | None = None
    tls_issuer: str | None = None
    is_reused: bool = False
    asked_again: bool = False
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


class Headers(httpx.Headers):
    """The headers of an answer, which are looked up several times and never change."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        super().__init__(fields)
        self._fields = fields
        self._found = dict(self.items())

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Give the fields as they came."""
        return self._fields

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - httpx's signature
        """Give the value of a header."""
        return self._found.get(key.lower(), default)


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

    def __init__(
        self, connection: OneConnection, limits: Limits, leniency: Leniency = Leniency()
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._leniency = leniency
        self._headers = Headers([])

    async def fetch_answer(self, request: httpx.Request, exchange: Exchange) -> Answer:
        """Send *request* and read the whole answer; *exchange* keeps what is known meanwhile.

        Raises:
            SourceError: anything else came of it. Statuses are for the adapter to judge.
        """
        seconds, connection = self._limits.attempt_seconds, self._connection
        connection.clock, connection.until = exchange.clock, monotonic() + seconds
        try:
            answer = await self._exchange(request, exchange)
            if other := find_other(request, answer):
                answer = await self._exchange(other, exchange)
        except TimeIsUp as exc:
            error = TOO_LATE.get(exchange.clock.phase, ErrorName.DEADLINE)
            is_coming = " while it was still coming" if exchange.body else ""
            detail = f"no whole answer within {seconds:g} s{is_coming}"
            # Not again: it took all the time that it was given, and would starve the run.
            raise SourceError(error, detail, may_retry=False) from exc
        else:
            return answer
        finally:
            exchange.tls_issuer = connection.tls_issuer

    async def _exchange(self, request: httpx.Request, exchange: Exchange) -> Answer:
        exchange.body.clear()
        is_first, connection = exchange.status is None, self._connection
        try:
            status, fields = await connection.ask(request)
        finally:
            if is_first:  # where the answer stands elsewhere is asked for over the same connection
                exchange.is_reused = connection.is_reused
            exchange.asked_again |= connection.asked_again
        try:
            if fields != self._headers.raw:  # mostly they are those of the answer before
                self._headers = Headers(fields)
            headers = self._headers
            exchange.status, exchange.headers = status, headers
            proxy = self._connection.proxy
            if proxy and status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                exchange.clock.enter(Phase.CHECK)
                raise proxy.refusal()
            await self._read_body(headers, exchange.body)
        finally:
            await self._connection.end_exchange()
        exchange.answer = Answer(
            status=status,
            headers=headers,
            body=bytes(exchange.body),
            asked=request.url,
            accepted_types=self._leniency.content_types,
        )
        return exchange.answer

    async def _read_body(self, headers: httpx.Headers, body: bytearray) -> None:
        max_bytes = self._limits.max_bytes
        coding = headers.get("content-encoding")
        decoder = _Gunzip(max_bytes) if coding and self._is_gzip(coding) else None
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise SourceError(
                ErrorName.TOO_LARGE, f"{announced} bytes announced, at most {max_bytes} are read"
            )
        while piece := await self._connection.read_body():
            body += decoder.decode(piece, max_bytes + 1 - len(body)) if decoder else piece
            if len(body) > max_bytes:
                del body[max_bytes:]
                raise SourceError(ErrorName.TOO_LARGE, f"more than {max_bytes} bytes came")
        if decoder:
            decoder.check_end()

    def _is_gzip(self, header: str) -> bool:
        """Tell whether a body has to be decompressed by what its ``Content-Encoding`` says."""
        codings = [coding.strip().lower() for coding in header.split(",")]
        codings = [coding for coding in codings if not NO_CODING.fullmatch(coding)]
        takes_gzip = self._leniency.takes_gzip
        if codings and not (takes_gzip and len(codings) == 1 and codings[0] in GZIP):
            # Whole or not at all: cut short, a key that is repeated there could not be recognised.
            shown = ascii(header) if len(header) <= MAX_SHOWN else f"of {len(header)} characters"
            asked = "only gzip is taken" if takes_gzip else "asked for none"
            raise SourceError(ErrorName.DECODE, f"content coding {shown}, {asked}")
        return bool(codings)


class _Gunzip:
    """Decompresses a body piece by piece, never more of it at once than is asked for."""

    def __init__(self, max_bytes: int) -> None:
        self._decompressor = zlib.decompressobj(GZIP_WINDOW)
        self._left = max_bytes  # of what may come; what it becomes is for the caller to limit
        self._is_begun = False

    def decode(self, data: bytes, most: int) -> bytes:
        """Give at most *most* bytes of what *data* holds; the caller ends it all at that many."""
        self._left -= len(data)
        self._is_begun = True
        if self._left < 0:
            raise SourceError(ErrorName.TOO_LARGE, "too many bytes came, compressed")
        try:
            text = self._decompressor.decompress(data, most)
        except zlib.error as exc:
            raise SourceError(ErrorName.DECODE, f"gzip: {exc}") from exc
        if self._decompressor.unused_data:
            raise SourceError(ErrorName.DECODE, "gzip: it goes on after its end")
        return text

    def check_end(self) -> None:
        """Let a body pass that came whole, or not at all."""
        if self._is_begun and not self._decompressor.eof:
            raise SourceError(ErrorName.DECODE, "gzip: it ends early")


@asynccontextmanager
async def open_client(
    limits: Limits,
    ssl_context: ssl.SSLContext | None = None,
    *,
    is_public: bool = False,
    proxy: Proxy | None = None,
    leniency: Leniency = Leniency(),
) -> AsyncIterator[Client]:
    """Open one worker's client; nothing is connected before the first request.

    With *is_public* a name that leads to a private address is refused: an answer of the resolver
    may be forged, and what listens within our own network is none of the upstream's.

    The transport is driven without httpx's own client around it: what that adds is what must not
    happen here, as redirects, cookies, proxies and passwords of the environment, and log lines
    with whole URLs.
    """
    async with OneConnection(
        limits.timeout(), ssl_context, is_public=is_public, proxy=proxy
    ) as connection:
        yield Client(connection, limits, leniency)
