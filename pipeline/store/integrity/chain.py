"""The hash chain over the runs that ended: it shows whether history was changed.

Each run that ends adds a seal. Its ``record`` is a hash over the run's row, its tallies and its
losses, which stay; its ``contents`` one over its batches and attempts, which may be pruned; its
``chain`` one over both and the chain of the seal before. What is hashed is always SHA-256 over
rows, each of them written as a JSON array in ASCII without spaces, and a comma: times as the text
``2026-01-31T23:59:59.000000Z`` (SQLite holds them as microseconds since 1970), bytes in hex, true
as 1. Where ``batches`` and ``attempts`` hold a number for a source it is the name that ``sources``
has under it, and for a verdict the word: 1 collected, 2 failed, 3 deferred, 4 cancelled. Whoever
mistrusts this program can do it all again with sqlite3 and json.

- ``record``: the row of ``runs``; then those of ``tallies`` and of ``losses``, each table's sorted
  by their JSON.
- ``contents``: the rows of ``batches`` by number, with the length of ``numbers`` for the numbers
  themselves, as the digest stands for them: all 32 bytes of it, of which a row that has its numbers
  holds 8 (SHA-256 over ``n``, ``min`` and ``max``, 8 bytes each, and ``numbers``); then those of
  ``attempts`` by fetch and number, without ``member``, followed by the status, headers, body_bytes
  and first_seen_at of their evidence, for whose body its key stands, by the digest of their
  request and, if there is a member, by that, its host and its pid; then those of
  ``measures``, if there are any, by fetch, number and name, and those of ``proofs``, if there are
  any, by fetch and number.
- ``chain``: one row of the chain before (empty for the first), position, kind, run_id, sealed_at,
  record and contents.

A pruning has a seal as well: its ``record`` is over the ids of the runs pruned, one row each, its
``contents`` over the ``contents`` of their seals, both in the order of their positions.

Columns come in the order of ``tables/``. Whoever can write the file can also write a new chain:
only a link that was noted elsewhere proves that there was another one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

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
    exists,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType
from sqlmodel import Session

from pipeline.models import RunStatus
from pipeline.rendering.words import iso_time
from pipeline.store.columns import EPOCH, Code, Hex, SourceName, UtcTime, name_of
from pipeline.store.numbers import whole_digest
from pipeline.store.rows import ROWS_AT_ONCE
from pipeline.store.schema import hold_revision
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    EVIDENCE,
    LOSSES,
    MEASURES,
    MEMBERS,
    PROOFS,
    REQUESTS,
    RUNS,
    SEALS,
    TALLIES,
)

RUN, PRUNING = "run", "pruning"

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


def _summaries(table: Table) -> Select[*tuple[Any, ...]]:
    """Ask for rows that lie in the order of time, not of runs."""
    run = (RUNS.c.id == table.c.run_id) & (RUNS.c.started_at == table.c.started_at)
    query = select(*map(as_stored, table.c)).select_from(RUNS.join(table, run))
    return query.where(RUNS.c.id.in_(_WANTED)).order_by(RUNS.c.id)


_RUNS = select(*map(as_stored, RUNS.c)).where(RUNS.c.id.in_(_WANTED))
_TALLIES = _summaries(TALLIES)
_LOSSES = _summaries(LOSSES)
_BATCHES = (
    select(
        *(as_stored(column) for column in BATCHES.c if column is not BATCHES.c.numbers),
        func.length(BATCHES.c.numbers).label("length"),
        as_stored(BATCHES.c.numbers),
    )
    .where(BATCHES.c.run_id.in_(_WANTED))
    .order_by(BATCHES.c.run_id, BATCHES.c.number)
)
_DIGEST, _N, _MAX = (BATCHES.c.keys().index(name) for name in ("digest", "n", "max"))
_ATTEMPTS = (
    select(
        *(as_stored(column) for column in ATTEMPTS.c if column is not ATTEMPTS.c.member),
        *(
            as_stored(EVIDENCE.c[name])
            for name in ("status", "headers", "body_bytes", "first_seen_at")
        ),
        as_stored(REQUESTS.c.digest),
        as_stored(ATTEMPTS.c.member),
        as_stored(MEMBERS.c.host),
        as_stored(MEMBERS.c.pid),
    )
    .select_from(ATTEMPTS)
    .outerjoin(EVIDENCE, EVIDENCE.c.digest == ATTEMPTS.c.evidence)
    .outerjoin(REQUESTS, REQUESTS.c.id == ATTEMPTS.c.request)
    .outerjoin(MEMBERS, MEMBERS.c.id == ATTEMPTS.c.member)
    .where(ATTEMPTS.c.run_id.in_(_WANTED))
    .order_by(ATTEMPTS.c.run_id, ATTEMPTS.c.fetch, ATTEMPTS.c.number)
)
_OF_MEMBER = 3  # columns, the last ones
_MEASURES = (
    select(*map(as_stored, MEASURES.c))
    .where(MEASURES.c.run_id.in_(_WANTED))
    .order_by(MEASURES.c.run_id, MEASURES.c.fetch, MEASURES.c.number, MEASURES.c.name)
)
_PROOFS = (
    select(*map(as_stored, PROOFS.c))
    .where(PROOFS.c.run_id.in_(_WANTED))
    .order_by(PROOFS.c.run_id, PROOFS.c.fetch, PROOFS.c.number)
)
_SEALS = select(*map(as_stored, SEALS.c))
_NEWEST = _SEALS.order_by(SEALS.c.position.desc()).limit(1)
_ADD_SEAL = insert(SEALS)


class Seal(NamedTuple):
    """One row of the chain as it is stored, times as they lie in the database."""

    position: int
    kind: str
    run_id: int | None
    sealed_at: Any
    record: str
    contents: str
    chain: str
    pruned_by: int | None

    def link(self, previous: str, *, record: str | None = None, contents: str | None = None) -> str:
        """Work out what the chain should be here, if it was *previous* before."""
        of = (record or self.record, contents or self.contents)
        row = (previous, self.position, self.kind, self.run_id, self.sealed_at, *of)
        return hash_rows([[row]])


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
    for run_id, rows in _by_run(connection, _ATTEMPTS, run_ids):
        yield run_id, [row if row[-_OF_MEMBER] is not None else row[:-_OF_MEMBER] for row in rows]


def added_rows(connection: Connection, run_ids: list[int]) -> Iterator[tuple[int, Rows]]:
    """Read what few attempts have: the figures beside the numbers of runs, then their proofs."""
    return chain(_by_run(connection, _MEASURES, run_ids), _by_run(connection, _PROOFS, run_ids))


def hash_record(run: Rows, tallies: Rows, losses: Rows) -> str:
    """Hash what stays of a run when it is pruned."""
    return hash_rows([run, sorted(tallies, key=_encode), sorted(losses, key=_encode)])


def seal_run(session: Session, *, run_id: int, sealed_at: datetime) -> int:
    """Add a run that has just ended, with its tallies and losses written, to the chain.

    Gives the position of its seal.
    """
    connection = session.connection()
    contents = RowHash()
    for _, rows in batch_rows(connection, [run_id]):
        contents.add(hashed_batches(rows))
    for _, rows in chain(attempt_rows(connection, [run_id]), added_rows(connection, [run_id])):
        contents.add(rows)
    record = hash_record(*record_rows(connection, [run_id])[run_id])
    return _append(
        connection,
        kind=RUN,
        run_id=run_id,
        sealed_at=sealed_at,
        record=record,
        contents=contents.hexdigest(),
    )


def unsealed_runs(connection: Connection, *, first: int = 1) -> list[int]:
    """List the runs from *first* on that have ended and are not in the chain, oldest first."""
    is_sealed = exists().where(SEALS.c.run_id == RUNS.c.id)
    has_ended = RUNS.c.status != RunStatus.RUNNING
    query = select(RUNS.c.id).where(RUNS.c.id >= first, has_ended, ~is_sealed)
    return list(connection.scalars(query.order_by(RUNS.c.id)))


def seal_pruning(session: Session, *, runs: Select[int], sealed_at: datetime) -> None:
    """Add to the chain that the contents of *runs* are to be deleted; their seals say so too."""
    connection = session.connection()
    lock_chain(connection)  # else a run sealed between the statements is marked and not hashed
    record, contents = hash_pruning(_stream(connection, _SEALS.where(SEALS.c.run_id.in_(runs))))
    position = _append(
        connection,
        kind=PRUNING,
        run_id=None,
        sealed_at=sealed_at,
        record=record,
        contents=contents,
    )
    session.exec(update(SEALS).where(SEALS.c.run_id.in_(runs)).values(pruned_by=position))


def hash_pruning(seals: Iterable[Seal]) -> tuple[str, str]:
    """Give ``record`` and ``contents`` of the pruning of runs whose *seals* come in their order."""
    ids, contents = RowHash(), RowHash()
    for seal in seals:
        ids.add([(seal.run_id,)])
        contents.add([(seal.contents,)])
    return ids.hexdigest(), contents.hexdigest()


def read_seals(connection: Connection, *, after: int, limit: int) -> list[Seal]:
    """Read the next *limit* seals of the chain behind the position *after*."""
    query = _SEALS.where(SEALS.c.position > after).order_by(SEALS.c.position).limit(limit)
    return [Seal(*row) for row in connection.execute(query)]


def read_seals_back(connection: Connection, *, until: int, limit: int) -> list[Seal]:
    """Read the last *limit* seals of the chain up to the position *until*, in their order."""
    query = _SEALS.where(SEALS.c.position <= until).order_by(SEALS.c.position.desc()).limit(limit)
    return [Seal(*row) for row in connection.execute(query)][::-1]


def pruned_seals(connection: Connection, *, after: int) -> Iterator[Seal]:
    """Read the seals of runs pruned behind the position *after*, those of each pruning together."""
    query = _SEALS.where(SEALS.c.pruned_by > after).order_by(SEALS.c.pruned_by)
    return _stream(connection, query)


def _stream(connection: Connection, query: Select[*tuple[Any, ...]]) -> Iterator[Seal]:
    options = {"yield_per": ROWS_AT_ONCE}
    rows = connection.execute(query.order_by(SEALS.c.position), execution_options=options)
    return (Seal(*row) for row in rows)


def newest_seal(connection: Connection) -> Seal | None:
    """Read the head of the chain; None if nothing was ever sealed."""
    row = connection.execute(_NEWEST).first()
    return None if row is None else Seal(*row)


def lock_chain(connection: Connection) -> None:
    """Let only one at a time add to the chain, until its transaction ends."""
    # A lock on the newest seal would not do: who waits for it goes on with the seal that was the
    # newest before.
    hold_revision(connection)


def _append(
    connection: Connection,
    *,
    kind: str,
    run_id: int | None,
    sealed_at: datetime,
    record: str,
    contents: str,
) -> int:
    lock_chain(connection)
    newest = newest_seal(connection)
    position = newest.position + 1 if newest else 1
    seal = Seal(position, kind, run_id, sealed_at, record, contents, "", None)
    chain = seal.link(newest.chain if newest else "")
    connection.execute(_ADD_SEAL, seal._replace(chain=chain)._asdict())
    return position
