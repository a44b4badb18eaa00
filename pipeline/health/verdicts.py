"""What the tests of many blocks come to, however often somebody asks. Pure."""

from pipeline.health.continuous import LEVELS
from pipeline.health.tails import binomial_tail
from pipeline.models import Severity

ALPHA = 0.01  # of the blocks of a fair source so many are odd: their p-value is below


def chance_of(odd: int, blocks: int) -> float:
    """Tell how likely so many *odd* ones, or more, are among the *blocks* of a fair source."""
    return binomial_tail(odd, blocks, ALPHA)


def judge(odd: int, blocks: int) -> Severity | None:
    """Tell how bad it is that so many *blocks* are *odd*; None if chance explains it.

    An answer changes only when another block has come, so each number of blocks has its own part
    of the whole chance to err, 1 / (n (n + 1)) of it, and these parts add up to 1. Who asks after
    every block of a fair source, for ever, is warned with a chance of 2^-30; who also begins at
    any of N blocks, with one of N times that.
    """
    if not blocks:
        return None
    chance = chance_of(odd, blocks) * blocks * (blocks + 1)
    reached = [severity for severity, bits in LEVELS.items() if chance < 2.0**-bits]
    return reached[-1] if reached else None
