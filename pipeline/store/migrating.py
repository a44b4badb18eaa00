"""Create a database, and bring an older one to the newest schema."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, StaticPool, create_engine

from pipeline.errors import StoreError
from pipeline.store import server, sqlite
from pipeline.store.place import Place
from pipeline.store.schema import (
    NEWEST,
    SchemaState,
    create_schema,
    find_revision,
    schema_state,
    upgrade,
)

DEVELOPER_SECONDS = 10.0  # how long a developer's migration waits for others


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What a migration did; ``backup`` is the copy made before, None where there is no file."""

    before: str | None
    after: str
    backup: Path | None


def create(place: Place) -> None:
    """Make the tables of a new database, unless others have meanwhile."""
    if place.path:
        sqlite.create_file(place.path, _empty_database())
        return
    with place.connect(is_migration=True) as connection:
        server.hold_creation(connection)
        if schema_state(connection) is SchemaState.EMPTY:
            create_schema(connection)


def _empty_database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.begin() as connection:
            create_schema(connection)
        return raw.serialize()


def migrate(url: str, *, busy_seconds: float) -> Migration | None:
    """Bring an older database to the newest schema, whole or not at all; None if it is there.

    A copy of an SQLite file is kept beside it as ``<name>.before-<revision>``. Of two processes
    that migrate at once one does; the other waits, and finds that there is nothing left to do.

    Raises:
        StoreBusy: another process holds it for longer than *busy_seconds*.
        StoreError: it is not there, damaged, not ours, newer than this program, or it would break
            a foreign key afterwards; it is left as it is.
    """
    place = Place.of(url, busy_seconds)
    with place.errors():
        if place.find_state() is SchemaState.CURRENT:
            return None
        with place.connect(is_migration=True) as connection:
            return _migrate(place, connection)


@contextmanager
def connect_to_migrate(url: str) -> Iterator[Connection]:
    """Open the database at *url* for a developer's ``alembic``, empty if it is not there yet.

    It commits when the block ends without an error; foreign keys are not enforced.
    """
    place = Place.of(url, DEVELOPER_SECONDS)
    if place.path:
        place.path.touch(mode=0o600)
    with place.errors(), place.connect(is_migration=True) as connection:
        yield connection


def _migrate(place: Place, connection: Connection) -> Migration | None:
    if not place.path:
        server.hold_creation(connection)
    state = schema_state(connection)  # once more: now nobody else can change it
    if state is SchemaState.CURRENT:
        return None
    if state is not SchemaState.OLDER:
        place.refuse(state)
    before = find_revision(connection)
    backup = place.path and place.path.with_name(f"{place.path.name}.before-{NEWEST}")
    if place.path and backup:
        sqlite.back_up(place.path, backup)
    upgrade(connection)
    if place.path and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise StoreError(f"{place.name}: the migration would break references; nothing was changed")
    return Migration(before=before, after=NEWEST, backup=backup)
