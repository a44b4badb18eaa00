"""What only a PostgreSQL server needs: its connections, its time limits, and what its errors mean.

A server can be busy in more ways than a file: others hold a row, it takes no more connections, it
restarts, nothing is heard of it any more. All that passes, so all that is ``StoreBusy``.
"""

import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from math import ceil
from time import monotonic
from typing import Any

import anyio
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from pipeline.errors import StoreBusy, StoreError
from pipeline.extras import how_to_install

PACKAGE = "'psycopg[binary]'"
LOOK_SECONDS = 0.25  # between two looks at who waits
# Who holds rows and says nothing for so long was stopped in mid-transaction: others want them.
MUTE_SECONDS = 10.0
READ_ONLY = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

_CREATION = 7_305_812_446  # the key of the lock of whoever creates or migrates the database
_WAITING = 1  # what libpq calls ACTIVE: asked, and not answered yet
_LOCKED = ("55P03", "40P01")  # not to be had in time, or only from whom we keep waiting ourselves
_MEANINGS = {
    "25006": "read-only: it is a replica, or opened to read",
    "53100": "the server's disk is full; nothing more is stored until there is space",
}
_CUT = "server closed the connection unexpectedly"
# By class: connections, conflicts with others, room, operators; and by name: who was mute. Nobody
# here has to do anything.
_PASSING = re.compile(r"08|25P03|40|53|57")
# What comes instead of a connection has no code, only words. These tell that somebody must act.
_REFUSAL = re.compile(
    "authentication|password|pg_hba|does not exist|not permitted|denied|SSL|certificate"
    "|invalid .* value|definition of service"
)


def make_engine(url: URL, *, busy_seconds: float) -> Engine:
    """Make an engine whose connections wait for others no longer than *busy_seconds*.

    What the URL says of such limits comes first. A statement may take as long as it takes: nobody
    here can tell a server that is slow from a long report.
    """
    if url.get_backend_name() != "postgresql":
        raise ArgumentError(f"a store is an SQLite file or postgresql://…, not {url.drivername}")
    limits = _limits(busy_seconds)
    ours = {name: limits[name] for name in limits.keys() - url.query.keys()}
    try:
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=ours)
    except ModuleNotFoundError as exc:
        if exc.name != "psycopg":
            raise
        raise StoreError(f"PostgreSQL needs psycopg: {how_to_install(PACKAGE)}") from exc
    event.listen(engine, "connect", partial(_set_up, busy_seconds))
    return engine


def _limits(busy_seconds: float) -> Mapping[str, int]:
    """Tell the driver when a server is gone: one that has vanished does not say so."""
    seconds = max(1, ceil(busy_seconds))
    return {
        "connect_timeout": max(2, ceil(seconds / 2)),  # whoever finds it gone tries once more
        "tcp_user_timeout": 1000 * seconds,
        "keepalives_idle": ceil(seconds / 2),
        "keepalives_interval": ceil(seconds / 4),
        "keepalives_count": 2,
    }


def _set_up(busy_seconds: float, connection: DBAPIConnection, _: object) -> None:
    """Let a server cut time into the hours and days of UTC, and wait for locks as long as we do.

    It has to write times as the driver reads them and numbers whole, however its owner likes them.
    What it says is stored has to be on disk, whatever it does for others.
    """
    wait = max(1, ceil(1000 * busy_seconds))  # 0 would be for ever
    with closing(connection.cursor()) as cursor:
        cursor.execute(
            "SELECT set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO', false),"
            " set_config('IntervalStyle', 'postgres', false),"
            " set_config('extra_float_digits', '1', false),"
            f" set_config('lock_timeout', '{wait}', false),"
            " set_config('idle_in_transaction_session_timeout',"
            f" '{ceil(1000 * MUTE_SECONDS)}', false),"
            " CASE current_setting('synchronous_commit')"
            " WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"
        )
    connection.commit()


def hold_creation(connection: Connection) -> None:
    """Let only one at a time create or migrate the database, until its transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(_CREATION)))


class Waits:
    """The connections of an engine, and since when each has been waiting for an answer."""

    def __init__(self, engine: Engine) -> None:
        self._error = engine.dialect.loaded_dbapi.Error
        self._open: set[Any] = set()
        self._since: dict[Any, float] = {}
        event.listen(engine, "connect", lambda opened, _: self._open.add(opened), insert=True)
        event.listen(engine, "close", self._forget)
        event.listen(engine, "after_cursor_execute", self._hear)

    def _forget(self, connection: object, _: object) -> None:
        self._open.discard(connection)
        self._since.pop(connection, None)

    def _hear(self, connection: Connection, *_: object) -> None:
        self._since.pop(connection.connection.dbapi_connection, None)

    @asynccontextmanager
    async def watching(self, longest: Callable[[], float | None]) -> AsyncIterator[None]:
        """Cut those that wait for *longest* seconds, as long as it names any, within the block.

        Whoever waits gets a lost connection. A cancellation does not end this: the threads that
        wait do not heed it either.
        """
        scope = anyio.CancelScope(shield=True)

        async def watch() -> None:
            with scope:
                while True:
                    await anyio.sleep(LOOK_SECONDS)
                    self._look(longest())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            try:
                yield
            finally:
                scope.cancel()

    def _look(self, longest: float | None) -> None:
        now = monotonic()
        for connection in tuple(self._open):
            if connection.info.transaction_status != _WAITING:
                self._since.pop(connection, None)
                continue
            seconds = now - self._since.setdefault(connection, now)
            if longest is not None and seconds >= longest:
                self._cut(connection)

    def _cut(self, connection: Any) -> None:  # noqa: ANN401 - a driver's, which may be missing
        # Shut down, not closed: a thread that waits for a closed one would never learn of it.
        with (
            suppress(OSError, self._error),
            socket.socket(fileno=os.dup(connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)


def explain(exc: Exception, name: str, busy_seconds: float) -> StoreError:
    """Turn an error of the driver into ours: one line with what is wrong."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    code: str | None = getattr(cause, "sqlstate", None)
    text = str(cause).partition("\n")[0]  # in the others PostgreSQL quotes the row
    if code in _LOCKED:
        return StoreBusy(f"{name} is locked by another process; waited {busy_seconds:g} s")
    if code in _MEANINGS:
        text = f"{_MEANINGS[code]} ({text})"
    if _CUT in text:  # the server or we
        text = "the connection was lost"
    is_lost = not code and isinstance(exc, OperationalError) and not _REFUSAL.search(text)
    if is_lost or (code and _PASSING.match(code)):
        return StoreBusy(f"{name} cannot be used now: {text}")
    return StoreError(f"{name}: {text}")
