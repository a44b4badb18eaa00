"""Words that go with a number."""

import pytest

from pipeline.cli.words import count_of


@pytest.mark.parametrize(
    ("n", "noun", "written"),
    [
        (1, "run", "1 run"),
        (0, "run", "0 runs"),
        (2, "batch", "2 batches"),
        (2, "loss", "2 losses"),
        (3, "retry", "3 retries"),
        (1, "retry", "1 retry"),
    ],
)
def test_the_noun_agrees_with_its_number(n: int, noun: str, written: str) -> None:
    """A report of 1 runs looks as if nobody had ever read one."""
    assert count_of(n, noun) == written
