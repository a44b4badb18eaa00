"""A stream that reads from asyncio's transport without what anyio's does for every read.

anyio tells the selector to stop after each read and to go on before the next one, and takes a turn
of the event loop for each call. Here reading goes on, until too much waits to be taken.
"""

import asyncio
import math
from time import monotonic

import anyio
from anyio.abc import ByteStream

MOST_WAITING = 64 * 1024  # bytes, before reading pauses


class TimeIsUp(Exception):
    """What an attempt may take is over."""


def hasten(stream: ByteStream) -> ByteStream:
    """Take over the connection of anyio's *stream*, or give *stream* where that cannot be.

    It cannot on Trio, nor after something came over it, as that would be lost.
    """
    transport = getattr(stream, "_transport", None)
    if not isinstance(transport, asyncio.Transport):
        return stream
    event = getattr(transport.get_protocol(), "read_event", None)
    return stream if event is None or event.is_set() else DirectStream(transport)


class DirectStream(asyncio.Protocol, ByteStream):
    """A TCP connection of asyncio, for one task.

    Attributes:
        until: when a wait for it ends in TimeIsUp, by ``time.monotonic``; it only moves on.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._waiter: asyncio.Future[None] | None = None
        self.until = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = self._is_full = self._is_over = False
        self._error: Exception | None = None
        transport.set_protocol(self)
        transport.resume_reading()

    @property
    def has_news(self) -> bool:
        """Tell whether something waits to be taken, be it the end."""
        return bool(self._data) or self._is_over

    async def receive(self, max_bytes: int = 65536) -> bytes:  # noqa: ARG002 - anyio's signature
        """Give all that came."""
        while not (self._data or self._is_over):
            await self._wait()
        if not self._data and self._error:
            raise anyio.BrokenResourceError from self._error
        if not self._data:
            raise anyio.EndOfStream
        data, self._data = self._data, b""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    async def send(self, item: bytes) -> None:
        """Hand *item* to the kernel."""
        if not self._is_over:
            self._transport.write(item)
        while self._is_full and not self._is_over:
            await self._wait()
        if self._is_over:
            raise anyio.BrokenResourceError from self._error

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        self._transport.write_eof()

    async def aclose(self) -> None:
        """Hang up at once."""
        self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        if self._timer is None and self.until < math.inf:
            self._timer = self._loop.call_later(self.until - monotonic(), self._ring)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _ring(self) -> None:
        """End a wait that is too long. A timer for each would be set and taken back for nothing."""
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if (left := self.until - monotonic()) > 0:
            self._timer = self._loop.call_later(left, self._ring)
        else:
            self._waiter.set_exception(TimeIsUp())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Keep what came, and read no more before it is taken if it is much."""
        self._data = self._data + data if self._data else data
        if len(self._data) > MOST_WAITING:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is over, and why; asyncio hangs up by itself when the server does."""
        self._is_over, self._error = True, exc
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def pause_writing(self) -> None:
        """Let the sender wait."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Let the sender go on."""
        self._is_full = False
        self._wake()
