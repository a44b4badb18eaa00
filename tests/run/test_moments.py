"""Moments for many who wait at once, from a store that takes its time."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from sqlalchemy import event

from pipeline.pacing import Moment, Pace, Quota, Rate, Rules
from pipeline.run.desk import LONGEST_DELAY
from pipeline.run.moments import Moments, Wish
from pipeline.store.db import Store, open_store
from pipeline.store.shared_clock import SharedClock

pytestmark = pytest.mark.anyio

RATE = Rate(requests=100, period_seconds=1)
FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)
SLOW_SECONDS = 0.05


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store whose disk is slow."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    with open_store(url, busy_seconds=5, for_writing=True) as store:
        event.listen(store._engine, "commit", lambda _: time.sleep(SLOW_SECONDS))
        yield store


def make_moments(store: Store, rules: Rules) -> Moments:
    """Make the moments of an upstream that was never asked."""
    return Moments("dice@h.example", rules, Pace(), store=store, clock=SharedClock())


async def take_all(moments: Moments, rules: Rules, count: int) -> list[Moment]:
    """Take so many moments, all at once."""
    taken: list[Moment] = []

    async def take() -> None:
        async with moments.waiting:
            moment = await moments.take(Wish(rules=rules, bits=1, latest=FOR_EVER))
            assert moment is not None
            taken.append(moment)
            await anyio.sleep(max(0.0, (taken[-1].at - datetime.now(UTC)).total_seconds()))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(take)
    return taken


def count_commits(store: Store) -> list[None]:
    """Give a list that grows with each commit."""
    commits: list[None] = []
    event.listen(store._engine, "commit", lambda _: commits.append(None))
    return commits


async def test_one_asks_for_all_who_wait(store: Store) -> None:
    """Or a slow disk would let through only as many as it can write, whatever the rule allows."""
    moments, commits = make_moments(store, Rules(rate=RATE)), count_commits(store)

    taken = await take_all(moments, Rules(rate=RATE), 40)

    in_order = sorted(moment.at for moment in taken)
    assert len(taken) == 40
    assert all(after - before >= RATE.interval for before, after in pairwise(in_order))
    assert len(commits) <= 20
    assert moments.delay >= timedelta(seconds=SLOW_SECONDS)


async def test_who_pays_out_of_a_quota_asks_alone(store: Store) -> None:
    """A moment that nobody uses in the end must not have cost anything."""
    quota = Quota(unit="bits", amount=1000, period="month")
    rules = Rules(rate=RATE, quotas=(quota,))
    moments, commits = make_moments(store, rules), count_commits(store)

    await take_all(moments, rules, 6)

    assert len(commits) == 6


async def test_a_moment_that_was_slept_through_is_given_to_nobody(store: Store) -> None:
    """It was taken for one who has gone since."""
    moments = make_moments(store, Rules(rate=RATE))
    gone = Moment(at=datetime.now(UTC) - 2 * RATE.tolerance)
    moments._spare.append(gone)

    taken = await moments.take(Wish(rules=Rules(rate=RATE), bits=0, latest=FOR_EVER))

    assert taken is not None
    assert taken.at > gone.at
    assert not moments.is_too_late(taken) or moments.delay > RATE.tolerance


async def test_a_store_that_hung_is_not_taken_for_slow(store: Store) -> None:
    """After a pause of 20 s nobody is to wait for a moment 40 s ahead."""
    moments = make_moments(store, Rules(rate=RATE))

    moments._let_wait(timedelta(seconds=20))

    assert moments.delay == LONGEST_DELAY
    assert moments.waiting.total_tokens == RATE.requests
