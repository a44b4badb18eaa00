"""What the seals of runs are hashed over, as it lies in the database: see ``chain``."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    Select,
    Table,
    TypeDecorator,
    bindparam,
    cast,
    func,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from pipeline.rendering.words import iso_time
from pipeline.store.columns import EPOCH, Code, Hex, SourceName, UtcTime, name_of
from pipeline.store.numbers import whole_digest
from pipeline.store.rows import ROWS_AT_ONCE
from pipeline.store.tables import (
    ATTEMPT_KEY,
    ATTEMPTS,
    BATCHES,
    EVIDENCE,
    LOSSES,
    MEASURES,
    MEMBERS,
    PROOFS,
    REQUESTS,
    RUNS,
    TALLIES,
)

Rows: TypeAlias = list[tuple[Any, ...]]


class _Published(TypeDecorator[Any]):
    """What is hashed for a moment or a digest: the text that it stands for, if it is not damaged.

    A server's driver gives moments as such, which become the same texts.
    """

    impl = NullType
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Write the text: quicker than ``process_result_value``, and there are millions."""
        del dialect, coltype
        return _publish


def _publish(value: Any) -> Any:  # noqa: ANN401 - what is damaged may be anything
    if type(value) is int:
        seconds, us = divmod(value, 1_000_000)
        try:
            return f"{_second(seconds)}.{us:06}Z"
        except OverflowError:
            return value
    return value.hex() if isinstance(value, bytes) else value


@lru_cache(maxsize=64)  # what is read in a row is of one time
def _second(seconds: int) -> str:
    return iso_time(EPOCH + timedelta(seconds=seconds)).partition(".")[0]


class _Word(TypeDecorator[Any]):
    """What is hashed for the number of a word: the word, if it is not damaged."""

    impl = NullType
    cache_ok = True

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.code = code

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Look the word up."""
        del dialect, coltype
        words = {code: str(word) for code, word in self.code.by_code.items()}
        return lambda value: words.get(value, value)


def as_stored(column: Column[Any]) -> ColumnElement[Any]:
    """Select what lies in the database, not the value that it stands for.

    So that what was damaged can be read and told from what was not: 3 is as true as 1. Where a
    number stands for a name or a word, those are given, unless there is none.
    """
    if isinstance(column.type, Boolean):
        return cast(column, Integer).label(column.name)
    if isinstance(column.type, SourceName):
        return name_of(column).label(column.name)
    if isinstance(column.type, Code):
        return type_coerce(column, _Word(column.type)).label(column.name)
    kind = _Published if isinstance(column.type, UtcTime | Hex) else NullType
    return type_coerce(column, kind()).label(column.name)


_WANTED: BindParameter[list[int]] = bindparam("wanted", expanding=True)


def _in_time(table: Table) -> Select[*tuple[Any, ...]]:
    """Ask for rows that lie in the order of time, not of runs."""
    run = (RUNS.c.id == table.c.run_id) & (RUNS.c.started_at == table.c.started_at)
    query = select(*map(as_stored, table.c)).select_from(RUNS.join(table, run))
    return query.where(RUNS.c.id.in_(_WANTED)).order_by(RUNS.c.id)


def _by_key(table: Table) -> Select[*tuple[Any, ...]]:
    """Ask for rows that lie in the order of their keys, which begin with the run."""
    (run_id, *_) = key = table.primary_key.columns
    return select(*map(as_stored, table.c)).where(run_id.in_(_WANTED)).order_by(*key)


_RUNS, _MEASURES, _PROOFS = map(_by_key, (RUNS, MEASURES, PROOFS))
_TALLIES, _LOSSES = map(_in_time, (TALLIES, LOSSES))
_BATCHES = _by_key(BATCHES).with_only_columns(
    *(as_stored(column) for column in BATCHES.c if column is not BATCHES.c.numbers),
    func.length(BATCHES.c.numbers).label("length"),
    as_stored(BATCHES.c.numbers),
)
_DIGEST, _N, _MAX = (BATCHES.c.keys().index(name) for name in ("digest", "n", "max"))
_OF_EVIDENCE = ("status", "headers", "body_bytes", "first_seen_at")
_OF_MEMBER = (ATTEMPTS.c.member, MEMBERS.c.host, MEMBERS.c.pid)
_ATTEMPTS = (
    select(
        *(as_stored(column) for column in ATTEMPTS.c if column is not ATTEMPTS.c.member),
        *(as_stored(EVIDENCE.c[name]) for name in _OF_EVIDENCE),
        *map(as_stored, (REQUESTS.c.digest, *_OF_MEMBER)),
    )
    .select_from(ATTEMPTS)
    .outerjoin(EVIDENCE, EVIDENCE.c.digest == ATTEMPTS.c.evidence)
    .outerjoin(REQUESTS, REQUESTS.c.id == ATTEMPTS.c.request)
    .outerjoin(MEMBERS, MEMBERS.c.id == ATTEMPTS.c.member)
    .where(ATTEMPTS.c.run_id.in_(_WANTED))
    .order_by(*ATTEMPT_KEY)
)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return iso_time(value)
    if isinstance(value, bytes | memoryview):
        return value.hex()
    raise TypeError(f"no JSON for {type(value).__name__}")


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_plain).encode


class RowHash:
    """A hash over rows, however few at a time they come."""

    def __init__(self) -> None:
        self._hash = sha256()

    def add(self, rows: Sequence[Sequence[object]]) -> None:
        """Go on with *rows*."""
        if rows:
            self._hash.update(f"{_encode(rows)[1:-1]},".encode("ascii"))

    def hexdigest(self) -> str:
        """Give what it comes to so far."""
        return self._hash.hexdigest()


def hash_rows(chunks: Iterable[Sequence[Sequence[object]]]) -> str:
    """Hash rows that come in *chunks*, which may be cut anywhere."""
    hashing = RowHash()
    for rows in chunks:
        hashing.add(rows)
    return hashing.hexdigest()


def _by_run(
    connection: Connection, query: Select[*tuple[Any, ...]], run_ids: list[int]
) -> Iterator[tuple[int, Rows]]:
    """Read rows of some runs, some at a time, and never those of two runs together."""
    columns = query.selected_columns.keys()
    run_id = itemgetter(columns.index("run_id" if "run_id" in columns else "id"))
    options = {"yield_per": ROWS_AT_ONCE}
    result = connection.execute(query, {"wanted": run_ids}, execution_options=options)
    for rows in result.partitions():
        for of_run, some in groupby(map(tuple, rows), key=run_id):
            yield of_run, list(some)


def record_rows(connection: Connection, run_ids: list[int]) -> dict[int, tuple[Rows, Rows, Rows]]:
    """Read the row of each run, its tallies and its losses; nothing of a run that is not there."""
    records: dict[int, tuple[Rows, Rows, Rows]] = {
        run_id: (rows, [], []) for run_id, rows in _by_run(connection, _RUNS, run_ids)
    }
    for place, query in ((1, _TALLIES), (2, _LOSSES)):
        for run_id, rows in _by_run(connection, query, run_ids):
            records[run_id][place].extend(rows)
    return records


def batch_rows(connection: Connection, run_ids: list[int]) -> Iterator[tuple[int, Rows]]:
    """Read the batches of runs, some of one run at a time; the numbers are their last column."""
    return _by_run(connection, _BATCHES, run_ids)


def hashed_batches(rows: Rows) -> Rows:
    """Make of the rows of batches what is hashed: whole digests, and no numbers."""
    return [
        (
            *row[:_DIGEST],
            whole_digest(row[_DIGEST], row[-1], *row[_N : _MAX + 1]),
            *row[_DIGEST + 1 : -1],
        )
        for row in rows
    ]


def attempt_rows(connection: Connection, run_ids: list[int]) -> Iterator[tuple[int, Rows]]:
    """Read the attempts of runs with what is known of their answers, some of one at a time."""
    n = len(_OF_MEMBER)
    for run_id, rows in _by_run(connection, _ATTEMPTS, run_ids):
        yield run_id, [row if row[-n] is not None else row[:-n] for row in rows]


def added_rows(connection: Connection, run_ids: list[int]) -> Iterator[tuple[int, Rows]]:
    """Read what few attempts have: the figures beside the numbers of runs, then their proofs."""
    return chain(_by_run(connection, _MEASURES, run_ids), _by_run(connection, _PROOFS, run_ids))


def hash_record(run: Rows, tallies: Rows, losses: Rows) -> str:
    """Hash what stays of a run when it is pruned."""
    return hash_rows([run, sorted(tallies, key=_encode), sorted(losses, key=_encode)])
