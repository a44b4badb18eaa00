"""How what came before ended: the newest, of one source, without a walk over history."""

from itertools import accumulate
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session

from pipeline.store import freshness
from pipeline.store.db import Store
from pipeline.store.numbers import CHECK_BYTES
from pipeline.store.writes import order_batches
from tests.store.makers import (
    at,
    begin,
    make_batch,
    make_collected,
    make_lost,
    record_results,
    record_run,
)

ALL = 1_000
TELLING = 25  # dice: 64.6 bits
SIX = b"\5"  # as it is packed


def find_earlier(
    session: Session, *, source: str = "dice", limit: int = ALL, high: int = 6
) -> freshness.Earlier:
    """Look for dice."""
    return freshness.find_earlier(session, source=source, low=1, high=high, limit=limit)


def test_the_newest_come_last_and_no_more_than_asked(store: Store) -> None:
    """When the memory is full, the first in it are forgotten."""
    with store.write() as session:
        runs = [
            record_run(session, [make_batch(0, n=30), make_batch(1, n=30)], started_at=at(minutes))
            for minutes in (0, 5)
        ]

        endings = find_earlier(session, limit=3).endings

    ending = SIX * TELLING
    assert endings == [(ending, runs[0], 1), (ending, runs[1], 0), (ending, runs[1], 1)]


def test_small_batches_are_joined_to_those_before_them(store: Store) -> None:
    """Also over the end of a run; what has not come so far is told as far as it came."""
    sizes = (10, 10, 4, 3, 20)
    with store.write() as session:
        for number, n in enumerate(sizes):
            record_run(session, [make_batch(number, n=n)], started_at=at(number))
        found = find_earlier(session)
        begun = find_earlier(session, limit=1)

    assert [number for _, _, number in found.endings] == [
        number for number, total in enumerate(accumulate(sizes)) if total >= TELLING
    ]
    assert {ending for ending, _, _ in found.endings} == {found.tail} == {SIX * TELLING}
    assert begun == freshness.Earlier(endings=[], tail=SIX * 20)


@pytest.mark.parametrize("n", [TELLING - 1, TELLING, freshness.MOST_BYTES, 513])
@pytest.mark.parametrize("is_kept", [True, False])
def test_of_what_cannot_be_read_cheaply_the_digest_is_told(
    store: Store, n: int, *, is_kept: bool
) -> None:
    """Numbers need not be kept; and a start must not read through a thousand pages of them."""
    batch = make_batch(n=n)
    with store.write() as session:
        run_id = record_results(session, make_collected(batch), keep_numbers=is_kept, is_over=False)
        found = find_earlier(session)

    is_read = is_kept and n <= freshness.MOST_BYTES
    ending = SIX * TELLING if is_read else (make_collected(batch).digest or b"")[:CHECK_BYTES]
    assert found.endings == ([(ending, run_id, 0)] if n >= TELLING else [])
    assert found.tail == (SIX * min(n, TELLING) if is_read else b"")


def test_other_sources_other_ranges_and_lost_batches_are_left_out(store: Store) -> None:
    """What was not collected cannot be served again; what is another's may be equal."""
    coin, dice, lost = (make_batch(0, "coin", 30), make_batch(1, n=30), make_batch(2, n=30))
    with store.write() as session:
        run_id = record_run(session, [coin, dice])
        record_results(session, make_lost(lost), is_over=False)

        assert [row[1:] for row in find_earlier(session).endings] == [(run_id, 1)]
        assert find_earlier(session, source="nobody") == freshness.Earlier(endings=[])
        assert find_earlier(session, high=8) == freshness.Earlier(endings=[])


def test_what_is_still_to_be_asked_takes_no_room(store: Store) -> None:
    """A run orders first and looks back then: its own batches are not what came before."""
    with store.write() as session:
        before = record_run(session, [make_batch(0, n=30)])
        order_batches(session, run_id=begin(session), batches=[make_batch(0, n=30)])
        found = find_earlier(session, limit=1)

    assert [(run_id, number) for _, run_id, number in found.endings] == [(before, 0)]


def test_where_there_is_one_number_only_nothing_is_old(store: Store) -> None:
    """It says nothing, however often it comes."""
    with store.write() as session:
        record_run(session, [make_batch(n=30)])

        assert find_earlier(session, high=1) == freshness.Earlier()


def test_failures_count_as_well(store: Store) -> None:
    """A source that has failed for a year must not cost a walk over all of it."""
    with store.write() as session:
        record_run(session, [make_batch(0, n=30)])
        record_results(session, *(make_lost(make_batch(n)) for n in range(2)), is_over=False)

        assert len(find_earlier(session, limit=3).endings) == 1
        assert find_earlier(session, limit=2).endings == []


def _plan(session: Session) -> list[str]:
    """Let SQLite explain how it answers."""
    connection = session.connection()
    asked: list[tuple[str, Any]] = []
    event.listen(
        connection,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, values, *_: asked.append((statement, values)),
    )
    find_earlier(session)
    ((statement, values),) = asked
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    return [row.detail for row in rows]


@pytest.mark.sqlite
def test_nothing_is_scanned(store: Store) -> None:
    """A run must start as quickly after ten years as on the first day."""
    with store.read() as session:
        plan = _plan(session)

    assert [step for step in plan if "batches" in step] == [
        "SEARCH batches USING PRIMARY KEY (run_id=?)"
    ]
