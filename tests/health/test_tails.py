"""The tails of distributions, held against mpmath."""

import pytest
from mpmath import mp, mpf

from pipeline.health.tails import (
    binomial_cut_off,
    binomial_tail,
    chi_square_tail,
    normal_tails,
)

ACCURACY = 3e-13
TINIEST = 1e-290  # below, floats lose their digits


@pytest.mark.parametrize("freedom", [1, 2, 5, 30, 99, 255, 1000, 7812])
def test_chi_square_tails_are_those_of_mpmath(freedom: int) -> None:
    """On both sides of where the series gives way to the fraction."""
    for ratio in (1e-6, 0.3, 0.8, 0.95, 1.0, 1.02, 1.1, 1.5, 2.0, 10.0):
        x = freedom * ratio
        with mp.workdps(50):
            expected = mp.gammainc(mpf(freedom) / 2, mpf(x) / 2, mp.inf, regularized=True)

        if expected > TINIEST:
            assert chi_square_tail(x, freedom) == pytest.approx(float(expected), rel=ACCURACY)


def test_a_chi_square_of_nothing_is_as_likely_as_can_be() -> None:
    """Numbers that come equally often have no other."""
    assert chi_square_tail(0.0, 5) == 1.0


@pytest.mark.parametrize("z", [0.0, 0.5, -1.96, 4.0, 30.0])
def test_normal_tails_are_those_of_mpmath(z: float) -> None:
    """To both sides, whatever the sign."""
    with mp.workdps(50):
        expected = mp.erfc(abs(mpf(z)) / mp.sqrt(2))

    assert normal_tails(z) == pytest.approx(float(expected), rel=ACCURACY)


def exact_tail(k: int, n: int, p: float) -> mpf:
    """Add up the terms with many digits."""
    chance = mpf(p)
    terms = (mp.binomial(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k, n + 1))
    return mp.fsum(terms)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100, 511])
@pytest.mark.parametrize("p", [2.0**-32, 0.01, 1 / 6, 0.5, 0.87])
def test_binomial_tails_are_those_of_mpmath(n: int, p: float) -> None:
    """From the first to the last, where most of a float is lost by careless formulas."""
    with mp.workdps(50):
        for k in sorted({0, 1, n // 10, int(n * p) + 1, n // 2, n - 1, n}):
            expected = exact_tail(k, n, p)

            if expected > TINIEST:
                assert binomial_tail(k, n, p) == pytest.approx(float(expected), rel=ACCURACY)


@pytest.mark.parametrize(("n", "p"), [(511, 1 / 6), (1023, 0.5), (20, 0.01), (511, 2.0**-32)])
@pytest.mark.parametrize("bits", [20, 30, 60])
def test_a_cut_off_is_the_first_that_is_rare_enough(n: int, p: float, bits: int) -> None:
    """One less would be too common."""
    with mp.workdps(50):
        cut_off = binomial_cut_off(n, p, 2.0**-bits)

        assert exact_tail(cut_off, n, p) <= 2.0**-bits < exact_tail(cut_off - 1, n, p)
