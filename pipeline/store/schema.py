"""Find out at which migration a database is, and bring it to the newest.

The answer comes from the ``alembic_version`` table alone: Alembic takes longer to import than a
run may take to start, so it is imported only when there is something to migrate.
"""

from enum import StrEnum
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

import pipeline
from pipeline.store.health import examine_all
from pipeline.store.tables import Row
from pipeline.store.views import view_statements

# Oldest first; each is a file in migrations/versions.
REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0014",
    "0015",
)
NEWEST = REVISIONS[-1]
TESTED_SINCE = "0008"  # an older database has numbers that no test of health has seen

VERSION = Table(  # as Alembic makes it, down to the constraint's name
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


class SchemaState(StrEnum):
    """What a database is to this program."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"
    FOREIGN = "foreign"


def find_revision(connection: Connection) -> str | None:
    """Read the revision that the database is stamped with."""
    return connection.scalar(select(VERSION.c.version_num))


def hold_revision(connection: Connection) -> None:
    """Let only one at a time go on from here, until its transaction ends: the row is always there.

    On a server, that is; SQLite's write lock does the same by itself.
    """
    connection.execute(select(VERSION.c.version_num).with_for_update())


def schema_state(connection: Connection) -> SchemaState:
    """Tell whether this program can use the database as it is; changes nothing."""
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return SchemaState.EMPTY
    if VERSION.name not in tables:
        return SchemaState.FOREIGN
    revision = find_revision(connection)
    if revision == NEWEST:
        return SchemaState.CURRENT
    if revision in REVISIONS or tables == {VERSION.name}:
        return SchemaState.OLDER
    return SchemaState.NEWER if "runs" in tables else SchemaState.FOREIGN


def create_schema(connection: Connection) -> None:
    """Make all tables and views in an empty database, as the migrations would, and stamp it."""
    Row.metadata.create_all(connection)
    for statement in view_statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
    VERSION.create(connection)
    connection.execute(insert(VERSION).values(version_num=NEWEST))


def migrations_folder() -> Path:
    """Find the migrations: inside the package when installed, beside it in a checkout."""
    package = Path(pipeline.__file__).parent
    shipped = package / "_shipped" / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Migrate to the newest schema within the caller's transaction: all of it happens or none.

    On SQLite the connection must not enforce foreign keys: a changed table is made anew and the
    old one dropped.
    """
    # Alembic costs 0.8 s to import, and most runs never need it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    before = find_revision(connection)
    command.upgrade(config, NEWEST)
    if before is not None and before < TESTED_SINCE:
        examine_all(connection)
