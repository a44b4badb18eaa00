"""Migrations on a PostgreSQL server: the same tables as a new store, and all rows."""

from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import Connection

from pipeline.store.db import open_store
from pipeline.store.integrity.verify import verify
from pipeline.store.migrating import connect_to_migrate, migrate
from pipeline.store.schema import NEWEST
from pipeline.store.tables import Row
from tests.servers import LIKE_NEW, Server
from tests.store.histories import record_history
from tests.test_migrations import config_for, walk

COLUMNS = "table_name, column_name, data_type, is_nullable, column_default"
CONSTRAINTS = "conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
SCHEMA = (
    f"SELECT {COLUMNS} FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
    f"SELECT {CONSTRAINTS} FROM pg_constraint WHERE contype <> 'n' ORDER BY 1, 2",
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 2",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1",
)


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """Make a database as a new store, with a history."""
    with postgres.database(like=LIKE_NEW) as url:
        with open_store(url, busy_seconds=10, for_writing=True) as store:
            record_history(store)
        yield url


def schema_of(connection: Connection) -> list[list[tuple[object, ...]]]:
    """Read what the database says of itself, whatever the order of columns."""
    return [[tuple(row) for row in connection.exec_driver_sql(query)] for query in SCHEMA]


def rows_of(connection: Connection) -> dict[str, list[dict[str, object]]]:
    """Read all there is, but the revision."""
    return {
        name: [
            dict(row._mapping)
            for row in connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1, 2")
        ]
        for name in Row.metadata.tables
    }


def test_a_database_of_the_first_version_becomes_as_a_new_one(url: str) -> None:
    """With its rows and its seals, by the next run that opens it."""
    with connect_to_migrate(url) as connection:
        before = schema_of(connection), rows_of(connection)
    walk(url, "0001")

    done = migrate(url, busy_seconds=10)

    assert (done and done.before, done and done.after) == ("0001", NEWEST)
    with connect_to_migrate(url) as connection:
        assert (schema_of(connection), rows_of(connection)) == before
        command.check(config_for(connection))
    with open_store(url, busy_seconds=10, for_writing=False) as store:
        assert verify(store).problems == ()
