"""The open database: transactions off the event loop, and every error of it turned into ours."""

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec, Self, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoResultFound
from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.lock import database_file
from pipeline.store import sqlite
from pipeline.store.schema import (
    NEWEST,
    SchemaState,
    create_schema,
    find_revision,
    schema_state,
    upgrade,
)

DEVELOPER_SECONDS = 10.0  # how long a developer's migration waits for others

_REFUSALS = {
    SchemaState.EMPTY: "holds no tables, so it is not ours; remove it or choose another store.url",
    SchemaState.OLDER: "has an older schema; run `pipeline db migrate`",
    SchemaState.NEWER: "was made by a newer version of pipeline; upgrade pipeline to use it",
    SchemaState.FOREIGN: "belongs to another program; choose another store.url",
}

# A value that is none, or a row that is gone, is noticed wherever it is first made use of.
_SURPRISES = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error),
    NoResultFound,
)

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What a migration did; ``backup`` is the copy made before, None where there is no file."""

    before: str | None
    after: str
    backup: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a store is: ``path`` only for SQLite, ``name`` for messages, without a password."""

    url: str
    path: Path | None
    name: str
    busy_seconds: float

    @classmethod
    def of(cls, url: str, busy_seconds: float) -> Self:
        path = database_file(url)
        try:
            name = str(path or make_url(url).render_as_string(hide_password=True))
        except (ArgumentError, ValueError) as exc:
            raise StoreError(f"store.url cannot be understood: {exc}") from exc
        return cls(url=url, path=path, name=name, busy_seconds=busy_seconds)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn every error of the database into a StoreError of one line, at this edge."""
        try:
            yield
        except sqlite3.Error as exc:
            raise self._explain(exc) from exc
        except DBAPIError as exc:
            raise self._explain(exc.orig) from exc
        except UnicodeDecodeError as exc:  # SQLite quotes what is damaged, and that is no text
            raise StoreError(f"{self.name}: damaged; restore a backup") from exc

    def _explain(self, exc: BaseException | None) -> StoreError:
        if self.path and isinstance(exc, sqlite3.Error):
            return sqlite.explain(exc, self.path, self.busy_seconds)
        # Only the first line: in the others PostgreSQL quotes the row, and we promise one.
        return StoreError(f"{self.name}: {str(exc).partition(chr(10))[0]}")

    @contextmanager
    def connect(self, *, is_migration: bool = False) -> Iterator[Connection]:
        """Open one connection for a short while, writing only for a migration."""
        engine = self.engine(for_writing=is_migration, foreign_keys=not is_migration)
        options = {sqlite.IS_WRITE: is_migration}
        try:
            with engine.execution_options(**options).begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def engine(self, *, for_writing: bool, foreign_keys: bool = True) -> Engine:
        """Make an engine, which connects when it is used."""
        if self.path:
            return sqlite.make_engine(
                self.path,
                busy_seconds=self.busy_seconds,
                for_writing=for_writing,
                foreign_keys=foreign_keys,
            )
        try:
            engine = create_engine(self.url, hide_parameters=True, pool_pre_ping=True)
        except (ArgumentError, ImportError) as exc:  # no such database, or its driver is missing
            raise StoreError(f"{self.name}: {exc}") from exc
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _speak_utc)
        return engine


def _speak_utc(connection: DBAPIConnection, _: object) -> None:
    """Let a server cut time into the hours and days of UTC, whatever its own zone is."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


class Store:
    """One open database, for one thread at a time: a context manager, or ``close`` it.

    What happens within ``write`` happens whole or not at all, and is on disk when the block ends.
    What is seen within ``read`` is one moment of the database, whatever others write meanwhile.
    """

    def __init__(self, place: _Place, engine: Engine) -> None:
        self._place = place
        self._engine = engine
        self._reader, self._writer = engine, engine.execution_options(**{sqlite.IS_WRITE: True})
        if place.path is None:
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ")
        self._identity = place.path and sqlite.identity(place.path)
        # One thread at a time: SQLite takes a single writer anyway, and waiting here is cheaper
        # and fairer than waiting for its lock.
        self._one_thread = CapacityLimiter(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        try:
            if isinstance(exc, _SURPRISES):
                self._blame_damage(exc)
        finally:
            self.close()

    def close(self) -> None:
        """Close all connections; calling it again does nothing."""
        self._engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that may write; it commits when the block ends without an error.

        Raises:
            StoreBusy: somebody else has been writing for longer than we wait.
            StoreError: anything else; then nothing of this block is stored.
        """
        with self._place.errors(), Session(self._writer) as session:
            yield session
            self._check_identity()
            session.commit()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that only reads, all of it from the same moment."""
        with self._place.errors(), Session(self._reader) as session:
            yield session

    async def in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run *function* in the store's worker thread and wait for it to end.

        A cancellation waits too: who asked for a commit must learn what became of it.
        """
        return await to_thread.run_sync(function, *args, limiter=self._one_thread)

    async def commit(
        self, change: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Carry out one change from ``writes`` in a transaction of its own, off the event loop."""

        def carry_out() -> T:
            with self.write() as session:
                return change(session, *args, **kwargs)

        return await self.in_thread(carry_out)

    def _blame_damage(self, exc: Exception) -> None:
        """Raise a StoreError instead of *exc* if the database holds what it cannot."""
        from pipeline.store.damage import find_damage  # noqa: PLC0415 - when all is well, nobody needs it

        with self.read() as session:
            damage = next(find_damage(session.connection()), None)
        if damage:
            raise StoreError(
                f"{self._place.name}: damaged ({damage}); `pipeline db check` names all of it"
            ) from exc

    def _check_identity(self) -> None:
        # SQLite goes on writing into a file that has lost its name, and says that all is well.
        path = self._place.path
        if path and sqlite.identity(path) != self._identity:
            raise StoreError(f"{path} was deleted or replaced while it was open; nothing is stored")


def open_store(url: str, *, busy_seconds: float, for_writing: bool) -> Store:
    """Open the database at *url*; to write, it is created or migrated where there is need.

    Raises:
        StoreBusy: another process holds it for longer than *busy_seconds*.
        StoreError: it is not there, damaged, not ours, or of a schema that we do not know; it is
            left as it is.
    """
    place = _Place.of(url, busy_seconds)
    with place.errors():
        if for_writing and place.path and not sqlite.identity(place.path):
            sqlite.create_file(place.path, _empty_database())
        state = _find_state(place)
        if for_writing and state is SchemaState.OLDER:
            migrate(url, busy_seconds=busy_seconds)
        elif for_writing and state is SchemaState.EMPTY and not place.path:
            with place.connect(is_migration=True) as connection:
                create_schema(connection)
        elif state is not SchemaState.CURRENT:
            _refuse(place, state)
        store = Store(place, place.engine(for_writing=for_writing))
        # What is in the way shows now, before anything has been asked of anybody.
        with store.write() if for_writing else store.read() as session:
            session.connection()
        return store


def migrate(url: str, *, busy_seconds: float) -> Migration | None:
    """Bring an older database to the newest schema, whole or not at all; None if it is there.

    A copy of an SQLite file is kept beside it as ``<name>.before-<revision>``. Of two processes
    that migrate at once one does; the other waits, and finds that there is nothing left to do.

    Raises:
        StoreBusy: another process holds it for longer than *busy_seconds*.
        StoreError: it is not there, damaged, not ours, newer than this program, or it would break
            a foreign key afterwards; it is left as it is.
    """
    place = _Place.of(url, busy_seconds)
    with place.errors():
        if _find_state(place) is SchemaState.CURRENT:
            return None
        with place.connect(is_migration=True) as connection:
            return _migrate(place, connection)


@contextmanager
def connect_to_migrate(url: str) -> Iterator[Connection]:
    """Open the database at *url* for a developer's ``alembic``, empty if it is not there yet.

    It commits when the block ends without an error; foreign keys are not enforced.
    """
    place = _Place.of(url, DEVELOPER_SECONDS)
    if place.path:
        place.path.touch(mode=0o600)
    with place.errors(), place.connect(is_migration=True) as connection:
        yield connection


def back_up(url: str, target: Path, *, busy_seconds: float) -> None:
    """Copy the SQLite database at *url* to *target*, even while a run writes to it.

    Raises:
        StoreError: it is not there, damaged or not ours, or *target* cannot be written.
    """
    place = _Place.of(url, busy_seconds)
    with open_store(url, busy_seconds=busy_seconds, for_writing=False), place.errors():
        if place.path is not None:
            sqlite.back_up(place.path, target)


def vacuum(url: str, *, busy_seconds: float) -> None:
    """Give the free pages of the SQLite database at *url* back to the disk.

    Raises:
        StoreBusy: another process holds it for longer than *busy_seconds*.
        StoreError: it is damaged, or the disk has no room for a copy of it.
    """
    place = _Place.of(url, busy_seconds)
    with place.errors():
        if place.path is not None:
            sqlite.vacuum(place.path, busy_seconds=busy_seconds)


def _find_state(place: _Place) -> SchemaState:
    if place.path:
        sqlite.check_file(place.path)
    with place.connect() as connection:
        return schema_state(connection)


def _refuse(place: _Place, state: SchemaState) -> NoReturn:
    if state is SchemaState.EMPTY and not place.path:
        raise StoreError(f"no database yet at {place.name}: run `pipeline collect` first")
    raise StoreError(f"{place.name} {_REFUSALS[state]}")


def _migrate(place: _Place, connection: Connection) -> Migration | None:
    state = schema_state(connection)  # once more: now nobody else can change it
    if state is SchemaState.CURRENT:
        return None
    if state is not SchemaState.OLDER:
        _refuse(place, state)
    before = find_revision(connection)
    backup = place.path and place.path.with_name(f"{place.path.name}.before-{NEWEST}")
    if place.path and backup:
        sqlite.back_up(place.path, backup)
    upgrade(connection)
    _seal_history(connection)
    if place.path and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise StoreError(f"{place.name}: the migration would break references; nothing was changed")
    return Migration(before=before, after=NEWEST, backup=backup)


def _seal_history(connection: Connection) -> None:
    """Sum up and seal the runs that ended before there were summaries and seals."""
    # Only a migration needs them, and every start would pay.
    from pipeline.store import seals, summaries  # noqa: PLC0415

    with Session(connection) as session:
        for run_id in seals.unsealed_runs(connection):
            summaries.summarise_run(session, run_id=run_id)
            seals.seal_run(session, run_id=run_id, sealed_at=datetime.now(UTC))


def _empty_database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.begin() as connection:
            create_schema(connection)
        return raw.serialize()
