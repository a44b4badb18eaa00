"""Test the numbers of each source and range, over all runs, and keep what the tests say.

The order is that of the chain: a run is tested in the transaction that ends and seals it, whoever
ends it, and its numbers in the order of its batches. Batches are stored as they come, in any order,
so nothing could be tested earlier that would come out the same when it is worked out again. Numbers
that are not kept are not tested.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, Select, bindparam, func, insert, select, update
from sqlmodel import Session

from pipeline.health.blocks import block_size, examine_block
from pipeline.health.continuous import Excess, Progress, follow, limits_of
from pipeline.models import Verdict
from pipeline.store.numbers import distances, width_of
from pipeline.store.rows import AnyRow, as_row, record
from pipeline.store.tables import (
    BATCHES,
    HEALTH,
    HEALTH_ALARMS,
    HEALTH_BLOCKS,
    RUNS,
    SEALS,
    SOURCES,
)

ResultRow: TypeAlias = dict[str, Any]

LINKS_AT_ONCE = 500
BATCHES_AT_ONCE = 200  # with their numbers


class NumberRange(NamedTuple):
    """The numbers of one source in one range; those of the sandbox apart."""

    source: str
    is_sandbox: bool
    min: int
    max: int

    @classmethod
    def of(cls, record: Any) -> "NumberRange":  # noqa: ANN401 - whatever has these fields
        """Name the range that a record is of."""
        return cls(record.source, record.is_sandbox, record.min, record.max)


@dataclass(slots=True, kw_only=True)
class HealthState(Progress):
    """How far the tests have come with the numbers of a range.

    Attributes:
        position: of the newest seal whose run brought any.
        first_at: when the first of these runs started, ``last_at`` the newest.
        block: the numbers, packed, that came since the last block was full.
    """

    source: str
    is_sandbox: bool
    min: int
    max: int
    position: int
    first_at: datetime
    last_at: datetime
    block: bytes = b""


class Results(NamedTuple):
    """What came out of the tests of a run: rows of ``HEALTH_ALARMS`` and ``HEALTH_BLOCKS``."""

    alarms: list[ResultRow]
    blocks: list[ResultRow]


_TESTED = ("run_id", "source", "is_sandbox", "min", "max", "number", "n", "numbers")
_RANGE = itemgetter(1, 2, 3, 4)  # of these
_NUMBERS = (
    select(*(BATCHES.c[name] for name in _TESTED))
    .where(
        BATCHES.c.run_id == bindparam("run"),
        BATCHES.c.verdict == Verdict.COLLECTED.value,
        BATCHES.c.numbers.is_not(None),
    )
    .order_by(BATCHES.c.number)
    .execution_options(yield_per=BATCHES_AT_ONCE)
)
_SOME = select(SOURCES.c.id).where(SOURCES.c.name.in_(bindparam("sources", expanding=True)))
_NUMBERS_OF_SOME = _NUMBERS.where(BATCHES.c.source.in_(_SOME))
_STATES = select(HEALTH).order_by(*HEALTH.primary_key)
_ADD_STATE = insert(HEALTH)
_CHANGE_STATE = update(HEALTH).where(
    HEALTH.c.is_pruned == bindparam("kept"),
    *(HEALTH.c[name] == bindparam(f"the_{name}") for name in NumberRange._fields),
)


def examine_run(session: Session, *, position: int) -> None:
    """Test the numbers of the run that has just been sealed at *position*."""
    connection = session.connection()
    watch = Watch(read_states(connection, is_pruned=False))
    (link,) = find_links(connection, after=position - 1, limit=1)
    save_results(connection, watch.follow_run(connection, link))
    save_states(connection, watch, is_pruned=False)


def examine_all(connection: Connection) -> None:
    """Test all numbers of a store that no test has seen."""
    watch, position = Watch({}), 0
    while found := find_links(connection, after=position, limit=LINKS_AT_ONCE):
        for link in found:
            save_results(connection, watch.follow_run(connection, link))
        position = found[-1].position
    save_states(connection, watch, is_pruned=False)


def leave_behind(connection: Connection, *, run_ids: Collection[int]) -> None:
    """Note how far the tests had come with runs whose numbers are about to be pruned.

    From there ``recompute`` can begin when they are gone. Runs that were sealed before any of them
    are counted in as well, pruned or not: the order is that of the chain.
    """
    position, watch = start_of_what_is_left(connection)
    newest = select(func.max(SEALS.c.position)).where(SEALS.c.run_id.in_(run_ids))
    until = connection.scalar(newest) or 0
    while found := find_links(connection, after=position, until=until, limit=LINKS_AT_ONCE):
        for link in found:
            watch.follow_run(connection, link)
        position = found[-1].position
    save_states(connection, watch, is_pruned=True)


def start_of_what_is_left(connection: Connection) -> tuple[int, "Watch"]:
    """Begin where the numbers begin that were never pruned: behind this position of the chain."""
    states = read_states(connection, is_pruned=True)
    return max((state.position for state in states.values()), default=0), Watch(states)


def save_results(connection: Connection, results: Results) -> None:
    """Write down what the tests say."""
    for table, rows in zip((HEALTH_ALARMS, HEALTH_BLOCKS), results, strict=True):
        if rows:
            connection.execute(insert(table), rows)


def save_states(connection: Connection, watch: "Watch", *, is_pruned: bool) -> None:
    """Write down how far the tests have come, where that has changed."""
    known, new = [], []
    for of, state in watch.changed.items():
        row = _as_row(state)
        if of in watch.known:
            known.append(row | {f"the_{name}": row[name] for name in of._fields})
        else:
            new.append(row)
    for statement, rows, name in ((_CHANGE_STATE, known, "kept"), (_ADD_STATE, new, "is_pruned")):
        if rows:
            connection.execute(statement, [row | {name: is_pruned} for row in rows])


def read_states(connection: Connection, *, is_pruned: bool) -> dict[NumberRange, HealthState]:
    """Read how far the tests have come: now, or with the runs that were pruned."""
    rows = connection.execute(_STATES.where(HEALTH.c.is_pruned == is_pruned))
    return {NumberRange(*row[:4]): _as_state(row) for row in rows}


def _as_row(state: HealthState) -> dict[str, object]:
    """Flatten a state; as numbers themselves, for distances may be beyond an integer column."""
    numbers = {"last": state.min + state.last, "sample": state.min + state.sample}
    return as_row(HEALTH, state) | numbers


def _as_state(row: AnyRow) -> HealthState:
    return record(HealthState, row, last=row.last - row.min, sample=row.sample - row.min)


class Link(NamedTuple):
    """A run that has ended, by its seal in the chain."""

    position: int
    run_id: int
    started_at: datetime


def find_links(
    connection: Connection, *, after: int, limit: int, until: int | None = None
) -> list[Link]:
    """List the next *limit* runs of the chain behind the position *after*, up to *until*."""
    query: Select[*tuple[Any, ...]] = (
        select(SEALS.c.position, SEALS.c.run_id, RUNS.c.started_at)
        .join(RUNS, RUNS.c.id == SEALS.c.run_id)
        .where(SEALS.c.position > after)
        .order_by(SEALS.c.position)
        .limit(limit)
    )
    if until is not None:
        query = query.where(SEALS.c.position <= until)
    return [Link(*row) for row in connection.execute(query)]


class Watch:
    """Follows the numbers of all sources and ranges, run by run.

    Attributes:
        states: how far it has come, by range.
        known: the ranges that there were at the beginning, ``changed`` those with more numbers.
        sources: those whose numbers it follows; None is all.
    """

    def __init__(
        self, states: dict[NumberRange, HealthState], *, sources: list[str] | None = None
    ) -> None:
        self.states, self.known, self.sources = states, frozenset(states), sources
        self.changed: dict[NumberRange, HealthState] = {}

    def follow_run(self, connection: Connection, link: Link) -> Results:
        """Go on with the numbers of a run; those of a batch that is damaged are left out."""
        alarms: dict[Any, ResultRow] = {}
        blocks: list[ResultRow] = []
        chosen = {"run": link.run_id, "sources": self.sources}
        query = _NUMBERS if self.sources is None else _NUMBERS_OF_SOME
        for rows in connection.execute(query, chosen).partitions():
            for key, batches in groupby(rows, key=_RANGE):
                of = NumberRange(*key)
                width = width_of(of.min, of.max)
                if whole := [row for row in batches if len(row.numbers) == row.n * width]:
                    state = self._state(of, link)
                    _follow_range(state, link, whole, alarms)
                    blocks += _full_blocks(state, link)
        return Results([*alarms.values()], blocks)

    def _state(self, of: NumberRange, link: Link) -> HealthState:
        at, began_at = link.position, link.started_at
        state = self.states.get(of)
        if state is None:
            state = HealthState(**of._asdict(), position=at, first_at=began_at, last_at=began_at)
        state.position, state.last_at = at, began_at
        self.states[of] = self.changed[of] = state
        return state


def _follow_range(
    state: HealthState, link: Link, batches: Sequence[Any], alarms: dict[Any, ResultRow]
) -> None:
    ends = list(accumulate(row.n for row in batches))
    whole = b"".join(row.numbers for row in batches)
    numbers = distances(whole, ends[-1], state.min, state.max)
    limits = limits_of(state.min, state.max)
    if limits is None:  # no number tells anything where there is only one
        state.numbers += ends[-1]
        return
    state.block += whole
    for excess in follow(state, limits, numbers):
        batch = batches[bisect_right(ends, excess.at)].number
        key = (NumberRange.of(state), excess.test, excess.severity)
        if key not in alarms:
            alarms[key] = _alarm(state, link.run_id, excess, batch)
        else:
            _add(alarms[key], excess, state.min + excess.value)


def _alarm(state: HealthState, run_id: int, excess: Excess, batch: int) -> ResultRow:
    return NumberRange.of(state)._asdict() | {
        "run_id": run_id,
        "test": excess.test,
        "severity": excess.severity,
        "batch": batch,
        "position": state.numbers + excess.at + 1,
        "alarms": 1,
        "value": state.min + excess.value,
        "times": excess.times,
        "cut_off": excess.cut_off,
    }


def _add(alarm: ResultRow, excess: Excess, value: int) -> None:
    """Count an excess to those of this run that the same test found at the same cut-off."""
    alarm["alarms"] += excess.is_new
    if excess.times > alarm["times"]:
        alarm |= {"value": value, "times": excess.times}


def _full_blocks(state: HealthState, link: Link) -> Iterator[ResultRow]:
    """Test each block that is full now."""
    size, width = block_size(state.min, state.max), width_of(state.min, state.max)
    while len(state.block) >= size * width and state.max > state.min:
        full, state.block = state.block[: size * width], state.block[size * width :]
        numbers = distances(full, size, state.min, state.max)
        yield {
            **NumberRange.of(state)._asdict(),
            "block": (state.numbers - len(state.block) // width) // size - 1,
            "run_id": link.run_id,
            "started_at": link.started_at,
            "n": size,
            "most": max(Counter(numbers).values()),
            **examine_block(numbers, state.max - state.min + 1),
        }
