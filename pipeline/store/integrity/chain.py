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

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, exists, insert, select, update
from sqlmodel import Session

from pipeline.models import RunStatus
from pipeline.store.integrity.contents import (
    RowHash,
    added_rows,
    as_stored,
    attempt_rows,
    batch_rows,
    hash_record,
    hash_rows,
    hashed_batches,
    record_rows,
)
from pipeline.store.rows import ROWS_AT_ONCE
from pipeline.store.schema import hold_revision
from pipeline.store.tables import RUNS, SEALS

RUN, PRUNING = "run", "pruning"

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

    def link(self, previous: str) -> str:
        """Work out what the chain should be here, if it was *previous* before."""
        return hash_rows([[(previous, *self[:-2])]])


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
    made = Seal(0, RUN, run_id, sealed_at, record, contents.hexdigest(), "", None)
    return _append(connection, made)


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
    made = Seal(0, PRUNING, None, sealed_at, record, contents, "", None)
    position = _append(connection, made)
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
    return list(_stream(connection, _SEALS.where(SEALS.c.position > after).limit(limit)))


def read_seals_back(connection: Connection, *, until: int, limit: int) -> list[Seal]:
    """Read the last *limit* seals of the chain up to the position *until*, in their order."""
    query = _NEWEST.where(SEALS.c.position <= until).limit(limit)
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


def _append(connection: Connection, seal: Seal) -> int:
    """Give a *seal* its place in the chain, write it down, and tell its position."""
    lock_chain(connection)
    newest = newest_seal(connection)
    seal = seal._replace(position=newest.position + 1 if newest else 1)
    chain = seal.link(newest.chain if newest else "")
    connection.execute(_ADD_SEAL, seal._replace(chain=chain)._asdict())
    return seal.position
