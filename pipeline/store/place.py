"""Where a store is: its file or its server, and how its errors become ours."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from pipeline.errors import StoreError
from pipeline.files import database_file
from pipeline.store import server, sqlite
from pipeline.store.schema import SchemaState, schema_state

_REFUSALS = {
    SchemaState.EMPTY: "holds no tables, so it is not ours; remove it or choose another store.url",
    SchemaState.OLDER: "has an older schema; run `pipeline db migrate`",
    SchemaState.NEWER: "was made by a newer version of pipeline; upgrade pipeline to use it",
    SchemaState.FOREIGN: "belongs to another program; choose another store.url",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a store is: ``path`` only for SQLite, ``name`` for messages, without a password."""

    url: str
    path: Path | None
    name: str
    busy_seconds: float

    @classmethod
    def of(cls, url: str, busy_seconds: float) -> Self:
        """Understand a URL."""
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

    def find_state(self) -> SchemaState:
        """Tell whether this program can use the database as it is."""
        if self.path:
            sqlite.check_file(self.path)
        with self.connect() as connection:
            return schema_state(connection)

    def refuse(self, state: SchemaState) -> NoReturn:
        """Say why this program cannot use a database in such a *state*."""
        if state is SchemaState.EMPTY and not self.path:
            raise StoreError(f"no database yet at {self.name}: run `pipeline collect` first")
        raise StoreError(f"{self.name} {_REFUSALS[state]}")
