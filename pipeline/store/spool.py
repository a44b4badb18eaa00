"""What a run could not store because others held the database: set aside in a file, and taken in.

The file lies beside the store, is whole or not there, and begins with a hash over all the rest.
Whoever opens the store to write takes it in first. That is done in one transaction, and leaves
alone what is stored already: a process that dies between the transaction and the removal of the
file makes no number count twice.
"""

import json
from base64 import b85decode, b85encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase, StoreError
from pipeline.files import blame, make_folder, owner_at, publish, unfinished
from pipeline.models import (
    Aspect,
    Attempt,
    Evidence,
    Measure,
    Outcome,
    Proof,
    ProofWord,
    Request,
    RunStatus,
    Timings,
    Verdict,
)
from pipeline.rendering.words import iso_time
from pipeline.store import writes
from pipeline.store.numbers import stored_digest
from pipeline.store.rows import Columns, as_rows
from pipeline.store.tables import BATCHES, RUNS

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
        # An answer that was accepted holds the numbers, and so does its proof.
        "attempts": [
            attempt
            if keep_numbers or attempt.error
            else replace(attempt, evidence=None, proof=None)
            for attempt in attempts
        ],
        "outcomes": as_rows(writes.outcome_columns(0, outcomes, keep_numbers)),
    }
    body = json.dumps(held, default=_plain).encode("ascii")
    try:
        make_folder(path.parent)
        # The name of the store is that of the file without its end, which has no dot.
        with unfinished(path, owner=owner_at(path.with_suffix(""))) as file:
            file.write(f"{HEAD} {sha256(body).hexdigest()}\n".encode() + body)
            publish(file, path, replace=False)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}{blame(path)}") from exc


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": b85encode(value).decode("ascii")}
    if isinstance(value, datetime):
        return {"time": iso_time(value)}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def _rich(found: dict[str, Any]) -> object:
    match found:
        case {"bytes": str(text), **rest} if not rest:
            return b85decode(text)
        case {"time": str(text), **rest} if not rest:
            return datetime.fromisoformat(text)
    return found


def find_files(beside: Path) -> list[Path]:
    """List the files for the store whose files begin with *beside*, ``<file>.spool-``."""
    return sorted(path for path in beside.parent.glob(f"{escape(beside.name)}*") if path.is_file())


def take_in(session: Session, path: Path) -> str:
    """Store what the file at *path* holds, as far as it is not there; give a line that says so.

    Raises:
        StoreError: it is damaged, or not for this store, or too late; nothing of it is stored.
        FileNotFoundError: another process has taken it in.
    """
    held = _read(path)
    run = session.connection().execute(select(RUNS).where(RUNS.c.uid == held["run"])).first()
    if run is None:
        raise StoreError("it is of a run that this store does not hold")
    rows = [
        # Before 0011 all of a digest was kept beside the numbers.
        row | {"in_run": run.id, "digest": stored_digest(row["digest"], row["numbers"])}
        for row in held["outcomes"]
    ]
    if run.status != RunStatus.RUNNING.value:
        if not all(_is_stored(session, row) for row in rows):
            raise StoreError(f"run {run.id} was ended by others, so it is too late")
        return f"run {run.id}: all that {path} holds was stored before"
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


def _is_stored(session: Session, row: Mapping[str, Any]) -> bool:
    query = select(BATCHES.c.verdict, BATCHES.c.digest).where(
        BATCHES.c.run_id == row["in_run"], BATCHES.c.number == row["batch"]
    )
    stored = session.connection().execute(query).first()
    return stored is not None and tuple(stored) == (row["verdict"], row["digest"])


def _read(path: Path) -> dict[str, Any]:
    head, _, body = path.read_bytes().partition(b"\n")
    if head.decode("ascii", "replace") != f"{HEAD} {sha256(body).hexdigest()}":
        raise StoreError("it is damaged")
    try:
        held: dict[str, Any] = json.loads(body, object_hook=_rich)
        attempts = [_attempt(facts) for facts in held["attempts"]]
        return {name: held[name] for name in NAMES} | {"attempts": attempts}
    except (KeyError, TypeError, ValueError) as exc:
        raise StoreError("it was written by another version of pipeline") from exc


def _attempt(facts: dict[str, Any]) -> Attempt:
    made: dict[str, Callable[..., object]] = {
        "timings": lambda found: Timings(**found),
        "request": lambda found: Request(**found | _headers(found)),
        "evidence": lambda found: Evidence(**found | _headers(found)),
        "error": ErrorName,
        "phase": Phase,
        "measures": lambda found: tuple(Measure(**each) for each in found),
        "proof": lambda found: Proof(**found | {"word": ProofWord(found["word"])}),
        "contract": lambda found: tuple((Aspect(aspect), value) for aspect, value in found),
    }
    read: dict[str, Any] = {
        name: made[name](value) if name in made and value is not None else value
        for name, value in facts.items()
    }
    return Attempt(**read)


def _headers(found: Mapping[str, Any]) -> dict[str, object]:
    return {"headers": tuple(map(tuple, found["headers"]))}
