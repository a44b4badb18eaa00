"""Is history as it was written? Walks the chain of seals once, and holds every run to its own.

It reads in many short transactions, so that a run which collects need not wait for the end of it:
a run that has ended never changes, unless it is pruned, and then its seal says so.

What is no history has no seal, and nothing here can vouch for it: when upstreams may be asked,
slots, contracts, and the histograms of timings.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Row, Select, Table, exists, func, select, text

from pipeline.models import Evidence, Request, RunStatus
from pipeline.store.checks import Problem, RunCheck, check_runs
from pipeline.store.db import Store
from pipeline.store.seals import (
    PRUNING,
    RUN,
    Seal,
    as_stored,
    hash_pruning,
    newest_seal,
    pruned_seals,
    read_seals,
    unsealed_runs,
)
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    EVIDENCE,
    LOSSES,
    REQUESTS,
    RUNS,
    SEALS,
    TALLIES,
)
from pipeline.store.writes import digest_of_evidence, digest_of_request

SEALS_AT_ONCE = 500
ROWS_AT_ONCE = 10_000  # batches and attempts in one transaction, if no run has more
EXCHANGES_AT_ONCE = 200


class Mark(NamedTuple):
    """A place in the chain that can be written down."""

    position: int
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at, where the chain ends now, and what is not as it was written.

    Attributes:
        pruned: how many of the runs have rightly lost their batches.
        numbers: those of the batches, as far as they were kept.
        head: None if no run has ended yet.
    """

    runs: int
    pruned: int
    batches: int
    attempts: int
    numbers: int
    head: Mark | None
    problems: tuple[Problem, ...]


def verify(
    store: Store,
    *,
    expected: Mark | None = None,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Verification:
    """Look at all of history once; *watch* is told how many seals are done, and how many there are.

    *expected* is a head that was noted earlier: it tells whether what was before it has been
    written anew since.

    Raises:
        StoreError: the chain itself cannot be read.
    """
    walk = _Walk(expected)
    with store.read() as session:
        newest = newest_seal(session.connection())
    is_going_on = True
    while is_going_on:
        with store.read() as session:
            is_going_on = walk.go_on(session.connection())
        watch(walk.position, max(walk.position, newest.position if newest else 0))
    with store.read() as session:
        connection = session.connection()
        # A run that ended since the last look is neither a stray nor one that goes on.
        while walk.go_on(connection):
            pass
        running = _running_runs(connection)
        walk.problems += _strays(connection, walk.position, walk.removed)
    for run_id in running:
        with store.read() as session:
            (found,) = check_runs(session.connection(), {run_id: False})
        walk.count(found)
    walk.problems += _changed_exchanges(store)
    return walk.verification()


class _Walk:
    """How far it has come along the chain, and what it has found."""

    def __init__(self, expected: Mark | None) -> None:
        self.position = 0
        self.removed: set[int] = set()  # runs that only have their seal left
        self.problems: list[Problem] = []
        self._expected = expected
        self._head: Mark | None = None
        # What the chain is so far: as it is stored and, if that is wrong, as it should be.
        self._chains: tuple[str, ...] = ("",)
        self._runs = self._pruned = self._batches = self._attempts = self._numbers = 0

    def go_on(self, connection: Connection) -> bool:
        """Check some more of the chain; False at its end."""
        seals = _portion(
            connection, read_seals(connection, after=self.position, limit=SEALS_AT_ONCE)
        )
        runs = {seal.run_id or 0: seal.pruned_by is not None for seal in seals if seal.kind == RUN}
        checks = {check.run_id: check for check in check_runs(connection, runs)}
        for seal in seals:
            before, gap = self._chains, range(self.position + 1, seal.position)
            if gap:
                self.problems.append(_missing_seals(gap))
            is_whole = bool(gap) or seal.chain in (seal.link(chain) for chain in before)
            if not is_whole:
                self._add(seal, f"{_of(seal)} was changed")
            if seal.kind == RUN:
                self._hold_to(seal, checks[seal.run_id or 0], before)
            self._chains = (seal.chain,) if is_whole else (seal.chain, seal.link(before[0]))
            self._arrive_at(seal)
        return bool(seals)

    def count(self, found: RunCheck) -> None:
        """Take over what a look at a run has found."""
        self._runs += 1
        self._batches += found.batches
        self._attempts += found.attempts
        self._numbers += found.numbers
        self.problems += found.problems

    def verification(self) -> Verification:
        """Give what was found, at the end."""
        if (noted := self._expected) and noted.position > self.position:
            line = f"position {noted.position}: was noted, but the chain ends at {self.position}"
            self.problems.append(Problem(text=line, position=noted.position))
        return Verification(
            runs=self._runs,
            pruned=self._pruned,
            batches=self._batches,
            attempts=self._attempts,
            numbers=self._numbers,
            head=self._head,
            problems=tuple(self.problems),
        )

    def _add(self, seal: Seal, text: str) -> None:
        line = f"position {seal.position}: {text}"
        self.problems.append(Problem(text=line, run=seal.run_id, position=seal.position))

    def _arrive_at(self, seal: Seal) -> None:
        self.position = seal.position
        self._head = Mark(seal.position, seal.chain)
        noted = self._expected
        if noted and noted.position == seal.position and noted.chain != seal.chain:
            self._add(seal, "another chain was noted; what is before it has been written anew")

    def _hold_to(self, seal: Seal, found: RunCheck, before: Iterable[str]) -> None:
        """Compare what was *found* of a run with its seal."""
        if found.is_gone:
            self._pruned += 1
            found.contents = seal.contents
        sealed = seal._replace(record=found.record, contents=found.contents)
        if not found.is_there:
            self.removed.add(found.run_id)
            found.add_problem(f"was removed; its seal is left at position {seal.position}")
        # Else the run is as it was, and only what the seal says of it was changed.
        elif seal.chain not in (sealed.link(chain) for chain in before):
            since = f"were changed since it was sealed at position {seal.position}"
            if found.record != seal.record:
                found.add_problem(f"its row, its tallies or its losses {since}")
            if found.contents != seal.contents:
                found.add_problem(f"its batches, its attempts or their answers {since}")
        self.count(found)


def _portion(connection: Connection, seals: list[Seal]) -> list[Seal]:
    """Take as many of *seals* as a transaction should read the runs of, one at least."""
    rows = RUNS.c.ordered + RUNS.c.attempts
    runs = [seal.run_id for seal in seals]
    sizes = dict(iter(connection.execute(select(RUNS.c.id, rows).where(RUNS.c.id.in_(runs)))))
    before = accumulate((sizes.get(run_id) or 0 for run_id in runs), initial=0)
    return [seal for seal, size in zip(seals, before, strict=False) if size < ROWS_AT_ONCE]


def _of(seal: Seal) -> str:
    return "the seal of a pruning" if seal.kind == PRUNING else f"the seal of run {seal.run_id}"


def _missing_seals(gap: range) -> Problem:
    seals = "the seal was" if len(gap) == 1 else f"the seals to position {gap[-1]} were"
    return Problem(text=f"position {gap[0]}: {seals} removed", position=gap[0])


def _running_runs(connection: Connection) -> list[int]:
    query = select(RUNS.c.id).where(RUNS.c.status == RunStatus.RUNNING.value).order_by(RUNS.c.id)
    return list(connection.scalars(query))


def _strays(connection: Connection, position: int, removed: set[int]) -> Iterator[Problem]:
    """Find what belongs to no run, and what the walk along the chain could not meet."""
    for run_id in unsealed_runs(connection):
        line = f"run {run_id}: is not in the chain; it was inserted, or its seal was removed"
        yield Problem(text=line, run=run_id)
    if connection.dialect.name == "sqlite":  # a server skips an id whenever a start fails
        yield from _missing_runs(connection, removed)
        newest = _last_given(connection, SEALS)
        if newest > position:
            yield _missing_seals(range(position + 1, newest + 1))
    for table in (BATCHES, ATTEMPTS):
        for run_id in connection.scalars(_runs_only_in(table)):
            if run_id not in removed:
                line = f"run {run_id}: is not there, but {table.name} has rows of it"
                yield Problem(text=line, run=run_id)
    for table in (TALLIES, LOSSES):
        for run_id in connection.scalars(_rows_of_no_run(table)):
            line = f"run {run_id}: {table.name} has a row that is not its own"
            yield Problem(text=line, run=run_id)
    yield from _wrong_prunings(connection)


def _missing_runs(connection: Connection, removed: set[int]) -> Iterator[Problem]:
    before = func.lag(RUNS.c.id, 1, 0).over(order_by=RUNS.c.id)
    pairs = select(before.label("before"), RUNS.c.id).subquery()
    query = select(pairs.c.before, pairs.c.id).where(pairs.c.id > pairs.c.before + 1)
    gaps = [range(before + 1, run_id) for before, run_id in connection.execute(query)]
    newest = connection.scalar(select(func.max(RUNS.c.id))) or 0
    for gap in (*gaps, range(newest + 1, _last_given(connection, RUNS) + 1)):
        if gap and not removed.issuperset(gap[: len(removed) + 1]):
            runs = f"run {gap[0]}: was" if len(gap) == 1 else f"runs {gap[0]} to {gap[-1]}: were"
            yield Problem(text=f"{runs} removed", run=gap[0])


def _last_given(connection: Connection, table: Table) -> int:
    query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    return connection.scalar(query, {"name": table.name}) or 0


def _runs_only_in(table: Table) -> Select[int]:
    """Ask for the runs that *table* has rows of, jumping from run to run along its key."""
    ids = select(func.min(table.c.run_id).label("id")).cte("ids", recursive=True)
    following = select(func.min(table.c.run_id)).where(table.c.run_id > ids.c.id)
    ids = ids.union_all(select(following.scalar_subquery()).where(ids.c.id.is_not(None)))
    is_known = exists().where(RUNS.c.id == ids.c.id)
    return select(ids.c.id).where(ids.c.id.is_not(None), ~is_known)


def _rows_of_no_run(table: Table) -> Select[int]:
    run = (RUNS.c.id == table.c.run_id) & (RUNS.c.started_at == table.c.started_at)
    return select(table.c.run_id).where(~exists().where(run)).order_by(table.c.run_id)


def _wrong_prunings(connection: Connection) -> Iterator[Problem]:
    query = select(SEALS.c.position, SEALS.c.record, SEALS.c.contents)
    rows = connection.execute(query.where(SEALS.c.kind == PRUNING))
    prunings = {position: (record, contents) for position, record, contents in rows}
    marked = groupby(pruned_seals(connection), key=lambda seal: seal.pruned_by)
    wrong = {at for at, seals in marked if prunings.pop(at or 0, None) != hash_pruning(seals)}
    for position in sorted(wrong | set(prunings)):
        line = f"position {position}: the runs marked as pruned there are not those that were"
        yield Problem(text=line, position=position)


def _changed_exchanges(store: Store) -> Iterator[Problem]:
    """Hash every answer and request once more, and find those that belong to no attempt."""
    for kind in (_ANSWERS, _REQUESTS):
        for row in _rows_of(store, kind):
            if not row.is_used:
                yield Problem(text=f"{kind.name} {row.digest}: belongs to no attempt")
            elif not _has_digest(row, kind.digest):
                yield Problem(text=f"{kind.name} {row.digest}: was changed")


def _digest_of_answer(row: Row[*tuple[Any, ...]]) -> str:
    headers = tuple((name, value) for name, value in json.loads(row.headers))
    answer = Evidence(status=row.status, headers=headers, body=row.body, body_bytes=row.body_bytes)
    return digest_of_evidence(answer)


def _digest_of_sent(row: Row[*tuple[Any, ...]]) -> str:
    headers = tuple((name, value) for name, value in json.loads(row.headers))
    return digest_of_request(
        Request(method=row.method, url=row.url, headers=headers, body=row.body)
    )


class _Kind(NamedTuple):
    """One of the two tables that attempts refer to."""

    name: str
    table: Table
    reference: Column[Any]
    digest: Callable[[Row[*tuple[Any, ...]]], str]


_ANSWERS = _Kind("answer", EVIDENCE, ATTEMPTS.c.evidence, _digest_of_answer)
_REQUESTS = _Kind("request", REQUESTS, ATTEMPTS.c.request, _digest_of_sent)


def _rows_of(store: Store, kind: _Kind) -> Iterator[Row[*tuple[Any, ...]]]:
    """Read a whole table by its digests, some rows in a transaction."""
    digest = kind.table.c.digest
    (key,) = kind.table.primary_key
    is_used = exists().where(kind.reference == key)
    query = select(*map(as_stored, kind.table.c), is_used.label("is_used"))
    query = query.order_by(digest).limit(EXCHANGES_AT_ONCE)
    last = ""
    while True:
        with store.read() as session:
            rows = session.connection().execute(query.where(digest > last)).all()
        if not rows:
            return
        yield from rows
        last = rows[-1].digest


def _has_digest(row: Row[*tuple[Any, ...]], digest: Callable[[Row[*tuple[Any, ...]]], str]) -> bool:
    try:
        return bool(digest(row) == row.digest)
    except (TypeError, ValueError, AttributeError):  # not even the kinds of the values are right
        return False
