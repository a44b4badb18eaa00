"""The types of columns, and the pieces that the tables are made of."""

import json
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    ScalarSelect,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    cast,
    func,
    select,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine
from sqlmodel import SQLModel

from pipeline.errors import Phase

PHASE_COLUMNS = {phase: f"{phase}_us" for phase in Phase}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Migrations find a constraint by its name, so every name can be worked out.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

_DECODER = json.JSONDecoder()


def to_us(moment: datetime) -> int:
    """Give the microseconds from 1970 to an aware *moment*."""
    return (moment - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """Give the moment that is *us* microseconds after 1970, in UTC."""
    return EPOCH + timedelta(microseconds=us)


def unpack_json(packed: bytes) -> Any:  # noqa: ANN401 - that is what JSON is
    """Read JSON that was compressed.

    Raises:
        ValueError: it is damaged.
    """
    return json.loads(_unpack(packed))


def unpack_parts(packed: bytes, names: Iterable[str]) -> dict[str, Any]:
    """Read those fields of such an object that *names* has; no other string in it is a name.

    Most of the time that JSON takes goes into what nobody wants to know.

    Raises:
        ValueError: it is damaged.
    """
    text = _unpack(packed).decode("ascii")
    found = ((name, text.partition(f'"{name}":')[2]) for name in names)
    return {name: _DECODER.raw_decode(rest)[0] for name, rest in found if rest}


def _unpack(packed: bytes) -> bytes:
    try:
        return zlib.decompress(packed)
    except zlib.error as exc:
        raise ValueError(str(exc)) from exc


class UtcTime(TypeDecorator[datetime]):
    """An aware time: on SQLite the microseconds since 1970, elsewhere timestamptz.

    A text that sorts as well would take three times the space in each row and index; the views
    show it as such a text. A naive time is refused with ValueError: nobody could say later which
    zone it meant.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[int] | TypeEngine[datetime]:
        """Choose the number for SQLite only."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | datetime | None:
        """Turn an aware time into what the database keeps."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value}")
        return to_us(value) if dialect.name == "sqlite" else value

    def process_result_value(
        self, value: int | datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Turn what the database kept into an aware time in UTC."""
        del dialect
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else from_us(value)


class _Kept(TypeDecorator[Any]):
    """A value that the database keeps as what ``write`` makes of it; None is NULL."""

    write: ClassVar[Callable[..., Any]]
    read: ClassVar[Callable[..., Any]]

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401 - as SQLAlchemy's
        del dialect
        return None if value is None else self.write(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401 - as above
        del dialect
        return None if value is None else self.read(value)


class Packed(_Kept):
    """JSON, compressed by zlib, whose checksum finds a flipped bit when it is read: ValueError."""

    impl = LargeBinary
    cache_ok = True
    write = staticmethod(lambda of: zlib.compress(json.dumps(of, separators=(",", ":")).encode()))
    read = staticmethod(unpack_json)


class Hex(_Kept):
    """A digest in hex, kept as the bytes that it stands for; what is damaged may be anything."""

    impl = LargeBinary
    cache_ok = True
    write = staticmethod(bytes.fromhex)
    read = staticmethod(lambda kept: kept.hex() if isinstance(kept, bytes) else kept)


class WholeText(_Kept):
    """A whole number of any size, as text: an integer column holds 64 bits."""

    impl = String
    cache_ok = True
    write = staticmethod(str)
    read = staticmethod(int)


class Headers(_Kept):
    """Names and values of HTTP headers in their order, as a JSON array of pairs."""

    impl = String
    cache_ok = True
    write = staticmethod(json.dumps)
    read = staticmethod(lambda kept: tuple((name, text) for name, text in json.loads(kept)))


class Word(TypeDecorator[StrEnum]):
    """A word of ours: text in the database, a member of the enum *words* in the program.

    Any other text is a KeyError; *none* is the text that stands for None.
    """

    impl = String
    cache_ok = True

    def __init__(self, words: type[StrEnum], none: str | None = None) -> None:
        super().__init__()
        self.words, self.none = words, none

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Write the text that stands for None, if there is one."""
        del dialect
        return None if self.none is None else lambda value: self.none if value is None else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Look a text up: quicker than ``process_result_value``, and there are millions."""
        del dialect, coltype
        members: dict[str | None, StrEnum | None] = {str(word): word for word in self.words}
        return (members | {None: None, self.none: None}).__getitem__


class Code(TypeDecorator[StrEnum]):
    """A word of ours where there are millions of rows: in the database its place among *words*.

    The first of them is 1. Any other word, or number, is a KeyError.
    """

    impl = Integer
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words
        self.by_code = dict(enumerate(words, 1))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Look a word up."""
        del dialect
        codes: dict[str | None, int | None] = {str(w): code for code, w in self.by_code.items()}
        return (codes | {None: None}).__getitem__

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Look a number up."""
        del dialect, coltype
        words: dict[int | None, StrEnum | None] = {None: None}
        return (words | self.by_code).__getitem__


class SourceName(TypeDecorator[str]):
    """The name of a source where there are millions of rows: in the database its ``sources.id``.

    SQL looks the name up wherever such a column is written, compared with a name or selected. In
    the order of the column itself sources come as they became known; two such columns compare as
    they are, and one with a name in another column by ``id_of``.
    """

    impl = String  # what a parameter is, and what is selected
    cache_ok = True

    def bind_expression(self, bindparam: ColumnElement[str]) -> ColumnElement[Any]:
        """Find the id of a name; NULL, which no such column takes, if nobody gave it one."""
        return id_of(bindparam)

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[Any]:
        """Find the name."""
        return name_of(column)

    def compare_against_backend(self, dialect: Dialect, conn_type: TypeEngine[Any]) -> bool:
        """Tell Alembic what the column is."""
        del dialect
        return isinstance(conn_type, Integer)


@compiles(SourceName)
def _type_of_id(*_: object, **__: object) -> str:
    return "INTEGER"


def check(name: str, condition: str) -> CheckConstraint:
    """Let a column hold only what fulfils *condition*."""
    return CheckConstraint(condition, name=name)


def one_of(name: str, words: Iterable[StrEnum]) -> CheckConstraint:
    """Let the column *name* hold only some *words*."""
    return check(name, f"{name} IN ({', '.join(map(repr, map(str, words)))})")


def none_below_zero(*columns: str) -> list[CheckConstraint]:
    """Let *columns* hold nothing negative."""
    return [check(column, f"{column} >= 0") for column in columns]


def filled(kind: TypeEngine[Any] | type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Make columns of one type that are never NULL."""
    return [Column(name, kind, nullable=False) for name in names]


def counted(kind: type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Make columns of one type that begin at 0."""
    return [Column(name, kind, nullable=False, default=0) for name in names]


def unfilled(kind: TypeEngine[Any] | type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Make columns of one type that are NULL as long as nothing is known."""
    return [Column(name, kind) for name in names]


def keys(kind: TypeEngine[Any] | type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Make columns of one type that are part of the primary key, and given."""
    return [Column(name, kind, primary_key=True, autoincrement=False) for name in names]


def of_a_range() -> list[Column[Any]]:
    """Make the columns that name the numbers of one source in one range."""
    return [*keys(String, "source"), *keys(Boolean, "is_sandbox"), *keys(BigInteger, "min", "max")]


class Row(SQLModel):
    """The base of all tables; its own metadata, so that no other SQLModel table can mix in."""

    metadata = MetaData(naming_convention=NAMES)


# The name of each source that was ever ordered from, once and for ever.
SOURCES = Table(
    "sources",
    Row.metadata,
    Column("id", Integer, primary_key=True),
    *filled(String, "name"),
    UniqueConstraint("name"),
)


def id_of(name: ColumnElement[str]) -> ScalarSelect[int]:
    """Look up the id of a source."""
    query = select(SOURCES.c.id).where(SOURCES.c.name == name)
    return query.scalar_subquery().correlate_except(SOURCES)


def name_of(source: ColumnElement[Any]) -> ColumnElement[str]:
    """Look up the name of a source by what lies in a column of the type ``SourceName``.

    For a number that is damaged it is that number.
    """
    query = select(SOURCES.c.name).where(SOURCES.c.id == source)
    name = query.scalar_subquery().correlate_except(SOURCES)
    return func.coalesce(name, cast(source, String))


class _Whole(TypeDecorator[int]):
    """A float that is a whole number; 0 for the sum of nothing."""

    impl = Float
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> int:
        del dialect
        return int(value or 0)


def add_up(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Sum as a float: exact up to 2**53, and never SQLite's "integer overflow"."""
    return type_coerce(func.sum(cast(column, Float(53))), _Whole())
