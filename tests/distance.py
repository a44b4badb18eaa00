"""A server that is far away: a proxy on 127.0.0.1 that holds every byte back for a while."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EACH_WAY_SECONDS = 0.0025  # 5 ms there and back


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await reader.read(65_536):
            loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)


async def _serve(
    host: str, port: int, seconds: float, ready: "asyncio.Future[int]", end: asyncio.Event
) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(_carry(reader, back, seconds), _carry(there, writer, seconds))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        ready.set_result(server.sockets[0].getsockname()[1])
        await end.wait()


@contextmanager
def far_away(host: str, port: int, seconds: float = EACH_WAY_SECONDS) -> Iterator[int]:
    """Serve the server at *host* and *port* from *seconds* away, and give the port of that."""
    loop = asyncio.new_event_loop()
    ready: asyncio.Future[int] = loop.create_future()
    end = asyncio.Event()
    thread = threading.Thread(
        target=loop.run_until_complete, args=(_serve(host, port, seconds, ready, end),), daemon=True
    )
    thread.start()
    waiting = asyncio.run_coroutine_threadsafe(asyncio.wait_for(ready, 60), loop)
    try:
        yield waiting.result()
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
