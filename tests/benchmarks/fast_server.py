"""A server that is never the bottleneck: 16 numbers to whatever it is asked.

Two of them count up, because the same numbers twice would be taken for an old answer.

    python -m tests.benchmarks.fast_server SECONDS [LATENCY_SECONDS]

prints its port, then serves on 127.0.0.1 for so long, each answer after its latency.
"""

import asyncio
import json
import sys
from functools import partial
from itertools import count

NUMBERS = 16
LOW, SPAN = 10_000, 50_000  # of the two that count: always five digits
_DATA = [*range(NUMBERS - 2), LOW, LOW]
_DOCUMENT = {"type": "uint16", "length": NUMBERS, "data": _DATA, "success": True}
_BODY = json.dumps(_DOCUMENT).encode()
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
    _BODY
)
_ANSWER = _HEAD + _BODY.replace(b"%d" % LOW, b"%d")
_answered = count()


def _answer() -> bytes:
    high, low = divmod(next(_answered), SPAN)
    return _ANSWER % (LOW + high, LOW + low)


class _Answering(asyncio.Protocol):
    def __init__(self, latency_seconds: float) -> None:
        self._latency_seconds = latency_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        answers = b"".join(_answer() for _ in requests)
        if self._latency_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._latency_seconds, self._transport.write, answers)
        else:
            self._transport.write(answers)


async def serve(seconds: float, latency_seconds: float = 0.0) -> None:
    """Serve for so long; print the port first."""
    server = await asyncio.get_running_loop().create_server(
        partial(_Answering, latency_seconds), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(seconds)


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:])))
