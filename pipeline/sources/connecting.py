"""Reach a server: its name, its address, a proxy on the way and TLS, each phase timed and bounded.

httpx's own trace puts name resolution inside its connect event, so the phases are taken where they
happen; and our errors are raised where their cause is known.
"""

import errno
import os
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from math import inf
from typing import cast

import anyio
from anyio import from_thread
from anyio.abc import ByteStream
from anyio.lowlevel import current_token
from anyio.streams.tls import TLSAttribute, TLSStream

from pipeline.errors import CLOCK_DOUBT, LACK, ErrorName, Phase, SourceError, find_lack
from pipeline.settings.checks import is_ip
from pipeline.sources.phases import PhaseClock
from pipeline.sources.proxy import Proxy, open_tunnel

HEAD_START_SECONDS = 0.25  # before the next address is tried as well: RFC 8305, section 5

CONNECT_ERRORS = {
    errno.ECONNREFUSED: ErrorName.CONNECT_REFUSED,
    errno.ECONNRESET: ErrorName.RESET,
    errno.ETIMEDOUT: ErrorName.CONNECT_TIMEOUT,
}

# OpenSSL's verification codes, X509_V_ERR_* of x509_vfy.h.
TLS_REASONS = {
    9: f"not yet valid {CLOCK_DOUBT}",
    10: f"expired {CLOCK_DOUBT}",
    18: "unknown issuer",
    19: "unknown issuer",
    20: "unknown issuer",
    21: "unknown issuer",
    62: "wrong host",
    64: "wrong host",
}


# What of an issuer's name tells it apart, and how it is commonly written.
ISSUER_PARTS = (("O", "organizationName"), ("CN", "commonName"))


def issuer_of(tls: TLSStream) -> str | None:
    """Name who issued the certificate that was shown, as ``O=Example, CN=Example R3``."""
    certificate = tls.extra(TLSAttribute.ssl_object).getpeercert() or {}
    parts = cast("Iterable[tuple[tuple[str, str], ...]]", certificate.get("issuer", ()))
    names = dict(pair for part in parts for pair in part)
    shown = [f"{short}={names[name]}" for short, name in ISSUER_PARTS if name in names]
    return ", ".join(shown) or None


async def _resolve(host: str, port: int, named: str) -> list[str]:
    """Look up the addresses of *host*, in the resolver's order; a failure calls it *named*.

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
        raise SourceError(ErrorName.DNS, f"{named}: {reason}") from failed[0]
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
    if lack := find_lack(exc):
        return SourceError(ErrorName.INTERNAL, f"{LACK}: {lack}")
    code = exc.errno or 0
    reason = os.strerror(code) if code else str(exc)  # asyncio and Trio reword it
    error = CONNECT_ERRORS.get(code, ErrorName.UNREACHABLE)
    return SourceError(error, f"{host} port {port}: {reason}")


def _tls_error(exc: ssl.SSLError) -> SourceError:
    if isinstance(exc, ssl.SSLCertVerificationError):
        reason = TLS_REASONS.get(exc.verify_code, "not trusted")
        return SourceError(ErrorName.TLS, f"certificate: {reason}: {exc.verify_message}")
    return SourceError(ErrorName.TLS, f"handshake: {exc.reason or exc}")


async def _open_tunnel(stream: ByteStream, proxy: Proxy, host: str, port: int) -> None:
    """Do so, or hang up."""
    try:
        await open_tunnel(stream, proxy, host, port)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


async def connect(
    host: str,
    port: int,
    clock: PhaseClock,
    *,
    seconds: float | None,
    proxy: Proxy | None,
    is_tunnelled: bool,
    is_public: bool,
) -> ByteStream:
    """Connect to *host*, or to *proxy* in its place, which connects us if *is_tunnelled*.

    With *is_public* a name must lead to an address that all the world can reach.

    Raises:
        SourceError: it could not be, or not within *seconds*.
    """
    give_up_at = anyio.current_time() + (inf if seconds is None else seconds)
    hop, hop_port = (proxy.host, proxy.port) if proxy else (host, port)
    named = f"proxy {hop}" if proxy else hop
    addresses = [hop]
    if not is_ip(hop):
        clock.enter(Phase.DNS)
        try:
            with anyio.fail_at(give_up_at):
                addresses = await _resolve(hop, hop_port, named)
        except TimeoutError as exc:
            raise SourceError(ErrorName.DNS, f"{named}: no answer in {seconds:g} s") from exc
        if is_public and not proxy:  # a proxy looks up the name itself
            addresses = _public(addresses, host)
    clock.enter(Phase.CONNECT)
    try:
        with anyio.fail_at(give_up_at):
            stream = await _connect_first(addresses, hop_port)
            if proxy and is_tunnelled:
                await _open_tunnel(stream, proxy, host, port)
    except TimeoutError as exc:
        raise SourceError(
            ErrorName.CONNECT_TIMEOUT, f"{named} port {hop_port}: no answer in {seconds:g} s"
        ) from exc
    except OSError as exc:
        raise _connect_error(exc, named, hop_port) from exc
    return stream


async def start_tls(
    tcp: ByteStream, host: str, context: ssl.SSLContext, *, seconds: float | None
) -> TLSStream:
    """Put TLS on top of *tcp*; the certificate must fit *host*.

    Raises:
        SourceError: it does not, or the handshake failed or took too long.
    """
    try:
        with anyio.fail_after(seconds):
            # Standard compatible: a missing goodbye mid-body must not pass for its end.
            return await TLSStream.wrap(tcp, ssl_context=context, hostname=host)
    except ssl.SSLError as exc:
        raise _tls_error(exc) from exc
    except TimeoutError as exc:
        raise SourceError(ErrorName.CONNECT_TIMEOUT, f"no TLS within {seconds:g} s") from exc
    except anyio.BrokenResourceError as exc:
        raise SourceError(ErrorName.TLS, "handshake: the server hung up") from exc
