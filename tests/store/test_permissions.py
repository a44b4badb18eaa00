"""What is remembered of upstreams, on a real file, and taken by many at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import pytest

from pipeline.pacing import Embargo, Moment, Pace, Quota, Rate, Rules, Spent
from pipeline.store.db import Store, open_store
from pipeline.store.permissions import (
    Delay,
    find_pace,
    lay_embargo,
    put_off,
    release,
    save_failures,
    standing_of,
    take_at_once,
    take_moments,
)
from pipeline.store.shared_clock import SharedClock
from tests.store.makers import NOON

DICE, OTHER = "randomnumberapi@h.example", "randomnumberapi@other.example"
PER_SECOND = Rules(rate=Rate(requests=1, period_seconds=1))
INTERVAL = timedelta(seconds=1.06)
PER_DAY = Quota(unit="requests", amount=3, period="day")
BITS = Quota(unit="bits", amount=10, period="month")
QUOTAS = Rules(quotas=(PER_DAY, BITS))
FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)


def still(moment: datetime = NOON) -> Callable[[], datetime]:
    """Make a clock that stands."""
    return lambda: moment


def permit(
    store: Store, rules: Rules = PER_SECOND, *, latest: datetime = FOR_EVER, bits: int = 0
) -> Moment:
    """Take one permission at noon, in a transaction of its own."""
    with store.write() as session:
        [moment] = take_moments(
            session, upstream=DICE, rules=rules, clock=still(), latest=latest, bits=bits
        )
    return moment


def pace_of(store: Store, upstream: str = DICE) -> Pace:
    """Look up what is known."""
    with store.read() as session:
        return find_pace(session, upstream=upstream)


def forbid(store: Store, minutes: int, why: str = "Retry-After: 60", upstream: str = DICE) -> None:
    """Lay an embargo of so many minutes from noon."""
    embargo = Embargo(until=NOON + timedelta(minutes=minutes), why=why)
    with store.write() as session:
        lay_embargo(session, upstream=upstream, source="dice", embargo=embargo, said_at=NOON)


def test_an_unknown_upstream_was_never_asked(store: Store) -> None:
    """The first run of all needs no set-up."""
    assert pace_of(store) == Pace()


def test_each_permission_is_a_moment_of_its_own(store: Store) -> None:
    """All ask at noon; the rate spreads them out."""
    moments = [permit(store).at for _ in range(4)]

    assert moments == [NOON + nth * INTERVAL for nth in range(4)]
    assert pace_of(store).next_at == NOON + 4 * INTERVAL


def test_many_connections_at_once_never_share_a_moment(store: Store, url: str) -> None:
    """Processes do not see each other; the transaction is all that stands between them."""
    rules, clock = PER_SECOND, lambda: datetime.now(UTC)

    def take_some(_: int) -> list[datetime]:
        with open_store(url, busy_seconds=9, for_writing=True) as mine:
            taken = []
            for _ in range(10):
                with mine.write() as session:
                    [moment] = take_moments(
                        session, upstream=DICE, rules=rules, clock=clock, latest=FOR_EVER, bits=0
                    )
                taken.append(moment.at)
            return taken

    with ThreadPoolExecutor(4) as threads:
        moments = sorted(chain.from_iterable(threads.map(take_some, range(4))))

    assert len(moments) == 40
    assert {after - before for before, after in pairwise(moments)} == {INTERVAL}
    assert pace_of(store).next_at == moments[-1] + INTERVAL


def test_a_moment_that_is_too_late_is_told_and_not_taken(store: Store) -> None:
    """A run that gives up must not make the others wait longer."""
    permit(store)

    told = permit(store, latest=NOON)

    assert (told.at, told.why) == (NOON + INTERVAL, "rate: 1 per 1 s")
    assert permit(store).at == NOON + INTERVAL


def test_the_next_moment_can_be_put_off(store: Store) -> None:
    """By as much as a request went late; for who has no moment there is none to move."""
    half = INTERVAL / 2
    late = Delay(upstream=DICE, late=half, sent_at=NOON + half, interval=INTERVAL)
    with store.write() as session:
        put_off(session, [late])
        assert find_pace(session, upstream=DICE) == Pace()
    permit(store)
    with store.write() as session:
        put_off(session, [late, replace(late, upstream=OTHER)])

    assert pace_of(store).next_at == NOON + INTERVAL + half


def test_a_long_pause_puts_off_as_if_it_had_been_counted_then(store: Store) -> None:
    """Eight that it held up take eight moments after it, and not the pause eight times."""
    permit(store)
    woken_at, late = NOON + 100 * INTERVAL, 100 * INTERVAL
    delay = Delay(upstream=DICE, late=late, sent_at=woken_at, interval=INTERVAL)
    for _ in range(8):
        with store.write() as session:
            put_off(session, [delay])

    assert pace_of(store).next_at == woken_at + 8 * INTERVAL


def test_the_clock_is_read_when_it_is_our_turn(store: Store, url: str) -> None:
    """Who waited for the others' transactions would take a moment that has passed."""
    with (
        open_store(url, busy_seconds=9, for_writing=True) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        with other.write() as session:
            session.connection()
            waiting = thread.submit(_take_now, url)
            released_at = datetime.now(UTC)
        moment = waiting.result()

    assert moment.at >= released_at
    assert pace_of(store).next_at == moment.at + INTERVAL


def _take_now(url: str) -> Moment:
    with open_store(url, busy_seconds=9, for_writing=True) as mine, mine.write() as session:
        [moment] = take_moments(
            session,
            upstream=DICE,
            rules=PER_SECOND,
            clock=lambda: datetime.now(UTC),
            latest=FOR_EVER,
            bits=0,
        )
    return moment


def test_quotas_are_counted_by_unit_and_renewed(store: Store) -> None:
    """Bits and requests are two allowances; what is spent is on disk."""
    for _ in range(3):
        assert permit(store, QUOTAS, bits=3).at == NOON

    refused = permit(store, QUOTAS, latest=NOON, bits=1)

    assert refused.why == "quota: 3 requests per day"
    assert pace_of(store).spent == {
        "requests": Spent(period="2026-03-01", amount=3),
        "bits": Spent(period="2026-03", amount=9),
    }
    assert permit(store, QUOTAS, bits=1).at == datetime(2026, 3, 2, tzinfo=UTC)
    assert pace_of(store).spent == {
        "requests": Spent(period="2026-03-02", amount=1),
        "bits": Spent(period="2026-03", amount=10),
    }
    assert pace_of(store).next_at is None


def test_upstreams_do_not_count_for_each_other(store: Store) -> None:
    """One address under embargo, or one account used up, is no word about another."""
    permit(store, QUOTAS, bits=10)
    forbid(store, 60)

    assert pace_of(store, OTHER) == Pace()
    with store.read() as session:
        assert standing_of(session, upstreams=[OTHER]) == {OTHER: (None, 0)}


def test_an_embargo_is_never_shortened(store: Store) -> None:
    """Answers come in any order; the longest wait that anybody was asked for holds."""
    forbid(store, 60, "long")
    forbid(store, 5, "short")
    assert pace_of(store).embargo == Embargo(until=NOON + timedelta(minutes=60), why="long")

    forbid(store, 61, "longer")
    assert pace_of(store).embargo == Embargo(until=NOON + timedelta(minutes=61), why="longer")
    moment = permit(store)
    assert (moment.at, moment.why) == (NOON + timedelta(minutes=61), "longer")


@pytest.mark.parametrize("until", [datetime(3025, 6, 1, tzinfo=UTC), FOR_EVER])
def test_an_absurd_embargo_is_kept_as_it_is(store: Store, until: datetime) -> None:
    """Somebody asked for a thousand years: the owner is to see that, and lift it by hand."""
    with store.write() as session:
        embargo = Embargo(until=until, why="Retry-After: 1000000000000")
        lay_embargo(session, upstream=DICE, source="dice", embargo=embargo, said_at=NOON)

    assert pace_of(store).embargo == embargo
    assert permit(store, QUOTAS, latest=NOON).at == until


def test_failures_are_told_only_of_those_that_fail(store: Store) -> None:
    """A run asks about all its upstreams at once; most are well."""
    with store.write() as session:
        save_failures(session, upstream=DICE, failures=5)
        save_failures(session, upstream=OTHER, failures=7)
        save_failures(session, upstream=OTHER, failures=0)

        found = standing_of(session, upstreams=[DICE, OTHER, "never asked"])
        assert {name: failures for name, (_, failures) in found.items() if failures} == {DICE: 5}


def test_failures_and_the_next_moment_do_not_overwrite_each_other(store: Store) -> None:
    """They share a row."""
    permit(store)
    with store.write() as session:
        save_failures(session, upstream=DICE, failures=5)
    permit(store)

    assert pace_of(store).next_at == NOON + 2 * INTERVAL
    with store.read() as session:
        assert find_pace(session, upstream=DICE).failures == 5


def test_release_forgets_precautions_and_keeps_facts(store: Store) -> None:
    """The embargo, the moment and the failures go; what was spent was spent. Nobody else's."""
    permit(store, Rules(rate=PER_SECOND.rate, quotas=(PER_DAY,)))
    forbid(store, 60)
    forbid(store, 60, upstream=OTHER)
    with store.write() as session:
        save_failures(session, upstream=DICE, failures=5)

        lifted = release(session, upstream=DICE, now=NOON)

        assert lifted == Embargo(until=NOON + timedelta(minutes=60), why="Retry-After: 60")
        assert find_pace(session, upstream=DICE).failures == 0
        assert release(session, upstream=DICE, now=NOON) is None
    assert pace_of(store) == Pace(spent={"requests": Spent(period="2026-03-01", amount=1)})
    assert pace_of(store, OTHER).embargo is not None


@pytest.mark.parametrize(
    ("now", "is_kept"), [(NOON, True), (NOON - timedelta(days=1), False), (FOR_EVER, True)]
)
def test_release_forgets_what_a_wrong_clock_spent(
    store: Store, now: datetime, is_kept: bool
) -> None:
    """Or a machine that once woke up in 2099 would not ask again in its owner's lifetime."""
    permit(store, Rules(quotas=(PER_DAY,)))
    with store.write() as session:
        release(session, upstream=DICE, now=now)

    assert bool(pace_of(store).spent) is is_kept


def test_a_moment_that_was_not_used_counts_no_more(store: Store) -> None:
    """Unless another process has the one after it: then both would go at nearly the same time."""

    def take(instead_of: datetime | None = None) -> datetime:
        with store.write() as session:
            [moment] = take_moments(
                session,
                upstream=DICE,
                rules=PER_SECOND,
                clock=still(),
                latest=FOR_EVER,
                bits=0,
                instead_of=instead_of,
            )
        return moment.at

    first, second = take(), take()

    assert take(instead_of=second) == second
    assert take(instead_of=first) == second + INTERVAL

    late = Delay(upstream=DICE, late=INTERVAL / 2, sent_at=second + INTERVAL, interval=INTERVAL)
    with store.write() as session:
        put_off(session, [late])

    assert take(instead_of=second + INTERVAL) == second + 1.5 * INTERVAL


def test_a_moment_that_was_put_off_and_not_used_counts_no_more(server_store: Store) -> None:
    """Or a request that went out late would cost its source one more whole interval."""
    rate, clock = Rate(requests=1, period_seconds=5), SharedClock()
    late = timedelta(seconds=1)

    def take(instead_of: datetime | None = None) -> datetime:
        with server_store.write() as session:
            taken = take_at_once(
                session,
                upstreams={"a": instead_of},
                rate=rate,
                clock=clock,
                ahead=timedelta(0),
                latest=FOR_EVER,
                count=1,
            )
        return taken["a"][0].at

    first, second = take(), take()
    delay = Delay(upstream="a", late=late, sent_at=first + late, interval=rate.interval)
    with server_store.write() as session:
        put_off(session, [delay])

    assert take(instead_of=second) == second + late
    assert take(instead_of=first) == second + late + rate.interval


def test_moments_of_several_upstreams_are_taken_at_once(server_store: Store) -> None:
    """A worker asks for a thousand; each keeps its own distance, and its own embargo."""
    rate, clock = Rate(requests=1, period_seconds=5), SharedClock()

    def take(latest: datetime = FOR_EVER, **of: datetime | None) -> dict[str, datetime]:
        with server_store.write() as session:
            taken = take_at_once(
                session,
                upstreams=of,
                rate=rate,
                clock=clock,
                ahead=timedelta(0),
                latest=latest,
                count=1,
            )
        return {name: moment.at for name, [moment] in taken.items()}

    first = take(a=None, b=None)
    second = take(a=None, c=None)
    again = take(a=second["a"], b=first["b"] - rate.interval, c=None)

    assert second["a"] - first["a"] == rate.interval
    assert second["c"] < second["a"]
    assert again["a"] == second["a"]
    assert again["b"] - first["b"] == again["c"] - second["c"] == rate.interval
    assert take(latest=clock.now(), a=None, d=None).keys() == {"d"}


def test_processes_that_take_the_same_moments_at_once_do_not_wait_for_each_other(
    server_store: Store,
) -> None:
    """Whatever the order in which each names them: all hold the rows in one order."""
    rate, clock = Rate(requests=100, period_seconds=1), SharedClock()
    names = [f"u{nth}" for nth in range(20)]

    def take(nth: int) -> list[Moment]:
        order = names if nth % 2 else names[::-1]
        with server_store.write() as session:
            taken = take_at_once(
                session,
                upstreams=dict.fromkeys(order, NOON),
                rate=rate,
                clock=clock,
                ahead=timedelta(0),
                latest=FOR_EVER,
                count=1,
            )
        return [moment for moments in taken.values() for moment in moments]

    with ThreadPoolExecutor(4) as threads:
        taken = list(chain.from_iterable(threads.map(take, range(40))))

    assert len(taken) == 40 * len(names)
