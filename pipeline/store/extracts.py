"""What an export reads: plain rows, a page at a time, each page in a short transaction of its own.

A page begins after the key of the last row of the one before, so every page of a long export costs
the same, and a run that collects meanwhile never waits for more than one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Integer, Table, and_, func, select, tuple_
from sqlalchemy import Column as SqlColumn
from sqlmodel import Session

from pipeline.models import RunStatus
from pipeline.store.columns import UtcTime
from pipeline.store.rows import AnyRow
from pipeline.store.tables import (
    ATTEMPT_KEY,
    ATTEMPTS,
    BATCH_KEY,
    BATCHES,
    MEMBERS,
    PROOF_KEY,
    PROOFS,
    RUNS,
    SEALS,
    TALLIES,
    same,
)
from pipeline.store.window import EVERYTHING, Window, of_source, within

RUNS_PER_PAGE = 100
ROWS_PER_PAGE = 5_000
NUMBERS_PER_PAGE = 100_000  # a page of large batches has fewer rows, if it has their numbers

TYPES = ((UtcTime, datetime), (Boolean, bool), (Integer, int))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """The runs that an export is about: those that had ended when it began, as far as wanted.

    Attributes:
        source: leaves out what concerns other sources.
        running: the ids of those that were going on: what they are is not final.
        first: the smallest id, 0 if there is no run.
        last: the largest.
        wanted: the same in SQL, for the table ``runs``.
    """

    source: str | None
    running: frozenset[int]
    first: int
    last: int
    wanted: ColumnElement[bool]


def select_runs(
    session: Session,
    window: Window = EVERYTHING,
    *,
    source: str | None = None,
    run_id: int | None = None,
) -> Selection:
    """Choose the runs that started in a window, or one by its id.

    It fixes which runs there are, so that all pages, of several files even, are about the same.
    """
    conditions = within(RUNS.c.started_at, window)
    if run_id is not None:
        conditions.append(RUNS.c.id == run_id)
    connection = session.connection()
    is_running = RUNS.c.status == RunStatus.RUNNING
    running = frozenset(connection.scalars(select(RUNS.c.id).where(is_running, *conditions)))
    ends = select(func.min(RUNS.c.id), func.max(RUNS.c.id)).where(*conditions)
    first, last = connection.execute(ends).one()
    return Selection(
        source=source,
        running=running,
        first=first or 0,
        last=last or 0,
        wanted=and_(RUNS.c.id <= (last or 0), RUNS.c.id.not_in(running), *conditions),
    )


def sources_of(session: Session, selection: Selection) -> list[str]:
    """List the sources of which the runs have batches, in the order of their names."""
    query = select(BATCHES.c.source).join(RUNS, RUNS.c.id == BATCHES.c.run_id).distinct()
    wanted = query.where(selection.wanted, *of_source(BATCHES.c.source, selection.source))
    return sorted(session.connection().scalars(wanted))


def count_pruned(session: Session, selection: Selection) -> int:
    """Count the runs whose batches and attempts were pruned."""
    pruned = SEALS.c.pruned_by.is_not(None)
    query = select(func.count()).join_from(RUNS, SEALS, SEALS.c.run_id == RUNS.c.id)
    return session.connection().scalar(query.where(selection.wanted, pruned)) or 0


def read_runs(session: Session, selection: Selection, *, after: int) -> Sequence[AnyRow]:
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
    return session.connection().execute(query.limit(RUNS_PER_PAGE)).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """Rows of a table in the order of their key, with what others say of each.

    Attributes:
        key: its columns; the first of them is the run.
        tables: that table, and the others, each found *on* a condition.
        is_inner: only rows of which the others say something.
        is_of_numbers: only batches whose numbers were kept.
    """

    key: Sequence[SqlColumn[Any]]
    tables: Sequence[Table]
    on: Sequence[ColumnElement[bool]] = ()
    is_inner: bool = False
    is_of_numbers: bool = False

    def column(self, name: str) -> SqlColumn[Any]:
        """Find the column of this name."""
        return next(table.c[name] for table in self.tables if name in table.c)

    def type_of(self, name: str) -> type:
        """Tell what the cells of a column are, unless None."""
        sql = self.column(name).type
        return next((kind for type_, kind in TYPES if isinstance(sql, type_)), str)

    def read(
        self,
        session: Session,
        names: Sequence[str],
        *,
        after: tuple[int, ...],
        last_run: int,
        source: str | None,
    ) -> list[AnyRow]:
        """Read the page that follows the key *after*; empty if nothing follows up to *last_run*.

        The rows have the columns of the key and then those of these *names*.
        """
        query = select(*self.key, *map(self.column, names)).select_from(self.tables[0])
        for table, on in zip(self.tables[1:], self.on, strict=True):
            query = query.join(table, on, isouter=not self.is_inner)
        query = query.where(tuple_(*self.key) > after, self.key[0] <= last_run)
        if self.is_of_numbers:
            query = query.where(BATCHES.c.numbers.is_not(None))
        if source is not None:
            query = query.where(*of_source(self.column("source"), source))
        found = session.connection().execute(query.order_by(*self.key).limit(ROWS_PER_PAGE))
        rows: list[AnyRow] = []
        numbers = 0
        while numbers < NUMBERS_PER_PAGE and (row := found.fetchone()):
            rows.append(row)
            numbers += row.n if "numbers" in names else 0
        found.close()
        return rows


_IN_RUN = (BATCHES.c.run_id, BATCHES.c.number)
_DECIDING, _PROVING = same(ATTEMPT_KEY, BATCH_KEY), same(PROOF_KEY, BATCH_KEY)
_FIRST_OF_FETCH = same(_IN_RUN, ATTEMPT_KEY[:2])
_ASKING = MEMBERS.c.id == ATTEMPTS.c.member
RUN_ROWS = Extract(key=[RUNS.c.id], tables=[RUNS])
BATCH_ROWS = Extract(key=_IN_RUN, tables=[BATCHES, ATTEMPTS, MEMBERS], on=[_DECIDING, _ASKING])
NUMBER_ROWS = Extract(key=_IN_RUN, tables=[BATCHES], is_of_numbers=True)
PROOF_ROWS = Extract(key=_IN_RUN, tables=[BATCHES, PROOFS], on=[_PROVING], is_inner=True)
ATTEMPT_ROWS = Extract(
    key=ATTEMPT_KEY, tables=[ATTEMPTS, BATCHES, MEMBERS], on=[_FIRST_OF_FETCH, _ASKING]
)
