"""The continuous tests of NIST SP 800-90B, 4.4: the same number too often.

- **Repetition count**: so many equal numbers in a row.
- **Adaptive proportion**: so many numbers of a window equal to its first one.

Each is made at two cut-offs. Chance goes as far as a warning in one of 2^30 numbers or windows, as
far as critical in one of 2^60. No number is ever refused for it: what is kept would be biased.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import ceil, log2
from typing import NamedTuple

from pipeline.health.tails import binomial_cut_off, binomial_tail
from pipeline.models import Severity

LEVELS = {Severity.WARNING: 30, Severity.CRITICAL: 60}  # bits: alpha is 2 to minus that
WINDOW, WINDOW_OF_TWO = 512, 1024  # numbers; the longer one where there are two values


class HealthTest(StrEnum):
    """Which of the two it is."""

    REPETITION = "repetition"
    PROPORTION = "proportion"


def repetition_cut_off(bits: int, entropy: float) -> int:
    """Give how many equal numbers in a row are too many, at alpha = 2^-*bits*.

    *entropy* is that of a number, in bits.
    """
    return 1 + ceil(bits / entropy)


def proportion_cut_off(bits: int, entropy: float, window: int) -> int:
    """Give how many numbers of a *window* that are equal to its first are too many.

    That one is one of them, so only the others are left to chance: the corrected form,
    2 + qbinom(1 - alpha, window - 1, 2^-entropy). The standard's own is one less, as a rule. It is
    never more than the window has.
    """
    return min(window, 1 + binomial_cut_off(window - 1, 2**-entropy, 2.0**-bits))


class Limits(NamedTuple):
    """The cut-offs for one range, by severity.

    Attributes:
        window: of the adaptive proportion test.
        false_alarms: how many warnings chance gives for each number that comes.
    """

    window: int
    cut_offs: dict[HealthTest, dict[Severity, int]]
    false_alarms: float


@lru_cache
def limits_of(low: int, high: int) -> Limits | None:
    """Work out the cut-offs for numbers in [*low*, *high*]; None if it holds only one."""
    values = high - low + 1
    if values == 1:
        return None
    entropy = log2(values)
    window = WINDOW_OF_TWO if values == 2 else WINDOW  # noqa: PLR2004 - as the standard has it
    repetition = {level: repetition_cut_off(bits, entropy) for level, bits in LEVELS.items()}
    proportion = {
        level: proportion_cut_off(bits, entropy, window) for level, bits in LEVELS.items()
    }
    others = proportion[Severity.WARNING] - 1
    in_a_row = (1 - 1 / values) * (1 / values) ** (repetition[Severity.WARNING] - 1)
    return Limits(
        window=window,
        cut_offs={HealthTest.REPETITION: repetition, HealthTest.PROPORTION: proportion},
        false_alarms=in_a_row + binomial_tail(others, window - 1, 1 / values) / window,
    )


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far the tests have come; numbers are their distances from the lowest of the range.

    Attributes:
        numbers: how many there were.
        last: the last of them, and how often it came in a row up to there (``repeats``).
        sample: the first number of the window, and how often it came in it (``matches``).
    """

    numbers: int = 0
    last: int = 0
    repeats: int = 0
    sample: int = 0
    matches: int = 0


class Excess(NamedTuple):
    """The same number too often.

    Attributes:
        value: which one, as its distance from the lowest of the range.
        times: how often, in a row or in the window so far; too often is the ``cut_off``.
        at: where it went too far in the numbers that were looked at, from 0.
        is_new: whether that was there, and not in earlier numbers.
    """

    test: HealthTest
    severity: Severity
    value: int
    times: int
    cut_off: int
    at: int
    is_new: bool


def follow(progress: Progress, limits: Limits, numbers: Sequence[int]) -> Iterator[Excess]:
    """Go on with *numbers*, and tell each time that one came too often."""
    yield from _follow_repetition(progress, limits.cut_offs[HealthTest.REPETITION], numbers)
    yield from _follow_proportion(progress, limits, numbers)
    progress.numbers += len(numbers)


def _follow_repetition(
    progress: Progress, cut_offs: dict[Severity, int], numbers: Sequence[int]
) -> Iterator[Excess]:
    last, repeats, least = progress.last, progress.repeats, min(cut_offs.values())
    for index, number in enumerate(numbers):
        if number != last:
            last, repeats = number, 1
            continue
        repeats += 1
        if repeats >= least:
            yield from _exceeded(HealthTest.REPETITION, cut_offs, number, repeats, [index])
    progress.last, progress.repeats = last, repeats


def _follow_proportion(
    progress: Progress, limits: Limits, numbers: Sequence[int]
) -> Iterator[Excess]:
    cut_offs, at = limits.cut_offs[HealthTest.PROPORTION], 0
    least = min(cut_offs.values())
    while at < len(numbers):
        begun = (progress.numbers + at) % limits.window
        if begun == 0:
            progress.sample, progress.matches = numbers[at], 0
        part = numbers[at : at + limits.window - begun]
        more = part.count(progress.sample)
        progress.matches += more
        if more and progress.matches >= least:
            where = [at + i for i, number in enumerate(part) if number == progress.sample]
            yield from _exceeded(
                HealthTest.PROPORTION, cut_offs, progress.sample, progress.matches, where
            )
        at += len(part)


def _exceeded(
    test: HealthTest,
    cut_offs: dict[Severity, int],
    value: int,
    times: int,
    where: Sequence[int],
) -> Iterator[Excess]:
    """Tell which cut-offs are reached; the last of the *times* were at the indexes *where*."""
    for severity, cut_off in cut_offs.items():
        if times >= cut_off:
            over = cut_off - (times - len(where)) - 1
            yield Excess(
                test=test,
                severity=severity,
                value=value,
                times=times,
                cut_off=cut_off,
                at=where[max(0, over)],
                is_new=over >= 0,
            )
