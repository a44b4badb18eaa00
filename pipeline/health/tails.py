"""How likely chance is to go so far: tails of the chi-square, binomial and normal distributions.

Accurate to 3e-13 of the value, as the tests show against mpmath.
"""

from collections.abc import Iterator
from itertools import count
from math import erfc, exp, inf, lgamma, log, log1p, pi, sqrt

NEGLIGIBLE = 2.0**-60  # of a sum, in one of its terms
_HALF_LOG_TAU = 0.5 * log(2 * pi)
_STIRLING_FROM = 16  # the series below is exact from here on
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_NEAR = 0.1  # so near to each other two numbers cancel out


def normal_tails(z: float) -> float:
    """Tell how likely a standard normal number is to be off by *z* or more, to either side."""
    return erfc(abs(z) / sqrt(2))


def chi_square_tail(x: float, freedom: int) -> float:
    """Tell how likely a chi-square number with so many degrees of *freedom* is to be *x* or more.

    It is the regularised upper incomplete gamma function, Q(freedom / 2, x / 2).
    """
    a, x = freedom / 2, x / 2
    if x <= 0:
        return 1.0
    if x < a + 1:
        return 1 - _scale(a, x) * _series(a, x)
    return _scale(a, x) * _fraction(a, x)


def _scale(a: float, x: float) -> float:
    """Give x^a e^-x / Γ(a + 1); written so that large values of *a* do not cancel out."""
    return exp(-_deviance(a, x) - _stirling_error(a)) / sqrt(2 * pi * a)


def _series(a: float, x: float) -> float:
    term = total = 1.0
    for n in count(1):
        term *= x / (a + n)
        total += term
        if term < total * NEGLIGIBLE:
            return total
    raise AssertionError


def _fraction(a: float, x: float) -> float:
    """Work out the continued fraction of Γ(a, x) by Lentz's method, times a."""
    b = x + 1 - a
    c, d = inf, 1 / b
    value = d
    for n in count(1):
        factor = n * (a - n)
        b += 2
        d = 1 / (b + factor * d)
        c = b + factor / c
        value *= c * d
        if abs(c * d - 1) < 2**-52:
            return value * a
    raise AssertionError


def binomial_tail(k: int, n: int, p: float) -> float:
    """Tell how likely *k* or more of *n* trials succeed, if each does with the chance *p*."""
    if k <= 0:
        return 1.0
    if k < n * p:
        return 1 - binomial_tail(n - k + 1, n, 1 - p)
    return sum(_terms(k, n, p))


def binomial_cut_off(n: int, p: float, alpha: float) -> int:
    """Find the smallest k such that *k* or more of *n* trials succeed with a chance up to *alpha*.

    It is 1 + qbinom(1 - alpha, n, p), without the rounding of 1 - alpha.
    """
    mode = min(n, int((n + 1) * p))
    terms = list(_terms(mode, n, p, least=alpha * NEGLIGIBLE))
    total = 0.0
    for k in range(mode + len(terms) - 1, mode - 1, -1):
        total += terms[k - mode]
        if total > alpha:
            return k + 1
    return mode


def _terms(k: int, n: int, p: float, least: float = 0.0) -> Iterator[float]:
    """Walk over the chances of *k*, k + 1, … successes in *n* trials, as far as they matter."""
    first = term = _binomial(k, n, p)
    while k <= n and (term > least if least else term >= first * NEGLIGIBLE):
        yield term
        term *= (n - k) / (k + 1) * p / (1 - p)
        k += 1


def _binomial(k: int, n: int, p: float) -> float:
    """Give the chance of *k* successes in *n* trials, by Loader's saddle-point expansion."""
    if k == 0:
        return exp(n * log1p(-p))
    if k == n:
        return p**n
    errors = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    deviances = _deviance(k, n * p) + _deviance(n - k, n * (1 - p))
    return exp(errors - deviances) * sqrt(n / (2 * pi * k * (n - k)))


def _stirling_error(n: float) -> float:
    """Give what Stirling's formula lacks of log n!."""
    if n < _STIRLING_FROM:
        return lgamma(n + 1) - (n + 0.5) * log(n) + n - _HALF_LOG_TAU
    return sum(factor / n ** (2 * i + 1) for i, factor in enumerate(_STIRLING))


def _deviance(x: float, mean: float) -> float:
    """Give x log(x / mean) + mean - x; where both are near, by a series without cancellation."""
    v = (x - mean) / (x + mean)
    if abs(v) >= _NEAR:
        return x * log(x / mean) + mean - x
    total, term = (x - mean) * v, 2 * x * v
    for n in count(1):
        term *= v * v
        before, total = total, total + term / (2 * n + 1)
        if total == before:
            return total
    raise AssertionError
