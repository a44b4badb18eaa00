"""Does the store still say what was written? SQLite keeps no checksums, so a part of it is ours."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlmodel import Session

from pipeline.models import RunStatus, Verdict
from pipeline.store import queries
from pipeline.store.numbers import is_intact
from pipeline.store.tables import RUNS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """What a look at one run found: batches and numbers looked at, and a line per problem."""

    batches: int
    numbers: int
    problems: tuple[str, ...]


def structure_problems(session: Session) -> list[str]:
    """Let an SQLite database look for damage to its tables, indexes and references."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return []
    damage = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return [line for line in damage if line != "ok"] + [
        f"{table} row {row} refers to a row of {parent} that is gone"
        for table, row, parent, _ in dangling
    ]


def run_ids(session: Session) -> list[int]:
    """List all runs, oldest first."""
    return list(session.connection().scalars(select(RUNS.c.id).order_by(RUNS.c.id)))


def check_run(session: Session, *, run_id: int) -> RunCheck:
    """Recompute each batch's sum and digest from its numbers, and the run's totals from them."""
    run = queries.get_run(session, run_id=run_id)
    counts: Counter[Verdict | None] = Counter()
    problems: list[str] = []
    numbers = looked_at = 0
    for batch in queries.batches_of_run(session, run_id=run_id, with_numbers=True):
        counts[batch.verdict] += 1
        if batch.verdict is Verdict.COLLECTED:
            numbers += batch.n
        looked_at += batch.n if batch.packed is not None else 0
        if not is_intact(batch):
            problems.append(f"run {run_id} {batch.name}: its numbers are not those collected")
    if run.status is not RunStatus.RUNNING:
        stored = (run.collected, run.failed, run.deferred, run.cancelled, run.numbers)
        found = (*(counts[verdict] for verdict in Verdict), numbers)
        problems += _differences(run_id, stored, found)
        if counts[None]:
            problems.append(f"run {run_id}: {counts[None]} batches have no outcome")
    return RunCheck(batches=counts.total(), numbers=looked_at, problems=tuple(problems))


def _differences(run_id: int, stored: tuple[int, ...], found: tuple[int, ...]) -> Iterator[str]:
    for name, total, count in zip((*Verdict, "numbers"), stored, found, strict=True):
        if total != count:
            yield f"run {run_id}: its total says {total} {name}, its batches {count}"
