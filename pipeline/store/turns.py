"""Whose turn it is: the batches of a source by the run that last asked for them.

Where the rules let only some of them go in each run, those that were asked for the longest time
ago go first; in the order of the file the last ones would never be asked for.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Row, Select
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.store.queries import newest_of
from pipeline.store.tables import BATCHES

LOOK_BACK = 5_000  # batches that are read beyond the last two runs of a source
ROWS_AT_ONCE = 500
_WANTED = ("run_id", "number", "n", "is_sandbox", "attempt", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """In which order the batches of one source are to be asked for.

    Attributes:
        positions: of the batches within the order of their source; empty: as they stand there.
        newest_run: the last one that asked the source for anything; 0: none did.
    """

    positions: Sequence[int] = ()
    newest_run: int = 0


def find_turns(
    session: Session, *, source: str, sizes: Sequence[int], is_sandbox: bool, before: int | None
) -> Turns:
    """Put the batches of *source* in order: never asked for, then the longest time ago.

    A batch is known by its place in the order and its size. One that failed goes before those of
    its run that were collected. Runs from *before* on are left out. What was not asked for as far
    as we look back comes in any order: chance lets nobody starve.
    """
    limit = 2 * len(sizes) + LOOK_BACK
    ages = [-1] * len(sizes)  # two for each run that was since
    unknown, newest_run, age, read = len(sizes), 0, 0, 0
    for run_id, rows in _runs(session, source, before, limit):
        read += len(rows)
        if read == limit:  # who knows how the order of this run began
            break
        first = rows[-1].number
        for row in rows:
            place = row.number - first
            if row.attempt is None or row.is_sandbox != is_sandbox:
                continue
            newest_run = newest_run or run_id
            if place < len(sizes) and sizes[place] == row.n and ages[place] < 0:
                ages[place] = age + (row.verdict != Verdict.COLLECTED.value)
                unknown -= 1
        if not unknown:
            break
        age += 2
    if len(set(ages)) == 1:
        return Turns(newest_run=newest_run)
    never = [place for place, since in enumerate(ages) if since < 0]
    if read == limit:
        random.shuffle(never)
    known = [place for place, since in enumerate(ages) if since >= 0]
    known.sort(key=lambda place: -ages[place])
    return Turns(positions=never + known, newest_run=newest_run)


def _runs(
    session: Session, source: str, before: int | None, limit: int
) -> Iterator[tuple[int, list[Row[*tuple[int, ...]]]]]:
    """Read the newest *limit* batches of *source*, run by run, the last one of each first."""
    options = {"yield_per": ROWS_AT_ONCE}
    query = _query(source, before, limit)
    with session.connection().execute(query, execution_options=options) as found:
        for run_id, rows in groupby(found, key=lambda row: row.run_id):
            yield run_id, list(rows)


def _query(source: str, before: int | None, limit: int) -> Select[*tuple[int, ...]]:
    query = newest_of(source, (BATCHES.c[name] for name in _WANTED), limit=limit)
    return query if before is None else query.where(BATCHES.c.run_id < before)
