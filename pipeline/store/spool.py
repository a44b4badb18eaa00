"""What a run could not store because others held the database: set aside in a file, and taken in.

The file lies beside the store, is whole or not there, and begins with a hash over all the rest.
Whoever opens the store to write takes it in first. That is done in one transaction, and leaves
alone what is stored already: a process that dies between the transaction and the removal of the
file makes no number count twice.
"""

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.files import blame
from pipeline.models import Attempt, Outcome, RunStatus, Verdict
from pipeline.rendering.words import count_of
from pipeline.store import late, plain, writes
from pipeline.store.numbers import stored_digest
from pipeline.store.rows import Columns, as_rows
from pipeline.store.tables import RUNS

HEAD = "pipeline-spool 1"
NAMES = ("run", "keep_numbers", "attempts", "outcomes")


def set_aside(
    path: Path,
    *,
    uid: str,
    attempts: Sequence[Attempt],
    outcomes: Sequence[Outcome],
    keep_numbers: bool,
) -> None:
    """Put what the run *uid* has in hand into a new file at *path*, for the owner of the store.

    Raises:
        StoreError: it cannot be written.
    """
    held = {
        "run": uid,
        "keep_numbers": keep_numbers,
        "attempts": attempts if keep_numbers else list(map(plain.without_numbers, attempts)),
        "outcomes": as_rows(writes.outcome_columns(0, outcomes, keep_numbers)),
    }
    try:
        plain.put(path, HEAD, held, replace=False)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}{blame(path)}") from exc


def find_files(beside: Path) -> list[Path]:
    """List the files for the store whose files begin with *beside*, ``<file>.spool-``."""
    return sorted(path for path in beside.parent.glob(f"{escape(beside.name)}*") if path.is_file())


def find_problem(path: Path) -> str | None:
    """Say why the file at *path* cannot be taken in by any store, if that is so."""
    try:
        _read(path)
    except StoreError as exc:
        return str(exc)
    except OSError as exc:
        return f"it cannot be read: {exc.strerror}"
    return None


def take_in(session: Session, path: Path) -> str:
    """Store what the file at *path* holds, as far as it is not there; give a line that says so.

    What is of a run that others have ended is kept beside it.

    Raises:
        StoreError: it is damaged, or not for this store; nothing of it is stored.
        FileNotFoundError: another process has taken it in.
    """
    held = _read(path)
    query = select(RUNS).where(RUNS.c.uid == held["run"]).with_for_update()  # nobody ends it now
    run = session.connection().execute(query).first()
    if run is None:
        raise StoreError("it is of a run that this store does not hold")
    rows = [
        # Before 0011 all of a digest was kept beside the numbers.
        row | {"in_run": run.id, "digest": stored_digest(row["digest"], row["numbers"])}
        for row in held["outcomes"]
    ]
    if run.status != RunStatus.RUNNING.value:
        facts = {name: held[name] for name in ("attempts", "keep_numbers")}
        n = late.keep(session, run_id=run.id, outcomes=rows, file=str(path), **facts)
        if not n:
            return f"run {run.id}: all that {path} holds was stored before"
        return (
            f"run {run.id} was ended by others before {count_of(n, 'attempt')} set aside in {path}"
            " came in: kept beside it; see `pipeline audit`"
        )
    numbers = writes.save_missing_attempts(
        session, run_id=run.id, attempts=held["attempts"], keep_numbers=held["keep_numbers"]
    )
    for row in rows:  # others may have asked for the same since
        row["attempt"] = numbers.get((row["fetch"], row["attempt"]), row["attempt"])
    if rows:
        columns: Columns = {name: [row[name] for row in rows] for name in rows[0]}
        writes.decide_batches(session, columns)
    n = sum(row["verdict"] == Verdict.COLLECTED.value for row in rows)
    return f"run {run.id}: {n} collected batches that were set aside in {path} are stored now"


def _read(path: Path) -> dict[str, Any]:
    body = plain.get(path, HEAD)
    if body is None:
        raise StoreError("it is damaged")
    try:
        held: dict[str, Any] = plain.read(body)
        attempts = list(map(plain.attempt, held["attempts"]))
        return {name: held[name] for name in NAMES} | {"attempts": attempts}
    except (KeyError, TypeError, ValueError) as exc:
        raise StoreError("it was written by another version of pipeline") from exc
