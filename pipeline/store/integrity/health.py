"""Work out once more what the tests of health said, and compare it with what is kept."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import isclose
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, select, union
from sqlalchemy.exc import DBAPIError

from pipeline.store.db import Store
from pipeline.store.health import (
    HealthState,
    Link,
    NumberRange,
    ResultRow,
    Results,
    Watch,
    find_links,
    read_states,
    start_of_what_is_left,
)
from pipeline.store.integrity.checks import Problem
from pipeline.store.integrity.noted import Noted
from pipeline.store.integrity.processes import Tell
from pipeline.store.tables import HEALTH, HEALTH_ALARMS, HEALTH_BLOCKS, TALLIES

ORDER = (*NumberRange._fields, "test", "severity", "block")
RUNS_AT_ONCE = 100  # in one transaction
# What comes of values that are damaged: not even their types need be right.
DAMAGED = (DBAPIError, ArithmeticError, LookupError, TypeError, ValueError, struct.error)
UNREADABLE = Problem(text="health: cannot be read: damaged")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retested:
    """Numbers that were tested once more.

    Attributes:
        began_at: behind this position of the chain the tests began, and came to ``position``.
        states: how far they are there; None if what is stored cannot be read.
    """

    began_at: int
    position: int
    states: dict[NumberRange, HealthState] | None
    problems: list[Problem] = field(default_factory=list)


def start_tests(connection: Connection, noted: Noted | None = None) -> Retested:
    """Begin where numbers were never pruned, or where they were verified if that is farther on."""
    found = _read(start_of_what_is_left, connection)
    if found is None:
        return Retested(began_at=0, position=0, states=None, problems=[UNREADABLE])
    position, states = found[0], found[1].states
    if noted and noted.head.position >= position:
        position = noted.head.position
        states = {NumberRange.of(state): replace(state) for state in noted.states}
    return Retested(began_at=position, position=position, states=states)


def retest(
    store: Store,
    tell: Tell,
    *,
    start: Retested,
    until: int | None = None,
    sources: list[str] | None = None,
) -> Retested:
    """Test the numbers of *sources* once more, up to those of the seal *until*."""
    if start.states is None:
        return start
    chosen = {
        of: state for of, state in start.states.items() if not sources or of.source in sources
    }
    found, before = replace(start, states=chosen, problems=[*start.problems]), -1
    while found.position != before:
        before = found.position
        with store.read() as session:
            found = _go_on(session.connection(), found, until=until, sources=sources)
        tell(found.position - before)
    return found


def join(parts: list[Retested]) -> Retested:
    """Put together what was found of several sources."""
    states = [part.states for part in parts]
    return replace(
        parts[0],
        position=max(part.position for part in parts),
        states=None if None in states else {of: each[of] for each in states if each for of in each},
        problems=[problem for part in parts for problem in part.problems],
    )


def sources_of(connection: Connection) -> list[str]:
    """List all sources whose numbers may have been tested."""
    tables = (TALLIES, HEALTH, HEALTH_ALARMS, HEALTH_BLOCKS)
    return list(connection.scalars(union(*(select(table.c.source) for table in tables))))


def finish_tests(connection: Connection, found: Retested) -> Retested | None:
    """Test what came since, and compare how far the tests are; None if all must begin once more.

    That is so if runs were pruned meanwhile, behind where the tests began.
    """
    if start_tests(connection).began_at > found.began_at:
        return None
    before = -1
    while found.position != before:
        before = found.position
        found = _go_on(connection, found)
    if found.states is not None:
        found.problems.extend(_compare_states(connection, found.states))
    return found


def _go_on(
    connection: Connection,
    found: Retested,
    *,
    until: int | None = None,
    sources: list[str] | None = None,
) -> Retested:
    """Test the numbers of the next runs; there is none left if the position is the same."""
    if found.states is None:
        return found
    query = partial(find_links, after=found.position, limit=RUNS_AT_ONCE, until=until)
    links = _read(query, connection)
    if links is None:
        found.problems.append(UNREADABLE)
        return replace(found, states=None)
    watch = Watch(found.states, sources=sources)
    stored = _read(_stored, connection, [link.run_id for link in links], sources)
    for link in links:
        one = stored or _read(_stored, connection, [link.run_id], sources)
        found.problems.extend(
            _compare_run(connection, watch, link, one[link.run_id] if one else None)
        )
    return replace(found, position=links[-1].position) if links else found


def _read(read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
    """Read something; None if it is damaged."""
    try:
        return read(*arguments, **options)
    except DAMAGED:
        return None


def _compare_run(
    connection: Connection, watch: Watch, link: Link, stored: Results | None
) -> Iterator[Problem]:
    expected = _read(watch.follow_run, connection, link)
    if expected is None or stored is None or not _is_same(stored, expected):
        line = f"run {link.run_id}: the tests of its numbers do not come out as they were kept"
        yield Problem(text=line, run=link.run_id)


def _stored(
    connection: Connection, run_ids: list[int], sources: list[str] | None
) -> dict[int, Results]:
    found = {run_id: Results([], []) for run_id in run_ids}
    for place, table in enumerate((HEALTH_ALARMS, HEALTH_BLOCKS)):
        query = select(table).where(table.c.run_id.in_(run_ids))
        for row in connection.execute(query).mappings():
            if sources is None or row["source"] in sources:
                found[row["run_id"]][place].append(dict(row))
    return found


def _is_same(found: Results, expected: Results) -> bool:
    """Compare what the tests said."""
    return all(
        len(some) == len(others)
        and all(map(_is_same_row, sorted(some, key=_key), sorted(others, key=_key)))
        for some, others in zip(found, expected, strict=True)
    )


def _key(row: ResultRow) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ORDER)


def _is_same_row(row: ResultRow, other: ResultRow) -> bool:
    """Compare two rows; another machine may round a p-value otherwise."""
    return all(
        isclose(value, other[name])
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in row.items()
    )


def _compare_states(
    connection: Connection, states: dict[NumberRange, HealthState]
) -> Iterator[Problem]:
    found = _read(read_states, connection, is_pruned=False)
    if found is None:
        yield UNREADABLE
        return
    for of in sorted({*found, *states}):
        if found.get(of) != states.get(of):
            line = f"health: the state of {_name(of)} does not follow from its numbers"
            yield Problem(text=line)


def _name(of: NumberRange) -> str:
    return f"{of.source} ({of.min} to {of.max})"
