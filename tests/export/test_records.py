"""Which rows an export has, and that no history is too long for it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pytest
from sqlalchemy import delete, update
from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.export.choices import Records
from pipeline.export.records import Account, columns_of, read_pages
from pipeline.models import RunStatus, Verdict
from pipeline.store import extracts
from pipeline.store.db import Store, open_store
from pipeline.store.tables import BATCHES
from pipeline.store.window import Window
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.store.makers import (
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
    make_signed,
    record_run,
)


class Selected(TypedDict, total=False):
    """How the runs are chosen."""

    window: Window
    source: str | None
    run_id: int


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a new database."""
    url = f"sqlite:///{tmp_path / 'pipeline.db'}"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store:
        yield store


def export(store: Store, what: Records, **selected: Unpack[Selected]) -> list[dict[str, Any]]:
    """Read all rows of an export."""
    return [row for page in export_pages(store, what, **selected) for row in page]


def export_pages(
    store: Store, what: Records, account: Account | None = None, **selected: Unpack[Selected]
) -> Iterator[list[dict[str, Any]]]:
    """Read an export page by page."""
    with store.read() as session:
        selection = extracts.select_runs(session, **selected)
    for page in read_pages(store, what, selection, account or Account()):
        rows = zip(*page, strict=True)
        yield [dict(zip(columns_of(what), row, strict=True)) for row in rows]


def column(rows: Iterable[dict[str, Any]], name: str) -> list[Any]:
    """Pick one column."""
    return [row[name] for row in rows]


def record_loss(session: Session) -> int:
    """Record a run that collected w0 and lost w1 to two attempts."""
    run_id = begin(session)
    batches = [make_batch(0), make_batch(1, "coin")]
    order_batches(session, run_id=run_id, batches=batches)
    save_results(
        session,
        run_id=run_id,
        attempts=[
            make_attempt(0),
            make_failed_attempt(1, 1, "coin"),
            make_failed_attempt(1, 2, "coin"),
        ],
        outcomes=[make_collected(batches[0]), make_lost(batches[1])],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=5)
    return run_id


def test_numbers_are_a_row_each(store: Store) -> None:
    """In the order received, and with all that tells where they came from."""
    with store.write() as session:
        run_id = begin(session)
        batch = make_batch(3, n=2)
        order_batches(session, run_id=run_id, batches=[batch])
        outcome = make_collected(batch)
        save_results(session, run_id=run_id, attempts=[], outcomes=[outcome], keep_numbers=True)
        finish_run(session, run_id=run_id, ended_at=NOON, clock_us=5)

    rows = export(store, Records.NUMBERS)

    assert rows == [
        {
            "run_id": run_id,
            "started_at": NOON,
            "source": "dice",
            "batch": "w3",
            "is_sandbox": False,
            "min": 1,
            "max": 6,
            "position": position,
            "value": 6,
        }
        for position in (0, 1)
    ]


@pytest.mark.parametrize("what", Records)
def test_the_sandbox_is_told_from_an_upstream(store: Store, what: Records) -> None:
    """Numbers that a sandbox made must not pass for real ones in anybody's hands."""
    batches = [replace(make_batch(0), is_sandbox=True), make_batch(1, "coin")]
    with store.write() as session:
        record_run(
            session, batches, attempts=[make_signed(0), replace(make_signed(1), source="coin")]
        )
        record_run(session, [make_batch(0)], attempts=[make_signed(0)])

    rows = export(store, what)

    is_sandbox = {(row["run_id"], row.get("source")): row["is_sandbox"] for row in rows}
    expected = (
        {(1, None): True, (2, None): False}
        if what is Records.RUNS
        else {(1, "dice"): True, (1, "coin"): False, (2, "dice"): False}
    )
    assert is_sandbox == expected


def test_batches_say_what_became_of_them(store: Store) -> None:
    """Collected or lost; a digest and a sum only where there are numbers."""
    with store.write() as session:
        record_loss(session)

    collected, lost = export(store, Records.BATCHES)

    assert list(collected) == list(columns_of(Records.BATCHES))
    assert (collected["batch"], collected["verdict"], collected["sum"]) == ("w0", "collected", 18)
    assert len(collected["digest"]) == 64
    assert (lost["batch"], lost["verdict"], lost["error"]) == ("w1", "failed", "http_5xx")
    assert lost["sum"] is lost["digest"] is None


def test_attempts_come_fetch_by_fetch(store: Store) -> None:
    """A phase that was not reached is None and not 0."""
    with store.write() as session:
        record_loss(session)

    rows = export(store, Records.ATTEMPTS)

    assert [(row["fetch"], row["attempt_number"]) for row in rows] == [(0, 1), (1, 1), (1, 2)]
    assert column(rows, "error") == [None, "http_5xx", "http_5xx"]
    assert column(rows, "body_us") == [20, None, None]
    assert column(rows, "is_reused") == [True, False, False]


def test_runs_have_their_totals(store: Store) -> None:
    """As the store wrote them down when they ended."""
    with store.write() as session:
        run_id = record_loss(session)

    [row] = export(store, Records.RUNS)

    assert (row["run_id"], row["status"], row["started_at"]) == (run_id, "partial", NOON)
    assert (row["ordered"], row["collected"], row["failed"], row["numbers"]) == (2, 1, 1, 3)


@pytest.mark.parametrize("what", Records)
def test_an_empty_store_has_no_rows(store: Store, what: Records) -> None:
    """That is no error."""
    assert export(store, what) == []


@pytest.mark.parametrize("what", Records)
def test_a_run_that_goes_on_is_left_out(store: Store, what: Records) -> None:
    """What is known of it is not final; it is counted, so that somebody can say so."""
    with store.write() as session:
        ended = record_run(session, [make_batch()], attempts=[make_signed()])
        running = begin(session)
        order_batches(session, run_id=running, batches=[make_batch()])
        save_results(
            session,
            run_id=running,
            attempts=[make_signed()],
            outcomes=[make_collected(make_batch())],
            keep_numbers=True,
        )
    with store.read() as session:
        selection = extracts.select_runs(session)

    rows = export(store, what)

    assert selection.running == {running}
    assert set(column(rows, "run_id")) == {ended}


def test_a_run_that_ends_meanwhile_is_left_out_of_all_files(store: Store) -> None:
    """Else the file of one source would know of it and that of another would not."""
    with store.write() as session:
        running = begin(session)
    with store.read() as session:
        selection = extracts.select_runs(session)
    with store.write() as session:
        finish_run(session, run_id=running, ended_at=NOON, clock_us=5)
        record_run(session, [make_batch()])

    assert list(read_pages(store, Records.RUNS, selection, Account())) == []


@pytest.mark.parametrize(
    ("selected", "started"),
    [
        ({"window": Window(since=at(1))}, [at(1), at(2)]),
        ({"window": Window(until=at(1))}, [at(0)]),
        ({"window": Window(since=at(1), until=at(2))}, [at(1)]),
        ({"run_id": 3}, [at(2)]),
        ({"run_id": 3, "window": Window(until=at(2))}, []),
        ({"source": "coin"}, [at(1)]),
        ({"source": "x' OR 1=1--"}, []),
    ],
)
@pytest.mark.parametrize("what", [Records.NUMBERS, Records.BATCHES, Records.RUNS])
def test_runs_are_chosen_by_time_source_and_id(
    store: Store, what: Records, selected: Selected, started: list[datetime]
) -> None:
    """From *since* on, and before *until*: two exports next to each other share no run."""
    with store.write() as session:
        for minute, source in enumerate(["dice", "coin", "dice"]):
            record_run(session, [make_batch(0, source, n=1)], started_at=at(minute))

    assert column(export(store, what, **selected), "started_at") == started


@pytest.mark.parametrize("what", [Records.NUMBERS, Records.BATCHES, Records.ATTEMPTS])
def test_a_source_leaves_out_what_others_did_in_the_same_run(store: Store, what: Records) -> None:
    """A run asks many."""
    with store.write() as session:
        record_run(
            session,
            [make_batch(0, "coin"), make_batch(1, "dice")],
            attempts=[make_attempt(0, source="coin"), make_attempt(1, source="dice")],
        )

    assert set(column(export(store, what, source="dice"), "source")) == {"dice"}


def test_the_sources_are_those_of_the_chosen_runs(store: Store) -> None:
    """A file each, and none for a source that the runs did not ask."""
    with store.write() as session:
        record_run(session, [make_batch(0, "old")], started_at=at(0))
        record_run(session, [make_batch(0, "dice"), make_batch(1, "coin")], started_at=at(1))

    with store.read() as session:
        chosen = extracts.select_runs(session, Window(since=at(1)))
        one = extracts.select_runs(session, source="coin")
        assert extracts.sources_of(session, chosen) == ["coin", "dice"]
        assert extracts.sources_of(session, one) == ["coin"]


@pytest.mark.parametrize("what", Records)
def test_pages_add_up_to_the_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: Records
) -> None:
    """No row is lost or doubled where a page ends, be it within a run or between two."""
    with store.write() as session:
        for _ in range(5):
            batches = [make_batch(number, n=2) for number in range(5)]
            record_run(session, batches, attempts=map(make_signed, range(5)))
    whole = export(store, what)
    monkeypatch.setattr(extracts, "RUNS_PER_PAGE", 2)
    monkeypatch.setattr(extracts, "ROWS_PER_PAGE", 3)
    account = Account()

    pages = list(export_pages(store, what, account))

    assert len(pages) > 1
    assert [row for page in pages for row in page] == whole
    assert account.rows == len(whole) > 0


def test_a_page_of_large_batches_has_few_of_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand batches may hold a billion numbers."""
    with store.write() as session:
        record_run(session, [make_batch(number, n=10) for number in range(5)])
    monkeypatch.setattr(extracts, "NUMBERS_PER_PAGE", 20)

    assert [len(page) for page in export_pages(store, Records.NUMBERS)] == [20, 20, 10]


def test_a_writer_need_not_wait_between_two_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages go to a disk or a pipe that may be slow, and a run wants to write meanwhile."""
    with store.write() as session:
        record_run(session, [make_batch(number) for number in range(4)])
    monkeypatch.setattr(extracts, "ROWS_PER_PAGE", 2)

    for _ in export_pages(store, Records.NUMBERS):
        with store.write() as session:  # fails after 0.1 s if a reader is in the way
            begin(session)


def test_batches_without_numbers_are_counted(store: Store) -> None:
    """Whoever adds the file up must know that it is not all."""
    with store.write() as session:
        bare = begin(session)
        batches = [make_batch(0), make_batch(1), make_batch(2)]
        order_batches(session, run_id=bare, batches=batches)
        outcomes = [make_collected(batches[0]), make_collected(batches[1]), make_lost(batches[2])]
        save_results(session, run_id=bare, attempts=[], outcomes=outcomes, keep_numbers=False)
        finish_run(session, run_id=bare, ended_at=NOON, clock_us=5)
        record_run(session, [make_batch()])
    account = Account()

    rows = [row for page in export_pages(store, Records.NUMBERS, account) for row in page]

    assert len(rows) == 3
    assert account.without_numbers == 2


@pytest.mark.parametrize(("source", "missing"), [(None, 3), ("dice", 1)])
def test_batches_that_were_pruned_are_counted(
    store: Store, source: str | None, missing: int
) -> None:
    """The run's books still know how many there were, of each source."""
    with store.write() as session:
        run_id = record_run(session, [make_batch(0), make_batch(1, "coin"), make_batch(2, "coin")])
        session.connection().execute(delete(BATCHES).where(BATCHES.c.run_id == run_id))
    account = Account()

    assert list(export_pages(store, Records.NUMBERS, account, source=source)) == []
    assert account.without_numbers == missing


@pytest.mark.parametrize("damage", [b"\x05\x05\x04", b"\x05\x05"])
def test_damaged_numbers_are_named_and_not_exported(store: Store, damage: bytes) -> None:
    """SQLite has no checksums, so a flipped bit would pass for a number."""
    with store.write() as session:
        run_id = record_run(session, [make_batch(0), make_batch(1)])
        is_second = (BATCHES.c.run_id == run_id) & (BATCHES.c.number == 1)
        session.connection().execute(update(BATCHES).where(is_second).values(numbers=damage))

    with pytest.raises(StoreError, match=f"run {run_id}, w1: the database is damaged"):
        export(store, Records.NUMBERS)


def test_a_run_that_was_interrupted_is_exported(store: Store) -> None:
    """What it collected is as good as any other."""
    with store.write() as session:
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=[make_batch(0), make_batch(1)])
        outcome = make_collected(make_batch(0))
        save_results(session, run_id=run_id, attempts=[], outcomes=[outcome], keep_numbers=True)
        finish_run(
            session,
            run_id=run_id,
            ended_at=NOON,
            clock_us=None,
            status=RunStatus.INTERRUPTED,
        )

    assert column(export(store, Records.NUMBERS), "value") == [6, 6, 6]
    assert column(export(store, Records.BATCHES), "verdict") == [
        Verdict.COLLECTED,
        Verdict.CANCELLED,
    ]


def test_rows_of_other_runs_between_two_chosen_are_left_out(store: Store) -> None:
    """Where the clock was set back, ids and times disagree."""
    with store.write() as session:
        for minute in (5, 0, 6):
            record_run(session, [make_batch(n=1)], started_at=at(minute))

    assert column(export(store, Records.NUMBERS, window=Window(since=at(3))), "run_id") == [1, 3]
