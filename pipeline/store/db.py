"""Open the database: transactions off the event loop, and its errors turned into ours."""

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec, Self, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, sleep, to_thread
from sqlalchemy import Connection, Engine, StaticPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoResultFound
from sqlmodel import Session

from pipeline.errors import StoreBusy, StoreError
from pipeline.files import blame, database_file, remove_dead
from pipeline.store import server, sqlite
from pipeline.store.schema import (
    NEWEST,
    SchemaState,
    create_schema,
    find_revision,
    schema_state,
    upgrade,
)

TRY_AGAIN_SECONDS = 0.1  # until we look again whether the database is free
SERVER_THREADS = 4  # at once, each with a connection of its own
DEVELOPER_SECONDS = 10.0  # how long a developer's migration waits for others

_REFUSALS = {
    SchemaState.EMPTY: "holds no tables, so it is not ours; remove it or choose another store.url",
    SchemaState.OLDER: "has an older schema; run `pipeline db migrate`",
    SchemaState.NEWER: "was made by a newer version of pipeline; upgrade pipeline to use it",
    SchemaState.FOREIGN: "belongs to another program; choose another store.url",
}

# Damaged values and missing rows raise these wherever they are first used.
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
        except (sqlite3.Error, DBAPIError) as exc:
            # What a server says quotes what was to be stored, so it goes no further than here.
            raise self._explain(exc) from exc if self.path else None
        except UnicodeDecodeError as exc:  # SQLite quotes what is damaged, and that is no text
            raise StoreError(f"{self.name}: damaged; restore a backup") from exc

    def _explain(self, exc: sqlite3.Error | DBAPIError) -> StoreError:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        if self.path and isinstance(cause, sqlite3.Error):
            return sqlite.explain(cause, self.path, self.busy_seconds)
        return server.explain(exc, self.name, self.busy_seconds)

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
            return server.make_engine(make_url(self.url), busy_seconds=self.busy_seconds)
        except (ArgumentError, ImportError) as exc:  # no such database, or its driver is missing
            raise StoreError(f"{self.name}: {exc}") from exc


class Store:
    """One open database: a context manager, or ``close`` it.

    What happens within ``write`` happens whole or not at all, and is on disk when the block ends.
    What is seen within ``read`` is one moment of the database, whatever others write meanwhile.

    Attributes:
        may_wait: whether ``patiently`` may try again while others hold the database.
        notes: what a person should know of its opening, a line each.
    """

    def __init__(self, place: _Place, engine: Engine, *, for_writing: bool) -> None:
        self._place = place
        self._engine = engine
        self._reader: Engine = engine
        self._writer: Engine = engine.execution_options(**{sqlite.IS_WRITE: True})
        if place.path is None:
            self._reader = engine.execution_options(**server.READ_ONLY)
            self._writer = engine if for_writing else self._reader
        self._waits = None if place.path else server.Waits(engine)
        self._identity = place.path and sqlite.identity(place.path)
        # One thread at a time: SQLite takes a single writer anyway, and waiting here is cheaper
        # and fairer than waiting for its lock. A server takes several: nobody who needs one row
        # has to wait until a group of results has gone there and back a dozen times.
        self._threads = CapacityLimiter(1 if place.path else SERVER_THREADS)
        self.may_wait: Callable[[], bool] = lambda: False
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        try:
            if isinstance(exc, _SURPRISES):
                self._blame_damage(exc)
        finally:
            self.close()

    @property
    def is_server(self) -> bool:
        """Tell whether it is a server's, which several machines may use, and no file."""
        return self._place.path is None

    @property
    def address(self) -> tuple[str, float]:
        """Give what another process needs to open it: its URL, and how long to wait for others."""
        return self._place.url, self._place.busy_seconds

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
        try:
            with self._place.errors(), Session(self._reader) as session:
                yield session
        except _SURPRISES as exc:  # here, too: whoever goes on without the answer is told why
            self._blame_damage(exc)
            raise

    def heeding_time(self) -> AbstractAsyncContextManager[None]:
        """Cut the connection to a server that is silent, within the block, once we may not wait.

        Else a thread would wait for it as long as it is silent, whatever deadlines and signals say.
        """
        if self._waits is None:
            return nullcontext()
        longest = max(self._place.busy_seconds, 1.0)
        return self._waits.watching(lambda: None if self.may_wait() else longest)

    async def in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run *function* in a worker thread of the store and wait for it to end.

        A cancellation waits too: who asked for a commit must learn what became of it.
        """
        return await to_thread.run_sync(function, *args, limiter=self._threads)

    async def commit(
        self, change: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Carry out one change from ``writes`` in a transaction of its own, off the event loop."""

        def carry_out() -> T:
            with self.write() as session:
                return change(session, *args, **kwargs)

        return await self.patiently(carry_out)

    async def patiently(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run *function* like ``in_thread``, again and again while others hold the database.

        Raises:
            StoreBusy: they still hold it, and we ``may_wait`` no longer.
        """
        while True:
            try:
                return await self.in_thread(function, *args)
            except StoreBusy:
                if not self.may_wait():
                    raise
            await sleep(TRY_AGAIN_SECONDS)

    def take_in(self, beside: Path) -> None:
        """Store first what runs have set aside in files whose names begin with *beside*."""
        from pipeline.store import spool  # noqa: PLC0415 - there is hardly ever one

        for path in spool.find_files(beside):
            try:
                with self.write() as session:
                    self.notes.append(spool.take_in(session, path))
                path.unlink(missing_ok=True)
            except StoreBusy:
                raise
            except StoreError as exc:
                self.notes.append(f"{path} is kept, and nothing of it is stored: {exc}")
            except FileNotFoundError:  # others were quicker
                continue
            except OSError as exc:
                self.notes.append(f"{path} cannot be taken in: {exc.strerror}{blame(path)}")

    def _blame_damage(self, exc: Exception) -> None:
        """Raise a StoreError instead of *exc* if the database is damaged."""
        from pipeline.store.integrity.damage import find_damage  # noqa: PLC0415 - when all is well, nobody needs it

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
        if for_writing and place.path:
            remove_dead(place.path.parent)
            if not sqlite.identity(place.path):
                sqlite.create_file(place.path, _empty_database())
        state = _find_state(place)
        if for_writing and state is SchemaState.EMPTY and not place.path:
            _create(place)
            state = _find_state(place)
        if for_writing and state is SchemaState.OLDER:
            migrate(url, busy_seconds=busy_seconds)
        elif state is not SchemaState.CURRENT:
            _refuse(place, state)
        store = Store(place, place.engine(for_writing=for_writing), for_writing=for_writing)
        # What is in the way shows now, before anything has been asked of anybody.
        with store.write() if for_writing else store.read() as session:
            session.connection()
        if for_writing and place.path:
            store.take_in(place.path.with_name(f"{place.path.name}.spool-"))
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


def _create(place: _Place) -> None:
    """Make the tables in an empty database of a server, unless others have meanwhile."""
    with place.connect(is_migration=True) as connection:
        server.hold_creation(connection)
        if schema_state(connection) is SchemaState.EMPTY:
            create_schema(connection)


def _migrate(place: _Place, connection: Connection) -> Migration | None:
    if not place.path:
        server.hold_creation(connection)
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
    if place.path and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise StoreError(f"{place.name}: the migration would break references; nothing was changed")
    return Migration(before=before, after=NEWEST, backup=backup)


def _empty_database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as raw:
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        with engine.begin() as connection:
            create_schema(connection)
        return raw.serialize()
