"""Does the store still say what was written? SQLite keeps no checksums, so a part of it is ours.

One run is looked at here: its batches against their digests, its tallies and totals against its
batches and attempts. Everything is read as it lies in the database, since what was damaged may
stand for no value at all. ``verification`` walks over all runs and holds them to their seals.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from pipeline.models import RunStatus, Verdict
from pipeline.store.damage import find_damage
from pipeline.store.numbers import is_sound
from pipeline.store.seals import (
    RowHash,
    Rows,
    attempt_rows,
    batch_rows,
    hash_record,
    record_rows,
)
from pipeline.store.tables import ATTEMPTS, RUNS, TALLIES

MOST_NAMES = 10  # batches that are named one by one

_COLLECTED = Verdict.COLLECTED.value
_VERDICTS = tuple(verdict.value for verdict in Verdict)
# The totals of a run, and the names of the same figures in its tallies.
_TOTALS = {
    **{name: name for name in (*_VERDICTS, "numbers", "attempts")},
    "waited_us": "exchange_us",
}
_OF_ATTEMPTS = ("attempts", "failed_attempts", "retries", "wait_us", "exchange_us")
_IN_TALLIES = (*_VERDICTS, "numbers", *_OF_ATTEMPTS)
_AT = {name: index for index, name in enumerate(ATTEMPTS.c.keys())}
_SOURCE, _NUMBER, _WAIT, _ERROR = (_AT[name] for name in ("source", "number", "wait_us", "error"))
_EXCHANGE = slice(_AT["dns_us"], _AT["check_us"] + 1)

Figures = Counter[Any]  # the verdict of a batch may be anything, if it is damaged


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
    """What a look at one run found.

    Attributes:
        batches: how many were looked at, ``numbers`` how many of theirs, ``attempts`` of the run.
        record, contents: what its seal should say.
        missing: numbers of batches that should lie between the others, a few of them.
        next_number: that of a batch which would lie behind them.
        figures: what its batches and attempts add up to, by source.
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
    figures: defaultdict[Any, Figures] = field(default_factory=lambda: defaultdict(Counter))
    hashing: RowHash = field(default_factory=RowHash)

    @property
    def is_gone(self) -> bool:
        """Tell whether nothing is left of it but what stays of a pruned run."""
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
    for run_id, rows in batch_rows(connection, run_ids, with_numbers=True):
        check = checks[run_id]
        check.hashing.add([row[:-1] for row in rows])
        _count_batches(check, rows)
    for run_id, rows in attempt_rows(connection, run_ids):
        checks[run_id].hashing.add(rows)
        _count_attempts(checks[run_id], rows)
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
        _, number, source, n, low, high, verdict, _, _, _, total, digest, _, _, _, _, packed = row
        figures = check.figures[source]
        figures[verdict] += 1
        if verdict != _COLLECTED:
            continue
        try:
            figures["numbers"] += n
            figures["sum"] += total
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
        figures = check.figures[row[_SOURCE]]
        try:
            figures["attempts"] += 1
            figures["failed_attempts"] += row[_ERROR] is not None
            figures["retries"] += row[_NUMBER] > 1
            figures["wait_us"] += row[_WAIT] or 0
            figures["exchange_us"] += sum(filter(None, row[_EXCHANGE]))
        except TypeError:
            check.add_problem(f"attempt {row[0]} is damaged")


def _check_totals(check: RunCheck, run: Mapping[str, Any], rows: Rows) -> None:
    """Hold the totals of a run that has ended to its tallies, and both to what was counted."""
    if run["status"] == RunStatus.RUNNING.value:
        return
    tallies = [dict(zip(TALLIES.c.keys(), row, strict=True)) for row in rows]
    if check.is_gone:
        for total, figure in _TOTALS.items():
            if run[total] != (added := _add_up(tally[figure] for tally in tallies)):
                check.add_problem(f"its total says {run[total]} {total}, its tallies {added}")
        return
    whole = sum(check.figures.values(), Counter())
    for total, figure in _TOTALS.items():
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
    missing = dict(check.figures)
    for tally in tallies:
        source = tally["source"]
        figures = missing.pop(source, Counter())
        stored = {name: tally[name] for name in _IN_TALLIES} | {"sum": tally["sum"]}
        added = {name: figures[name] for name in _IN_TALLIES} | {"sum": str(figures["sum"])}
        for name, value in stored.items():
            if value != added[name]:
                check.add_problem(f"the tally of {source} says {value} {name}, not {added[name]}")
    for source in missing:
        check.add_problem(f"the tally of {source} was removed")


def _add_up(figures: Iterable[Any]) -> object:
    """Add *figures* up, unless one of them is damaged so much that it is no number."""
    try:
        return sum(figures)
    except TypeError:
        return "no number"
