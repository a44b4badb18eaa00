"""A server that is never the bottleneck: one prepared answer of 16 numbers to whatever it is asked.

    python -m tests.benchmarks.fast_server SECONDS

prints its port, then serves on 127.0.0.1 for so long.
"""

import asyncio
import json
import sys

NUMBERS = 16
_BODY = json.dumps(
    {"type": "uint16", "length": NUMBERS, "data": [*range(NUMBERS)], "success": True}
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        self._transport.write(ANSWER * len(requests))


async def serve(seconds: float) -> None:
    """Serve for so long; print the port first."""
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(seconds)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
