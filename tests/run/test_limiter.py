"""Breaker, budget and limiter: who may ask now, in this run and across two that share a store."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import anyio
import pytest
from sqlalchemy import event

from pipeline.errors import ErrorName
from pipeline.models import Attempt, Timings
from pipeline.pacing import OUR_PAUSE, Embargo, Moment, Pace, Quota, Rate, Rules
from pipeline.run import limiter as permission
from pipeline.run.breaker import Breaker, RetryBudget
from pipeline.run.limiter import Limiter
from pipeline.sources.base import Hint
from pipeline.store.db import Store, open_store
from pipeline.store.permissions import find_pace, lay_embargo, release
from pipeline.store.shared_clock import SharedClock
from tests.store.makers import NOON

pytestmark = pytest.mark.anyio

UPSTREAM = "randomnumberapi@h.example"
PER_HOUR = Rules(rate=Rate(requests=1, period_seconds=3600))
FAST = Rules(rate=Rate(requests=100, period_seconds=1))
COUNTED = {
    *("dns", "connect_refused", "connect_timeout", "unreachable", "write_timeout"),
    *("tls", "read_timeout", "reset", "incomplete", "protocol", "decode", "too_large"),
    *("redirect_refused", "http_5xx", "refused", "deadline", "blocked", "intercepted", "unproven"),
}
IGNORED = {"cancelled", "internal"}
DOWN = ErrorName.CONNECT_REFUSED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store as a run does."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    with open_store(url, busy_seconds=5, for_writing=True) as store:
        yield store


class Given(TypedDict, total=False):
    """What a test has to say about a limiter."""

    breaker: Breaker
    pace: Pace
    store: Store | None
    clock: SharedClock


def make_limiter(rules: Rules = PER_HOUR, **given: Unpack[Given]) -> Limiter:
    """Make the limiter of an upstream that was never asked, unless something else is given."""
    return Limiter(
        UPSTREAM,
        rules,
        given.get("breaker") or Breaker(5, 0),
        pace=given.get("pace") or Pace(),
        store=given.get("store"),
        clock=given.get("clock"),
    )


async def ask(limiter: Limiter, *, seconds: float = 9, bits: int = 0) -> Moment | None:
    """Ask for one permission within so many seconds."""
    async with limiter.permission(bits, anyio.current_time() + seconds) as moment:
        return moment


def next_at(store: Store) -> datetime | None:
    """Look up the first moment that nobody has taken."""
    with store.read() as session:
        return find_pace(session, upstream=UPSTREAM).next_at


async def wait_until_taken(store: Store, moment: datetime | None) -> None:
    """Wait until somebody has taken *moment*, and waits for it."""
    with anyio.fail_after(60):
        while next_at(store) == moment:  # noqa: ASYNC110 - a database rings no bell
            await anyio.sleep(0.01)
    await anyio.sleep(0.05)


async def turn_of(breaker: Breaker, error: ErrorName | None = None) -> bool:
    """Take a turn, and let it end with *error* if it was admitted."""
    async with breaker.turn() as is_admitted:
        if is_admitted:
            breaker.note(error)
        return is_admitted


# ---- The breaker ----


@pytest.mark.parametrize("error", [*ErrorName, None])
def test_what_counts_as_a_failure(error: ErrorName | None) -> None:
    """A refusal shows that somebody is there; silence, resets and nonsense on the wire do not."""
    breaker = Breaker(5, 3)

    breaker.note(error)

    expected = 3 if error in IGNORED else 4 if error in COUNTED else 0
    assert breaker.failures == expected
    assert breaker.last_error == (error if error in COUNTED else None)


async def test_an_upstream_that_fails_again_and_again_is_left_alone() -> None:
    """As many failures in a row as the limit says, and not one request more."""
    breaker = Breaker(3, 0)

    admitted = [await turn_of(breaker, DOWN) for _ in range(5)]

    assert admitted == [True, True, True, False, False]
    assert breaker.last_error is DOWN


async def test_one_good_answer_begins_the_count_anew() -> None:
    """A flaky upstream is not a dead one."""
    breaker = Breaker(3, 0)
    for error in (DOWN, DOWN, None, DOWN, ErrorName.RATE_LIMITED, DOWN, DOWN):
        assert await turn_of(breaker, error)

    assert not breaker.is_open


async def test_a_breaker_of_zero_never_opens() -> None:
    """Somebody wants every batch tried, come what may."""
    breaker = Breaker(0, 9)

    assert all([await turn_of(breaker, DOWN) for _ in range(9)])


async def test_after_a_bad_run_one_probe_decides_for_all() -> None:
    """Fifty workers that all look whether it is back would be fifty more failures."""
    for outcome, expected in ((DOWN, [False] * 3), (None, [True] * 3)):
        breaker, admitted = Breaker(5, 5), list[bool]()

        async def follow(breaker: Breaker = breaker, admitted: list[bool] = admitted) -> None:
            admitted.append(await turn_of(breaker))

        async with anyio.create_task_group() as tasks, breaker.turn() as is_admitted:
            for _ in range(3):
                tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            assert is_admitted
            assert admitted == []
            breaker.note(outcome)

        assert admitted == expected


async def test_a_probe_that_came_to_nothing_leaves_it_to_the_next() -> None:
    """It was put off, cancelled or met a bug of ours: nothing is known of the upstream yet."""
    breaker = Breaker(5, 5)
    async with breaker.turn() as is_admitted:
        assert is_admitted
    assert await turn_of(breaker, ErrorName.CANCELLED)
    assert await turn_of(breaker, DOWN)

    assert not await turn_of(breaker)


def ended(error: ErrorName | None) -> Attempt:
    """Make an attempt that ended so; it took no time to connect."""
    return Attempt(fetch=0, number=1, source="dice", began_at=NOON, timings=Timings(), error=error)


async def test_only_what_the_next_run_must_know_is_saved(store: Store) -> None:
    """A failure here and there costs no transaction; an upstream given up does, and its return."""

    def saved() -> int:
        with store.read() as session:
            return find_pace(session, upstream=UPSTREAM).failures

    limiter = make_limiter(breaker=Breaker(2, 0), store=store)
    seen = []
    for error in (DOWN, DOWN, ErrorName.CANCELLED, DOWN, None):
        await limiter.note(ended(error))
        seen.append(saved())

    assert seen == [0, 2, 2, 3, 0]


async def test_a_probe_that_finds_it_well_is_saved(store: Store) -> None:
    """Or each run would begin with a probe for ever."""
    await make_limiter(breaker=Breaker(2, 0), store=store).note(ended(DOWN))
    limiter = make_limiter(breaker=Breaker(2, 7), store=store)

    await limiter.note(ended(ErrorName.RATE_LIMITED))

    with store.read() as session:
        assert find_pace(session, upstream=UPSTREAM).failures == 0


# ---- The budget ----


def test_retries_come_out_of_both_budgets() -> None:
    """One bad source has its own limit, and all together have the run's."""
    run = RetryBudget(4)
    one, other = RetryBudget(3, run), RetryBudget(3, run)

    assert [one.take() for _ in range(4)] == [True, True, True, False]
    assert [other.take() for _ in range(2)] == [True, False]


def test_a_source_without_budget_takes_nothing_from_the_run() -> None:
    """What it may not have, others can."""
    run = RetryBudget(1)

    assert not RetryBudget(0, run).take()
    assert run.take()


# ---- The limiter: the rate ----


async def test_without_rules_nobody_waits() -> None:
    """The usual case must cost nothing."""
    assert [await ask(make_limiter(Rules())) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("is_kept", [True, False])
async def test_permissions_are_an_interval_apart(store: Store, is_kept: bool) -> None:
    """In the store for upstreams that are remembered, in memory for a sandbox of our own."""
    limiter, moments = make_limiter(FAST, store=store if is_kept else None), list[float]()
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(_ask_and_note, limiter, moments)

    assert FAST.rate is not None
    spread = FAST.rate.interval * 7 - FAST.rate.tolerance
    assert timedelta(seconds=max(moments) - min(moments)) >= spread


async def _ask_and_note(limiter: Limiter, moments: list[float]) -> None:
    assert await ask(limiter) is None
    moments.append(anyio.current_time())


async def test_two_runs_share_one_rate(store: Store) -> None:
    """The second finds the first one's moment taken, though it was never told."""
    assert await ask(make_limiter(store=store)) is None

    moment = await ask(make_limiter(store=store))

    assert moment is not None
    assert moment.why == "rate: 1 per 3600 s"
    assert timedelta(hours=1) < moment.at - datetime.now(UTC) <= timedelta(seconds=3816)


async def test_one_waits_for_its_moment_at_a_time(store: Store) -> None:
    """It has taken it already, and it is lost with the process: ten would cost hours."""
    rate = 530
    limiter = make_limiter(Rules(rate=Rate(requests=2, period_seconds=1000)), store=store)
    began = datetime.now(UTC)

    def taken_seconds() -> float:
        taken = next_at(store)
        return (taken - began).total_seconds() if taken else 0

    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(partial(ask, limiter, seconds=9999))
        with anyio.fail_after(60):
            while taken_seconds() < 2 * rate:  # noqa: ASYNC110 - a database rings no bell
                await anyio.sleep(0.01)
        await anyio.sleep(0.1)  # for one more
        tasks.cancel_scope.cancel()

    # One has gone and one waits.
    assert taken_seconds() == pytest.approx(2 * rate, abs=60)


async def test_a_pause_costs_no_more_than_itself(store: Store) -> None:
    """A laptop that slept for a while goes on at once: the store was not what took so long."""
    rules, costs = Rules(rate=Rate(requests=1, period_seconds=0.5)), list[float]()
    while not costs or (min(costs) >= 1 and len(costs) < 4):  # this machine may be busy
        limiter = make_limiter(rules, store=store)
        await ask(limiter)
        before, gone = next_at(store), list[float]()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_ask_and_note, limiter, gone)
            await wait_until_taken(store, before)
            time.sleep(1.5)  # noqa: ASYNC251 - a process that is stopped runs no event loop
            woken_at = anyio.current_time()
        costs.append(gone[0] - woken_at)

    assert min(costs) < 1


async def test_requests_that_a_pause_held_up_put_the_others_off_once(store: Store) -> None:
    """Each as if it had been counted when it went, and not by the whole pause again."""
    rate = Rate(requests=1, period_seconds=10)
    for late_seconds, moves in ((2, 2), (60, 10.6)):
        limiter = make_limiter(Rules(rate=rate), store=store)
        with store.write() as session:
            release(session, upstream=UPSTREAM, now=NOON)
        assert await ask(limiter) is None
        before = next_at(store)
        slow = replace(
            ended(None),
            began_at=datetime.now(UTC) - timedelta(seconds=late_seconds),
            timings=Timings(wait_us=0, connect_us=late_seconds * 10**6),
        )

        for nth in (1, 2):
            await limiter.note(slow)
            after = next_at(store)
            assert before is not None
            assert after is not None
            assert (after - before).total_seconds() == pytest.approx(nth * moves, abs=1)


async def test_a_moment_that_was_slept_through_is_not_used() -> None:
    """A busy machine wakes us late: another is taken, or the request would crowd the next one."""
    rules = Rules(rate=Rate(requests=1, period_seconds=0.5), quotas=(_quota(9),))
    limiter, times = make_limiter(rules), list[float]()
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(_ask_and_note, limiter, times)
        await anyio.wait_all_tasks_blocked()
        time.sleep(0.7)  # noqa: ASYNC251 - blocking the event loop is what is tested
        blocked_until = anyio.current_time()

    # Its own moment was at 0.53, and nobody has one after it.
    assert len(times) == 2
    assert max(times) >= blocked_until
    assert max(times) - min(times) >= 0.5


def _quota(amount: int) -> Quota:
    return Quota(unit="requests", amount=amount, period="month")


async def test_what_goes_late_is_counted_once(store: Store) -> None:
    """Of a hundred requests a month none may be lost to a machine that stutters."""
    rules = Rules(rate=Rate(requests=1, period_seconds=0.1), quotas=(_quota(9),))
    limiter = make_limiter(rules, store=store)
    await ask(limiter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, limiter)
        await anyio.sleep(0.05)
        time.sleep(0.1)  # noqa: ASYNC251 - blocking the event loop is what is tested

    with store.read() as session:
        assert find_pace(session, upstream=UPSTREAM).spent["requests"].amount == 2


async def test_a_connection_that_takes_long_puts_the_others_off(store: Store) -> None:
    """The request went out later than its moment, and those that follow would crowd it."""

    async def next_after(**phases: int) -> datetime:
        limiter = make_limiter(store=store)
        slow = replace(ended(None), timings=Timings(**phases))
        await limiter.note(slow)
        moment = await ask(limiter)
        assert moment is not None
        return moment.at

    assert PER_HOUR.rate is not None
    tolerance = int(PER_HOUR.rate.tolerance / timedelta(microseconds=1))
    await ask(make_limiter(store=store))
    before = await next_after()

    assert await next_after(wait_us=10**12, connect_us=tolerance, first_byte_us=10**12) == before
    after = await next_after(dns_us=1, connect_us=tolerance, tls_us=1)
    assert after - before == timedelta(microseconds=tolerance + 2)


async def test_without_a_store_an_attempt_is_noted_all_the_same() -> None:
    """A sandbox of our own can be down, too."""
    limiter = make_limiter(breaker=Breaker(1, 0))

    await limiter.note(ended(DOWN))

    assert limiter.breaker.is_open


async def test_a_slow_disk_delays_and_does_not_starve(store: Store) -> None:
    """Where a commit takes longer than a request may be late, no moment would ever be in time."""
    rules = Rules(rate=Rate(requests=10, period_seconds=0.2))
    assert rules.rate is not None
    commit_seconds = 0.03
    assert rules.rate.tolerance < timedelta(seconds=commit_seconds)
    event.listen(store._engine, "commit", lambda _: time.sleep(commit_seconds))
    limiter = make_limiter(rules, store=store)

    with anyio.fail_after(60):
        for _ in range(3):
            assert await ask(limiter, seconds=60) is None


# ---- The limiter: the deadline ----


async def test_the_first_moment_after_the_deadline_is_told_to_all(store: Store) -> None:
    """A thousand batches that have to wait for tomorrow need not ask the store one by one."""
    limiter, commits = make_limiter(store=store), 0

    def count(_: object) -> None:
        nonlocal commits
        commits += 1

    assert await ask(limiter) is None
    event.listen(store._engine, "commit", count)
    told = [await ask(limiter) for _ in range(50)]

    assert {moment.why for moment in told if moment} == {"rate: 1 per 3600 s"}
    assert len(set(told)) == commits == 1
    assert limiter.closed(0) == told[0]


async def test_what_costs_less_of_a_quota_may_still_go(store: Store) -> None:
    """What is too much for the rest of a quota in bits says nothing of a smaller one."""
    rules = Rules(quotas=(Quota(unit="bits", amount=10, period="month"),))
    limiter = make_limiter(rules, store=store)

    assert await ask(limiter, bits=11) is not None
    assert (limiter.closed(11) is None, limiter.closed(12) is None) == (False, False)
    assert limiter.closed(10) is None
    assert await ask(limiter, bits=10) is None
    assert await ask(limiter, bits=1) is not None
    assert limiter.closed(1) is not None


async def test_nobody_is_asked_whose_answer_would_come_after_the_deadline(store: Store) -> None:
    """What has had to wait so long is put off; what may go at once is worth a try."""
    rules = Rules(rate=Rate(requests=1, period_seconds=60))
    limiter = make_limiter(rules, store=store)
    assert await ask(limiter) is None
    await limiter.note(
        replace(ended(None), timings=Timings(wait_us=10**9, first_byte_us=200 * 10**6))
    )

    put_off = await ask(limiter, seconds=100)

    assert put_off is not None
    assert put_off.why == "rate: 1 per 60 s"
    fresh = make_limiter(rules, store=store)
    await fresh.note(replace(ended(None), timings=Timings(first_byte_us=200 * 10**6)))
    with store.write() as session:
        release(session, upstream=UPSTREAM, now=NOON)
    assert await ask(fresh, seconds=100) is None


async def test_who_is_to_blame_for_what_is_left_at_the_deadline(store: Store) -> None:
    """The rate, if it would not have let all of it go; we, if it would have."""
    limiter = make_limiter(Rules(rate=Rate(requests=1, period_seconds=1)), store=store)
    for _ in range(2):
        assert await ask(limiter) is None
    assert (await limiter.holds_back(1, 0)) is not None
    await anyio.sleep(2.5)

    assert await limiter.holds_back(1, 0) is None
    kept = await limiter.holds_back(60, 0)
    assert kept is not None
    assert kept.why == "rate: 1 per 1 s"
    assert await make_limiter(Rules(), store=store).holds_back(60, 0) is None


async def test_a_quota_that_is_spent_holds_back_whatever_the_rate(store: Store) -> None:
    """Nobody asked for it any more before the deadline struck, but nobody could have."""
    rules = replace(FAST, quotas=(_quota(1),))
    limiter = make_limiter(rules, store=store)
    assert await ask(limiter) is None
    await anyio.sleep(0.2)

    kept = await limiter.holds_back(1, 0)

    assert kept is not None
    assert kept.why == "quota: 1 requests per month"


# ---- The limiter: quotas and embargoes ----


async def test_a_used_up_quota_is_told_at_once(store: Store) -> None:
    """Nobody waits for next month."""
    rules = Rules(quotas=(Quota(unit="bits", amount=10, period="month"),))
    assert await ask(make_limiter(rules, store=store), bits=7) is None

    moment = await ask(make_limiter(rules, store=store), bits=4)

    assert moment is not None
    assert moment.why == "quota: 10 bits per month"
    assert await ask(make_limiter(rules, store=store), bits=3) is None


@pytest.mark.parametrize("rules", [Rules(), PER_HOUR])
async def test_an_embargo_holds_in_the_run_that_was_told(store: Store, rules: Rules) -> None:
    """Whether or not the upstream has rules besides."""
    for kept in (store, None):
        limiter = make_limiter(rules, store=kept)
        await limiter.apply_hint(Hint(wait_seconds=7200, why="Retry-After: 7200"), "dice")

        moment = await ask(limiter)

        assert moment is not None
        assert moment.why == "Retry-After: 7200"


def refused(ends_in: float, seconds: float, why: str = OUR_PAUSE) -> Pace:
    """Know of an embargo of so many seconds, by when it ends."""
    until = datetime.now(UTC) + timedelta(seconds=ends_in)
    said_at = until - timedelta(seconds=seconds)
    return Pace(embargo=Embargo(until=until, why=why, said_at=said_at))


async def pause_after(pace: Pace, store: Store | None = None) -> float:
    """Be refused without a word, and give the seconds until the next request."""
    gate = make_limiter(Rules(), store=store, pace=pace)
    await gate.apply_hint(Hint(wait_seconds=60, why=OUR_PAUSE, is_ours=True), "dice")
    moment = await ask(gate)
    assert moment is not None
    return (moment.at - datetime.now(UTC)).total_seconds()


async def test_a_pause_of_our_own_grows_while_it_does_not_help() -> None:
    """Up to an hour; what is refused while it lasts was let go before it, and changes nothing."""
    for pace, seconds in (
        (Pace(), 60),
        (refused(-1, 60), 120),
        (refused(-1, 240), 480),
        (refused(-1, 3000), 3600),
        (refused(-1, 240, "Retry-After: 240"), 60),
        (refused(200, 240), 200),
    ):
        assert await pause_after(pace) == pytest.approx(seconds, abs=9)


async def test_a_pause_of_our_own_outlives_the_run_until_a_success(store: Store) -> None:
    """The next run knows it, doubles it if it must, and forgets it if it may."""

    def known() -> Embargo | None:
        with store.read() as session:
            return find_pace(session, upstream=UPSTREAM).embargo

    over = refused(-1, 60).embargo
    assert over is not None
    assert over.said_at is not None
    lay = partial(lay_embargo, upstream=UPSTREAM, source="dice", embargo=over, said_at=over.said_at)
    with store.write() as session:
        lay(session)
    assert await pause_after(Pace(embargo=known()), store) == pytest.approx(120, abs=30)

    standing = known()
    await make_limiter(Rules(), store=store, pace=Pace(embargo=standing)).note(ended(None))
    assert known() == standing

    with store.write() as session:
        release(session, upstream=UPSTREAM, now=NOON)
        lay(session)
    gate = make_limiter(Rules(), store=store, pace=Pace(embargo=known()))
    await gate.note(ended(ErrorName.HTTP_5XX))
    assert known() == over
    await gate.note(ended(None))
    assert known() is None


async def test_a_short_embargo_is_waited_for() -> None:
    """random.org advises a second or less: that is no reason to put a batch off."""
    limiter = make_limiter(Rules())
    began = anyio.current_time()
    await limiter.apply_hint(Hint(wait_seconds=0.1, why="advisoryDelay of 100 ms"), "dice")

    assert await ask(limiter) is None
    assert anyio.current_time() - began >= 0.099


async def test_an_embargo_that_comes_during_the_wait_is_heeded(store: Store) -> None:
    """Ten workers wait for their moment when the first one is refused."""
    limiter, answers = (
        make_limiter(Rules(rate=Rate(requests=1, period_seconds=1)), store=store),
        [],
    )
    await ask(limiter)
    before = next_at(store)

    async def follow() -> None:
        answers.append(await ask(limiter))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await wait_until_taken(store, before)
        await limiter.apply_hint(Hint(wait_seconds=60, why="Retry-After: 60"), "dice")

    assert [moment and moment.why for moment in answers] == ["Retry-After: 60"]


@pytest.mark.parametrize("rules", [Rules(), FAST])
async def test_what_another_process_was_told_is_heard_of(
    store: Store, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon, at least: without rules the store is not asked before each request."""
    monkeypatch.setattr(permission, "EMBARGO_RECHECK_SECONDS", 0.0)
    ours, theirs = make_limiter(rules, store=store), make_limiter(rules, store=store)
    assert await ask(ours) is None

    await theirs.apply_hint(Hint(wait_seconds=60, why="Retry-After: 60"), "dice")

    moment = await ask(ours)
    assert moment is not None
    assert moment.why == "Retry-After: 60"


async def test_an_embargo_is_not_shortened_by_hearsay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this run knows and what the store knows: the longer one holds."""
    monkeypatch.setattr(permission, "EMBARGO_RECHECK_SECONDS", 0.0)
    long = Embargo(until=datetime.now(UTC) + timedelta(hours=1), why="long")
    limiter = make_limiter(Rules(), store=store, pace=Pace(embargo=long))
    await make_limiter(Rules(), store=store).apply_hint(Hint(wait_seconds=60, why="short"), "dice")

    for _ in range(2):
        moment = await ask(limiter)
        assert moment is not None
        assert moment.why == "long"


@pytest.mark.parametrize("seconds", [31_536_000, 10.0**12, 10.0**300, math.inf])
async def test_an_absurd_wait_is_kept(store: Store, seconds: float) -> None:
    """A year is a year; what lies beyond all calendars becomes a thousand years."""
    await make_limiter(store=store).apply_hint(
        Hint(wait_seconds=seconds, why="Retry-After"), "dice"
    )

    moment = await ask(make_limiter(store=store))

    assert moment is not None
    days = min(seconds, 365_000 * 86_400) / 86_400
    assert (moment.at - datetime.now(UTC)) / timedelta(days=1) == pytest.approx(days, rel=0.01)


async def test_what_was_said_is_kept_though_the_run_is_stopped(store: Store) -> None:
    """A signal between the answer and the disk must not make the next run ask too early."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await make_limiter(store=store).apply_hint(
            Hint(wait_seconds=60, why="Retry-After: 60"), "dice"
        )

    with store.read() as session:
        assert find_pace(session, upstream=UPSTREAM).embargo is not None


# ---- The breaker, on a server ----


async def test_failures_at_all_machines_are_one_row(server_stores: tuple[Store, Store]) -> None:
    """Three at one and two at another are five, and each knows it with its next failure."""
    one, other = (make_limiter(breaker=Breaker(5, 0), store=store) for store in server_stores)
    for limiter in (one, one, one, other):
        await limiter.note(ended(DOWN))
        assert not limiter.breaker.is_open
    await other.note(ended(DOWN))

    assert other.breaker.is_open
    with server_stores[0].read() as session:
        assert find_pace(session, upstream=UPSTREAM).failures == 5


@pytest.mark.parametrize(("answers", "is_open"), [(0, True), (1, False)])
async def test_what_fails_elsewhere_is_heard_of(
    server_stores: tuple[Store, Store],
    monkeypatch: pytest.MonkeyPatch,
    answers: int,
    is_open: bool,
) -> None:
    """Soon; but who was answered since knows that it is not the upstream that is down."""
    monkeypatch.setattr(permission, "EMBARGO_RECHECK_SECONDS", 0.0)
    rules = Rules(rate=Rate(requests=100, period_seconds=1))
    one, other = (
        make_limiter(rules, breaker=Breaker(2, 0), store=store) for store in server_stores
    )
    for _ in range(answers):
        await one.note(ended(None))
    for _ in range(2):
        await other.note(ended(DOWN))

    assert await ask(one) is None

    assert one.breaker.is_open is is_open
    with server_stores[0].read() as session:
        found = find_pace(session, upstream=UPSTREAM)
    assert found.failures == (2 if is_open else 0)


async def test_a_breaker_of_zero_counts_nothing(server_stores: tuple[Store, Store]) -> None:
    """Nobody would ever look at it."""
    limiter = make_limiter(breaker=Breaker(0, 0), store=server_stores[0])

    await limiter.note(ended(DOWN))

    with server_stores[0].read() as session:
        assert find_pace(session, upstream=UPSTREAM).failures == 0


# ---- The clock, on a server ----


@pytest.mark.parametrize("wrong", [timedelta(hours=-1), timedelta(hours=1)])
async def test_the_clock_of_the_server_rules(
    server_stores: tuple[Store, Store], wrong: timedelta
) -> None:
    """A machine whose clock is an hour off neither waits for an hour nor asks at once."""
    rules = Rules(rate=Rate(requests=10, period_seconds=1))
    clock = SharedClock(lambda: datetime.now(UTC) + wrong)
    with server_stores[1].read() as session:
        clock.read(session)
    one, other = (
        make_limiter(rules, store=store, clock=each)
        for store, each in zip(server_stores, (SharedClock(), clock), strict=True)
    )
    gone: list[float] = []
    for limiter in (one, other, one, other):
        await _ask_and_note(limiter, gone)

    rate = rules.rate
    assert rate is not None
    assert gone[-1] - gone[0] >= (3 * rate.interval - rate.tolerance).total_seconds()
    taken = next_at(server_stores[0])
    assert taken is not None
    assert taken - datetime.now(UTC) < timedelta(minutes=1)


async def test_a_moment_after_the_deadline_is_told_by_a_server_too(
    server_stores: tuple[Store, Store],
) -> None:
    """In one statement nobody can tell why: then it is asked the long way."""
    limiter = make_limiter(store=server_stores[0])
    assert await ask(limiter) is None

    moment = await ask(limiter)

    assert moment is not None
    assert moment.why == "rate: 1 per 3600 s"


async def test_an_embargo_is_waited_for_on_a_server_too(server_stores: tuple[Store, Store]) -> None:
    """The one statement heeds what others were told."""
    rules = Rules(rate=Rate(requests=100, period_seconds=1))
    one, other = (make_limiter(rules, store=store) for store in server_stores)
    assert await ask(one) is None
    began = anyio.current_time()
    await one.apply_hint(Hint(wait_seconds=0.5, why="advisoryDelay"), "dice")

    assert await ask(other) is None

    assert anyio.current_time() - began >= 0.4
