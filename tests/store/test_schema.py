"""What a database is to this program, told from its version table alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from pipeline.store.schema import (
    NEWEST,
    REVISIONS,
    SchemaState,
    create_schema,
    find_revision,
    migrations_folder,
    schema_state,
)

STAMPED = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Open a database in memory, and close it: Python 3.13 warns of what is left open."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("statements", "state"),
    [
        ([], SchemaState.EMPTY),
        (["CREATE TABLE songs (title TEXT)"], SchemaState.FOREIGN),
        ([STAMPED], SchemaState.OLDER),
        ([STAMPED, "CREATE TABLE songs (title TEXT)"], SchemaState.FOREIGN),
        (
            [STAMPED, "INSERT INTO alembic_version VALUES ('f00')", "CREATE TABLE songs (t TEXT)"],
            SchemaState.FOREIGN,
        ),
        (
            [STAMPED, "INSERT INTO alembic_version VALUES ('f00')", "CREATE TABLE runs (id INT)"],
            SchemaState.NEWER,
        ),
        ([STAMPED, f"INSERT INTO alembic_version VALUES ('{NEWEST}')"], SchemaState.CURRENT),
    ],
)
def test_the_state_follows_from_the_tables(
    engine: Engine, statements: list[str], state: SchemaState
) -> None:
    """Only a database that is surely ours and older may be changed."""
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        found = schema_state(connection)

    assert found is state


def test_a_new_schema_is_the_newest(engine: Engine) -> None:
    """A fresh database must not be migrated the moment it is opened again."""
    with engine.connect() as connection:
        create_schema(connection)

        assert schema_state(connection) is SchemaState.CURRENT
        assert find_revision(connection) == NEWEST == REVISIONS[-1]


def test_the_migrations_are_found_in_a_checkout() -> None:
    """Installed they lie inside the package, in a checkout beside it."""
    assert (migrations_folder() / "env.py").is_file()


def test_opening_a_current_database_does_not_import_alembic(tmp_path: Path) -> None:
    """Cron pays for every import at every tick, and Alembic costs most of a second."""
    script = (
        "import sys; from pipeline.store.db import open_store;"
        f"open_store('sqlite:///{tmp_path}/new.db', busy_seconds=1, for_writing=True).close();"
        "print([name for name in sys.modules if name.startswith(('alembic', 'mako', 'psycopg'))"
        " or name.startswith('sqlalchemy.dialects.postgresql')])"
    )

    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)

    assert loaded.stdout == b"[]\n"
