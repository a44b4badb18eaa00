"""How large the database is, and what fills it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.store.db import Store
from pipeline.store.stats import StoreStats, TableStats, read_stats
from tests.store.histories import record_history
from tests.store.makers import at


def stats_of(store: Store, *, is_exact: bool = False) -> StoreStats:
    """Look it over."""
    with store.read() as session:
        return read_stats(session, is_exact=is_exact)


def table(stats: StoreStats, name: str) -> TableStats:
    """Pick one table."""
    return next(table for table in stats.tables if table.name == name)


def test_an_empty_database_has_no_history(store: Store) -> None:
    """And nothing divides by it."""
    found = stats_of(store)

    assert (found.runs, found.oldest_at, found.bytes_per_day) == (0, None, None)


def test_small_tables_are_counted(store: Store) -> None:
    """It takes no time, and what goes on is among them."""
    record_history(store)

    found = stats_of(store)

    assert table(found, "batches").rows == 17
    assert table(found, "evidence").rows == 3


def test_large_tables_are_not_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million rows take seconds to count, and what the runs add up to is as good."""
    monkeypatch.setattr("pipeline.store.stats.MOST_COUNTED", 2)
    record_history(store)

    found = stats_of(store)

    assert table(found, "runs").rows == 4
    assert table(found, "batches").rows == 15  # not those of the run that goes on
    assert table(found, "evidence").rows is None


def test_exactly_all_is_counted(store: Store, path: Path) -> None:
    """Pages and rows, for whoever can wait."""
    record_history(store)

    found = stats_of(store, is_exact=True)

    with closing(sqlite3.connect(path)) as raw:
        (size,) = raw.execute("SELECT sum(pgsize) FROM dbstat").fetchone()
    assert table(found, "batches").rows == 17
    assert table(found, "evidence").rows == 3
    assert (table(found, "attempts").bytes or 0) > 0
    assert found.size_bytes == size == path.stat().st_size


def test_growth_is_told_from_what_is_used(store: Store) -> None:
    """Three days of history say how much a day takes."""
    record_history(store)

    found = stats_of(store)

    used = (found.size_bytes or 0) - (found.free_bytes or 0)
    if found.engine == "postgresql":  # where much of the database is not ours
        used = sum(table.bytes or 0 for table in found.tables)
    assert found.bytes_per_day == used // 3
    assert (found.oldest_at, found.newest_at) == (at(0), at(3 * 24 * 60))


def test_sizes_are_told_as_far_as_that_is_cheap(store: Store) -> None:
    """A server knows that of each table; of a file all would have to be read."""
    record_history(store)

    found = stats_of(store)

    knows = found.engine == "postgresql"
    assert all((table.bytes is not None) is knows for table in found.tables)
    assert (found.free_bytes is None) is knows
    assert (found.size_bytes or 0) > sum(table.bytes or 0 for table in found.tables)
