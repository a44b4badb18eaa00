"""Find values that do not match their column's type: corruption, manual edits.

SQLite keeps the type of each value beside it and holds no column to its own, so a number may come
back as text, and a time as a word. A server does not let that happen.
"""

from collections.abc import Iterator

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    func,
    literal_column,
    select,
)

from pipeline.store.columns import (
    Code,
    Headers,
    Hex,
    Packed,
    SourceName,
    UtcTime,
    WholeText,
    Word,
    unpack_json,
)
from pipeline.store.tables import Row

# From the first to the last microsecond that a calendar has.
_TIME = "typeof({0}) = 'integer' AND {0} BETWEEN -62135596800000000 AND 253402300799999999"
_JSON = "CASE WHEN json_valid({0}) THEN json_type({0}) = 'array' END"
# By type: what a value is, and how SQLite says so.
_KINDS = (
    (UtcTime, "a time", _TIME),
    (WholeText, "a whole number", "{0} GLOB '*[0-9]' AND ltrim({0}, '-') NOT GLOB '*[^0-9]*'"),
    (Headers, "JSON", _JSON),
    (Packed, "JSON that was compressed", "is_packed({0})"),
    (Boolean, "true or false", "{0} IN (0, 1)"),
    (SourceName, "the number of a source", "{0} IN (SELECT id FROM sources)"),
    (Float, "a number", "typeof({0}) IN ('real', 'integer')"),
    (Integer, "a whole number", "typeof({0}) = 'integer'"),
    ((LargeBinary, Hex), "bytes", "typeof({0}) = 'blob'"),
    (object, "text", "typeof({0}) = 'text'"),
)


def find_damage(connection: Connection) -> Iterator[str]:
    """Name what is damaged in an SQLite database, a line each; reads every row.

    That is: references to rows that are gone, and values of another type, counted by column.
    """
    if connection.dialect.name != "sqlite":
        return
    raw = connection.connection.driver_connection
    if raw is not None:
        raw.create_function("is_packed", 1, _is_packed, deterministic=True)
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"{table} row {row} refers to a row of {parent} that is gone"
    for table in Row.metadata.sorted_tables:
        rules = [(column.name, *_rule(column)) for column in table.c]
        counts: list[ColumnElement[int]] = [
            func.sum(literal_column(f"({good}) IS NOT TRUE")) for *_, good in rules
        ]
        query = select(*counts).select_from(table)
        for (name, what, _), n in zip(rules, connection.execute(query).one(), strict=True):
            if n:
                rows = "row holds" if n == 1 else "rows hold"
                yield f"{table.name}.{name}: {n} {rows} something else than {what}"


def _rule(column: Column[object]) -> tuple[str, str]:
    """Say what the values of *column* are, in words and in SQL."""
    name = f'"{column.name}"'
    what, good = next((what, good) for kind, what, good in _KINDS if isinstance(column.type, kind))
    if isinstance(column.type, Word):
        words = [*column.type.words, *([] if column.type.none is None else [column.type.none])]
        what, good = "a word of ours", f"{{0}} IN ({', '.join(map(repr, map(str, words)))})"
    if isinstance(column.type, Code):
        what, good = "the number of a word of ours", f"{{0}} IN {(*column.type.by_code,)}"
    good = good.format(name)
    return what, f"{name} IS NULL OR {good}" if column.nullable else good


def _is_packed(value: object) -> bool:
    try:
        return isinstance(value, bytes) and isinstance(unpack_json(value), dict)
    except ValueError:
        return False
