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
from pipeline.store.numbers import is_sound
from pipeline.store.seals import RowHash, Rows, attempt_rows, batch_rows, hash_record, run_rows
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
    """

    run_id: int
    is_there: bool = True
    batches: int = 0
    attempts: int = 0
    numbers: int = 0
    record: str = ""
    contents: str = ""
    missing: list[int] = field(default_factory=list)
    next_number: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add_problem(self, text: str, number: int | None = None) -> None:
        """Say of the run, or of its batch with this *number*, what is wrong."""
        batch = None if number is None else f"w{number}"
        place = f"run {self.run_id}" if batch is None else f"run {self.run_id} {batch}"
        self.problems.append(Problem(text=f"{place}: {text}", run=self.run_id, batch=batch))


def structure_problems(session: Session) -> list[Problem]:
    """Let an SQLite database look for damage to its tables, indexes and references."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return []
    damage = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check")
    lines = [line for line in damage if line != "ok"] + [
        f"{table} row {row} refers to a row of {parent} that is gone"
        for table, row, parent, _ in dangling
    ]
    return [Problem(text=line) for line in lines]


def check_run(connection: Connection, *, run_id: int, is_pruned: bool = False) -> RunCheck:
    """Recompute each sum and digest of a run, its tallies and totals, and what its seal is over.

    Of a run that *is_pruned* only what stays is looked at, if the rest is gone.
    """
    check = RunCheck(run_id=run_id)
    try:
        run, tallies, losses = run_rows(connection, run_id)
        check.record = hash_record(run, tallies, losses)
        check.is_there = bool(run)
        found = _read_contents(connection, check)
        if run:
            of_run = dict(zip(RUNS.c.keys(), run[0], strict=True))
            if of_run["status"] != RunStatus.RUNNING.value:
                is_gone = is_pruned and not check.batches and not check.attempts
                _check_totals(check, of_run, tallies, None if is_gone else found)
    except DBAPIError as exc:  # damaged, so that SQLite or Python cannot make a value of it
        check.add_problem(f"cannot be read: {exc.orig}")
    except UnicodeDecodeError:  # the message says what is damaged, and quotes it
        check.add_problem("cannot be read: damaged")
    except TypeError:
        check.add_problem("holds something else where a count should be")
    return check


def _read_contents(connection: Connection, check: RunCheck) -> Mapping[Any, Figures]:
    """Go once over the batches and attempts, and give what they add up to by source."""
    hashing = RowHash()
    found: defaultdict[Any, Figures] = defaultdict(Counter)
    for rows in batch_rows(connection, check.run_id, with_numbers=True):
        hashing.add([row[:-1] for row in rows])
        _count_batches(check, rows, found)
    for rows in attempt_rows(connection, check.run_id):
        hashing.add(rows)
        _count_attempts(check, rows, found)
    check.contents = hashing.hexdigest()
    return found


def _look_for_gaps(check: RunCheck, rows: Rows) -> None:
    first, last = rows[0][1], rows[-1][1]
    if first != check.next_number or last - first + 1 != len(rows):
        there = {row[1] for row in rows}
        gaps = (number for number in range(check.next_number, last) if number not in there)
        check.missing += islice(gaps, MOST_NAMES)
    check.next_number = last + 1


def _count_batches(check: RunCheck, rows: Rows, found: Mapping[Any, Figures]) -> None:
    _look_for_gaps(check, rows)
    check.batches += len(rows)
    for row in rows:
        _, number, source, n, low, high, verdict, _, _, _, total, digest, _, _, _, _, packed = row
        figures = found[source]
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


def _count_attempts(check: RunCheck, rows: Rows, found: Mapping[Any, Figures]) -> None:
    check.attempts += len(rows)
    for row in rows:
        figures = found[row[_SOURCE]]
        try:
            figures["attempts"] += 1
            figures["failed_attempts"] += row[_ERROR] is not None
            figures["retries"] += row[_NUMBER] > 1
            figures["wait_us"] += row[_WAIT] or 0
            figures["exchange_us"] += sum(filter(None, row[_EXCHANGE]))
        except TypeError:
            check.add_problem(f"attempt {row[0]} is damaged")


def _check_totals(
    check: RunCheck, run: Mapping[str, Any], rows: Rows, found: Mapping[Any, Figures] | None
) -> None:
    """Hold the totals of a run to its tallies, and both to what was *found* if that is not gone."""
    tallies = [dict(zip(TALLIES.c.keys(), row, strict=True)) for row in rows]
    if found is None:
        for total, figure in _TOTALS.items():
            if run[total] != (added := _add_up(tally[figure] for tally in tallies)):
                check.add_problem(f"its total says {run[total]} {total}, its tallies {added}")
        return
    whole = sum(found.values(), Counter())
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
    _check_tallies(check, tallies, found)


def _check_tallies(
    check: RunCheck, tallies: Iterable[Mapping[str, Any]], found: Mapping[Any, Figures]
) -> None:
    missing = dict(found)
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
