"""Tests on a block of numbers, each of which gives a p-value.

A p-value tells how often chance alone gives a block that looks as odd or odder: of 100 blocks of a
fair source about one is below 0.01. So each block is tested once, and only their number tells.

- **chi_square**: does each number come as often as the others? Of wide ranges 256 slices are
  counted.
- **monobit**, **frequency**, **runs** (NIST SP 800-22, 2.1 to 2.3): are there as many ones as zeros
  among the bits, on the whole and in stretches of 128, and do they alternate as often as chance
  has it? Only where each number stands for a whole number of bits: ranges of 2, 4, 8, … numbers.
- **serial** (Knuth, 3.3.2 K): does a number tell anything of the next one?
- **Most common value** (SP 800-90B, 6.3.1) gives no p-value, but how many bits of surprise are in a
  number at least.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import erfc, log2, sqrt
from operator import mul

from pipeline.health.tails import chi_square_tail, normal_tails

BLOCK_TESTS = ("chi_square", "monobit", "frequency", "runs", "serial")
FEWEST = 1024  # numbers: SP 800-90B lets a source start only after so many
PER_CELL = 5  # expected in each cell of a chi-square test, by the usual rule
MOST_CELLS = 256
STRETCH = 128  # bits
Z_99_5 = 2.576  # of the bound on the most common value: 99 % of both sides


def block_size(low: int, high: int) -> int:
    """Tell how many numbers in [*low*, *high*] make a block."""
    return max(FEWEST, PER_CELL * _cells(high - low + 1))


def _cells(values: int) -> int:
    return min(values, MOST_CELLS)


def examine_block(numbers: Sequence[int], values: int) -> dict[str, float | None]:
    """Test *numbers* from 0 up to, but without, *values*; give a p-value by each of the tests.

    None where a test does not fit the range.
    """
    width = values.bit_length() - 1
    found: dict[str, float | None] = dict.fromkeys(BLOCK_TESTS)
    if values == 1 << width:
        bits, n = join_bits(numbers, width), len(numbers) * width
        found |= {"monobit": monobit(bits, n), "frequency": frequency(bits, n)}
        found["runs"] = runs(bits, n)
    return found | {"chi_square": chi_square(numbers, values), "serial": serial(numbers)}


def chi_square(numbers: Sequence[int], values: int) -> float:
    """Compare how often each number came with how often it should have."""
    cells = _cells(values)
    sliced = [number * cells // values for number in numbers] if cells < values else numbers
    counts = Counter(sliced)
    expected = enumerate(_expected(len(numbers), values))
    x = sum([(counts[cell] - mean) ** 2 / mean for cell, mean in expected])
    return chi_square_tail(x, cells - 1)


@lru_cache(maxsize=16)
def _expected(n: int, values: int) -> list[float]:
    """Tell how many of *n* numbers should come in each cell."""
    cells = _cells(values)
    # A slice has one value more than others where the values cannot be shared out evenly.
    edges = [-(-cell * values // cells) for cell in range(cells + 1)]
    return [n * (edges[cell + 1] - edges[cell]) / values for cell in range(cells)]


def join_bits(numbers: Sequence[int], width: int) -> int:
    """Write *numbers* one behind the other, each as *width* bits, the highest of them first."""
    if width % 8 == 0:
        return int.from_bytes(b"".join([number.to_bytes(width // 8) for number in numbers]))
    return int("".join(f"{number:0{width}b}" for number in numbers), 2)


def monobit(bits: int, n: int) -> float:
    """Compare how many of *n* bits are ones with how many are zeros."""
    return normal_tails((2 * bits.bit_count() - n) / sqrt(n))


def frequency(bits: int, n: int, stretch: int = STRETCH) -> float:
    """Compare the ones with the zeros in each whole *stretch* of *n* bits."""
    stretches = n // stretch
    text = f"{bits:0{n}b}"
    ones = (text.count("1", at * stretch, (at + 1) * stretch) for at in range(stretches))
    x = sum(4 * stretch * (each / stretch - 0.5) ** 2 for each in ones)
    return chi_square_tail(x, stretches)


def runs(bits: int, n: int) -> float:
    """Count how often a bit differs from the one before; 0 where the bits are too lopsided."""
    share = bits.bit_count() / n
    if abs(share - 0.5) >= 2 / sqrt(n):
        return 0.0
    changes = ((bits ^ (bits >> 1)) & ((1 << (n - 1)) - 1)).bit_count()
    usual = 2 * share * (1 - share)
    return erfc(abs(changes + 1 - n * usual) / (usual * sqrt(2 * n)))


def correlation(numbers: Sequence[int]) -> float | None:
    """Give the correlation of each number with the next; None if all are equal.

    The first one follows the last, as in ``ent``.
    """
    n, total = len(numbers), sum(numbers)
    squares = sum(map(mul, numbers, numbers))
    products = sum(map(mul, numbers, [*numbers[1:], numbers[0]]))
    spread = n * squares - total * total
    return (n * products - total * total) / spread if spread else None


def serial(numbers: Sequence[int]) -> float:
    """Tell how likely so strong a serial correlation is; 0 where all numbers are equal."""
    n, found = len(numbers), correlation(numbers)
    if found is None:
        return 0.0
    return normal_tails((found + 1 / (n - 1)) * (n - 1) * sqrt(n - 2) / n)


def min_entropy(share: float, n: int = 0) -> float:
    """Give the least entropy of a number in bits, if the most common had this *share* of them.

    With *n*, how many numbers that share is of, it is the lower bound of SP 800-90B, 6.3.1, with a
    confidence of 99 %; else the estimate.
    """
    error = Z_99_5 * sqrt(share * (1 - share) / (n - 1)) if n else 0.0
    return abs(log2(min(1.0, share + error)))
