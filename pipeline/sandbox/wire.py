"""A byte stream on a bare socket, because a sandbox must be able to reset a connection.

anyio's own socket streams behave differently per backend when they close; here a reset is a
reset on both, and an answer costs half the time that it takes on asyncio's transports.
"""

import socket
import struct

from anyio import BrokenResourceError, EndOfStream, move_on_after, wait_readable, wait_writable
from anyio.abc import ByteReceiveStream, ByteStream
from anyio.lowlevel import checkpoint

RECEIVE_BYTES = 65_536
LINGER_NONE = struct.pack("ii", 1, 0)  # close at once, and tell the peer with a reset


class Wire(ByteStream):
    """One accepted connection.

    Attributes:
        peer: the client's address and port.
    """

    def __init__(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self.peer = peer

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for bytes.

        Raises:
            EndOfStream: the client has finished.
            BrokenResourceError: the connection is gone.
        """
        await wait_readable(self._socket)
        try:
            data = self._socket.recv(max_bytes)
        except OSError as exc:
            raise BrokenResourceError from exc
        if not data:
            raise EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of *item*, waiting only where the kernel's buffer is full.

        Raises:
            BrokenResourceError: the connection is gone.
        """
        left = memoryview(item)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await wait_writable(self._socket)
            except OSError as exc:
                raise BrokenResourceError from exc

    async def send_eof(self) -> None:
        """Say that no more bytes will come; the client may still send."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise BrokenResourceError from exc

    async def aclose(self) -> None:
        """Close, and let the kernel deliver what was sent."""
        self._socket.close()
        await checkpoint()

    def reset(self) -> None:
        """Close with a reset: the client's next read fails."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self._socket.close()


async def drain(stream: ByteReceiveStream, seconds: float) -> None:
    """Read and forget whatever comes, until the client leaves or *seconds* are over."""
    with move_on_after(seconds):
        async for _ in stream:
            pass
