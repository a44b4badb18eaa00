"""What an export reads: plain rows, a page at a time, each page in a short transaction of its own.

A page begins after the key of the last row of the one before, so every page of a long export costs
the same, and a run that collects meanwhile never waits for more than one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    LargeBinary,
    and_,
    func,
    select,
    tuple_,
)
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Row as SqlRow
from sqlmodel import Session

from pipeline.models import RunStatus, Verdict
from pipeline.store.tables import ATTEMPTS, BATCHES, PHASE_COLUMNS, RUNS, SEALS, TALLIES, UtcText
from pipeline.store.window import within

RUNS_AT_ONCE = 100
ROWS_AT_ONCE = 5_000
NUMBERS_AT_ONCE = 100_000  # a page of large batches has fewer rows

Columns: TypeAlias = dict[str, type]  # by name what the cells are, unless None
Row: TypeAlias = SqlRow[*tuple[Any, ...]]


def _describe(columns: Iterable[SqlColumn[Any]]) -> Columns:
    return {column.name: _type(column) for column in columns}


def _type(column: SqlColumn[Any]) -> type:
    kinds = ((UtcText, datetime), (Boolean, bool), (Integer, int), (LargeBinary, bytes))
    return next((kind for sql, kind in kinds if isinstance(column.type, sql)), str)


RUN_COLUMNS = _describe(RUNS.c)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """The runs that an export is about: those that had ended when it began, as far as wanted.

    Attributes:
        source: leaves out what concerns other sources.
        running: the ids of those that were going on: what they are is not final.
        wanted: the same in SQL, for the table ``runs``.
    """

    source: str | None
    running: frozenset[int]
    wanted: ColumnElement[bool]


def select_runs(
    session: Session,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    source: str | None = None,
    run_id: int | None = None,
) -> Selection:
    """Choose runs by when they started (not before *since*, before *until*), or one by its id.

    It fixes which runs there are, so that all pages, of several files even, are about the same.
    """
    conditions = within(RUNS.c.started_at, since, until)
    if run_id is not None:
        conditions.append(RUNS.c.id == run_id)
    connection = session.connection()
    is_running = RUNS.c.status == RunStatus.RUNNING.value
    running = frozenset(connection.scalars(select(RUNS.c.id).where(is_running, *conditions)))
    newest = connection.scalar(select(func.max(RUNS.c.id))) or 0
    return Selection(
        source=source,
        running=running,
        wanted=and_(RUNS.c.id <= newest, RUNS.c.id.not_in(running), *conditions),
    )


def sources_of(session: Session, selection: Selection) -> list[str]:
    """List the sources of which the runs have batches, in the order of their names."""
    query = (
        select(BATCHES.c.source)
        .join(RUNS, RUNS.c.id == BATCHES.c.run_id)
        .where(selection.wanted)
        .distinct()
        .order_by(BATCHES.c.source)
    )
    if selection.source is not None:
        query = query.where(BATCHES.c.source == selection.source)
    return list(session.connection().scalars(query))


def count_pruned(session: Session, selection: Selection) -> int:
    """Count the runs whose batches and attempts were pruned."""
    query = (
        select(func.count())
        .select_from(RUNS)
        .join(SEALS, SEALS.c.run_id == RUNS.c.id)
        .where(selection.wanted, SEALS.c.pruned_by.is_not(None))
    )
    return session.connection().scalar(query) or 0


def read_runs(session: Session, selection: Selection, *, after: int) -> Sequence[Row]:
    """Read the next runs by their ids: all columns of ``runs``, and at the end ``expected``.

    That is how many batches the run collected (from the source, if there is one): the books say so
    even when the batches themselves are gone.
    """
    query = select(RUNS, RUNS.c.collected.label("expected"))
    if selection.source is not None:
        is_tally = (TALLIES.c.started_at == RUNS.c.started_at) & (TALLIES.c.run_id == RUNS.c.id)
        query = (
            select(RUNS, TALLIES.c.collected.label("expected"))
            .join(TALLIES, is_tally)
            .where(TALLIES.c.source == selection.source)
        )
    query = query.where(selection.wanted, RUNS.c.id > after).order_by(RUNS.c.id)
    return session.connection().execute(query.limit(RUNS_AT_ONCE)).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """Some columns of one table, its rows in the order of their key.

    Attributes:
        columns: the first of them are the key, and the very first is the run.
        key: how many.
        condition: which rows; None: all.
        is_heavy: whether the rows hold ``n`` numbers each, so that a page has fewer.
    """

    columns: Sequence[SqlColumn[Any]]
    key: int
    condition: ColumnElement[bool] | None = None
    is_heavy: bool = False

    def read(
        self, session: Session, *, after: tuple[int, ...], last_run: int, source: str | None
    ) -> list[Row]:
        """Read the page that follows the key *after*; empty if nothing follows up to *last_run*."""
        key = self.columns[: self.key]
        query = select(*self.columns).where(tuple_(*key) > after, key[0] <= last_run)
        if self.condition is not None:
            query = query.where(self.condition)
        if source is not None:
            query = query.where(key[0].table.c.source == source)
        found = session.connection().execute(query.order_by(*key).limit(ROWS_AT_ONCE))
        if not self.is_heavy:
            return list(found)
        rows: list[Row] = []
        numbers = 0
        while numbers < NUMBERS_AT_ONCE and (row := found.fetchone()):
            rows.append(row)
            numbers += row.n
        found.close()
        return rows

    def described(self, *, with_key: bool = False) -> Columns:
        """Give the names of the columns, and what their cells are."""
        return _describe(self.columns if with_key else self.columns[self.key :])


BATCH_ROWS = Extract(
    columns=[
        BATCHES.c[name]
        for name in (
            *("run_id", "number", "source", "n", "min", "max", "verdict", "sum", "digest"),
            *("error", "detail", "not_before", "fetch", "attempt", "offset"),
        )
    ],
    key=2,
)
NUMBER_ROWS = Extract(
    columns=[
        BATCHES.c[name]
        for name in ("run_id", "number", "source", "n", "min", "max", "digest", "numbers")
    ],
    key=2,
    condition=BATCHES.c.verdict == Verdict.COLLECTED.value,
    is_heavy=True,
)
ATTEMPT_ROWS = Extract(
    columns=[
        ATTEMPTS.c[name]
        for name in (
            *("run_id", "fetch", "number", "id", "source", "began_at", *PHASE_COLUMNS.values()),
            *("is_reused", "status", "body_bytes", "error", "phase", "detail", "retry_after_us"),
            "evidence",
        )
    ],
    key=3,
)
