"""Tests for pipeline/sources/direct.py: the quick way to read on asyncio."""

import socket

import anyio
import pytest

from pipeline.sources.direct import DirectStream, hasten

pytestmark = pytest.mark.anyio


async def test_only_asyncio_has_a_quick_way(anyio_backend_name: str) -> None:
    """Elsewhere the stream is as good as it was."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await anyio.connect_tcp(*listener.getsockname())
        quick = hasten(stream)

        assert isinstance(quick, DirectStream) is (anyio_backend_name == "asyncio")
        assert (quick is stream) is (anyio_backend_name == "trio")
        await quick.aclose()


async def test_the_other_side_hears_that_no_more_comes() -> None:
    """And may still answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = hasten(await anyio.connect_tcp(*listener.getsockname()))
        with listener.accept()[0] as peer:
            peer.settimeout(5)
            await stream.send(b"question")
            await stream.send_eof()

            assert [peer.recv(100), peer.recv(100)] == [b"question", b""]
            peer.sendall(b"answer")
            assert await stream.receive() == b"answer"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await anyio.aclose_forcefully(stream)
