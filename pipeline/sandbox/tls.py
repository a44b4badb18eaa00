"""Certificates for the sandbox, made on the spot: a good one and three that must be refused."""

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.extras import how_to_install
from pipeline.sandbox.options import TlsMode

if TYPE_CHECKING:
    import trustme

HOSTS = ("127.0.0.1", "localhost")
OTHER_HOST = "other.test"


def _issue(authority: "trustme.CA", mode: TlsMode) -> "trustme.LeafCert":
    if mode is TlsMode.WRONG_HOST:
        return authority.issue_cert(OTHER_HOST)
    if mode is TlsMode.EXPIRED:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        before = yesterday - timedelta(days=30)
        return authority.issue_cert(*HOSTS, not_before=before, not_after=yesterday)
    return authority.issue_cert(*HOSTS)


def make_identity(mode: TlsMode) -> tuple[ssl.SSLContext, bytes]:
    """Make what the server shows, and the authority that a client is told to trust (PEM).

    With ``UNKNOWN_ISSUER`` the authority handed out is not the one that issued.

    Raises:
        ConfigError: the package that makes certificates is not installed.
    """
    try:
        import trustme  # noqa: PLC0415 - an optional package, wanted by this option only
    except ImportError:
        raise ConfigError(f"--tls needs trustme: {how_to_install('trustme')}") from None
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _issue(authority, mode).configure_cert(context)
    trusted = trustme.CA() if mode is TlsMode.UNKNOWN_ISSUER else authority
    return context, trusted.cert_pem.bytes()
