"""Follow the chain of seals, and compare every run with its seal."""

from collections.abc import Iterable
from itertools import accumulate

from sqlalchemy import Connection, select

from pipeline.store.db import Store
from pipeline.store.integrity.chain import PRUNING, RUN, Seal, read_seals, read_seals_back
from pipeline.store.integrity.checks import Problem, RunCheck, check_runs
from pipeline.store.integrity.noted import Mark, Noted, has
from pipeline.store.integrity.processes import Tell
from pipeline.store.integrity.strays import missing_seals
from pipeline.store.tables import RUNS

SEALS_AT_ONCE = 500
ROWS_PER_TRANSACTION = 10_000  # batches and attempts in one transaction, if no run has more


def follow_chain(
    store: Store, tell: Tell, *, noted: Noted | None, after: int, until: int
) -> "Walk":
    """Follow a stretch of the chain."""
    is_at_note = noted is not None and noted.head.position == after
    with store.read() as session:
        connection = session.connection()
        walk = Walk(noted.head) if noted and is_at_note else Walk.behind(connection, after)
    is_going_on = True
    while is_going_on:
        before = walk.position
        with store.read() as session:
            is_going_on = walk.go_on(session.connection(), until=until)
        tell(walk.position - before)
    return walk


class Walk:
    """How far it has come along the chain, and what it has found.

    Attributes:
        removed: runs that only have their seal left.
        counts: what was looked at.
    """

    def __init__(self, head: Mark | None = None) -> None:
        self.head = head
        self.removed: set[int] = set()
        self.problems: list[Problem] = []
        self.counts = dict.fromkeys(("runs", "pruned", "batches", "attempts", "numbers"), 0)
        # What the chain is so far: as it is stored and, if that is wrong, as it should be.
        self._chains: tuple[str, ...] = (head.chain if head else "",)

    @classmethod
    def behind(cls, connection: Connection, position: int) -> "Walk":
        """Begin behind a seal that another walk looks at."""
        walk = cls()
        for seal in read_seals_back(connection, until=position, limit=2):
            walk._pass(seal)
        return walk

    @property
    def position(self) -> int:
        """Give that of the last seal."""
        return self.head.position if self.head else 0

    def go_on(self, connection: Connection, *, until: int | None = None) -> bool:
        """Check some more of the chain; False at its end, or behind *until*."""
        seals = read_seals(connection, after=self.position, limit=SEALS_AT_ONCE)
        seals = [seal for seal in seals if until is None or seal.position <= until]
        seals = _portion(connection, seals)
        runs = {seal.run_id or 0: seal.pruned_by is not None for seal in seals if seal.kind == RUN}
        checks = {check.run_id: check for check in check_runs(connection, runs)}
        for seal in seals:
            before = self._chains
            if gap := range(self.position + 1, seal.position):
                self.problems.append(missing_seals(gap))
            if not self._pass(seal):
                self._add(seal, f"{_of(seal)} was changed")
            if seal.kind == RUN:
                self._hold_to(seal, checks[seal.run_id or 0], before)
        return bool(seals)

    def _pass(self, seal: Seal) -> bool:
        """Go on to the next seal; tell whether it follows from the one before."""
        before, has_gap = self._chains, seal.position > self.position + 1
        is_whole = has_gap or seal.chain in (seal.link(chain) for chain in before)
        self._chains = (seal.chain,) if is_whole else (seal.chain, seal.link(before[0]))
        self.head = Mark(seal.position, seal.chain)
        return is_whole

    def join(self, other: "Walk") -> None:
        """Go on where the *other* one ended, which began where this one is."""
        self.head, self._chains = other.head, other._chains  # noqa: SLF001 - one of us
        self.removed |= other.removed
        self.problems += other.problems
        for name, count in other.counts.items():
            self.counts[name] += count

    def count(self, found: RunCheck) -> None:
        """Take over what a look at a run has found."""
        self.counts["runs"] += 1
        self.counts["pruned"] += found.is_gone
        for name in ("batches", "attempts", "numbers"):
            self.counts[name] += getattr(found, name)
        self.problems += found.problems

    def hold_to(self, connection: Connection, expected: Mark | None) -> None:
        """Compare the chain with a head that was noted."""
        if expected is None or has(connection, expected):
            return
        wrong = "another chain was noted; what is before it has been written anew"
        if expected.position > self.position:
            wrong = f"was noted, but the chain ends at {self.position}"
        line = f"position {expected.position}: {wrong}"
        self.problems.append(Problem(text=line, position=expected.position))

    def _add(self, seal: Seal, text: str) -> None:
        line = f"position {seal.position}: {text}"
        self.problems.append(Problem(text=line, run=seal.run_id, position=seal.position))

    def _hold_to(self, seal: Seal, found: RunCheck, before: Iterable[str]) -> None:
        """Compare what was *found* of a run with its seal."""
        if found.is_gone:
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
    return [seal for seal, size in zip(seals, before, strict=False) if size < ROWS_PER_TRANSACTION]


def _of(seal: Seal) -> str:
    return "the seal of a pruning" if seal.kind == PRUNING else f"the seal of run {seal.run_id}"
