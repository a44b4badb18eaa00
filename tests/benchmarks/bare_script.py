"""The baseline of ``speed``: the script that a hurried person writes, with nothing checked or kept.

    python -m tests.benchmarks.bare_script URL BATCHES WORKERS

asks for so many batches of 16, so many at once, and sums them, on aiohttp.
"""

import asyncio
import sys

import aiohttp


async def collect(url: str, batches: int, workers: int) -> dict[int, int]:
    """Give the sum of each batch."""
    sums: dict[int, int] = {}
    left = iter(range(batches))
    params: dict[str, str | int] = {"length": 16, "type": "uint16"}

    async def work(session: aiohttp.ClientSession) -> None:
        for batch in left:
            async with session.get(url, params=params) as response:
                response.raise_for_status()
                sums[batch] = sum((await response.json())["data"])

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(workers)))
    return sums


if __name__ == "__main__":
    print(len(asyncio.run(collect(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
