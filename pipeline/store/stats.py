"""How large the database is, what fills it, and how fast it grows.

To count the rows of a large table is to read it, so unless all is to be *exact* those are taken
from what the runs add up to: batches and attempts of runs that go on are not among them then.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, exists, func, literal, select
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from pipeline.clock import MADE_AT
from pipeline.store.columns import add_up
from pipeline.store.schema import find_revision
from pipeline.store.sqlite import journal_mode_for
from pipeline.store.tables import RUNS, SEALS, Row

DAY = timedelta(days=1)
MOST_COUNTED = 100_000  # rows of a table, unless all is to be exact

_SERVER_SIZE = select(func.pg_database_size(func.current_database()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStats:
    """One table.

    Attributes:
        rows: None if only counting would tell.
        bytes: its pages and those of its indexes; of a file None, unless all is to be exact.
    """

    name: str
    rows: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """The whole database; what only SQLite has is None elsewhere.

    Attributes:
        size_bytes: of all pages, ``free_bytes`` of those that hold nothing now; of a server's
            database with all that is in it, ours or not.
        oldest_at: when the oldest run started, ``newest_at`` the newest.
        whole_since: when the oldest run started that is not pruned.
        bytes_per_day: what we use, divided by the days from then to the newest run; None if that
            is less than a day.
    """

    engine: str
    version: str
    revision: str | None
    journal_mode: str | None
    size_bytes: int | None
    free_bytes: int | None
    runs: int
    pruned: int
    oldest_at: datetime | None
    newest_at: datetime | None
    whole_since: datetime | None
    bytes_per_day: int | None
    is_exact: bool
    tables: tuple[TableStats, ...]


def file_space(session: Session) -> tuple[int, int] | None:
    """Tell how many bytes an SQLite database has, and how many of them are free; None elsewhere."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return None
    page, pages, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    return page * pages, page * free


def read_stats(session: Session, *, is_exact: bool) -> StoreStats:
    """Look the database over; to be exact all of it is read."""
    connection = session.connection()
    is_sqlite, now = connection.dialect.name == "sqlite", datetime.now(UTC)
    space = file_space(session)
    sizes: dict[str, int] = {}
    if space is None:  # a server tells how much each table takes, with its indexes
        taken = connection.execute(select(*map(func.pg_total_relation_size, Row.metadata.tables)))
        sizes = dict(zip(Row.metadata.tables, map(int, taken.one()), strict=True))
    runs, oldest_at, newest_at = connection.execute(
        select(func.count(), func.min(RUNS.c.started_at), func.max(RUNS.c.started_at))
    ).one()
    pruned = select(func.count()).select_from(SEALS).where(SEALS.c.pruned_by.is_not(None))
    whole = connection.execute(
        select(func.min(RUNS.c.started_at), add_up(RUNS.c.ordered), add_up(RUNS.c.attempts)).where(
            ~exists().where(SEALS.c.run_id == RUNS.c.id, SEALS.c.pruned_by.is_not(None))
        )
    )
    whole_since, ordered, attempts = whole.one()
    added_up = {"batches": ordered, "attempts": attempts, "runs": runs}
    used = space[0] - space[1] if space else sum(sizes.values())
    if is_exact and is_sqlite:
        sizes = _file_sizes(connection)
    return StoreStats(
        engine=connection.dialect.name,
        version=".".join(map(str, connection.dialect.server_version_info or ())),
        revision=find_revision(connection),
        journal_mode=journal_mode_for(sqlite3.sqlite_version_info) if is_sqlite else None,
        size_bytes=space[0] if space else connection.scalar(_SERVER_SIZE),
        free_bytes=space[1] if space else None,
        runs=runs,
        pruned=connection.scalar(pruned) or 0,
        oldest_at=oldest_at,
        newest_at=newest_at,
        whole_since=whole_since,
        bytes_per_day=_growth(used, whole_since, min(newest_at or now, now)),
        is_exact=is_exact,
        tables=tuple(_table_stats(connection, sizes, {} if is_exact else added_up)),
    )


def _growth(used: int, since: datetime | None, until: datetime) -> int | None:
    if since is None or since < MADE_AT or until - since < DAY:
        return None  # for want of a clock that was right, or of time
    return int(used / ((until - since) / DAY))


def _table_stats(
    connection: Connection, sizes: Mapping[str, int], added_up: Mapping[str, int]
) -> Iterator[TableStats]:
    for name, table in sorted(Row.metadata.tables.items()):
        # To count more than so many takes too long, unless all is to be exact.
        few = select(literal(1)).select_from(table).limit(MOST_COUNTED + 1).subquery()
        rows = connection.scalar(select(func.count()).select_from(few if added_up else table))
        if added_up and rows is not None and rows > MOST_COUNTED:
            rows = added_up.get(name)
        yield TableStats(name=name, rows=rows, bytes=sizes.get(name))


def _file_sizes(connection: Connection) -> dict[str, int]:
    """Add up the pages of each table and of its indexes; nothing if this SQLite cannot."""
    query = """
        SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_master USING (name)
        WHERE aggregate = TRUE GROUP BY tbl_name
    """
    try:
        return {str(name): int(size) for name, size in connection.exec_driver_sql(query)}
    except OperationalError:  # built without it
        return {}
