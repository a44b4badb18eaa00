"""Tests for pipeline/sources/direct.py: the quick way to read on asyncio."""

import socket
from time import monotonic

import anyio
import pytest

from pipeline.sources.direct import DirectStream, TimeIsUp, hasten

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


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_time_of_an_earlier_wait_ends_no_later_one() -> None:
    """One timer serves all attempts: it rings for one that is long over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = hasten(await anyio.connect_tcp(*listener.getsockname()))
        assert isinstance(stream, DirectStream)
        with listener.accept()[0] as peer:
            stream.until = monotonic() + 0.05
            with anyio.move_on_after(0.01):
                await stream.receive()  # sets the timer
            stream.until = monotonic() + 60
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.receive)
                await anyio.sleep(0.1)  # within which it rings
                peer.sendall(b"late")
        await stream.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_wait_ends_when_its_time_is_up() -> None:
    """Also where the timer rang before while nobody waited."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = hasten(await anyio.connect_tcp(*listener.getsockname()))
        assert isinstance(stream, DirectStream)
        stream.until = monotonic() + 0.05
        with anyio.move_on_after(0.01):
            await stream.receive()
        await anyio.sleep(0.1)

        stream.until = monotonic() + 0.05
        with anyio.fail_after(30), pytest.raises(TimeIsUp):
            await stream.receive()
        await stream.aclose()
