"""Values that a column cannot rightly hold: what a flipped bit or a stranger's hand leaves behind.

SQLite keeps the kind of each value beside it and holds no column to its own, so a number may come
back as text, and a time as a word. A server does not let that happen.
"""

from collections.abc import Iterator
from enum import StrEnum

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    func,
    literal_column,
    select,
)

from pipeline.errors import ErrorName, Phase
from pipeline.models import Aspect, Fate, RunStatus, Step, Verdict
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    CONTRACTS,
    EVIDENCE,
    LOSSES,
    REQUESTS,
    RUNS,
    SLOTS,
    TALLIES,
    TIMINGS,
    Row,
    UtcText,
)

# A day that no month has comes back as another one once something is added to it.
_TIME = (
    "strftime('%Y-%m-%dT%H:%M:%S', substr({0}, 1, 19), '+0 days') = substr({0}, 1, 19)"
    " AND substr({0}, 20) GLOB '.[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND {0} > '0001'"
)
# By type: what a value is, and how SQLite says so.
_KINDS = (
    (UtcText, "a time", _TIME),
    (Boolean, "true or false", "{0} IN (0, 1)"),
    (Integer, "a whole number", "typeof({0}) = 'integer'"),
    (LargeBinary, "bytes", "typeof({0}) = 'blob'"),
    (object, "text", "typeof({0}) = 'text'"),
)
_WORDS: dict[Column[str], type[StrEnum]] = {
    RUNS.c.status: RunStatus,
    BATCHES.c.verdict: Verdict,
    BATCHES.c.error: ErrorName,
    ATTEMPTS.c.error: ErrorName,
    ATTEMPTS.c.phase: Phase,
    LOSSES.c.error: ErrorName,
    LOSSES.c.phase: Phase,
    CONTRACTS.c.aspect: Aspect,
    TIMINGS.c.step: Step,
    SLOTS.c.fate: Fate,
}
_OR_NONE = {LOSSES.c.phase: ", ''"}  # where nobody was asked
_JSON = {REQUESTS.c.headers: "array", EVIDENCE.c.headers: "array", TIMINGS.c.phases: "object"}


def find_damage(connection: Connection) -> Iterator[str]:
    """Name what an SQLite database cannot rightly hold, a line each; reads every row.

    That is: references to what is gone, row by row, and values of another kind, column by column.
    """
    if connection.dialect.name != "sqlite":
        return
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


def _rule(column: "Column[str]") -> tuple[str, str]:
    """Say what the values of *column* are, in words and in SQL."""
    name = f'"{column.name}"'
    what, good = next((what, good) for kind, what, good in _KINDS if isinstance(column.type, kind))
    if column in _WORDS:
        words = ", ".join(map(repr, map(str, _WORDS[column])))
        what, good = "a word of ours", f"{{0}} IN ({words}{_OR_NONE.get(column, '')})"
    elif column is TALLIES.c.sum:  # beyond 64 bits, so it is kept as text
        what, good = "a whole number", "{0} GLOB '*[0-9]' AND ltrim({0}, '-') NOT GLOB '*[^0-9]*'"
    elif column in _JSON:
        what, good = (
            "JSON",
            f"CASE WHEN json_valid({{0}}) THEN json_type({{0}}) = '{_JSON[column]}' END",
        )
    good = good.format(name)
    return what, f"{name} IS NULL OR {good}" if column.nullable else good
