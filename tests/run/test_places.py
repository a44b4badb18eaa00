"""The only place at an upstream, as a locked file and as a lease: one contract, held by both."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest
from sqlalchemy import func, update

from pipeline.pacing import Moment, Pace, Rate, Rules
from pipeline.run.breaker import Breaker
from pipeline.run.limiter import Limiter
from pipeline.run.places import SPARE, FilePlace, LeasePlace, Place
from pipeline.store import leases
from pipeline.store.db import Store
from pipeline.store.permissions import find_pace
from pipeline.store.tables import LEASES

pytestmark = pytest.mark.anyio

UPSTREAM = "random_org@h.example"
ALONE = Rules(is_exclusive=True)
ENGAGED = "one request in flight: it is another process's turn"
LONGEST_SECONDS = 30.0
LONG = 60.0  # costs nothing, unless the machine has better things to do

Pair: TypeAlias = tuple[Limiter, Limiter]


def place_at(store: Store, folder: Path) -> Callable[[], Place]:
    """Give what makes a place of the kind that goes with *store*."""
    if store.is_server:
        return partial(LeasePlace, store, UPSTREAM, LONGEST_SECONDS)
    return partial(FilePlace, folder / "place")


def limiter_of(store: Store, folder: Path, rules: Rules = ALONE) -> Limiter:
    """Make the limiter of one process."""
    return Limiter(
        UPSTREAM,
        rules,
        Breaker(5, 0),
        pace=Pace(),
        store=store,
        new_place=place_at(store, folder),
    )


@pytest.fixture
def limiters(shared_stores: tuple[Store, Store], tmp_path: Path) -> Pair:
    """Make the limiters of two processes."""
    one, other = shared_stores
    return limiter_of(one, tmp_path), limiter_of(other, tmp_path)


async def ask(limiter: Limiter, *, seconds: float = LONG) -> Moment | None:
    """Ask for one permission within so many seconds."""
    async with limiter.permission(0, anyio.current_time() + seconds) as moment:
        return moment


async def test_one_request_is_in_flight_at_a_time(limiters: Pair) -> None:
    """Over all processes, and within each."""
    in_flight, most = 0, 0

    async def go(limiter: Limiter) -> None:
        nonlocal in_flight, most
        async with limiter.permission(0, anyio.current_time() + LONG) as moment:
            assert moment is None
            in_flight += 1
            most = max(most, in_flight)
            await anyio.sleep(0.01)
            in_flight -= 1

    async with anyio.create_task_group() as tasks:
        for limiter in (*limiters, *limiters):
            tasks.start_soon(go, limiter)

    assert most == 1


async def test_a_place_that_is_not_exclusive_is_shared(
    shared_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """Most upstreams count requests, not those under way."""
    one, other = (limiter_of(store, tmp_path, Rules()) for store in shared_stores)
    async with one.permission(0, anyio.current_time() + LONG):
        assert await ask(other) is None

    assert not (tmp_path / "place").exists()


async def test_a_place_taken_until_the_deadline_puts_off(limiters: Pair) -> None:
    """The rule forbids to ask: that is no failure of the upstream, and not worth a mail."""
    one, other = limiters
    async with one.permission(0, anyio.current_time() + LONG):
        moment = await ask(other, seconds=0.3)

    assert moment is not None
    assert moment.why == ENGAGED
    assert moment.at - datetime.now(UTC) <= timedelta(seconds=0.3)


async def test_a_place_that_had_to_be_waited_for_holds_back(limiters: Pair) -> None:
    """Whoever had it last time: what is left at the deadline is left because of the rule."""
    one, other = limiters
    async with one.permission(0, anyio.current_time() + LONG), anyio.create_task_group() as tasks:
        tasks.start_soon(ask, other)
        while not other._is_contended:  # noqa: ASYNC110 - nobody rings a bell
            await anyio.sleep(0.01)
        kept = await other.holds_back(1, 0)
        tasks.cancel_scope.cancel()

    assert kept is not None
    assert kept.why == ENGAGED
    assert await one.holds_back(1, 0) is None


async def test_who_is_cancelled_gives_the_place_back(limiters: Pair) -> None:
    """Waiting for it or having it."""
    one, other = limiters

    async def hold() -> None:
        async with one.permission(0, anyio.current_time() + LONG):
            had.set()
            await anyio.sleep_forever()

    had = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await had.wait()
        tasks.start_soon(ask, other)
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()

    assert await ask(other) is None


async def test_who_finds_the_place_taken_takes_no_moment(
    shared_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """Or whoever looks again and again would use up the rate of all."""
    rules = Rules(rate=Rate(requests=1, period_seconds=0.1), is_exclusive=True)
    one, other = (limiter_of(store, tmp_path, rules) for store in shared_stores)

    def next_at(store: Store) -> datetime | None:
        with store.read() as session:
            return find_pace(session, upstream=UPSTREAM).next_at

    async with one.permission(0, anyio.current_time() + LONG):
        before = next_at(shared_stores[0])
        await ask(other, seconds=0.5)
        after = next_at(shared_stores[0])

    assert before == after


# ---- What only a lease can do: it ends by itself ----


def run_out(store: Store) -> None:
    """Let all leases be over, as if so much time had passed."""
    with store.write() as session:
        over = func.clock_timestamp() - timedelta(seconds=1)
        session.connection().execute(update(LEASES).values(until=over))


async def test_who_died_loses_the_place_in_a_stated_time(
    server_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """As long as a request can take, and a little more: nobody else may go sooner."""
    one, other = server_stores
    async with LeasePlace(one, UPSTREAM, LONGEST_SECONDS) as place:
        with one.write() as session:
            assert place.take(session)
            lease = leases.find(session, name=f"place {UPSTREAM}")
        assert lease is not None
        lasts = timedelta(seconds=LONGEST_SECONDS) + SPARE
        assert lasts <= lease.until - lease.since < lasts + timedelta(seconds=1)  # two readings
        assert (await ask(limiter_of(other, tmp_path), seconds=0.3)) is not None
        run_out(one)

        assert await ask(limiter_of(other, tmp_path)) is None


async def test_who_slept_beyond_its_lease_looks_once_more_and_waits(
    server_stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """It took the place and its moment; when it wakes another has had the place since."""
    one, other = server_stores
    rules = Rules(rate=Rate(requests=1, period_seconds=1), is_exclusive=True)
    slept, woken = limiter_of(one, tmp_path, rules), limiter_of(other, tmp_path)
    assert await ask(slept) is None
    order: list[str] = []

    async def wait_for_its_moment() -> None:
        assert await ask(slept) is None
        order.append("slept")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_its_moment)
        while not leases_held(one):  # noqa: ASYNC110 - a database rings no bell
            await anyio.sleep(0.01)
        run_out(one)
        async with woken.permission(0, anyio.current_time() + LONG) as moment:
            assert moment is None
            await anyio.sleep(1.5)  # beyond the moment of the other, and that is in vain
            order.append("woken")

    assert order == ["woken", "slept"]


def leases_held(store: Store) -> bool:
    """Tell whether anybody has the place."""
    with store.read() as session:
        return leases.find(session, name=f"place {UPSTREAM}") is not None


async def test_a_lease_lasts_over_the_wait_for_its_moment(
    server_stores: tuple[Store, Store],
) -> None:
    """Nobody may go before it anyway, and a moment that is taken away would be wasted."""
    store = server_stores[0]
    async with LeasePlace(store, UPSTREAM, LONGEST_SECONDS) as place:
        with store.write() as session:
            assert place.take(session)
            place.hold(session, timedelta(hours=1))
            lease = leases.find(session, name=f"place {UPSTREAM}")

    assert lease is not None
    assert lease.until - lease.since >= timedelta(hours=1, seconds=LONGEST_SECONDS)
    assert not leases_held(store)
