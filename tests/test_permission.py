"""Breaker, budget and gate: who may ask now, in this run and across two that share a store."""

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

from pipeline import permission
from pipeline.errors import ErrorName
from pipeline.models import Attempt, Timings
from pipeline.pacing import Embargo, Moment, Pace, Quota, Rate, Rules
from pipeline.permission import Breaker, Gate, RetryBudget
from pipeline.sources.base import Hint
from pipeline.store.db import Store, open_store
from pipeline.store.permissions import failures_of, find_pace
from tests.store.makers import NOON

pytestmark = pytest.mark.anyio

UPSTREAM = "randomnumberapi@h.example"
PER_HOUR = Rules(rate=Rate(requests=1, period_seconds=3600))
FAST = Rules(rate=Rate(requests=100, period_seconds=1))
COUNTED = {
    *("dns", "connect_refused", "connect_timeout", "unreachable", "write_timeout"),
    *("tls", "read_timeout", "reset", "incomplete", "protocol", "decode", "too_large"),
    *("redirect_refused", "http_5xx", "refused", "deadline"),
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
    """What a test has to say about a gate."""

    breaker: Breaker
    pace: Pace
    store: Store | None
    place_path: Path | None


def make_gate(rules: Rules = PER_HOUR, **given: Unpack[Given]) -> Gate:
    """Make the way to an upstream that was never asked, unless something else is given."""
    return Gate(
        UPSTREAM,
        rules,
        given.get("breaker") or Breaker(5, 0),
        pace=given.get("pace") or Pace(),
        store=given.get("store"),
        place_path=given.get("place_path"),
    )


async def ask(gate: Gate, *, seconds: float = 9, bits: int = 0) -> Moment | None:
    """Ask for one permission within so many seconds."""
    async with gate.permission(bits, anyio.current_time() + seconds) as moment:
        return moment


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

    def saved() -> dict[str, int]:
        with store.read() as session:
            return failures_of(session, upstreams=[UPSTREAM])

    gate = make_gate(breaker=Breaker(2, 0), store=store)
    seen = []
    for error in (DOWN, DOWN, ErrorName.CANCELLED, DOWN, None):
        await gate.note(ended(error))
        seen.append(saved())

    assert seen == [{}, {UPSTREAM: 2}, {UPSTREAM: 2}, {UPSTREAM: 3}, {}]


async def test_a_probe_that_finds_it_well_is_saved(store: Store) -> None:
    """Or each run would begin with a probe for ever."""
    await make_gate(breaker=Breaker(2, 0), store=store).note(ended(DOWN))
    gate = make_gate(breaker=Breaker(2, 7), store=store)

    await gate.note(ended(ErrorName.RATE_LIMITED))

    with store.read() as session:
        assert failures_of(session, upstreams=[UPSTREAM]) == {}


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


# ---- The gate: the rate ----


async def test_without_rules_nobody_waits() -> None:
    """The usual case must cost nothing."""
    assert [await ask(make_gate(Rules())) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("is_kept", [True, False])
async def test_permissions_are_an_interval_apart(store: Store, is_kept: bool) -> None:
    """In the store for upstreams that are remembered, in memory for a sandbox of our own."""
    gate, moments = make_gate(FAST, store=store if is_kept else None), list[float]()
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(_ask_and_note, gate, moments)

    assert FAST.rate is not None
    spread = FAST.rate.interval * 7 - FAST.rate.tolerance
    assert timedelta(seconds=max(moments) - min(moments)) >= spread


async def _ask_and_note(gate: Gate, moments: list[float]) -> None:
    assert await ask(gate) is None
    moments.append(anyio.current_time())


async def test_two_runs_share_one_rate(store: Store) -> None:
    """The second finds the first one's moment taken, though it was never told."""
    assert await ask(make_gate(store=store)) is None

    moment = await ask(make_gate(store=store))

    assert moment is not None
    assert moment.why == "rate: 1 per 3600 s"
    assert timedelta(hours=1) < moment.at - datetime.now(UTC) <= timedelta(seconds=3816)


async def test_no_more_wait_than_fit_into_a_period(store: Store) -> None:
    """Each has taken its moment already, and is lost with its process: ten would cost hours."""
    gate, rate = make_gate(Rules(rate=Rate(requests=2, period_seconds=1000)), store=store), 530
    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(partial(ask, gate, seconds=9999))
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()

    with store.read() as session:
        next_at = find_pace(session, upstream=UPSTREAM).next_at
    assert next_at is not None
    # One has gone and two wait.
    assert (next_at - datetime.now(UTC)).total_seconds() == pytest.approx(3 * rate, abs=5)


async def test_a_moment_that_was_slept_through_is_not_used() -> None:
    """A busy machine wakes us late: then the request would crowd those that follow."""
    rules = Rules(rate=Rate(requests=1, period_seconds=0.1), quotas=(_quota(9),))
    gate, times = make_gate(rules), list[float]()
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(_ask_and_note, gate, times)
        await anyio.sleep(0.01)
        time.sleep(0.12)  # noqa: ASYNC251 - blocking the event loop is what is tested
        blocked_until = anyio.current_time()

    # Its own moment was at 0.106; the next one after it is what remains.
    assert len(times) == 2
    assert max(times) - blocked_until >= 0.0
    assert max(times) - min(times) >= 0.206


def _quota(amount: int) -> Quota:
    return Quota(unit="requests", amount=amount, period="month")


async def test_what_goes_late_is_counted_once(store: Store) -> None:
    """Of a hundred requests a month none may be lost to a machine that stutters."""
    rules = Rules(rate=Rate(requests=1, period_seconds=0.1), quotas=(_quota(9),))
    gate = make_gate(rules, store=store)
    await ask(gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, gate)
        await anyio.sleep(0.05)
        time.sleep(0.1)  # noqa: ASYNC251 - blocking the event loop is what is tested

    with store.read() as session:
        assert find_pace(session, upstream=UPSTREAM).spent["requests"].amount == 2


async def test_a_connection_that_takes_long_puts_the_others_off(store: Store) -> None:
    """The request went out later than its moment, and those that follow would crowd it."""

    async def next_after(**phases: int) -> datetime:
        gate = make_gate(store=store)
        slow = replace(ended(None), timings=Timings(**phases))
        await gate.note(slow)
        moment = await ask(gate)
        assert moment is not None
        return moment.at

    assert PER_HOUR.rate is not None
    tolerance = int(PER_HOUR.rate.tolerance / timedelta(microseconds=1))
    await ask(make_gate(store=store))
    before = await next_after()

    assert await next_after(wait_us=10**12, connect_us=tolerance, first_byte_us=10**12) == before
    after = await next_after(dns_us=1, connect_us=tolerance, tls_us=1)
    assert after - before == timedelta(microseconds=tolerance + 2)


async def test_without_a_store_an_attempt_is_noted_all_the_same() -> None:
    """A sandbox of our own can be down, too."""
    gate = make_gate(breaker=Breaker(1, 0))

    await gate.note(ended(DOWN))

    assert gate.breaker.is_open


async def test_a_slow_disk_delays_and_does_not_starve(store: Store) -> None:
    """Where a commit takes longer than a request may be late, no moment would ever be in time."""
    rules = Rules(rate=Rate(requests=10, period_seconds=0.2))
    assert rules.rate is not None
    commit_seconds = 0.03
    assert rules.rate.tolerance < timedelta(seconds=commit_seconds)
    event.listen(store._engine, "commit", lambda _: time.sleep(commit_seconds))
    gate = make_gate(rules, store=store)

    with anyio.fail_after(2):
        for _ in range(3):
            assert await ask(gate) is None


# ---- The gate: quotas and embargoes ----


async def test_a_used_up_quota_is_told_at_once(store: Store) -> None:
    """Nobody waits for next month."""
    rules = Rules(quotas=(Quota(unit="bits", amount=10, period="month"),))
    assert await ask(make_gate(rules, store=store), bits=7) is None

    moment = await ask(make_gate(rules, store=store), bits=4)

    assert moment is not None
    assert moment.why == "quota: 10 bits per month"
    assert await ask(make_gate(rules, store=store), bits=3) is None


@pytest.mark.parametrize("rules", [Rules(), PER_HOUR])
async def test_an_embargo_holds_in_the_run_that_was_told(store: Store, rules: Rules) -> None:
    """Whether or not the upstream has rules besides."""
    for kept in (store, None):
        gate = make_gate(rules, store=kept)
        await gate.heed(Hint(wait_seconds=7200, why="Retry-After: 7200"), "dice")

        moment = await ask(gate)

        assert moment is not None
        assert moment.why == "Retry-After: 7200"


async def test_a_short_embargo_is_waited_for() -> None:
    """random.org advises a second or less: that is no reason to put a batch off."""
    gate = make_gate(Rules())
    began = anyio.current_time()
    await gate.heed(Hint(wait_seconds=0.1, why="advisoryDelay of 100 ms"), "dice")

    assert await ask(gate) is None
    assert anyio.current_time() - began >= 0.099


async def test_an_embargo_that_comes_during_the_wait_is_heeded(store: Store) -> None:
    """Ten workers wait for their moment when the first one is refused."""
    gate, answers = make_gate(Rules(rate=Rate(requests=1, period_seconds=0.1)), store=store), []
    await ask(gate)

    async def follow() -> None:
        answers.append(await ask(gate))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.sleep(0.02)
        await gate.heed(Hint(wait_seconds=60, why="Retry-After: 60"), "dice")

    assert [moment and moment.why for moment in answers] == ["Retry-After: 60"]


@pytest.mark.parametrize("rules", [Rules(), FAST])
async def test_what_another_process_was_told_is_heard_of(
    store: Store, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon, at least: without rules the store is not asked before each request."""
    monkeypatch.setattr(permission, "HEARSAY_SECONDS", 0.0)
    ours, theirs = make_gate(rules, store=store), make_gate(rules, store=store)
    assert await ask(ours) is None

    await theirs.heed(Hint(wait_seconds=60, why="Retry-After: 60"), "dice")

    moment = await ask(ours)
    assert moment is not None
    assert moment.why == "Retry-After: 60"


async def test_an_embargo_is_not_shortened_by_hearsay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this run knows and what the store knows: the longer one holds."""
    monkeypatch.setattr(permission, "HEARSAY_SECONDS", 0.0)
    long = Embargo(until=datetime.now(UTC) + timedelta(hours=1), why="long")
    gate = make_gate(Rules(), store=store, pace=Pace(embargo=long))
    await make_gate(Rules(), store=store).heed(Hint(wait_seconds=60, why="short"), "dice")

    for _ in range(2):
        moment = await ask(gate)
        assert moment is not None
        assert moment.why == "long"


@pytest.mark.parametrize("seconds", [31_536_000, 10.0**12, 10.0**300, math.inf])
async def test_an_absurd_wait_is_kept(store: Store, seconds: float) -> None:
    """A year is a year; what lies beyond all calendars becomes a thousand years."""
    await make_gate(store=store).heed(Hint(wait_seconds=seconds, why="Retry-After"), "dice")

    moment = await ask(make_gate(store=store))

    assert moment is not None
    days = min(seconds, 365_000 * 86_400) / 86_400
    assert (moment.at - datetime.now(UTC)) / timedelta(days=1) == pytest.approx(days, rel=0.01)


async def test_what_was_said_is_kept_though_the_run_is_stopped(store: Store) -> None:
    """A signal between the answer and the disk must not make the next run ask too early."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await make_gate(store=store).heed(Hint(wait_seconds=60, why="Retry-After: 60"), "dice")

    with store.read() as session:
        assert find_pace(session, upstream=UPSTREAM).embargo is not None


# ---- The gate: the only place ----

ALONE = Rules(is_exclusive=True)


async def test_one_request_is_in_flight_at_a_time(tmp_path: Path) -> None:
    """Over all gates at the same file, as those of several processes are."""
    in_flight, most = 0, 0

    async def go() -> None:
        nonlocal in_flight, most
        gate = make_gate(ALONE, place_path=tmp_path / "place")
        async with gate.permission(0, anyio.current_time() + 9) as moment:
            assert moment is None
            in_flight += 1
            most = max(most, in_flight)
            await anyio.sleep(0.01)
            in_flight -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(go)

    assert most == 1


async def test_a_place_that_is_not_exclusive_is_shared(tmp_path: Path) -> None:
    """Most upstreams count requests, not those under way."""
    gate = make_gate(Rules(), place_path=tmp_path / "place")
    async with gate.permission(0, anyio.current_time() + 9):
        assert await ask(gate) is None

    assert not (tmp_path / "place").exists()


async def test_a_place_taken_until_the_deadline_puts_off(tmp_path: Path) -> None:
    """The rule forbids to ask: that is no failure of the upstream, and not worth a mail."""
    gate = make_gate(ALONE, place_path=tmp_path / "place")
    async with gate.permission(0, anyio.current_time() + 9):
        moment = await ask(make_gate(ALONE, place_path=tmp_path / "place"), seconds=0.25)

    assert moment is not None
    assert moment.why == "one request in flight: it is another process's turn"
    assert moment.at - datetime.now(UTC) <= timedelta(seconds=0.25)


async def test_who_is_cancelled_gives_the_place_back(tmp_path: Path) -> None:
    """Waiting for it or having it."""
    path = tmp_path / "place"

    async def hold() -> None:
        async with make_gate(ALONE, place_path=path).permission(0, anyio.current_time() + 9):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        tasks.start_soon(hold)
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()

    assert await ask(make_gate(ALONE, place_path=path), seconds=1) is None
