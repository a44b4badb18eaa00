"""How findings are told."""

from datetime import timedelta

import pytest

from pipeline.audit.wording import counted, roughly, select_attempts


def test_one_of_a_thing_is_not_many() -> None:
    """And thousands can be read."""
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(1200, "batch", "batches") == "1,200 batches"


def test_few_attempts_stand_for_many() -> None:
    """Each once, in order, and those that are none left out."""
    assert select_attempts([3, None, 1, 3]) == (1, 3)
    assert select_attempts(range(100)) == (0, 1, 2, 3, 4, 95, 96, 97, 98, 99)
    assert select_attempts([None]) == ()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (300, "5 min"), (5_400, "1.5 h"), (172_800, "2 days")]
)
def test_a_stretch_of_time_in_a_word(seconds: float, text: str) -> None:
    """Nobody needs its microseconds."""
    assert roughly(timedelta(seconds=seconds)) == text
