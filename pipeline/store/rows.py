"""How frozen values become rows and rows become values: by the names of their fields.

A field of a value and a column of its table have the same name, so neither is spelled out again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from itertools import islice
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Executable,
    LargeBinary,
    Row,
    Select,
    Table,
    UpdateBase,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine
from sqlmodel import Session

NONE_KNOWN: Mapping[str, Any] = MappingProxyType({})
ROWS_AT_ONCE = 1_000  # per statement, and in memory while an iterator reads

T = TypeVar("T")
AnyRow: TypeAlias = Row[*tuple[Any, ...]]
Columns: TypeAlias = dict[str, Iterable[Any]]  # of equal length, or endless


@cache
def _names(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - no type says "class of a dataclass"
    return tuple(field.name for field in fields(kind))


def record(kind: Callable[..., T], row: AnyRow, prefix: str = "", /, **more: object) -> T:
    """Make a value of a *row* whose columns have the names of its fields behind a *prefix*.

    *more* are fields that the row does not have, or has as something else.
    """
    found = {name: getattr(row, prefix + name) for name in _names(kind) if name not in more}
    return kind(**found, **more)


def records(
    session: Session, kind: Callable[..., T], query: Select[*tuple[Any, ...]], **more: object
) -> list[T]:
    """Read the answer to a *query* as values, made as ``record`` makes them."""
    return [record(kind, row, **more) for row in session.connection().execute(query)]


def find(
    session: Session, kind: Callable[..., T], query: Select[*tuple[Any, ...]], **more: object
) -> T | None:
    """Read the first row that answers a *query*; None if there is none."""
    row = session.connection().execute(query).first()
    return None if row is None else record(kind, row, **more)


def of_runs(
    session: Session, query: Select[*tuple[Any, ...]], run_ids: Sequence[int], *, by: Column[int]
) -> Iterator[AnyRow]:
    """Read what a *query* says of some runs, which it knows *by* a column, a part at a time."""
    for first in range(0, len(run_ids), ROWS_AT_ONCE):
        chosen = query.where(by.in_(run_ids[first : first + ROWS_AT_ONCE]))
        yield from session.connection().execute(chosen)


@cache
def _shared(table: Table, kind: Any) -> tuple[tuple[str, ...], Callable[[object], Any]]:  # noqa: ANN401 - as above
    names = tuple(name for name in _names(kind) if name in table.c)
    return names, attrgetter(*names)


def columns_of(table: Table, kind: Any) -> list[Column[Any]]:  # noqa: ANN401 - as above
    """Choose the columns of *table* that are fields of a *kind* of value."""
    return [table.c[name] for name in _shared(table, kind)[0]]


def as_row(table: Table, value: Any) -> dict[str, object]:  # noqa: ANN401 - a dataclass
    """Give the fields of *value* that are columns of *table*."""
    names, get = _shared(table, value.__class__)
    return dict(zip(names, get(value), strict=True))


def stream(session: Session, query: Select[*tuple[Any, ...]]) -> Iterator[AnyRow]:
    """Read the answer to a *query* some rows at a time."""
    options = {"yield_per": ROWS_AT_ONCE}
    with session.connection().execute(query, execution_options=options) as rows:
        yield from rows


def as_columns(table: Table, kind: Any, values: Sequence[Any]) -> Columns:  # noqa: ANN401 - as above
    """Give the fields of *values*, all of one *kind*, that are columns of *table*."""
    return {name: map(attrgetter(name), values) for name in _shared(table, kind)[0]}


def as_rows(columns: Columns) -> list[dict[str, Any]]:
    """Turn columns into rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]


def execute_columns(session: Session, statement: UpdateBase, columns: Columns) -> int:
    """Execute *statement* for all rows of *columns*, named as its parameters are.

    Gives how many rows it changed. On SQLite it goes without what SQLAlchemy does for each row,
    which takes longer than SQLite itself.
    """
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        rows = as_rows(columns)
        return connection.execute(statement, rows).rowcount if rows else 0
    sql, places = _compiled(statement, connection.dialect, tuple(columns))
    given = (map(bind, columns[name]) if bind else columns[name] for name, bind in places)
    values = list(zip(*given, strict=False))
    return connection.exec_driver_sql(sql, values).rowcount if values else 0


@lru_cache(maxsize=16)
def _compiled(
    statement: UpdateBase, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, Sequence[tuple[str, Callable[[Any], Any] | None]]]:
    """Write *statement* as SQL, with the names of its places and how a value gets there."""
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    kinds = {name: compiled.binds[name].type for name in compiled.positiontup or ()}
    return str(compiled), [(name, _how_to_bind(kind, dialect)) for name, kind in kinds.items()]


def _how_to_bind(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, LargeBinary):  # SQLite takes bytes as they are; a view of each takes 3 us
        return None
    return kind.dialect_impl(dialect).bind_processor(dialect)


def execute_many(
    session: Session, statement: Executable, rows: Iterable[Mapping[str, object]]
) -> None:
    """Execute *statement* for each of *rows*, which may be more than memory holds."""
    remaining = iter(rows)
    while some := list(islice(remaining, ROWS_AT_ONCE)):
        session.connection().execute(statement, some)


def at_once(session: Session) -> Connection:
    """Give a connection on which each statement of this session is on disk by itself.

    For one statement that is complete in itself a server needs one round trip, instead of three.
    """
    return session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})


def insert_into(session: Session, table: Table) -> sqlite.Insert:
    """Begin an INSERT with ON CONFLICT, which SQLite and PostgreSQL both know.

    On a server nobody is kept out while we look, so to look first and insert then may fail.
    """
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    # Imported here: it costs a start as much as ten of its statements.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return cast("sqlite.Insert", postgresql.insert(table))  # its twin
