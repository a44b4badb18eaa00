"""Numbers that look fair, the same each time."""

import random

_DIE = bytes(value % 6 for value in range(256))
_UNFAIR = bytes(range(252, 256))  # would favour some sides


def fair_dice(*, seed: int, n: int) -> bytes:
    """Roll a die *n* times; its sides are 0 to 5."""
    rolls = random.Random(seed).randbytes(n + n // 32 + 1000)
    return rolls.translate(_DIE, _UNFAIR)[:n]
