"""The tests of blocks: the values that NIST published, and what odd numbers come to."""

import random
from math import isqrt, log2

import pytest
from mpmath import mp

from pipeline.health.blocks import (
    BLOCK_TESTS,
    block_size,
    chi_square,
    correlation,
    examine_block,
    frequency,
    join_bits,
    min_entropy,
    monobit,
    runs,
    serial,
)
from pipeline.health.verdicts import ALPHA
from tests.health.numbers import fair_dice

DIGITS = 1_000_000
# The example of SP 800-22: the first hundred binary digits of pi.
PI_100 = (
    "11001001000011111101101010100010001000010110100011"
    "00001000110100110001001100011001100010100010111000"
)


def binary_digits(name: str) -> int:
    """Give the first million binary digits of a number between 1 and 4, the whole part included."""
    if name.startswith("sqrt"):
        return isqrt(int(name[4:]) << 2 * (DIGITS - 1))
    with mp.workprec(DIGITS + 100):
        return int(mp.floor(mp.ldexp(+getattr(mp, name), DIGITS - 2)))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("pi", (0.578211, 0.380615, 0.419268)),
        ("e", (0.953749, 0.211072, 0.561917)),
        ("sqrt2", (0.811881, 0.833222, 0.313427)),
        ("sqrt3", (0.610051, 0.473961, 0.261123)),
    ],
)
def test_the_published_values_come_out(name: str, published: tuple[float, float, float]) -> None:
    """Those that NIST's own program prints for its files of digits."""
    bits = binary_digits(name)
    assert bits.bit_length() == DIGITS

    found = (monobit(bits, DIGITS), frequency(bits, DIGITS), runs(bits, DIGITS))

    assert tuple(round(p, 6) for p in found) == published


def test_the_examples_of_the_standard_come_out() -> None:
    """SP 800-22, 2.1.8, 2.2.8 and 2.3.8."""
    bits = int(PI_100, 2)

    assert monobit(bits, 100) == pytest.approx(0.109599, abs=1e-6)
    assert frequency(bits, 100, 10) == pytest.approx(0.706438, abs=1e-6)
    assert runs(bits, 100) == pytest.approx(0.500798, abs=1e-6)


def test_the_example_of_the_most_common_value_comes_out() -> None:
    """SP 800-90B, 6.3.1: eight of twenty numbers are the same."""
    assert min_entropy(8 / 20, 20) == pytest.approx(0.5363, abs=1e-4)
    assert min_entropy(8 / 20) == pytest.approx(-log2(0.4))
    assert min_entropy(1.0, 1024) == 0.0


def test_lopsided_bits_are_not_counted_for_runs() -> None:
    """The standard has that test only where monobit would pass."""
    assert runs(int("1" * 90 + "01" * 5, 2), 100) == 0.0


@pytest.mark.parametrize(
    ("low", "high", "size"),
    [(0, 1, 1024), (1, 6, 1024), (0, 255, 1280), (0, 65535, 1280), (1, 10**18, 1280)],
)
def test_a_block_has_five_numbers_for_each_cell(low: int, high: int, size: int) -> None:
    """And not fewer than 1,024, below which nothing is said of a source."""
    assert block_size(low, high) == size


def test_bits_stand_in_the_order_in_which_they_are_written() -> None:
    """The highest of each number first, whatever its width."""
    assert join_bits([0b101, 0b001], 3) == 0b101001
    assert join_bits([0x12, 0xFF], 8) == 0x12FF
    assert join_bits([0x0102, 0xFFFE], 16) == 0x0102FFFE


def test_a_range_that_is_no_power_of_two_has_no_bits() -> None:
    """A die has none to count."""
    found = examine_block(fair_dice(seed=3, n=1024), 6)

    assert [name for name, p in found.items() if p is None] == ["monobit", "frequency", "runs"]


@pytest.mark.parametrize("values", [2, 6, 8, 256, 1000, 65536, 10**12, 2**64])
def test_fair_blocks_are_odd_as_often_as_chance_makes_them(values: int) -> None:
    """About one in a hundred, to each of the tests that fit; never many more."""
    chance, size = random.Random(values), block_size(0, values - 1)
    odd, blocks = dict.fromkeys(BLOCK_TESTS, 0), 150
    for _ in range(blocks):
        found = examine_block([chance.randrange(values) for _ in range(size)], values)
        for name in odd:
            p = found[name]
            odd[name] += p is not None and p < ALPHA

    assert max(odd.values()) <= 8  # of 150: chance gives more once in 30,000


def test_a_mean_that_is_right_does_not_help() -> None:
    """A die that shows only 3 and 4 has the mean of a fair one."""
    chance = random.Random(1)

    found = examine_block(bytes(chance.choice((2, 3)) for _ in range(1024)), 6)

    assert found["chi_square"] == pytest.approx(0.0, abs=1e-100)


def test_a_counter_is_found_by_its_order() -> None:
    """Each number comes as often as the others, one after the other."""
    numbers = [number % 256 for number in range(1280)]

    assert chi_square(numbers, 256) == pytest.approx(1.0)
    assert serial(numbers) < 1e-100


def test_numbers_that_are_all_equal_have_no_correlation() -> None:
    """They are as odd as can be all the same."""
    assert correlation([4] * 100) is None
    assert serial([4] * 100) == 0.0


def test_wide_ranges_are_counted_in_slices() -> None:
    """1,000 values make 256 slices of three or four; a slice that is left out is seen."""
    chance = random.Random(5)
    numbers = [chance.randrange(900) for _ in range(1280)]

    assert chi_square([chance.randrange(1000) for _ in range(1280)], 1000) > ALPHA
    assert chi_square(numbers, 1000) < 1e-6
