"""Ten million fair numbers of several ranges: what the tests find in them, and what that costs.

    python -m tests.benchmarks.health [--numbers 10000000]

They should raise nothing, and about 1 % of their blocks should be odd to each test. The costs are
CPU seconds, as ratios against adding the same numbers up with ``sum``.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence

from pipeline.health.blocks import BLOCK_TESTS, block_size, examine_block
from pipeline.health.continuous import Progress, follow, limits_of
from pipeline.health.verdicts import ALPHA, judge
from tests.health.numbers import fair_dice

RANGES = {"coin": (0, 1), "die": (1, 6), "byte": (0, 255), "0 to 999": (0, 999)}


def draw(name: str, n: int) -> Sequence[int]:
    """Draw *n* fair numbers, as distances from the lowest; the same each time."""
    if name == "die":
        return fair_dice(seed=1, n=n)
    chance, (low, high) = random.Random(name), RANGES[name]
    if name == "coin":
        return bytes(byte & 1 for byte in chance.randbytes(n))
    return chance.randbytes(n) if name == "byte" else chance.choices(range(high - low + 1), k=n)


def measure(name: str, n: int) -> str:
    """Test *n* numbers of a range."""
    low, high = RANGES[name]
    numbers, size, limits = draw(name, n), block_size(low, high), limits_of(low, high)
    assert limits is not None
    began = time.process_time()
    sum(numbers)
    added = time.process_time()
    excesses = sum(1 for _ in follow(Progress(), limits, numbers))
    followed = time.process_time()
    odd, accused = Counter(dict.fromkeys(BLOCK_TESTS, 0)), 0
    for block in range(n // size):
        found = examine_block(numbers[block * size : (block + 1) * size], high - low + 1)
        odd.update(test for test, p in found.items() if p is not None and p < ALPHA)
        accused += any(judge(odd[test], block + 1) for test in BLOCK_TESTS)
    tested, base = time.process_time(), added - began
    shares = ", ".join(f"{test} {odd[test] * size / n:.2%}" for test in BLOCK_TESTS if odd[test])
    return (
        f"{name}: {excesses} excesses (target 0), accused after {accused} blocks (target 0), odd"
        f" blocks: {shares}; with every number {(followed - added) / base:.1f} x, by blocks"
        f" {(tested - followed) / base:.1f} x `sum`"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, default=10_000_000)
    chosen = parser.parse_args()
    for name in RANGES:
        print(measure(name, chosen.numbers), flush=True)
