"""Each change to the store, and what it leaves behind."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.engine.interfaces import CacheStats

from pipeline.errors import ErrorName, Phase, StoreError
from pipeline.models import Aspect, Attempt, Batch, Outcome, Request, RunStatus, Timings, Verdict
from pipeline.store.columns import Row
from pipeline.store.db import Store
from pipeline.store.integrity.verify import verify
from pipeline.store.numbers import unpack
from pipeline.store.queries import attempts_of_run, batches_of_run, find_attempt, find_run, get_run
from pipeline.store.rehearsal import rehearse
from pipeline.store.tables import ATTEMPTS, BATCHES, EVIDENCE, REQUESTS, RUNS
from pipeline.store.writes import (
    finish_run,
    interrupt_dead_runs,
    order_batches,
    save_results,
    start_run,
)
from tests.store.makers import (
    HOST,
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_evidence,
    make_failed_attempt,
    make_lost,
    record_run,
)


def save(
    store: Store,
    run_id: int,
    *,
    attempts: list[Attempt] | None = None,
    outcomes: list[Outcome] | None = None,
    keep_numbers: bool = True,
) -> None:
    """Save results in a transaction of their own, as a run does."""
    with store.write() as session:
        save_results(
            session,
            run_id=run_id,
            attempts=attempts or [],
            outcomes=outcomes or [],
            keep_numbers=keep_numbers,
        )


def start_with(store: Store, *batches: Batch) -> int:
    """Start a run that wants *batches*."""
    with store.write() as session:
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=batches)
    return run_id


def test_a_new_run_is_running_and_owes_nothing(store: Store) -> None:
    """Whoever looks while it runs must not mistake it for one that has ended."""
    with store.write() as session:
        run_id = start_run(
            session,
            uid="0" * 32,
            host=HOST,
            pid=1,
            version="1.0",
            config_digest="c0ffee",
            config_path="config.toml",
            started_at=NOON,
        )

    with store.read() as session:
        run = find_run(session, run_id=run_id)
    assert run is not None
    assert run.status is RunStatus.RUNNING
    assert (run.uid, run.host, run.pid, run.started_at) == ("0" * 32, HOST, 1, NOON)
    assert (run.ended_at, run.clock_us, run.ordered, run.attempts) == (None, None, 0, 0)


def test_two_runs_cannot_share_a_uid(store: Store) -> None:
    """The uid is what tells runs of cloned machines apart."""
    run = {"uid": "0" * 32, "host": HOST, "version": "1", "config_digest": "", "config_path": ""}

    with store.write() as session:
        start_run(session, **run, pid=1, started_at=NOON, is_sandbox=False)

    with pytest.raises(StoreError, match=r"(?i)unique.*runs[._]uid"), store.write() as session:
        start_run(session, **run, pid=2, started_at=NOON, is_sandbox=False)


def test_an_ordered_batch_waits_for_its_outcome(store: Store) -> None:
    """A run that is killed leaves evident open batches, not missing ones."""
    run_id = start_with(store, make_batch(0), make_batch(1, source="coin"))

    with store.read() as session:
        first, second = batches_of_run(session, run_id=run_id)
    assert (first.name, first.source, first.n, first.min, first.max) == ("w0", "dice", 3, 1, 6)
    assert (second.name, second.source, second.verdict) == ("w1", "coin", None)


def test_ordering_many_batches_takes_little_memory(store: Store) -> None:
    """A run of a million batches must not need a machine of its own."""

    def many() -> Iterator[Batch]:
        return (make_batch(number) for number in range(20_000))

    tracemalloc.start()
    with store.write() as session:
        order_batches(session, run_id=begin(session), batches=many())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    with store.read() as session:
        count = session.connection().execute(select(func.count()).select_from(BATCHES)).scalar()
    assert count == 20_000
    assert peak < 4_000_000


def test_a_collected_batch_keeps_its_sum_and_numbers(store: Store) -> None:
    """This is what the program is for."""
    batch = Batch(number=0, source="big", n=3, min=-(2**53) + 1, max=2**53 - 1)
    numbers = (-(2**53) + 1, 9_007_199_254_740_991, 7)
    run_id = start_with(store, batch)
    outcome = make_collected(batch, numbers, fetch=4, attempt=2, offset=1)

    save(store, run_id, outcomes=[outcome])

    with store.read() as session:
        (found,) = batches_of_run(session, run_id=run_id, with_numbers=True)
    assert found.packed is not None
    assert unpack(found.packed, found.n, found.min, found.max) == numbers
    assert (found.verdict, found.sum) == (Verdict.COLLECTED, 7)
    assert (found.fetch, found.attempt, found.offset) == (4, 2, 1)


def test_numbers_that_are_not_to_be_kept_leave_sum_and_digest(store: Store) -> None:
    """Who must not keep the numbers can still prove later what they were."""
    run_id = start_with(store, make_batch(0), make_batch(1))

    save(store, run_id, outcomes=[make_collected(make_batch(0))], keep_numbers=False)
    save(store, run_id, outcomes=[make_collected(make_batch(1))], keep_numbers=True)

    with store.read() as session:
        without, with_them = batches_of_run(session, run_id=run_id, with_numbers=True)
    assert without.packed is None
    assert without.sum == 18
    assert without.digest == with_them.digest


def test_a_failed_batch_says_why(store: Store) -> None:
    """Months later somebody asks why this batch is missing."""
    run_id = start_with(store, make_batch())

    save(store, run_id, outcomes=[make_lost(make_batch())])

    with store.read() as session:
        (found,) = batches_of_run(session, run_id=run_id, with_numbers=True)
    assert (found.verdict, found.error) == (Verdict.FAILED, ErrorName.HTTP_5XX)
    assert found.detail == "503 Service Unavailable"
    assert (found.sum, found.packed, found.digest) == (None, None, None)


def test_a_batch_gets_one_outcome_only(store: Store) -> None:
    """An answer that arrives twice must not be counted twice."""
    run_id = start_with(store, make_batch(0), make_batch(1))
    save(store, run_id, outcomes=[make_lost(make_batch(0))])

    with pytest.raises(StoreError, match="1 of 2 outcomes"):
        save(store, run_id, outcomes=[make_collected(make_batch(n)) for n in (0, 1)])

    with store.read() as session:
        verdicts = [batch.verdict for batch in batches_of_run(session, run_id=run_id)]
    assert verdicts == [Verdict.FAILED, None]


def test_an_outcome_of_a_batch_that_was_never_ordered_is_refused(store: Store) -> None:
    """What was not ordered has no place in the account."""
    run_id = start_with(store)

    with pytest.raises(StoreError, match="1 of 1 outcomes"):
        save(store, run_id, outcomes=[make_collected(make_batch())])


def test_an_attempt_comes_back_as_it_was(store: Store) -> None:
    """Every timing counts, and a phase that was not reached stays None."""
    run_id = start_with(store)
    went_well = make_attempt(fetch=0, number=2)
    failed = make_failed_attempt(fetch=0, number=1, error=ErrorName.DNS, phase=Phase.DNS)

    save(store, run_id, attempts=[went_well, failed])

    with store.read() as session:
        records = list(attempts_of_run(session, run_id=run_id))
    assert [record.attempt for record in records] == [failed, went_well]
    assert {record.run_id for record in records} == {run_id}


def test_equal_answers_are_kept_once(store: Store) -> None:
    """A server that says the same thing all night must not fill the disk, whatever its clock."""
    run_id = start_with(store)
    answers = [make_evidence(date="yesterday"), make_evidence(date="today"), make_evidence(b"no")]

    for first in (0, 3):  # within one group and across groups
        save(
            store,
            run_id,
            attempts=[
                make_failed_attempt(fetch=first + n, evidence=answer, began_at=at(first + n))
                for n, answer in enumerate(answers)
            ],
        )

    with store.read() as session:
        kept = session.connection().execute(select(EVIDENCE.c.body, EVIDENCE.c.first_seen_at))
        assert dict(kept.all()) == {b"Service Unavailable": at(0), b"no": at(2)}


def make_request(body: bytes = b"") -> Request:
    """Ask for dice."""
    headers = (("Host", "h.example"), ("X-Api-Key", "${KEY}"))
    return Request(method="GET", url="https://h.example/?n=5", headers=headers, body=body)


def test_each_different_request_is_kept_once(store: Store) -> None:
    """Within a group, and from one run to the next; who sent nothing refers to none."""
    sent = [make_request(), make_request(), make_request(b"{}"), None]
    for _ in range(2):
        run_id = start_with(store)
        attempts = [replace(make_attempt(n), request=each) for n, each in enumerate(sent)]
        save(store, run_id, attempts=attempts)

    with store.read() as session:
        connection = session.connection()
        kept = connection.execute(select(REQUESTS).order_by(REQUESTS.c.id)).all()
        referred = connection.execute(select(ATTEMPTS.c.request).order_by(ATTEMPTS.c.id)).all()
    assert [(row.method, row.url, row.body) for row in kept] == [
        ("GET", "https://h.example/?n=5", body) for body in (b"", b"{}")
    ]
    assert kept[0].headers == (("Host", "h.example"), ("X-Api-Key", "${KEY}"))
    first, other = (row.id for row in kept)
    assert [row.request for row in referred] == [first, first, other, None] * 2


def test_a_digest_is_over_all_of_a_request(store: Store) -> None:
    """Two that differ in anything are two."""
    one = make_request()
    others = [
        replace(one, method="POST"),
        replace(one, url="https://h.example/"),
        replace(one, headers=one.headers[:1]),
        replace(one, body=b"{}"),
    ]
    run_id = start_with(store)

    attempts = [replace(make_attempt(n), request=each) for n, each in enumerate([one, *others])]
    save(store, run_id, attempts=attempts)

    with store.read() as session:
        count = session.connection().scalar(select(func.count()).select_from(REQUESTS))
    assert count == 5


def kept_evidence(store: Store) -> list[bool]:
    """Tell of each attempt whether its answer was kept."""
    with store.read() as session:
        query = select(ATTEMPTS.c.evidence).order_by(ATTEMPTS.c.id)
        return [row.evidence is not None for row in session.connection().execute(query)]


def showing(fetch: int, keys: str, *, is_kept: bool = True) -> Attempt:
    """Get a good answer with such *keys*, and propose to keep it."""
    answer = make_evidence(str(fetch).encode()) if is_kept else None
    return replace(make_attempt(fetch), contract=((Aspect.KEYS, keys),), evidence=answer)


def test_a_good_answer_is_kept_if_a_contract_begins_with_it(store: Store) -> None:
    """One of each look is enough; the same one again every five minutes would be a waste."""
    run_id = start_with(store)
    save(store, run_id, attempts=[showing(0, "a"), showing(1, "a"), showing(2, "b")])
    save(store, run_id, attempts=[showing(3, "b"), showing(4, "c", is_kept=False)])

    assert kept_evidence(store) == [True, False, True, False, False]


def test_a_good_answer_is_not_kept_where_numbers_are_not(store: Store) -> None:
    """It is made of them."""
    run_id = start_with(store)

    save(store, run_id, attempts=[showing(0, "a")], keep_numbers=False)

    assert kept_evidence(store) == [False]


def test_a_bad_answer_is_kept_whatever_it_looks_like(store: Store) -> None:
    """It is what somebody will ask for."""
    run_id = start_with(store)
    bad = make_failed_attempt(evidence=make_evidence())

    save(store, run_id, attempts=[bad], keep_numbers=False)

    assert kept_evidence(store) == [True]


def test_evidence_comes_back_as_it_was(store: Store) -> None:
    """A replay next year needs the very bytes, and the headers in their order."""
    run_id = start_with(store)
    evidence = make_evidence(b"\x00\xff" + "\ud800".encode("utf-8", "surrogatepass"), "\udcff")

    save(store, run_id, attempts=[make_failed_attempt(evidence=evidence)])

    with store.read() as session:
        (record,) = attempts_of_run(session, run_id=run_id)
        case = find_attempt(session, attempt_id=record.id)
    assert case is not None
    assert case.record.attempt.evidence == evidence


def test_half_a_surrogate_pair_does_not_stop_the_run(store: Store) -> None:
    """JSON can carry one into an error message, and no database takes it as text."""
    run_id = start_with(store, make_batch())
    outcome = Outcome(
        batch=make_batch(),
        verdict=Verdict.FAILED,
        fetch=0,
        error=ErrorName.REFUSED,
        detail="no \ud800",
    )

    save(store, run_id, outcomes=[outcome])

    with store.read() as session:
        (found,) = batches_of_run(session, run_id=run_id)
    assert found.detail == "no \\ud800"


def test_the_end_of_a_run_adds_up_what_became_of_it(store: Store) -> None:
    """Listings show these totals without looking at a single batch again."""
    batches = [make_batch(number, n=number + 1) for number in range(5)]
    run_id = start_with(store, *batches)
    long_ago = Timings(wait_us=2**40)
    save(
        store,
        run_id,
        attempts=[
            make_attempt(fetch=0),
            make_failed_attempt(fetch=1),
            Attempt(fetch=2, number=1, source="dice", began_at=NOON, timings=long_ago),
        ],
        outcomes=[
            make_collected(batches[0]),
            make_collected(batches[1]),
            make_lost(batches[2]),
            make_lost(batches[3], Verdict.DEFERRED),
        ],
    )

    with store.write() as session:
        finish_run(
            session, run_id=run_id, status=RunStatus.PARTIAL, ended_at=at(1), clock_us=60_000_000
        )

    with store.read() as session:
        run = find_run(session, run_id=run_id)
    assert run is not None
    assert (run.status, run.ended_at, run.clock_us) == (RunStatus.PARTIAL, at(1), 60_000_000)
    assert (run.ordered, run.collected, run.failed) == (5, 2, 1)
    assert (run.deferred, run.cancelled) == (1, 1)
    assert (run.numbers, run.attempts) == (3, 3)
    assert run.waited_us == 2037 + 100


def test_a_batch_still_open_at_the_end_is_cancelled(store: Store) -> None:
    """Every batch ordered ends in exactly one outcome, also of a run that was stopped."""
    run_id = start_with(store, make_batch())

    with store.write() as session:
        finish_run(session, run_id=run_id, status=RunStatus.INTERRUPTED, ended_at=at(1), clock_us=1)

    with store.read() as session:
        (found,) = batches_of_run(session, run_id=run_id)
    assert (found.verdict, found.error) == (Verdict.CANCELLED, ErrorName.CANCELLED)


@pytest.mark.parametrize(
    ("collected", "failed", "status"),
    [
        (0, 0, RunStatus.OK),
        (2, 0, RunStatus.OK),
        (1, 1, RunStatus.PARTIAL),
        (0, 2, RunStatus.FAILED),
    ],
)
def test_the_totals_decide_how_a_run_went(
    store: Store, collected: int, failed: int, status: RunStatus
) -> None:
    """Exit codes follow from this, so it is decided in one place, from what is on disk."""
    batches = [make_batch(number) for number in range(collected + failed)]
    run_id = start_with(store, *batches)
    save(store, run_id, outcomes=[make_collected(batch) for batch in batches[:collected]])
    save(store, run_id, outcomes=[make_lost(batch) for batch in batches[collected:]])

    with store.write() as session:
        finish_run(session, run_id=run_id, ended_at=at(1), clock_us=1)

    with store.read() as session:
        run = get_run(session, run_id=run_id)
    assert run.status is status


def test_a_batch_that_the_deadline_cut_off_has_failed(store: Store) -> None:
    """Our own limit lost it, nobody stopped the run."""
    run_id = start_with(store, make_batch())

    with store.write() as session:
        finish_run(session, run_id=run_id, ended_at=at(1), clock_us=1, rest=ErrorName.DEADLINE)

    with store.read() as session:
        (found,) = batches_of_run(session, run_id=run_id)
    assert (found.verdict, found.error) == (Verdict.FAILED, ErrorName.DEADLINE)


def test_a_run_without_batches_ends_with_zeros(store: Store) -> None:
    """A run that was skipped leaves a line in the history, too."""
    run_id = start_with(store)

    with store.write() as session:
        finish_run(session, run_id=run_id, status=RunStatus.SKIPPED, ended_at=NOON, clock_us=0)

    with store.read() as session:
        run = find_run(session, run_id=run_id)
    assert run is not None
    assert (run.status, run.ordered, run.numbers, run.waited_us) == (RunStatus.SKIPPED, 0, 0, 0)


@pytest.mark.parametrize("is_known", [True, False])
def test_only_a_running_run_can_end(store: Store, is_known: bool) -> None:
    """A run that another process has buried must not come back with other totals."""
    with store.write() as session:
        run_id = record_run(session, [make_batch()])

    with pytest.raises(StoreError, match="is not running"), store.write() as session:
        finish_run(
            session,
            run_id=run_id if is_known else 99,
            status=RunStatus.OK,
            ended_at=NOON,
            clock_us=1,
        )


def test_dead_runs_are_ended_without_touching_what_they_collected(store: Store) -> None:
    """The machine lost its power: what was on disk counts, the rest is cancelled."""
    run_id = start_with(store, make_batch(0), make_batch(1))
    save(store, run_id, attempts=[make_attempt()], outcomes=[make_collected(make_batch(0))])

    with store.write() as session:
        count = interrupt_dead_runs(session, ended_at=at(5))

    with store.read() as session:
        run = find_run(session, run_id=run_id)
        verdicts = [batch.verdict for batch in batches_of_run(session, run_id=run_id)]
    assert count == 1
    assert run is not None
    assert (run.status, run.ended_at, run.clock_us) == (RunStatus.INTERRUPTED, at(5), None)
    assert (run.ordered, run.collected, run.cancelled, run.attempts) == (2, 1, 1, 1)
    assert verdicts == [Verdict.COLLECTED, Verdict.CANCELLED]


def test_runs_that_ended_are_left_alone_and_the_host_is_no_matter(store: Store) -> None:
    """A container has another host name each time; and none but its own kernel sees its lock."""
    with store.write() as session:
        ended = record_run(session, [make_batch()])
        elsewhere = begin(session, host="machine-2")

    with store.write() as session:
        count = interrupt_dead_runs(session, ended_at=at(5))

    with store.read() as session:
        runs = [find_run(session, run_id=run_id) for run_id in (ended, elsewhere)]
    assert count == 1
    assert [run and run.status for run in runs] == [RunStatus.OK, RunStatus.INTERRUPTED]


def test_what_was_rehearsed_is_not_compiled_again(store: Store) -> None:
    """While answers are awaited there is time for it; behind the last one somebody waits."""
    with store.write() as session:
        rehearse(session)
        session.rollback()
    compiled: list[str] = []

    def listen(*args: Any) -> None:  # noqa: ANN401 - an event of SQLAlchemy's
        statement, context = args[2], args[4]
        if context.compiled is not None and context.cache_hit is not CacheStats.CACHE_HIT:
            compiled.append(statement)

    with store.write() as session:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", listen)
        run_id = record_run(session, [make_batch()], attempts=[make_attempt()])
        event.remove(engine, "before_cursor_execute", listen)

    assert compiled == []
    assert verify(store).problems == ()
    with store.read() as session:
        assert session.connection().scalars(select(RUNS.c.id)).all() == [run_id]


def test_a_rehearsal_leaves_nothing(store: Store) -> None:
    """In a file, the only kind of store that is rehearsed in, not even a gap in the run ids."""
    with store.write() as session:
        rehearse(session)
        session.rollback()

    with store.read() as session:
        left = {
            table.name: session.connection().scalar(select(func.count()).select_from(table))
            for table in Row.metadata.sorted_tables
        }
    assert not any(left.values())
    with store.write() as session:
        assert begin(session) == 1 or store.is_server
