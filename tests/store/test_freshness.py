"""The digests of what came before: the newest, of one source, without a walk over history."""

from typing import Any

from sqlalchemy import event
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.store.db import Store
from pipeline.store.freshness import recent_digests
from pipeline.store.queries import batches_of_run
from pipeline.store.writes import order_batches, save_results
from tests.store.makers import (
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_lost,
    record_run,
)

ALL = 1_000


def test_the_newest_come_last_and_no_more_than_asked(store: Store) -> None:
    """When the memory is full, the first in it are forgotten."""
    with store.write() as session:
        runs = [
            record_run(session, [make_batch(0), make_batch(1)], started_at=at(minutes))
            for minutes in (0, 5)
        ]
        digests = recent_digests(session, source="dice", limit=3)
        (kept,) = {batch.digest for batch in batches_of_run(session, run_id=runs[0])}

    assert digests == [(kept, runs[0], 1), (kept, runs[1], 0), (kept, runs[1], 1)]


def test_other_sources_and_lost_batches_are_left_out(store: Store) -> None:
    """What was not collected cannot be served again; what is another's may be equal."""
    coin, dice, lost = make_batch(0, source="coin"), make_batch(1), make_batch(2)
    with store.write() as session:
        run_id = record_run(session, [coin, dice])
        other = begin(session)
        order_batches(session, run_id=other, batches=[lost])
        save_results(
            session,
            run_id=other,
            attempts=[make_attempt(2)],
            outcomes=[make_lost(lost, Verdict.FAILED)],
            keep_numbers=True,
        )

        assert [row[1:] for row in recent_digests(session, source="dice", limit=ALL)] == [
            (run_id, 1)
        ]
        assert recent_digests(session, source="nobody", limit=ALL) == []


def _plan(session: Session) -> list[str]:
    """Let SQLite explain how it answers."""
    connection = session.connection()
    asked: list[tuple[str, Any]] = []
    event.listen(
        connection,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, values, *_: asked.append((statement, values)),
    )
    recent_digests(session, source="dice", limit=ALL)
    ((statement, values),) = asked
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    return [row.detail for row in rows]


def test_failures_count_as_well(store: Store) -> None:
    """A source that has failed for a year must not cost a walk over all of it."""
    with store.write() as session:
        record_run(session, [make_batch(0)])
        run_id = begin(session)
        lost = [make_batch(number) for number in range(2)]
        order_batches(session, run_id=run_id, batches=lost)

        assert len(recent_digests(session, source="dice", limit=3)) == 1
        assert recent_digests(session, source="dice", limit=2) == []


def test_nothing_is_scanned(store: Store) -> None:
    """A run must start as quickly after ten years as on the first day."""
    with store.read() as session:
        plan = _plan(session)

    assert [step for step in plan if "batches" in step] == [
        "SEARCH batches USING INDEX ix_batches_source_run_id (source=?)"
    ]


def test_neither_must_numbers_be_kept_nor_their_run_have_ended(store: Store) -> None:
    """The digest is all it takes; of two runs at once the later one knows the other's batches."""
    with store.write() as session:
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=[make_batch()])
        save_results(
            session,
            run_id=run_id,
            attempts=[make_attempt()],
            outcomes=[make_collected(make_batch())],
            keep_numbers=False,
        )

        assert len(recent_digests(session, source="dice", limit=ALL)) == 1
