"""``pipeline audit verify``: is what is stored what was collected? ``db check`` asks the same."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, config_before
from pipeline.cli.progress import progress
from pipeline.cli.render import json_lines, write
from pipeline.cli.words import count_of
from pipeline.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pipeline.settings import StoreSettings
    from pipeline.store.checks import Problem
    from pipeline.store.verification import Mark, Verification


ExpectOption = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="POSITION:HASH",
        help="A head of the chain that was noted earlier: was history before it rewritten?",
    ),
]


def _parse_mark(text: str) -> "Mark":
    from pipeline.store.verification import Mark

    found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text.strip())
    if found is None:
        raise UsageError(f"--expect {text!a}: give POSITION:HASH as `pipeline audit verify` prints")
    return Mark(int(found[1]), found[2])


def verify(
    context: typer.Context,
    config: ConfigOption = None,
    expect: ExpectOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Verify that what is stored is what was collected.

    Exits with 74 if anything is not. Works out every sum, digest and total once more, and
    follows the chain of seals that each run adds to when it ends: what was changed, removed or
    inserted since is named.

    Whoever can write the database can write a new chain as well. So note the head of the chain
    somewhere else, and give it with --expect another time. Not in the chain: slots, contracts,
    the histograms of timings, and when upstreams may be asked.
    """
    with error_boundary():
        from pipeline.settings import load_settings

        expected = None if expect is None else _parse_mark(expect)
        store = load_settings(config or config_before(context), os.environ, will_ask=False).store
        found, problems = look(store, expected=expected)
        if format_ is Format.JSON:
            write(_as_json(found, problems))
        refuse(problems)
        if format_ is Format.TEXT:
            write(sum_up(found))
            if found.head is not None:
                write(_head_of_chain(found.head))


def look(
    settings: "StoreSettings", *, expected: "Mark | None" = None, with_structure: bool = False
) -> "tuple[Verification, list[Problem]]":
    """Verify a store, showing on a terminal how far it is; give all problems in one list.

    *with_structure*: let SQLite look over its own pages, indexes and references first.
    """
    from pipeline.store.checks import structure_problems
    from pipeline.store.db import open_store
    from pipeline.store.verification import verify as core

    problems: list[Problem] = []
    with open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=False) as store:
        if with_structure:
            with store.read() as session:
                problems += structure_problems(session)
        with progress("verifying") as watch:
            found = core(store, expected=expected, watch=watch)
    return found, [*problems, *found.problems]


def refuse(problems: "Sequence[Problem]") -> None:
    """Say what is wrong, a line each, if anything is.

    Raises:
        StoreError: something is.
    """
    if problems:
        raise StoreError("\n".join(problem.text for problem in problems))


def sum_up(found: "Verification") -> str:
    """Say how much was looked at, so that nobody takes an empty look for a good one."""
    pruned = f" ({found.pruned} pruned)" if found.pruned else ""
    return (
        f"All is well: {count_of(found.runs, 'run')}{pruned}, {count_of(found.batches, 'batch')},"
        f" {count_of(found.numbers, 'number')} verified."
    )


def _head_of_chain(head: "Mark") -> str:
    mark = f"{head.position}:{head.chain}"
    return (
        f"Head of the chain: {mark}\n"
        f"Note it elsewhere: `pipeline audit verify --expect {mark}` tells whether history before"
        " it was rewritten."
    )


def _as_json(found: "Verification", problems: "Sequence[Problem]") -> str:
    head = {
        "schema": "pipeline.verify/1",
        "is_sound": not problems,
        "runs": found.runs,
        "pruned": found.pruned,
        "batches": found.batches,
        "attempts": found.attempts,
        "numbers": found.numbers,
        "head": found.head and found.head._asdict(),
    }
    return "\n".join(json_lines(head, problems=problems))
