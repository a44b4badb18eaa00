"""Verify the whole history: follow the chain of seals, and compare every run with its seal.

It reads in many short transactions, so that a run which collects need not wait for the end of it:
a run that has ended never changes, unless it is pruned, and then its seal says so. So parts of the
chain can be followed at once; one last transaction sees how it ends, and what is left over.

What is no history has no seal, and nothing here can vouch for it: when upstreams may be asked,
slots, contracts, the histograms of timings; nor for attempts that came when their run was sealed
(``store/late.py``). What the tests of health said has none either, but follows from the numbers, so
it is worked out once more; and so are the sums of days and months.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import ColumnElement, Connection, func, select

from pipeline.models import RunStatus
from pipeline.store.db import Store
from pipeline.store.integrity.chain import newest_seal, read_seals
from pipeline.store.integrity.checks import Problem, check_runs
from pipeline.store.integrity.exchanges import changed_exchanges
from pipeline.store.integrity.health import (
    Retested,
    finish_tests,
    join,
    retest,
    sources_of,
    start_tests,
)
from pipeline.store.integrity.noted import Mark, Noted
from pipeline.store.integrity.processes import Submit, workers
from pipeline.store.integrity.strays import find_strays
from pipeline.store.integrity.sums import Check, check_sums, first_open_day, plan_checks
from pipeline.store.integrity.walk import Walk, follow_chain
from pipeline.store.rollups import Examine
from pipeline.store.tables import RUNS, SEALS

ROWS_PER_PROCESS = 100_000  # for fewer it does not pay to start one
PARTS_PER_PROCESS = 8  # of the chain, so that none has to wait long for the others at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at, where the chain ends now, and what is not as it was written.

    Attributes:
        pruned: how many of the runs have rightly lost their batches.
        numbers: those of the batches, as far as they were kept.
        head: None if no run has ended yet.
        since: what was not looked at again; None if everything was read.
        noted: to be noted, if all of it is sound and a run has ended.
    """

    runs: int
    pruned: int
    batches: int
    attempts: int
    numbers: int
    head: Mark | None
    problems: tuple[Problem, ...]
    since: Noted | None = None
    noted: Noted | None = None


def verify(
    store: Store,
    *,
    noted: Noted | None = None,
    expected: Mark | None = None,
    examine: Examine | None = None,
    cores: int = 1,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Verification:
    """Check all of history, or what came since the head that was *noted* and is in the chain.

    *watch* is told how much is done, and how much there is to do; *cores* is how many processes may
    share the work. The sums of days are checked with what says what an audit has to *examine*.
    *expected* is a head that was noted elsewhere: it tells whether what was before it has been
    written anew since.

    Raises:
        StoreError: the chain itself cannot be read.
    """
    with store.read() as session:
        plan = _plan(session.connection(), noted, examine, cores)
    with workers(store, plan.processes, lambda done: watch(done, plan.steps)) as submit:
        walk, tests = _carry_out(plan, submit)
    while True:
        with store.read() as session:
            connection = session.connection()
            # A run that ended since the last look is neither a stray nor one that goes on.
            while walk.go_on(connection):
                pass
            if finished := finish_tests(connection, tests):
                is_running = RUNS.c.status == RunStatus.RUNNING
                running = list(connection.scalars(select(RUNS.c.id).where(is_running)))
                walk.problems += find_strays(
                    connection, position=walk.position, removed=walk.removed, noted=noted
                )
                walk.hold_to(connection, expected)
                made = _make_note(connection, plan, walk, finished, running)
                break
        with store.read() as session:
            start = start_tests(session.connection(), noted)
        tests = retest(store, lambda _: None, start=start)
    for run_id in sorted(running):
        with store.read() as session:
            (found,) = check_runs(session.connection(), {run_id: False})
        walk.count(found)
    walk.problems += finished.problems
    return Verification(
        **walk.counts,
        head=walk.head,
        problems=tuple(walk.problems),
        since=noted,
        noted=None if walk.problems else made,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be done, as it was seen at one moment.

    Attributes:
        newest: the position of the newest seal then.
        parts: stretches of the chain up to there, by the positions behind which they begin and end.
        sources: whose numbers are tested by one process each; None is all of them.
        problems, checks: of the sums of days and months.
    """

    noted: Noted | None
    began_at: datetime
    newest: int
    processes: int
    parts: list[tuple[int, int]]
    tests: Retested
    sources: Sequence[list[str] | None]
    problems: list[Problem]
    checks: list[Check]
    sums_from: datetime | None

    @property
    def steps(self) -> int:
        """Count the seals that are looked at, for the runs and for each of the tests."""
        first = self.parts[0][0] if self.parts else self.newest
        later = max(0, self.newest - self.tests.position)
        return self.newest - first + later * len(self.sources)


def _plan(
    connection: Connection, noted: Noted | None, examine: Examine | None, cores: int
) -> _Plan:
    seal = newest_seal(connection)
    after, newest = noted.head.position if noted else 0, seal.position if seal else 0
    rows = select(func.sum(RUNS.c.ordered + RUNS.c.attempts)).where(_is_after(after))
    processes = max(1, min(cores, (connection.scalar(rows) or 0) // ROWS_PER_PROCESS))
    problems: list[Problem] = []
    checks: list[Check] = []
    if examine:
        first = _first_start(connection, after)
        since = _earlier(noted.sums_from, first) if noted else None
        problems, checks = plan_checks(connection, examine, since)
    sources = sources_of(connection) if processes > 1 else []  # for one they need not be shared
    shares = min(processes, len(sources))
    size = max(1, -(-(newest - after) // (processes * PARTS_PER_PROCESS))) if processes > 1 else 0
    begins = range(after, newest, size or max(1, newest - after))
    return _Plan(
        noted=noted,
        began_at=datetime.now(UTC),
        newest=newest,
        processes=processes,
        parts=list(zip(begins, [*begins[1:], newest], strict=False)),
        tests=start_tests(connection, noted),
        sources=[sources[number::processes] for number in range(shares)] or [None],
        problems=problems,
        checks=checks,
        sums_from=first_open_day(connection) if examine else None,
    )


def _carry_out(plan: _Plan, submit: Submit) -> tuple[Walk, Retested]:
    """Have everything done; what takes longest begins first, and the chain is looked at first."""
    tests = [
        submit(partial(retest, start=plan.tests, until=plan.newest, sources=each))
        for each in plan.sources
    ]
    some = max(1, -(-len(plan.checks) // (plan.processes * PARTS_PER_PROCESS)))
    sums = [
        submit(partial(check_sums, checks=plan.checks[first : first + some]))
        for first in range(0, len(plan.checks), some)
    ]
    after = plan.noted.head.position if plan.noted else 0
    exchanges = submit(partial(changed_exchanges, after=after))
    parts = [
        submit(partial(follow_chain, noted=plan.noted, after=after, until=until))
        for after, until in plan.parts
    ]
    walk = Walk(plan.noted.head if plan.noted else None)
    for part in parts:
        walk.join(part())
    walk.problems += exchanges()
    found = join([each() for each in tests])
    walk.problems += plan.problems
    for each in sums:
        walk.problems += each()
    return walk, found


def _is_after(position: int) -> ColumnElement[bool]:
    return (SEALS.c.run_id == RUNS.c.id) & (SEALS.c.position > position)


def _first_start(connection: Connection, after: int) -> datetime | None:
    """Find when the first of the runs started that were sealed behind a position."""
    started = select(func.min(RUNS.c.started_at)).where(_is_after(after))
    first: datetime | None = connection.scalar(started)
    return first


def _earlier(moment: datetime | None, other: datetime | None) -> datetime | None:
    """Give the earlier of two moments; the first may stand for the beginning of time."""
    return min(moment, other) if moment and other else moment


def _make_note(
    connection: Connection, plan: _Plan, walk: Walk, tests: Retested, running: list[int]
) -> Noted | None:
    first = read_seals(connection, after=0, limit=1)
    if not first or walk.head is None or tests.states is None:
        return None
    newest = connection.scalar(select(func.max(RUNS.c.id))) or 0
    before = plan.noted
    return Noted(
        began=first[0].chain,
        head=walk.head,
        batches=walk.counts["batches"] + (before.batches if before else 0),
        verified_at=plan.began_at,
        all_verified_at=before.all_verified_at if before else plan.began_at,
        first_run=min([*running, newest + 1]),
        # What ended since the sums were looked at may have changed those of its day.
        sums_from=_earlier(plan.sums_from, _first_start(connection, plan.newest)),
        states=tuple(tests.states.values()),
    )
