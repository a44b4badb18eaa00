"""Portions of shared runs, on both kinds of database: the first outcome stays, nothing is lost."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.pacing import Moment
from pipeline.store import heartbeats, portions
from pipeline.store.db import Store
from pipeline.store.integrity.verify import verify
from pipeline.store.late import find_late
from pipeline.store.portions import Portion, Standing
from pipeline.store.shared_clock import read_clock
from pipeline.store.tables import ATTEMPTS, BATCHES, HEARTBEATS, MEMBERS
from pipeline.store.window import Window
from pipeline.store.writes import finish_run, order_batches
from tests.store.makers import NOON, at, begin, make_attempt, make_batch, make_collected, make_lost

HOST, PID = "m1", 7
LONG_AGO = heartbeats.SILENCE + timedelta(minutes=5)


def order(session: Session, *, until: timedelta = timedelta(hours=1)) -> Portion:
    """Order two portions of two batches each; give the first."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=map(make_batch, range(4)))
    now = read_clock(session.connection())
    heartbeats.begin(session, run_id=run_id, until=now + until)
    made = [
        Portion(run_id=run_id, source="dice", first=first, last=first + 1, lock="u", rank=first)
        for first in (0, 2)
    ]
    portions.order(session, made)
    return made[0]


def save(session: Session, portion: Portion, *numbers: int, minutes: int = 0) -> None:
    """Save that the batches of these numbers were collected, each by the first attempt."""
    portions.save_results(
        session,
        run_id=portion.run_id,
        attempts=[make_attempt(n, began_at=at(minutes)) for n in numbers],
        outcomes=[make_collected(make_batch(n)) for n in numbers],
        keep_numbers=True,
    )


def take(session: Session, portion: Portion, *, host: str = HOST, pid: int = PID) -> Standing:
    """Begin with *portion*."""
    [standing] = begin_with(session, portion, host=host, pid=pid)
    return standing


def begin_with(session: Session, portion: Portion, *, host: str, pid: int) -> list[Standing]:
    """Begin with *portion*, unless it is done."""
    run_id, firsts = portion.run_id, [portion.first]
    return portions.begin(session, run_id=run_id, firsts=firsts, host=host, pid=pid)


def end(session: Session, portion: Portion, obstacle: Moment | None = None) -> bool:
    """Say that *portion* is done, if it is; tell whether all is."""
    return portions.end(session, run_id=portion.run_id, obstacles={portion: obstacle})


def attempts(session: Session) -> list[tuple[int, int]]:
    """List the attempts by fetch and number."""
    query = select(ATTEMPTS.c.fetch, ATTEMPTS.c.number).order_by(ATTEMPTS.c.id)
    return [(row.fetch, row.number) for row in session.connection().execute(query)]


def test_who_carries_it_out_learns_what_is_left(store: Store) -> None:
    """A second delivery asks only for what the first did not get."""
    with store.write() as session:
        portion = order(session)
        first = take(session, portion)
        save(session, portion, 1)
        second = take(session, portion, host="m2", pid=8)

        assert first.portion == portion
        assert [batch.number for batch in first.batches] == [0, 1]
        assert (first.undecided, second.undecided) == (frozenset({0, 1}), frozenset({0}))
        assert portions.held_by(session, host=HOST, pid=PID) == set()
        assert portions.held_by(session, host="m2", pid=8) == {(portion.run_id, 0)}


def test_the_first_outcome_stays_and_the_second_ones_attempts_are_kept(store: Store) -> None:
    """Two asked for the same, one of them after a pause: nothing is stored twice, or hidden."""
    with store.write() as session:
        portion = order(session)
        save(session, portion, 0)
        save(session, portion, 0, 1, minutes=1)
        save(session, portion, 0, 1, minutes=1)  # a commit that could not say that it had worked

        chosen = select(BATCHES.c.number, BATCHES.c.attempt).where(BATCHES.c.verdict.is_not(None))
        outcomes = session.connection().execute(chosen.order_by(BATCHES.c.number)).all()
        assert [tuple(row) for row in outcomes] == [(0, 1), (1, 1)]
        assert attempts(session) == [(0, 1), (0, 2), (1, 1)]


def test_an_outcome_names_the_attempt_that_brought_it(store: Store) -> None:
    """Also if that is numbered on, because another machine has tried before."""
    with store.write() as session:
        portion = order(session)
        failed = make_attempt(0, began_at=at(0))
        portions.save_results(
            session, run_id=portion.run_id, attempts=[failed], outcomes=[], keep_numbers=True
        )
        save(session, portion, 0, minutes=1)

        query = select(BATCHES.c.attempt).where(BATCHES.c.number == 0)
        assert session.connection().scalar(query) == 2


def test_what_was_left_by_who_had_to_go_stays_open(store: Store) -> None:
    """A worker that drains decides nothing for those that go on."""
    with store.write() as session:
        portion = order(session)
        left = replace(make_lost(make_batch(0)), verdict=Verdict.CANCELLED)
        portions.save_results(
            session,
            run_id=portion.run_id,
            attempts=[make_attempt(0)],
            outcomes=[left],
            keep_numbers=True,
        )

        assert take(session, portion).undecided == {0, 1}
        assert attempts(session) == [(0, 1)]


def test_what_comes_when_the_run_has_ended_is_kept_beside_it(store: Store) -> None:
    """Once, however often it is tried; the run is as it was when it was sealed."""
    with store.write() as session:
        portion = order(session)
        save(session, portion, 0)
        finish_run(session, run_id=portion.run_id, ended_at=NOON, clock_us=1)
        for _ in range(2):
            save(session, portion, 0, 1)  # 0 is what a try had stored that could not say so
        late = find_late(session, run_id=portion.run_id)

        assert [(each.attempts, each.collected, each.file) for each in late] == [(1, 1, None)]
        assert find_late(session, Window(until=NOON)) == []
        assert attempts(session) == [(0, 1)]
    assert verify(store).problems == ()


def test_the_last_portion_is_known(store: Store) -> None:
    """Whoever finds no open batch ends the run; what the rules keep is put off."""
    with store.write() as session:
        portion = order(session)
        other = replace(portion, first=2, last=3)
        save(session, portion, 0)
        assert not end(session, portion)
        assert take(session, portion).undecided == {1}
        save(session, portion, 1)
        assert not end(session, portion)
        assert begin_with(session, portion, host=HOST, pid=PID) == []
        tomorrow = Moment(at=NOON, why="quota: 9 requests per day")

        assert end(session, other, tomorrow)
        assert portions.count_outcomes(session, run_id=portion.run_id) == (2, 2)


def test_a_shared_run_is_not_dead_before_its_deadline(store: Store) -> None:
    """Its workers may all be away for a minute, and come back."""
    with store.write() as session:
        portion = order(session)
        late = order(session, until=-LONG_AGO)
        now = read_clock(session.connection())
        session.connection().execute(update(HEARTBEATS).values(seen_at=now - LONG_AGO))

        assert portions.find_overdue_runs(session) == [late.run_id]
        dead = heartbeats.dead_runs(session)
    assert portion.run_id not in dead


@pytest.mark.parametrize("is_begun", [False, True])
def test_what_waits_and_why_is_told(store: Store, is_begun: bool) -> None:
    """Of one upstream that takes one at a time one goes on, and the others wait for it."""
    with store.write() as session:
        portion = order(session)
        if is_begun:
            take(session, portion)
        listed = portions.find_open_portions(session)

    assert [(each.first, each.undecided) for each in listed] == [(0, 2), (2, 2)]
    free, same = "a worker with a free lane", "another portion of the same upstream"
    assert [each.why for each in listed] == (["", same] if is_begun else [free, free])


def test_who_leaves_a_portion_to_others_says_why(server_store: Store) -> None:
    """Until somebody begins it; one that had it before has it no more."""
    with server_store.write() as session:
        portion = order(session)
        portions.join(session, host=HOST, pid=PID, version="1", lanes=3)
        take(session, portion)
        portions.refuse(session, portion, why="m2 pid 8: another rate")
        refused = portions.find_open_portions(session)
        [idle] = portions.find_members(session)
        take(session, portion)
        begun = portions.find_open_portions(session)

    configured = "a worker with the configuration of the run; m2 pid 8: another rate"
    free, same = "a worker with a free lane", "another portion of the same upstream"
    assert [each.why for each in refused] == [configured, free]
    assert idle.portions == 0
    assert [each.why for each in begun] == ["", same]


def test_workers_come_stay_and_go(server_store: Store) -> None:
    """Whoever looks sees who is here, and what each has in hand."""
    with server_store.write() as session:
        portion = order(session)
        one = portions.join(session, host="m1", pid=7, version="1", lanes=3)
        portions.join(session, host="m2", pid=8, version="1", lanes=3)
        take(session, portion)
        portions.stay(session, member=one)
        before = portions.find_members(session)
        portions.leave(session, member=one)
        after = portions.find_members(session)
        long_ago = MEMBERS.c.seen_at - timedelta(hours=2)
        session.connection().execute(update(MEMBERS).values(seen_at=long_ago))
        later = portions.find_members(session)
        kept = session.connection().scalars(select(MEMBERS.c.host).order_by(MEMBERS.c.id)).all()

    assert (later, kept) == ([], ["m1", "m2"])  # attempts name them
    assert [(each.host, each.portions, each.is_alive) for each in before] == [
        ("m1", 1, True),
        ("m2", 0, True),
    ]
    assert [each.host for each in after] == ["m2"]
