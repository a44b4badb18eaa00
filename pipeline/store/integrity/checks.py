"""Check single runs against their digests and totals, for SQLite keeps no checksums.

Batches are compared with their digests, tallies and totals with the batches and attempts, added up
by the function that wrote them. Everything is read raw, since a damaged value may stand for none.
``verify`` goes through all runs and compares them with their seals.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from pipeline.models import RunStatus, Verdict
from pipeline.store.integrity.contents import (
    RowHash,
    Rows,
    added_rows,
    attempt_rows,
    batch_rows,
    hash_record,
    hashed_batches,
    record_rows,
)
from pipeline.store.integrity.damage import find_damage
from pipeline.store.numbers import is_sound
from pipeline.store.summaries import COUNTS, RUN_TOTALS
from pipeline.store.tables import ATTEMPTS, BATCHES, RUNS, TALLIES

MOST_NAMES = 10  # batches that are named one by one

_OF_ATTEMPTS = ("attempts", "exchange_us")
_AT = {name: index for index, name in enumerate(ATTEMPTS.c.keys())}
_SOURCE, _NUMBER, _ERROR = (_AT[name] for name in ("source", "number", "error"))
_SUM, _DIGEST = (BATCHES.c.keys().index(name) for name in ("sum", "digest"))
_DURATIONS = slice(_AT["wait_us"], _AT["check_us"] + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it was written.

    Attributes:
        text: one line that names it.
        run: the id of the run concerned, ``batch`` the name of its batch, if it is one.
        position: that of the seal concerned, if it is one.
    """

    text: str
    run: int | None = None
    batch: str | None = None
    position: int | None = None


@dataclass(slots=True, kw_only=True)
class RunCheck:
    """What the check of one run found.

    Attributes:
        batches: how many were looked at, ``numbers`` how many of theirs, ``attempts`` of the run.
        record, contents: what its seal should say.
        missing: numbers of batches that should lie between the others, a few of them.
        next_number: that of a batch which would lie behind them.
        counts: what its batches and attempts add up to, by source.
        hashing: what becomes ``contents``.
    """

    run_id: int
    is_pruned: bool
    is_there: bool = False
    batches: int = 0
    attempts: int = 0
    numbers: int = 0
    record: str = ""
    contents: str = ""
    missing: list[int] = field(default_factory=list)
    next_number: int = 0
    problems: list[Problem] = field(default_factory=list)
    # The verdict of a batch may be anything, if it is damaged.
    counts: defaultdict[Any, Counter[Any]] = field(default_factory=lambda: defaultdict(Counter))
    hashing: RowHash = field(default_factory=RowHash)

    @property
    def is_gone(self) -> bool:
        """Tell whether it was pruned: only its row, tallies, losses and seal are left."""
        return self.is_pruned and not self.batches and not self.attempts

    def add_problem(self, text: str, number: int | None = None) -> None:
        """Say of the run, or of its batch with this *number*, what is wrong."""
        batch = None if number is None else f"w{number}"
        place = f"run {self.run_id}" if batch is None else f"run {self.run_id} {batch}"
        self.problems.append(Problem(text=f"{place}: {text}", run=self.run_id, batch=batch))


def structure_problems(session: Session) -> list[Problem]:
    """Let an SQLite database look for damage to its tables, indexes, values and references."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return []
    damage = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    lines = chain((line for line in damage if line != "ok"), find_damage(connection))
    return [Problem(text=line) for line in lines]


def check_runs(connection: Connection, runs: Mapping[int, bool]) -> list[RunCheck]:
    """Work out each sum, digest and total of some runs once more, and what their seals are over.

    *runs* tells of each whether it is pruned: then it is no problem that its batches are gone. Runs
    are read one by one if they cannot be read together, so that the one that is damaged is named.
    """
    if not runs:
        return []
    checks = {run_id: RunCheck(run_id=run_id, is_pruned=runs[run_id]) for run_id in runs}
    try:
        _check_together(connection, checks)
    except (DBAPIError, UnicodeDecodeError, TypeError) as exc:
        if len(runs) > 1:
            alone = (check_runs(connection, {run_id: runs[run_id]}) for run_id in runs)
            return list(chain.from_iterable(alone))
        (check,) = checks.values()
        check.add_problem(_meaning(exc))
    return list(checks.values())


def _meaning(exc: Exception) -> str:
    if isinstance(exc, DBAPIError):
        return f"cannot be read: {exc.orig}"
    if isinstance(exc, UnicodeDecodeError):  # SQLite quotes what is damaged, and that is no text
        return "cannot be read: damaged"
    return "holds something else where a count should be"


def _check_together(connection: Connection, checks: Mapping[int, RunCheck]) -> None:
    run_ids = list(checks)
    records = record_rows(connection, run_ids)
    for run_id, rows in batch_rows(connection, run_ids):
        check = checks[run_id]
        check.hashing.add(hashed_batches(rows))
        _count_batches(check, rows)
    for run_id, rows in attempt_rows(connection, run_ids):
        checks[run_id].hashing.add(rows)
        _count_attempts(checks[run_id], rows)
    for run_id, rows in added_rows(connection, run_ids):
        checks[run_id].hashing.add(rows)
    for run_id, check in checks.items():
        check.contents = check.hashing.hexdigest()
        run, tallies, losses = records.get(run_id, ([], [], []))
        check.record = hash_record(run, tallies, losses)
        check.is_there = bool(run)
        if run:
            _check_totals(check, dict(zip(RUNS.c.keys(), run[0], strict=True)), tallies)


def _look_for_gaps(check: RunCheck, rows: Rows) -> None:
    first, last = rows[0][1], rows[-1][1]
    if first != check.next_number or last - first + 1 != len(rows):
        there = {row[1] for row in rows}
        gaps = (number for number in range(check.next_number, last) if number not in there)
        check.missing += islice(gaps, MOST_NAMES)
    check.next_number = last + 1


def _count_batches(check: RunCheck, rows: Rows) -> None:
    _look_for_gaps(check, rows)
    check.batches += len(rows)
    for row in rows:
        _, number, source, _, n, low, high, verdict, *_, packed = row
        total, digest = row[_SUM], row[_DIGEST]
        try:
            counts = check.counts[source]
            counts[verdict] += 1
            if verdict != Verdict.COLLECTED:
                continue
            counts["numbers"] += n
            counts["sum"] += total
            is_good = packed is None or is_sound(packed, n, low, high, total=total, digest=digest)
        except (TypeError, ValueError, struct.error):  # not even the kinds of the values are right
            is_good = False
        if not is_good:
            check.add_problem("its numbers are not those collected", number)
        elif packed is not None:
            check.numbers += n


def _count_attempts(check: RunCheck, rows: Rows) -> None:
    check.attempts += len(rows)
    for row in rows:
        counts = check.counts[row[_SOURCE]]
        try:
            _count_attempt(counts, row[_NUMBER], row[_ERROR], row[_DURATIONS])
        except TypeError:
            check.add_problem(f"attempt {row[0]} is damaged")


def _count_attempt(
    counts: Counter[Any], number: int, error: object, durations: Sequence[int | None]
) -> None:
    """Add an attempt to the *counts* of its source; the wait is the first of its *durations*."""
    counts["attempts"] += 1
    counts["failed_attempts"] += error is not None
    counts["retries"] += number > 1
    counts["retries_helped"] += error is None and number > 1
    counts["wait_us"] += durations[0] or 0
    counts["exchange_us"] += sum(filter(None, durations[1:]))


def _check_totals(check: RunCheck, run: Mapping[str, Any], rows: Rows) -> None:
    """Hold the totals of a run that has ended to its tallies, and both to what was counted."""
    if run["status"] == RunStatus.RUNNING:
        return
    tallies = [dict(zip(TALLIES.c.keys(), row, strict=True)) for row in rows]
    if check.is_gone:
        for total, figure in RUN_TOTALS.items():
            if run[total] != (added := _add_up(tally[figure] for tally in tallies)):
                check.add_problem(f"its total says {run[total]} {total}, its tallies {added}")
        return
    whole = sum(check.counts.values(), Counter())
    for total, figure in RUN_TOTALS.items():
        if run[total] != whole[figure]:
            rows_of = "attempts" if figure in _OF_ATTEMPTS else "batches"
            check.add_problem(f"its total says {run[total]} {total}, its {rows_of} {whole[figure]}")
    if whole[None]:
        check.add_problem(f"{whole[None]} batches have no outcome")
    if run["ordered"] != check.batches:
        gone = chain(check.missing, range(check.next_number, run["ordered"]))
        for number in islice(gone, MOST_NAMES):
            check.add_problem("was removed", number)
    _check_tallies(check, tallies)


def _check_tallies(check: RunCheck, tallies: Iterable[Mapping[str, Any]]) -> None:
    missing = dict(check.counts)
    for tally in tallies:
        source = tally["source"]
        counts = missing.pop(source, Counter())
        for name in (*COUNTS, "sum"):
            # Compared as text: the sum is stored as text, for it may be larger than an integer.
            if str(tally[name]) != str(counts[name]):
                line = f"the tally of {source} says {tally[name]} {name}, not {counts[name]}"
                check.add_problem(line)
    for source in missing:
        check.add_problem(f"the tally of {source} was removed")


def _add_up(figures: Iterable[Any]) -> object:
    """Add *figures* up, unless one of them is damaged so much that it is no number."""
    try:
        return sum(figures)
    except TypeError:
        return "no number"
