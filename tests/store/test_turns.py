"""Whose turn it is: over many runs that can ask for some of their batches only, none starves."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import ceil
from random import Random

import pytest
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.store import turns
from pipeline.store.db import Store
from tests.store.makers import (
    make_attempt,
    make_batch,
    make_collected,
    make_lost,
    record_results,
)

DICE = "dice"


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    """Open one transaction, in which a history grows."""
    with store.write() as session:
        yield session


def record(
    session: Session,
    sizes: Sequence[int],
    collected: Collection[int],
    failed: Collection[int] = (),
    *,
    first: int = 0,
    source: str = DICE,
    is_sandbox: bool = False,
) -> int:
    """Record a run that asked for some of its batches; the others had to wait."""
    batches = [
        replace(make_batch(first + place, source=source, n=n), is_sandbox=is_sandbox)
        for place, n in enumerate(sizes)
    ]
    asked = [*collected, *failed]
    put_off = [place for place in range(len(sizes)) if place not in asked]
    late = (make_lost(batches[place], Verdict.DEFERRED) for place in put_off)
    return record_results(
        session,
        *(make_collected(batches[place]) for place in collected),
        *(make_lost(batches[place]) for place in failed),
        *(replace(each, attempt=None) for each in late),
        attempts=[make_attempt(fetch=first + place, source=source) for place in asked],
        batches=batches,
        is_over=False,
    )


def order_of(
    session: Session, sizes: Sequence[int] = (3,) * 6, *, before: int | None = None
) -> list[int]:
    """Tell in which order the next run asks for batches of *sizes*."""
    found = turns.find_turns(session, source=DICE, sizes=sizes, is_sandbox=False, before=before)
    return list(found.positions or range(len(sizes)))


def test_without_history_the_file_decides(session: Session) -> None:
    """And so it does where the last run could ask for all."""
    assert order_of(session) == [0, 1, 2, 3, 4, 5]

    record(session, (3,) * 6, range(6))

    found = turns.find_turns(session, source=DICE, sizes=(3,) * 6, is_sandbox=False, before=None)
    assert (found.positions, found.newest_run) == ((), 1)


def test_who_was_asked_for_the_longest_time_ago_goes_first(session: Session) -> None:
    """Never, then long ago, then the last time; of one run what failed before what came."""
    sizes = (3,) * 6
    record(session, sizes, (0, 1, 2))
    record(session, sizes, (3, 1), (4,))
    record(session, sizes, (2,))

    assert order_of(session) == [5, 0, 4, 1, 3, 2]
    assert order_of(session, before=3) == [5, 0, 2, 4, 1, 3]


def test_a_batch_is_known_by_its_place_and_its_size(session: Session) -> None:
    """Not by its number, which moves when another source is added; and not by another source."""
    record(session, (3, 4, 5), (0,), first=7)
    record(session, (3, 4, 5), (2,), source="coin")
    record(session, (3, 4, 5), (1,), is_sandbox=True)

    assert order_of(session, (3, 4, 5)) == [1, 2, 0]
    assert order_of(session, (9, 4, 3, 5)) == [0, 1, 2, 3]


@pytest.mark.parametrize("per_run", [1, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves(session: Session, per_run: int, seed: int) -> None:
    """Not even behind others that fail whenever they are asked for."""
    chance, sizes, asked = Random(seed), (3,) * 10, Counter[int]()
    always_bad = chance.sample(range(10), 4)
    for _ in range(2 * ceil(10 / per_run)):
        now = order_of(session, sizes)[:per_run]
        asked.update(now)
        failed = [place for place in now if place in always_bad]
        record(session, sizes, [place for place in now if place not in failed], failed)

    assert min(asked[place] for place in range(10)) >= 2 - (10 % per_run > 0)


def test_nobody_starves_where_we_cannot_look_back_far_enough(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten, one in each run, and the last few runs are all that is looked at."""
    monkeypatch.setattr(turns, "LOOK_BACK", 15)
    sizes, asked = (3,) * 10, set[int]()
    for _ in range(150):
        now = order_of(session, sizes)[0]
        asked.add(now)
        record(session, sizes, (now,))

    assert asked == set(range(10))


def test_an_order_that_shrank_is_begun_anew(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose beginning lies beyond what is looked at says nothing."""
    monkeypatch.setattr(turns, "LOOK_BACK", 0)
    record(session, (3,) * 50, range(48, 50))

    assert order_of(session, (3, 3)) == [0, 1]


@pytest.mark.sqlite
def test_a_long_history_is_not_walked_over(store: Store) -> None:
    """The last runs of a source are found by their tallies, however many there are of others."""
    with store.write() as session:
        for _ in range(30):
            record(session, (3,) * 100, range(100), source="coin")
        record(session, (3,) * 6, range(3))
    with store.read() as session:
        query = turns._query(DICE, None, 10)
        plan = session.connection().exec_driver_sql(
            f"EXPLAIN QUERY PLAN {query.compile(compile_kwargs={'literal_binds': True})}"
        )
        steps = [row[3] for row in plan]

    assert steps[0] == "SEARCH batches USING PRIMARY KEY (run_id=?)"
    assert not any("TEMP B-TREE" in step for step in steps)
