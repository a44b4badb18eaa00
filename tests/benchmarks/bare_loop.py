"""The baseline of ``speed``: the same requests in a bare loop, nothing checked and nothing kept.

    python -m tests.benchmarks.bare_loop URL REQUESTS WORKERS

One client with one connection per worker, a prebuilt request, ``client.send``: the quickest way to
use httpx.
"""

import sys

import anyio
import httpx2 as httpx


async def ask(url: str, requests: int, workers: int) -> None:
    """Send so many requests, so many at once."""
    left = iter(range(requests))

    async def work() -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
            request = client.build_request("GET", url)
            for _ in left:
                (await client.send(request)).raise_for_status()

    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(work)


if __name__ == "__main__":
    anyio.run(ask, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
