"""As many upstreams as are wanted, each on a port of its own, that note when they were asked.

    python -m tests.benchmarks.many_upstreams COUNT

prints their ports in one line, serves 3 dice to whatever it is asked until its input ends, and then
prints how many requests came, in how many seconds, and the smallest gap between two at one port.
"""

import asyncio
import sys
from collections import defaultdict
from functools import partial
from itertools import count, pairwise
from time import monotonic

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_asked = count()


def _answer() -> bytes:
    """Give other numbers each time, because the same would be taken for an old answer."""
    high, low = divmod(next(_asked), 1000)
    body = b"[%d, %d, %d]" % (1000 + high, 1000 + low, 1000)
    return _HEAD % (len(body), body)


class _Answering(asyncio.Protocol):
    def __init__(self, times: list[float]) -> None:
        self._times = times

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for _ in requests:
            self._times.append(monotonic())
            self._transport.write(_answer())


async def serve(upstreams: int) -> None:
    """Serve until standard input ends, and print what came."""
    loop = asyncio.get_running_loop()
    times: defaultdict[int, list[float]] = defaultdict(list)
    servers = [
        await loop.create_server(partial(_Answering, times[nth]), "127.0.0.1", 0)
        for nth in range(upstreams)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    came = sorted(time for each in times.values() for time in each)
    gaps = [after - before for each in times.values() for before, after in pairwise(each)]
    print(len(came), came[-1] - came[0], min(gaps), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
