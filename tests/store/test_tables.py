"""What the database itself refuses, and how times and JSON lie on disk."""

import json
import zlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import literal_column, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import StatementError

from pipeline.errors import StoreError
from pipeline.store.columns import PHASE_COLUMNS, UtcTime, unpack_parts
from pipeline.store.db import Store
from pipeline.store.tables import ATTEMPTS, BATCHES, RUNS
from pipeline.store.writes import save_results
from tests.store.makers import NOON, begin, make_attempt, make_batch, make_collected, record_results

CONSTRAINT = "constraint"  # SQLite and PostgreSQL say more, and not the same


@pytest.fixture
def run_id(store: Store) -> int:
    """Record a run with one collected batch, one open one and one attempt."""
    with store.write() as session:
        return record_results(
            session,
            make_collected(make_batch(0)),
            attempts=[make_attempt()],
            batches=[make_batch(0), make_batch(1)],
            is_over=False,
        )


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": literal_column("5")},
        {"n": 0},
        {"min": 7},
        {"sum": 19},
        {"sum": None},
        {"digest": None},
        {"digest": b"short"},
        {"digest": bytes(32)},
        {"numbers": None},
        {"attempt": None},
        {"error": "dns"},
        {"verdict": None},
        {"verdict": "failed", "sum": None, "digest": None, "numbers": None},
        {"verdict": "deferred"},
        {"verdict": "deferred", "sum": None, "digest": None, "numbers": None},
        {"run_id": 99},
        {"number": 1},
    ],
)
def test_a_batch_that_contradicts_itself_is_refused(
    store: Store, run_id: int, change: dict[str, object]
) -> None:
    """A bug that would falsify the account must fail loudly, not be found months later."""
    collected = (BATCHES.c.run_id == run_id) & (BATCHES.c.number == 0)

    with pytest.raises(StoreError, match=CONSTRAINT), store.write() as session:
        session.exec(update(BATCHES).where(collected).values(change))


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"phase": "lunch", "error": "dns"},
        {"error": "dns"},
        {"phase": "dns"},
        {"body_bytes": -1},
        {"retry_after_us": -1},
        {"evidence": "nowhere"},
        {"run_id": 99},
        *({column: -1} for column in PHASE_COLUMNS.values()),
    ],
)
def test_an_attempt_that_contradicts_itself_is_refused(
    store: Store, run_id: int, change: dict[str, object]
) -> None:
    """A negative duration or a failure without a phase is a bug of ours, not a fact."""
    with pytest.raises(StoreError, match=CONSTRAINT), store.write() as session:
        session.exec(update(ATTEMPTS).where(ATTEMPTS.c.run_id == run_id).values(change))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "great"},
        {"status": "ok"},
        {"ended_at": NOON},
        {"status": "ok", "ended_at": NOON, "ordered": 3, "collected": 2},
        {"clock_us": -1},
        {"waited_us": -1},
        {"collected": -1},
    ],
)
def test_a_run_that_contradicts_itself_is_refused(
    store: Store, run_id: int, change: dict[str, object]
) -> None:
    """The totals of a run that has ended must add up, or every listing lies."""
    with pytest.raises(StoreError, match=CONSTRAINT), store.write() as session:
        session.exec(update(RUNS).where(RUNS.c.id == run_id).values(change))


def test_the_same_try_cannot_be_recorded_twice(store: Store, run_id: int) -> None:
    """An attempt counted twice would make an upstream look slower and busier than it was."""
    with pytest.raises(StoreError, match=r"(?i)unique"), store.write() as session:
        save_results(
            session, run_id=run_id, attempts=[make_attempt()], outcomes=[], keep_numbers=True
        )


@pytest.mark.sqlite
def test_a_time_lies_on_disk_as_microseconds_of_utc(store: Store) -> None:
    """It sorts as it stands, in a third of the space of a text that does."""
    india = timezone(timedelta(hours=5, minutes=30))

    with store.write() as session:
        run_id = begin(session, started_at=datetime(2026, 1, 31, 23, 30, tzinfo=india))

    with store.read() as session:
        raw = session.connection().exec_driver_sql("SELECT started_at FROM runs").scalar_one()
        back = session.connection().execute(select(RUNS.c.started_at)).scalar_one()
    assert run_id == 1
    assert raw == 1_769_882_400_000_000
    assert back == datetime(2026, 1, 31, 18, tzinfo=UTC)
    assert back.tzinfo is UTC


def test_a_naive_time_is_refused(store: Store) -> None:
    """Nobody could say later which zone it meant."""
    with pytest.raises(StatementError, match="without a zone"), store.write() as session:
        begin(session, started_at=NOON.replace(tzinfo=None))


def test_on_a_server_a_time_is_a_timestamp_with_a_zone() -> None:
    """Text would sort there too, but could not be used in a query of one's own."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    kind = UtcTime()
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))

    assert kind.compile(dialect=dialect) == "TIMESTAMP WITH TIME ZONE"
    assert kind.process_bind_param(NOON, dialect) is NOON
    back = kind.process_result_value(tokyo, dialect)
    assert back == NOON
    assert back.tzinfo is UTC


def test_parts_of_packed_json_are_read_by_their_names() -> None:
    """A year of durations has nine phases, and a chart draws one of them."""
    packed = zlib.compress(json.dumps({"wait": [1, [2]], "body": [3]}).replace(" ", "").encode())

    assert unpack_parts(packed, ["body", "wait", "tls"]) == {"body": [3], "wait": [1, [2]]}


@pytest.mark.parametrize("packed", [b"", b"no zlib", zlib.compress(b'{"body":[3'), b"\xff" * 9])
def test_parts_of_what_is_damaged_are_refused(packed: bytes) -> None:
    """As all of it would be: the store blames the damage and not the program."""
    with pytest.raises(ValueError, match=r"Error -\d|Expecting"):
        unpack_parts(packed, ["body"])
