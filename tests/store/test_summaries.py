"""What is added up when a run ends, held against what SQL counts in the rows themselves."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from pipeline.errors import ErrorName, Phase
from pipeline.histogram import Histogram
from pipeline.models import Attempt, Batch, Loss, Outcome, RunStatus, Step, Tally, Timings, Verdict
from pipeline.pacing import Rate, Rules
from pipeline.store.columns import PHASE_COLUMNS, to_us
from pipeline.store.db import Store, open_store
from pipeline.store.durations import timings_by_step
from pipeline.store.history import losses, tallies
from pipeline.store.summaries import period_begin
from pipeline.store.tables import TIMINGS
from pipeline.store.window import Window
from pipeline.store.writes import finish_run
from tests.store.makers import (
    NOON,
    at,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
    record_results,
)

ONE_A_SECOND = {"dice": Rules(rate=Rate(requests=1, period_seconds=1.0))}
TWO_A_SECOND = {"dice": Rules(rate=Rate(requests=2, period_seconds=1.0))}
NO_RULES = {"dice": Rules()}


def sent_at(milliseconds: float, fetch: int = 0) -> Attempt:
    """Send a request so long after noon, without a wait."""
    began_at = NOON + timedelta(milliseconds=milliseconds)
    return replace(
        make_attempt(fetch, began_at=began_at),
        timings=Timings(wait_us=0, send_us=10, first_byte_us=100),
    )


def record(
    store: Store,
    *,
    attempts: Iterable[Attempt] = (),
    outcomes: Iterable[Outcome] = (),
    started_at: datetime = NOON,
    rules: dict[str, Rules] | None = None,
) -> list[Tally]:
    """Record a run of these *outcomes*, and give what it left."""
    decided = list(outcomes)
    with store.write() as session:
        run_id = record_results(
            session, *decided, attempts=attempts, started_at=started_at, is_over=False
        )
        finish_run(
            session, run_id=run_id, ended_at=started_at, clock_us=1_000_000, rules=rules or {}
        )
    with store.read() as session:
        return [tally for tally in tallies(session, Window()) if tally.run_id == run_id]


def all_losses(store: Store) -> list[Loss]:
    """Read all losses."""
    with store.read() as session:
        return list(losses(session, Window()))


def send(
    store: Store,
    *attempts: Attempt,
    started_at: datetime = NOON,
    rules: dict[str, Rules] | None = ONE_A_SECOND,
) -> Tally:
    """Record a run of these *attempts* that brought a batch, and give its tally."""
    outcomes = [make_collected(make_batch(0))]
    (tally,) = record(
        store, attempts=attempts, outcomes=outcomes, started_at=started_at, rules=rules
    )
    return tally


def violations(store: Store, attempts: list[Attempt], rules: dict[str, Rules]) -> int | None:
    """Record a run of these *attempts*, and give how many of them broke the rules."""
    return send(store, *attempts, rules=rules).violations


# ---- Totals ----

ERRORS = st.sampled_from([ErrorName.HTTP_5XX, ErrorName.DNS, ErrorName.COUNT])
DURATIONS = st.none() | st.integers(min_value=0, max_value=10**9)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[Attempt], Outcome]]:
    """Make the fetches of a run: the attempts of each, and what became of its batch."""
    fetches = []
    for number in range(draw(st.integers(min_value=0, max_value=6))):
        source = draw(st.sampled_from(["dice", "coin"]))
        batch = make_batch(number, source, n=draw(st.integers(min_value=1, max_value=5)))
        attempts = [_attempt(draw, batch, tried) for tried in range(1, draw(st.integers(1, 4)))]
        fetches.append((attempts, _outcome(draw, batch, attempts)))
    return fetches


def _attempt(draw: st.DrawFn, batch: Batch, tried: int) -> Attempt:
    error = draw(st.none() | ERRORS)
    return Attempt(
        fetch=batch.number,
        number=tried,
        source=batch.source,
        began_at=NOON + timedelta(microseconds=draw(st.integers(0, 10**7))),
        timings=Timings(**{name: draw(DURATIONS) for name in PHASE_COLUMNS.values()}),
        error=error,
        phase=draw(st.sampled_from(list(Phase))) if error else None,
        detail="something" if error else None,
    )


def _outcome(draw: st.DrawFn, batch: Batch, attempts: list[Attempt]) -> Outcome:
    if attempts and attempts[-1].error is None:
        return make_collected(batch, attempt=len(attempts))
    verdict = draw(st.sampled_from([Verdict.FAILED, Verdict.DEFERRED, Verdict.CANCELLED]))
    error = attempts[-1].error if attempts else ErrorName.DEADLINE
    return replace(make_lost(batch, verdict), attempt=len(attempts) or None, error=error)


COUNTED = """
SELECT source, count(*) FILTER (WHERE verdict = 'collected'),
    count(*) FILTER (WHERE verdict = 'failed'), count(*) FILTER (WHERE verdict = 'deferred'),
    count(*) FILTER (WHERE verdict = 'cancelled'),
    coalesce(sum(n) FILTER (WHERE verdict = 'collected'), 0), coalesce(sum(sum), 0)
FROM batch_list GROUP BY source ORDER BY source
"""
ASKED = """
SELECT name, count(*), count(error), count(*) FILTER (WHERE number > 1),
    count(*) FILTER (WHERE number > 1 AND error IS NULL), sum(coalesce(wait_us, 0)),
    sum(coalesce(dns_us, 0) + coalesce(connect_us, 0) + coalesce(tls_us, 0) + coalesce(send_us, 0)
        + coalesce(first_byte_us, 0) + coalesce(body_us, 0) + coalesce(check_us, 0))
FROM attempts JOIN sources ON sources.id = source GROUP BY name ORDER BY name
"""
LOST = """
SELECT name, error, phase, count(*),
    min(began_at + coalesce(wait_us, 0)), max(began_at + coalesce(wait_us, 0))
FROM attempts JOIN sources ON sources.id = source
WHERE error IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the database, past the program."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@settings(max_examples=30, deadline=None)
@given(fetches=histories())
def test_totals_are_what_sql_counts(
    tmp_path_factory: pytest.TempPathFactory, fetches: list[tuple[list[Attempt], Outcome]]
) -> None:
    """The summaries outlive the rows, so they must have been right while both were there."""
    path = tmp_path_factory.mktemp("totals") / "pipeline.db"
    attempts = [attempt for made, _ in fetches for attempt in made]

    with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=True) as store:
        written = record(store, attempts=attempts, outcomes=[outcome for _, outcome in fetches])
        lost = all_losses(store)

    assert [
        facts(tally, "source collected failed deferred cancelled numbers sum") for tally in written
    ] == rows(path, COUNTED)
    assert [
        facts(tally, "source attempts failed_attempts retries retries_helped wait_us exchange_us")
        for tally in written
        if tally.attempts
    ] == rows(path, ASKED)
    assert [
        (*facts(loss, "source error phase attempts"), *map(to_us, (loss.first_at, loss.last_at)))
        for loss in lost
        if loss.phase is not None and loss.attempts
    ] == rows(path, LOST)


def facts(record: Tally | Loss, names: str) -> tuple[object, ...]:
    """Read some attributes of a record."""
    return tuple(getattr(record, name) for name in names.split())


def test_a_run_without_batches_leaves_nothing(store: Store) -> None:
    """One that was skipped has no source to speak of."""
    assert record(store) == []
    assert all_losses(store) == []


def test_sums_may_be_larger_than_any_integer_of_the_database(store: Store) -> None:
    """Three batches of the largest numbers overflow 64 bits."""
    batches = [Batch(number=i, source="dice", n=1, min=0, max=2**62) for i in range(3)]
    outcomes = [make_collected(batch, (2**62,)) for batch in batches]

    (tally,) = record(store, attempts=map(make_attempt, range(3)), outcomes=outcomes)

    assert tally.sum == 3 * 2**62 > 2**63


def test_the_fastest_attempt_is_the_fastest_that_brought_numbers(store: Store) -> None:
    """A refusal is quick and proves nothing; the wait is not the upstream's doing."""
    slow = replace(make_attempt(0), timings=Timings(wait_us=0, first_byte_us=900))
    fast = replace(make_attempt(1), timings=Timings(wait_us=10**6, first_byte_us=300))
    refused = replace(make_failed_attempt(2), timings=Timings(wait_us=0, first_byte_us=1))
    outcomes = [
        make_collected(make_batch(0)),
        make_collected(make_batch(1)),
        make_lost(make_batch(2)),
    ]

    (tally,) = record(store, attempts=[slow, fast, refused], outcomes=outcomes)

    assert (tally.fastest_us, tally.fastest_attempt) == (300, 2)


def test_a_source_that_was_never_asked_has_a_tally_of_its_batches(store: Store) -> None:
    """All deferred: no request, and still an answer to what became of them."""
    (tally,) = record(store, outcomes=[make_lost(make_batch(0), Verdict.DEFERRED)])

    assert (tally.ordered, tally.deferred, tally.attempts) == (1, 1, 0)
    assert (tally.fastest_us, tally.first_sent_at, tally.last_sent_at) == (None, None, None)


def test_a_request_that_was_never_allowed_to_go_was_not_sent(store: Store) -> None:
    """Cancelled while it waited: it cannot have broken a rule."""
    waiting = replace(
        make_failed_attempt(0, error=ErrorName.CANCELLED, phase=Phase.WAIT),
        timings=Timings(wait_us=5_000_000),
        retry_after_us=None,
    )

    (tally,) = record(
        store, attempts=[waiting], outcomes=[make_lost(make_batch(0))], rules=ONE_A_SECOND
    )

    assert (tally.first_sent_at, tally.violations) == (None, 0)


def test_a_request_is_sent_when_its_wait_is_over(store: Store) -> None:
    """The moments by which a provider would count."""
    attempt = replace(make_attempt(0), timings=Timings(wait_us=2_000_000, send_us=1))

    (tally,) = record(store, attempts=[attempt], outcomes=[make_collected(make_batch(0))])

    assert tally.first_sent_at == tally.last_sent_at == NOON + timedelta(seconds=2)


# ---- Losses ----


def test_a_batch_is_lost_to_the_attempt_that_decided_it(store: Store) -> None:
    """Two attempts failed, each for its own reason; the batch counts for the last."""
    attempts = [
        make_failed_attempt(0, 1, error=ErrorName.DNS, phase=Phase.DNS),
        make_failed_attempt(0, 2),
    ]

    record(store, attempts=attempts, outcomes=[replace(make_lost(make_batch(0)), attempt=2)])

    assert [
        (loss.error, loss.phase, loss.attempts, loss.batches) for loss in all_losses(store)
    ] == [(ErrorName.DNS, Phase.DNS, 1, 0), (ErrorName.HTTP_5XX, Phase.CHECK, 1, 1)]


def test_a_batch_lost_without_an_attempt_has_no_phase(store: Store) -> None:
    """The deadline came before its turn: nobody was asked, and the run says when."""
    lost = replace(make_lost(make_batch(0)), attempt=None, error=ErrorName.DEADLINE)

    record(store, outcomes=[lost], started_at=at(5))

    (loss,) = all_losses(store)
    assert (loss.error, loss.phase, loss.attempts, loss.batches) == (ErrorName.DEADLINE, None, 0, 1)
    assert (loss.first_at, loss.last_at) == (at(5), at(5))
    assert (loss.first_attempt, loss.last_attempt) == (None, None)


def test_a_batch_that_was_lost_to_something_else_than_its_attempt_has_no_phase(
    store: Store,
) -> None:
    """The attempt failed at the server, and then the deadline forbade another one."""
    lost = replace(make_lost(make_batch(0)), attempt=1, error=ErrorName.DEADLINE)

    record(store, attempts=[make_failed_attempt(0)], outcomes=[lost])

    assert [(loss.error, loss.phase, loss.batches) for loss in all_losses(store)] == [
        (ErrorName.DEADLINE, None, 1),
        (ErrorName.HTTP_5XX, Phase.CHECK, 0),
    ]


def test_a_loss_names_the_first_and_the_last_attempt_by_time(store: Store) -> None:
    """They are saved in the order in which they end, which is another one."""
    attempts = [make_failed_attempt(i, began_at=at(minute)) for i, minute in enumerate([2, 0, 1])]

    record(store, attempts=attempts, outcomes=[make_lost(make_batch(i)) for i in range(3)])

    (loss,) = all_losses(store)
    assert (loss.first_at, loss.first_attempt) == (at(0), 2)
    assert (loss.last_at, loss.last_attempt) == (at(2), 1)


def test_a_request_is_lost_when_it_was_sent_and_not_when_its_turn_came(store: Store) -> None:
    """Between the two lies the wait for the rate, a minute or more; an operator looks for it."""
    attempts = [
        replace(
            make_failed_attempt(fetch, began_at=at(0)),
            timings=Timings(wait_us=minutes * 60_000_000, send_us=10),
        )
        for fetch, minutes in enumerate([2, 1])
    ]

    record(store, attempts=attempts, outcomes=[make_lost(make_batch(i)) for i in range(2)])

    (loss,) = all_losses(store)
    assert (loss.first_at, loss.first_attempt) == (at(1), 2)
    assert (loss.last_at, loss.last_attempt) == (at(2), 1)


# ---- Rules ----


def test_nobody_knows_whether_unknown_rules_were_kept(store: Store) -> None:
    """Not 0: that would be a claim."""
    (tally,) = record(store, attempts=[sent_at(0)], outcomes=[make_collected(make_batch(0))])

    assert (tally.rule, tally.violations, tally.violating_attempt) == (None, None, None)


def test_without_a_rate_no_request_is_too_soon(store: Store) -> None:
    """Nothing was forbidden."""
    assert violations(store, [sent_at(0), sent_at(0, fetch=1)], NO_RULES) == 0


@pytest.mark.parametrize(
    ("moments", "rules", "broken"),
    [
        ([0, 1000], ONE_A_SECOND, 0),
        ([0, 999], ONE_A_SECOND, 1),
        ([0, 10, 20], ONE_A_SECOND, 2),
        ([0, 10, 1000], TWO_A_SECOND, 0),
        ([0, 10, 999], TWO_A_SECOND, 1),
        ([999, 0, 10], TWO_A_SECOND, 1),
    ],
)
def test_requests_within_a_run_are_held_to_the_rate(
    store: Store, moments: list[float], rules: dict[str, Rules], broken: int
) -> None:
    """So many in any period, in whatever order they were saved."""
    attempts = [sent_at(moment, fetch) for fetch, moment in enumerate(moments)]

    assert violations(store, attempts, rules) == broken


@pytest.mark.parametrize(("apart_ms", "broken"), [(999, 1), (1000, 0)])
def test_two_runs_together_are_held_to_the_rate(store: Store, apart_ms: float, broken: int) -> None:
    """The provider does not know where one run ends and the next begins."""
    send(store, sent_at(0))
    began_at = NOON + timedelta(milliseconds=apart_ms)

    tally = send(store, sent_at(apart_ms), started_at=began_at)

    assert (tally.rule, tally.violations) == ("1/1s", broken)
    assert tally.violating_attempt == (2 if broken else None)


def test_requests_of_runs_that_overlap_break_no_rule_by_that(store: Store) -> None:
    """The other run sent before us and after us, far enough from either."""
    send(store, sent_at(0), sent_at(100_000, fetch=1))

    tally = send(store, sent_at(50_000), started_at=NOON + timedelta(seconds=10))

    assert tally.violations == 0


def test_a_run_that_started_later_and_ended_before_counts_as_well(store: Store) -> None:
    """It is in the books when we are summed up, and the provider has seen both."""
    send(store, sent_at(5_000), started_at=NOON + timedelta(seconds=4))

    tally = send(store, sent_at(5_500))

    assert tally.violations == 1


def test_a_run_that_ended_later_but_started_before_counts_as_well(store: Store) -> None:
    """Runs that overlap are booked in the order in which they end."""
    send(store, sent_at(5_000))

    tally = send(store, sent_at(5_500), started_at=NOON + timedelta(seconds=1))

    assert tally.violations == 1


def test_a_run_years_ago_breaks_no_rule_of_today(store: Store) -> None:
    """And is not searched for either."""
    send(store, sent_at(0))

    tally = send(store, sent_at(1_000 * 86_400 * 3), started_at=NOON + timedelta(days=3))

    assert tally.violations == 0


@pytest.mark.parametrize("before", [None, NO_RULES, TWO_A_SECOND])
def test_a_request_under_another_rule_does_not_count(
    store: Store, before: dict[str, Rules] | None
) -> None:
    """The name may have been that of another upstream then, or of the sandbox."""
    send(store, sent_at(0), rules=before)

    tally = send(store, sent_at(500), started_at=NOON + timedelta(milliseconds=500))

    assert tally.violations == 0


def refused_at(milliseconds: float, retry_after_ms: int) -> Attempt:
    """Be told at so many ms after noon to come again no sooner than after so many more."""
    return replace(
        make_failed_attempt(0, began_at=NOON + timedelta(milliseconds=milliseconds)),
        timings=Timings(wait_us=0, send_us=0, first_byte_us=0),
        retry_after_us=retry_after_ms * 1_000,
    )


@pytest.mark.parametrize(("then_ms", "broken"), [(1, 1), (4_999, 1), (5_000, 0)])
def test_a_request_before_the_moment_that_was_named_breaks_it(
    store: Store, then_ms: int, broken: int
) -> None:
    """Retry-After is a rule as well, also where no rate is known."""
    attempts = [refused_at(0, 5_000), sent_at(then_ms, fetch=1)]

    assert violations(store, attempts, NO_RULES) == broken


def test_what_was_in_flight_when_the_moment_was_named_breaks_nothing(store: Store) -> None:
    """Nobody can call a request back."""
    late = replace(refused_at(0, 5_000), timings=Timings(wait_us=0, first_byte_us=2_000_000))

    assert violations(store, [late, sent_at(1_000, fetch=1)], NO_RULES) == 0
    # The same request half a second after the answer would have.
    assert violations(store, [late, sent_at(2_500, fetch=1)], NO_RULES) == 1


def test_the_latest_moment_that_was_named_holds(store: Store) -> None:
    """A shorter one that came after it does not take it back."""
    attempts = [
        refused_at(0, 60_000),
        replace(refused_at(10, 1_000), fetch=1),
        sent_at(30_000, fetch=2),
    ]

    assert violations(store, attempts, NO_RULES) == 2


def test_a_moment_beyond_the_calendar_holds_for_ever(store: Store) -> None:
    """An upstream may ask for 292,000 years."""
    attempts = [replace(refused_at(0, 1), retry_after_us=2**63 - 1), sent_at(10**9, fetch=1)]

    assert violations(store, attempts, NO_RULES) == 1


# ---- Timings ----


def stored_timings(store: Store, step: Step) -> dict[datetime, dict[str, Histogram]]:
    """Read the histograms of each hour or day as they lie in the database."""
    with store.read() as session:
        query = select(TIMINGS.c.began_at, TIMINGS.c.phases)
        found = session.connection().execute(
            query.where(TIMINGS.c.step == step).order_by(TIMINGS.c.began_at)
        )
        return {
            began_at: {phase: Histogram.from_json(facts) for phase, facts in phases.items()}
            for began_at, phases in found
        }


def test_runs_of_an_hour_are_merged_and_those_of_a_day_as_well(store: Store) -> None:
    """Two runs in one hour, one in the next: two hours, one day."""
    for minute in (0, 59, 60):
        record(
            store,
            attempts=[make_attempt(0, began_at=at(minute))],
            outcomes=[make_collected(make_batch(0))],
            started_at=at(minute),
        )

    hours = stored_timings(store, Step.HOUR)
    days = stored_timings(store, Step.DAY)

    assert [phases["exchange"].n for phases in hours.values()] == [2, 1]
    assert list(hours) == [NOON, NOON + timedelta(hours=1)]
    assert [phases["exchange"].n for phases in days.values()] == [3]
    assert list(days) == [NOON - timedelta(hours=12)]


def test_a_run_counts_where_it_started(store: Store) -> None:
    """An attempt after midnight belongs to the run before it, as in all other figures."""
    midnight = NOON + timedelta(hours=12)
    record(
        store,
        attempts=[make_attempt(0, began_at=midnight + timedelta(minutes=1))],
        outcomes=[make_collected(make_batch(0))],
        started_at=midnight - timedelta(minutes=1),
    )

    assert list(stored_timings(store, Step.HOUR)) == [NOON + timedelta(hours=11)]


def test_a_phase_that_was_not_reached_is_not_counted(store: Store) -> None:
    """NULL is no 0: the fastest resolver would be the one that was never asked."""
    record(store, attempts=[make_attempt(0)], outcomes=[make_collected(make_batch(0))])

    (phases,) = stored_timings(store, Step.DAY).values()

    assert set(phases) == {"wait", "send", "first_byte", "body", "check", "exchange"}
    assert phases["exchange"].total_us == 10 + 2000 + 20 + 7


def test_a_new_phase_joins_an_hour_that_has_others(store: Store) -> None:
    """The first run had an open connection, the second had to connect."""
    first = make_attempt(0)
    second = replace(first, timings=replace(first.timings, connect_us=70))
    for attempt in (first, second):
        record(store, attempts=[attempt], outcomes=[make_collected(make_batch(0))])

    (phases,) = stored_timings(store, Step.HOUR).values()

    assert (phases["connect"].n, phases["exchange"].n) == (1, 2)


def test_sources_have_histograms_of_their_own(store: Store) -> None:
    """Also when one of them was there in this hour before."""
    record(store, attempts=[make_attempt(0)], outcomes=[make_collected(make_batch(0))])
    record(
        store,
        attempts=[make_attempt(0), make_attempt(1, source="coin")],
        outcomes=[make_collected(make_batch(0)), make_collected(make_batch(1, "coin"))],
    )

    with store.read() as session:
        found = {
            source: phases["exchange"].n
            for _, source, phases in timings_by_step(session, Window(since=at(0), until=at(60)))
        }

    assert found == {"coin": 1, "dice": 2}


@pytest.mark.parametrize(
    ("step", "begin"),
    [
        (Step.HOUR, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (Step.DAY, datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_period_begins_at_its_first_instant(step: Step, begin: datetime) -> None:
    """And an instant before it is another period."""
    assert period_begin(NOON + timedelta(minutes=59, microseconds=5), step) == begin
    assert period_begin(begin, step) == begin


def test_a_dead_run_leaves_what_it_got(store: Store) -> None:
    """It is summed up by whoever finds it; nobody knows its rules any more."""
    with store.write() as session:
        run_id = record_results(
            session,
            make_collected(make_batch(0)),
            attempts=[make_attempt()],
            batches=[make_batch(0), make_batch(1)],
            is_over=False,
        )
        finish_run(
            session, run_id=run_id, status=RunStatus.INTERRUPTED, ended_at=at(1), clock_us=None
        )

    with store.read() as session:
        (tally,) = tallies(session, Window())

    assert (tally.collected, tally.cancelled, tally.violations) == (1, 1, None)
