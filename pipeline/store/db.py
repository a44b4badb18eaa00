"""Open the database: transactions off the event loop, and its errors turned into ours."""

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, sleep, to_thread
from sqlalchemy import Engine
from sqlalchemy.exc import NoResultFound
from sqlmodel import Session

from pipeline.errors import StoreBusy, StoreError
from pipeline.files import blame, remove_dead
from pipeline.store import server, sqlite
from pipeline.store.integrity.damage import find_damage
from pipeline.store.migrating import create, migrate
from pipeline.store.place import Place
from pipeline.store.schema import SchemaState

TRY_AGAIN_SECONDS = 0.1  # until we look again whether the database is free
SERVER_THREADS = 4  # at once, each with a connection of its own

# Damaged values and missing rows raise these wherever they are first used.
_SURPRISES = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error),
    NoResultFound,
)

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Store:
    """One open database: a context manager, or ``close`` it.

    What happens within ``write`` happens whole or not at all, and is on disk when the block ends.
    What is seen within ``read`` is one moment of the database, whatever others write meanwhile.

    Attributes:
        may_wait: whether ``patiently`` may try again while others hold the database.
        notes: what a person should know of its opening, a line each.
    """

    def __init__(self, place: Place, engine: Engine, *, for_writing: bool) -> None:
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
    place = Place.of(url, busy_seconds)
    with place.errors():
        if for_writing and place.path:
            remove_dead(place.path.parent)
            if not sqlite.identity(place.path):
                create(place)
        state = place.find_state()
        if for_writing and state is SchemaState.EMPTY and not place.path:
            create(place)
            state = place.find_state()
        if for_writing and state is SchemaState.OLDER:
            migrate(url, busy_seconds=busy_seconds)
        elif state is not SchemaState.CURRENT:
            place.refuse(state)
        store = Store(place, place.engine(for_writing=for_writing), for_writing=for_writing)
        # What is in the way shows now, before anything has been asked of anybody.
        with store.write() if for_writing else store.read() as session:
            session.connection()
        if for_writing and place.path:
            store.take_in(place.path.with_name(f"{place.path.name}.spool-"))
        return store
