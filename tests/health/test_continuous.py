"""The continuous tests: their cut-offs as published, and where they find something."""

import random
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.health.continuous import (
    Excess,
    HealthTest,
    Limits,
    Progress,
    follow,
    limits_of,
    proportion_cut_off,
    repetition_cut_off,
)
from pipeline.health.tails import binomial_cut_off
from pipeline.models import Severity
from tests.health.numbers import fair_dice

# Those of jitterentropy for 1/1 to 1/20 bit in a sample, window 512.
AT_2_30 = (325, 422, 459, 477, 488, 494, 499, 502, 505, 507, 508, 509, 510, 511, *(512,) * 6)
AT_2_60 = (355, 447, 479, 494, 502, 507, 510, *(512,) * 13)


def die() -> Limits:
    """Give the cut-offs for a die."""
    limits = limits_of(1, 6)
    assert limits is not None
    return limits


def excesses(numbers: bytes) -> list[Excess]:
    """Follow rolls of a die, each written as 0 to 5."""
    return list(follow(Progress(), die(), numbers))


def test_the_table_of_the_standard_comes_out() -> None:
    """SP 800-90B, 4.4.2: alpha 2^-20, in the form that the standard prints."""
    of_two = [binomial_cut_off(1024, 2**-h, 2.0**-20) for h in (0.2, 0.4, 0.6, 0.8, 1)]
    of_more = [binomial_cut_off(512, 2**-h, 2.0**-20) for h in (0.5, 1, 2, 4, 8)]

    assert of_two == [941, 840, 748, 664, 589]
    assert of_more == [410, 311, 177, 62, 13]


def test_the_corrected_form_leaves_the_first_number_out_of_chance() -> None:
    """It is there already, so only the others can be equal to it by chance."""
    of_two = [proportion_cut_off(20, h, 1024) for h in (0.2, 0.4, 0.6, 0.8, 1)]
    of_more = [proportion_cut_off(20, h, 512) for h in (0.5, 1, 2, 4, 8)]

    assert of_two == [941, 841, 748, 664, 590]
    assert of_more == [411, 311, 178, 63, 14]


@pytest.mark.parametrize(("bits", "published"), [(30, AT_2_30), (60, AT_2_60)])
def test_the_cut_offs_of_another_implementation_come_out(
    bits: int, published: tuple[int, ...]
) -> None:
    """Forty of them, and the last are the window itself, so that the test can fail."""
    assert tuple(proportion_cut_off(bits, 1 / n, 512) for n in range(1, 21)) == published


@pytest.mark.parametrize(("bits", "repetition", "proportion"), [(20, 9, 129), (30, 13, 141)])
def test_the_cut_offs_of_a_die(bits: int, repetition: int, proportion: int) -> None:
    """As somebody else worked them out."""
    assert repetition_cut_off(bits, log2(6)) == repetition
    assert proportion_cut_off(bits, log2(6), 512) == proportion


@pytest.mark.parametrize(
    ("low", "high", "window", "repetition", "proportion"),
    [
        (0, 1, 1024, (31, 61), (609, 653)),
        (1, 6, 512, (13, 25), (141, 168)),
        (0, 255, 512, (5, 9), (17, 26)),
        (-(2**63), 2**63 - 1, 512, (2, 2), (2, 3)),
    ],
)
def test_each_range_has_its_own_limits(
    low: int, high: int, window: int, repetition: tuple[int, int], proportion: tuple[int, int]
) -> None:
    """A warning first, then critical; two values have a longer window."""
    limits = limits_of(low, high)

    assert limits is not None
    assert limits.window == window
    assert tuple(limits.cut_offs[HealthTest.REPETITION].values()) == repetition
    assert tuple(limits.cut_offs[HealthTest.PROPORTION].values()) == proportion


def test_a_range_of_one_number_has_no_limits() -> None:
    """It says the same number for ever, and rightly so."""
    assert limits_of(7, 7) is None


def test_a_stuck_die_is_a_warning_at_its_13th_roll_and_critical_at_its_25th() -> None:
    """Each once; then it goes on."""
    found = excesses(bytes([2]) * 30)

    begun = [(each.severity, each.at + 1, each.cut_off) for each in found if each.is_new]
    assert begun == [(Severity.WARNING, 13, 13), (Severity.CRITICAL, 25, 25)]
    assert {each.test for each in found} == {HealthTest.REPETITION}
    assert found[-1].times == 30


def test_one_roll_less_is_chance() -> None:
    """Twelve in a row, and as many again."""
    assert excesses((bytes([2]) * 12 + bytes([3]) * 12) * 10) == []


def test_the_first_roll_of_all_counts_as_one() -> None:
    """A zero that comes first is no repetition of one that never was."""
    assert excesses(bytes(12)) == []
    assert [each.at for each in excesses(bytes(13))] == [12]


def test_a_number_too_often_in_a_window_is_found_where_it_goes_too_far() -> None:
    """The window's first number is counted, as the one that it is about."""
    others = bytes([0, 1, 2, 3, 4]) * 3
    window = b"\5" + (others[:2] + b"\5") * 140

    found = excesses(window)

    assert [(each.severity, each.value, each.times) for each in found] == [
        (Severity.WARNING, 5, 141)
    ]
    assert found[0].at == len(window) - 1
    assert found[0].test is HealthTest.PROPORTION


def test_a_window_begins_anew() -> None:
    """What came before does not count any more, however near it is."""
    half = bytes([0, 5]) * 128  # 128 fives among 256 numbers, and none where a window begins
    quiet = bytes([1, 2, 3, 4]) * 64

    assert excesses(quiet + half + half + quiet) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_loaded_die_is_critical_within_10_000_rolls(seed: int) -> None:
    """It falls on its heavy side in three of ten rolls, and fairly in the others."""
    chance = random.Random(seed)
    rolls = bytes(0 if chance.random() < 0.3 else chance.randrange(6) for _ in range(10_000))

    assert Severity.CRITICAL in {each.severity for each in excesses(rolls)}


def test_ten_million_fair_rolls_raise_nothing() -> None:
    """An alarm that comes by chance teaches people to look away."""
    assert excesses(fair_dice(seed=1, n=10_000_000)) == []


def test_a_false_alarm_is_as_rare_as_it_is_said_to_be() -> None:
    """Warnings at a level where chance gives some: as many as the formula has."""
    limits = Limits(
        window=512,
        cut_offs={
            HealthTest.REPETITION: {Severity.WARNING: 5},
            HealthTest.PROPORTION: {Severity.WARNING: 1000},
        },
        false_alarms=5 / 6 * (1 / 6) ** 4,
    )
    rolls = fair_dice(seed=2, n=1_000_000)

    found = sum(each.is_new for each in follow(Progress(), limits, rolls))

    assert found == pytest.approx(limits.false_alarms * len(rolls), rel=0.15)


@given(st.data())
def test_it_does_not_matter_where_numbers_are_cut(data: st.DataObject) -> None:
    """Batches and runs are cut anywhere; what was found by then is found all the same."""
    limits = Limits(
        window=8,
        cut_offs={
            HealthTest.REPETITION: {Severity.WARNING: 3, Severity.CRITICAL: 5},
            HealthTest.PROPORTION: {Severity.WARNING: 4, Severity.CRITICAL: 6},
        },
        false_alarms=0.1,
    )
    rolls = bytes(data.draw(st.lists(st.integers(0, 2), max_size=60)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rolls)), max_size=5)))
    whole, parts = Progress(), Progress()

    expected = [each for each in follow(whole, limits, rolls) if each.is_new]
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(rolls)], strict=True):
        found += [
            (each.test, each.severity, each.value, begin + each.at)
            for each in follow(parts, limits, rolls[begin:end])
            if each.is_new
        ]

    assert parts == whole
    assert sorted(found) == sorted(
        (each.test, each.severity, each.value, each.at) for each in expected
    )
