"""The clock that machines have in common, shown by one that is wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.store.shared_clock import SharedClock

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
NEARLY = timedelta(seconds=30)  # a busy machine


def test_what_nobody_told_is_the_clock_here() -> None:
    """With a store in a file there is no other."""
    before = datetime.now(UTC)

    assert before <= SharedClock().now() <= datetime.now(UTC)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_clock_that_is_wrong_shows_the_right_time(ahead: timedelta) -> None:
    """By whatever it is off, as long as it runs."""
    clock = SharedClock()
    now = datetime.now(UTC)
    clock.learn(now + ahead, asked_at=now)

    shown = clock.now()

    assert now + ahead <= shown <= now + ahead + NEARLY


def test_it_is_never_ahead_and_the_quickest_answer_counts() -> None:
    """What a slow answer showed had passed long ago; that changes nothing."""
    clock = SharedClock()
    now = datetime.now(UTC)
    clock.learn(now + HOUR, asked_at=now)
    before = clock.shown_at(now)

    clock.learn(datetime.now(UTC) + HOUR - 5 * SECOND, asked_at=now - 10 * SECOND)

    assert clock.shown_at(now) == before <= now + HOUR


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    """The server's, or the one here: no answer could have been quicker than it seems to be."""
    clock = SharedClock()
    now = datetime.now(UTC)
    clock.learn(now + HOUR, asked_at=now)

    for ahead in (HOUR - SECOND, HOUR + SECOND):
        now = datetime.now(UTC)
        clock.learn(now + ahead, asked_at=now)
        assert now + ahead - NEARLY <= clock.shown_at(now) <= now + ahead
