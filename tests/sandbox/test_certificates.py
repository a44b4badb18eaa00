"""Tests for pipeline/sandbox/tls.py: a client that checks accepts one certificate of four."""

import re
import ssl
import sys

import pytest
from anyio import connect_tcp, fail_after
from anyio.abc import AnyByteStream

from pipeline.errors import ConfigError
from pipeline.extras import how_to_install
from pipeline.sandbox.options import SandboxOptions, TlsMode
from pipeline.sandbox.server import HOST, Sandbox, serving
from tests.sandbox.support import connect, cut, read_all, write_request

pytestmark = pytest.mark.anyio

TARGET = "/randomnumberapi/api/v1.0/random?min=1&max=7&count=3"


async def _connect(sandbox: Sandbox) -> AnyByteStream:
    assert sandbox.ca_pem is not None
    trusting = ssl.create_default_context(cadata=sandbox.ca_pem.decode())
    return await connect_tcp(
        HOST, sandbox.port, ssl_context=trusting, tls_standard_compatible=False
    )


async def test_a_valid_certificate_is_accepted() -> None:
    """With the authority that the sandbox hands out, and no other."""
    async with serving(SandboxOptions(tls=TlsMode.VALID)) as sandbox:
        async with await _connect(sandbox) as stream:
            await stream.send(write_request(TARGET))
            seen = cut(await read_all(stream))

        assert sandbox.url("anu_aqn").startswith("https://")

    assert seen.status == 200


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (TlsMode.EXPIRED, "certificate has expired"),
        (TlsMode.WRONG_HOST, "IP address mismatch"),
        (TlsMode.UNKNOWN_ISSUER, "unable to get local issuer certificate"),
    ],
)
async def test_a_bad_certificate_is_refused_for_its_reason(mode: TlsMode, reason: str) -> None:
    """Each is wrong in one way only, so that a client's diagnosis can be tested."""
    async with serving(SandboxOptions(tls=mode)) as sandbox:
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            await _connect(sandbox)


async def test_a_cut_body_is_cut_under_tls_as_well() -> None:
    """Without a closing notice: that is how a connection is lost."""
    async with (
        serving(SandboxOptions(tls=TlsMode.VALID)) as sandbox,
        await _connect(sandbox) as stream,
    ):
        await stream.send(write_request(f"/~truncated{TARGET}"))
        seen = cut(await read_all(stream))

    assert len(seen.body) < int(seen.headers["content-length"])


async def test_who_speaks_no_tls_harms_nobody() -> None:
    """The next handshake is served."""
    async with serving(SandboxOptions(tls=TlsMode.VALID)) as sandbox:
        async with await connect(sandbox) as stream:
            await stream.send(write_request(TARGET))
            with fail_after(60):
                await read_all(stream)

        await (await _connect(sandbox)).aclose()


def test_without_its_package_tls_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra; an ImportError would tell a user nothing."""
    monkeypatch.setitem(sys.modules, "trustme", None)

    with pytest.raises(ConfigError, match=re.escape(how_to_install("trustme"))):
        Sandbox(SandboxOptions(tls=TlsMode.VALID))
