"""Verify a store and write what was found: for ``audit verify``, ``db check`` and ``db backup``."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.audit.proofs import look_at_proofs
from pipeline.audit.sheets import examine_day
from pipeline.errors import StoreError, UsageError
from pipeline.lock import lock_path
from pipeline.rendering.output import json_lines, write, write_prose
from pipeline.rendering.progress import progress
from pipeline.rendering.records import pick, picks
from pipeline.rendering.shapes import Format
from pipeline.rendering.words import count_of, show_time
from pipeline.scope import open_to_read
from pipeline.settings import Settings, StoreSettings
from pipeline.settings.environment import find_state_folder
from pipeline.store import upkeep
from pipeline.store.db import Store
from pipeline.store.integrity.checks import Problem, structure_problems
from pipeline.store.integrity.noted import Mark, Noted, has, is_of, read_note, write_note
from pipeline.store.integrity.verify import Verification
from pipeline.store.integrity.verify import verify as look_at_history

LOOKED_AT = "runs pruned batches attempts numbers"
BEFORE = "position=head.position chain=head.chain batches verified_at all_verified_at"
PROBLEM = "text run_id=run batch position"


def verify(
    settings: Settings,
    *,
    expect: str | None,
    with_proofs: bool,
    is_all: bool,
    format_: Format,
) -> None:
    """Verify what came since the head that was noted, or all, and note the head that was verified.

    The chain is held to the head in the note, and to the one to *expect*. *with_proofs*: what
    sources signed, and the numbers that must follow from it, as well; always all of it.

    Raises:
        StoreError: something is not as it was written; a line for each.
    """
    expected = None if expect is None else _parse_mark(expect)
    state_folder = find_state_folder(os.environ)
    note = lock_path(settings.store.url, "verified", state_folder=state_folder)
    with open_to_read(settings.store) as store:
        noted, said, problems = _take_up(store, note)
        since = None if is_all or problems else noted
        found = _look(store, noted=since, expected=expected)
    found = replace(found, problems=(*problems, *found.problems))
    proofs = look_at_proofs(settings) if with_proofs else None
    if proofs is not None:
        found = replace(found, problems=found.problems + tuple(proofs.problems))
    if found.noted and not found.problems and (why := write_note(note, found.noted)):
        said.append(f"This could not be noted for another time: {note}: {why}")
    if format_ is Format.JSON:
        _write_json(found, None if proofs is None else proofs.counts())
    _refuse(found.problems)
    if format_ is Format.TEXT:
        write_prose(_sum_up(found), *said)
        if proofs is not None:
            write_prose(*proofs.tell())
        if found.head is not None:
            mark = f"{found.head.position}:{found.head.chain}"
            write_prose(
                f"Head of the chain: {mark}",
                f"Note it elsewhere: `pipeline audit verify --expect {mark}` tells whether history"
                " before it was rewritten.",
            )


def check(settings: StoreSettings, *, with_structure: bool = False) -> None:
    """Verify all of a store; *with_structure*: SQLite's pages, indexes and references as well."""
    problems: tuple[Problem, ...] = ()
    with open_to_read(settings) as store:
        if with_structure:
            with store.read() as session:
                problems = tuple(structure_problems(session))
        found = _look(store)
    _refuse(problems + found.problems)
    write_prose(_sum_up(found))


def back_up(settings: StoreSettings, target: Path, *, is_verified: bool) -> None:
    """Copy the database to the new file *target*, and verify the copy if it is to be."""
    copy = upkeep.back_up(settings, target)
    if is_verified:
        check(copy)
    write_prose(f"Copied and checked: {target}")


def _take_up(store: Store, path: Path) -> tuple[Noted | None, list[str], tuple[Problem, ...]]:
    """Read the note; give what to say of it, and that its head is gone, if it is."""
    try:
        noted = read_note(path)
    except ValueError as exc:
        return None, [f"All was read: {exc}."], ()
    if noted is None:
        return None, [], ()
    with store.read() as session:
        connection = session.connection()
        if not is_of(connection, noted):
            return None, [f"All was read: {path} notes what was verified of another history."], ()
        if has(connection, noted.head):
            return noted, [], ()
    line = (
        f"position {noted.head.position}: was verified {show_time(noted.verified_at)}, and is"
        " not in the chain any more: history was cut off or written anew, or an older copy was"
        f" put back. If that was you, remove {path}"
    )
    return None, [], (Problem(text=line, position=noted.head.position),)


def _parse_mark(text: str) -> Mark:
    found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text.strip())
    if found is None:
        raise UsageError(f"--expect {text!a}: give POSITION:HASH as `pipeline audit verify` prints")
    return Mark(int(found[1]), found[2])


def _look(
    store: Store, *, noted: Noted | None = None, expected: Mark | None = None
) -> Verification:
    """Verify on all cores that we may use, showing on a terminal how far it is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with progress("verifying") as watch:
        return look_at_history(
            store,
            noted=noted,
            expected=expected,
            examine=examine_day,
            cores=cores or 1,
            watch=watch,
        )


def _write_json(found: Verification, proofs: Mapping[str, int] | None) -> None:
    head = {
        "schema": "pipeline.verify/1",
        "is_sound": not found.problems,
        **pick(found, LOOKED_AT),
        "verified_before": found.since and pick(found.since, BEFORE),
        "proofs": proofs,
        "head": found.head and found.head._asdict(),
    }
    write("\n".join(json_lines(head, problems=picks(found.problems, PROBLEM))))


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise StoreError(*(problem.text for problem in problems))


def _sum_up(found: Verification) -> str:
    """Say how much was looked at: nobody must take a look at nothing for a good result."""
    pruned = f" ({found.pruned} pruned)" if found.pruned else ""
    line = (
        f"All is well: {count_of(found.runs, 'run')}{pruned}, {count_of(found.batches, 'batch')},"
        f" {count_of(found.numbers, 'number')} verified"
    )
    if (before := found.since) is None:
        return f"{line}."
    return (
        f"{line}, all that came since {show_time(before.verified_at)}."
        f" {count_of(before.batches, 'batch')} before were verified then and not read again;"
        f" --all reads everything, as last on {show_time(before.all_verified_at)}."
    )
