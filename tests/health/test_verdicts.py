"""What odd blocks come to, however often somebody asks."""

import random

import pytest

from pipeline.health.verdicts import ALPHA, chance_of, judge
from pipeline.models import Severity


def test_no_block_is_no_verdict() -> None:
    """Nothing was tested."""
    assert judge(0, 0) is None


def test_one_odd_block_accuses_nobody() -> None:
    """One block in a hundred of a fair source is odd."""
    assert judge(1, 1) is None
    assert judge(3, 100) is None


def test_odd_blocks_alone_are_found_within_10_000_numbers() -> None:
    """Six blocks of 1,024 are enough."""
    assert [judge(n, n) for n in (5, 6)] == [None, Severity.WARNING]


@pytest.mark.parametrize(
    ("odd", "blocks", "expected"),
    [(12, 100, None), (20, 100, Severity.WARNING), (40, 100, Severity.CRITICAL)],
)
def test_more_than_chance_gives_is_a_warning_and_much_more_critical(
    odd: int, blocks: int, expected: Severity | None
) -> None:
    """At the levels of the continuous tests."""
    assert judge(odd, blocks) is expected


@pytest.mark.parametrize("seed", range(5))
def test_who_asks_after_every_block_accuses_nobody(seed: int) -> None:
    """As with asking daily for thirty years."""
    chance, odd = random.Random(seed), 0
    for blocks in range(1, 3001):
        odd += chance.random() < ALPHA
        assert judge(odd, blocks) is None


def test_chance_is_that_of_as_many_or_more() -> None:
    """None of ten: certain. All of two: one in ten thousand."""
    assert chance_of(0, 10) == 1.0
    assert chance_of(2, 2) == pytest.approx(1e-4)
