"""All changes to the store, one function each; the caller owns the transaction and commits.

The statements are Core statements built once, and each executes for many rows at a time: a run
saves a hundred thousand outcomes, and an ORM object for each would cost more than SQLite does.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice, repeat
from typing import TypeAlias

from sqlalchemy import ColumnElement, bindparam, insert, update
from sqlmodel import Session, select

from pipeline.errors import ErrorName, StoreError
from pipeline.models import Attempt, Batch, Evidence, Outcome, RunStatus, Tally, Timings, Verdict
from pipeline.pacing import Moment, Rules
from pipeline.sanitize import one_line
from pipeline.store import contracts, health, heartbeats, measures, proofs, summaries
from pipeline.store.evidence import save_evidence, save_requests
from pipeline.store.integrity import chain as seals
from pipeline.store.numbers import stored_digest
from pipeline.store.rows import (
    NONE_KNOWN,
    ROWS_AT_ONCE,
    Columns,
    as_columns,
    execute_columns,
    insert_into,
)
from pipeline.store.tables import ATTEMPTS, BATCHES, RUNS, SOURCES

Numbers: TypeAlias = dict[tuple[int, int], int]  # of attempts, by fetch and the one they had

_ADD_BATCH = insert(BATCHES)
_ADD_ATTEMPT = insert(ATTEMPTS)
_DECIDE_BATCH = update(BATCHES).where(
    BATCHES.c.run_id == bindparam("in_run"),
    BATCHES.c.number == bindparam("batch"),
    BATCHES.c.verdict.is_(None),
)


def start_run(
    session: Session,
    *,
    uid: str,
    host: str,
    pid: int,
    version: str,
    config_digest: str,
    config_path: str,
    started_at: datetime,
    is_sandbox: bool = False,
) -> int:
    """Record a run as running and give its id.

    *uid* must be new (``uuid4().hex``).
    """
    new_run = insert(RUNS).values(
        uid=uid,
        host=host,
        pid=pid,
        version=version,
        config_digest=config_digest,
        config_path=config_path,
        is_sandbox=is_sandbox,
        started_at=started_at,
        status=RunStatus.RUNNING,
    )
    return int(session.exec(new_run.returning(RUNS.c.id)).scalar_one())


def order_batches(session: Session, *, run_id: int, batches: Iterable[Batch]) -> None:
    """Record what the run wants, before any of it is asked for.

    *batches* is read a little at a time, so it may be longer than memory.
    """
    remaining = iter(batches)
    while some := list(islice(remaining, ROWS_AT_ONCE)):
        _know_sources(session, list(dict.fromkeys(batch.source for batch in some)))
        columns = {"run_id": repeat(run_id), **as_columns(BATCHES, Batch, some)}
        execute_columns(session, _ADD_BATCH, columns)


def _know_sources(session: Session, names: list[str]) -> None:
    """Give each source an id that has none yet."""
    connection = session.connection()
    query = select(SOURCES.c.name).where(SOURCES.c.name.in_(names))
    known = set(connection.scalars(query))
    if new := [{"name": name} for name in names if name not in known]:
        adding = insert_into(session, SOURCES).on_conflict_do_nothing(index_elements=["name"])
        connection.execute(adding, new)


def save_results(
    session: Session,
    *,
    run_id: int,
    attempts: Sequence[Attempt],
    outcomes: Sequence[Outcome],
    keep_numbers: bool,
) -> None:
    """Record attempts with their requests and answers, and the final outcome of each batch.

    Of the answers that were accepted those are kept as evidence with which a contract begins;
    none if *keep_numbers* is off, for they hold the numbers, and so do proofs.

    Raises:
        StoreError: a batch was never ordered, or it has its outcome already.
    """
    if attempts:
        spans = contracts.follow(session, attempts)
        _save_attempts(session, run_id, attempts, _shown(attempts, spans, keep_numbers))
        measures.save(session, attempts, run_id=run_id)
        if keep_numbers:
            proofs.save(session, attempts, run_id=run_id)
    decided = decide_batches(session, outcome_columns(run_id, outcomes, keep_numbers))
    if attempts:  # last: all machines that ask the same source want these rows
        contracts.save(session, spans, run_id=run_id)
    if decided != len(outcomes):
        raise StoreError(
            f"run {run_id}: {len(outcomes) - decided} of {len(outcomes)} outcomes are for batches"
            " that were never ordered or have their outcome already"
        )


def save_missing(
    session: Session,
    *,
    run_id: int,
    attempts: Sequence[Attempt],
    outcomes: Sequence[Outcome],
    keep_numbers: bool,
) -> None:
    """Record what of it is not there yet, after a try that may have and could not say so."""
    save_missing_attempts(session, run_id=run_id, attempts=attempts, keep_numbers=keep_numbers)
    decide_batches(session, outcome_columns(run_id, outcomes, keep_numbers))


def save_missing_attempts(
    session: Session, *, run_id: int, attempts: Sequence[Attempt], keep_numbers: bool
) -> Numbers:
    """Record those of the *attempts* that are not there yet, and give the numbers of all."""
    # Whoever adds an attempt holds its run: on a server, that try may still go on.
    session.exec(select(RUNS.c.id).where(RUNS.c.id == run_id).with_for_update())
    missing, numbers = number_on(session, run_id=run_id, attempts=attempts)
    save_results(session, run_id=run_id, attempts=missing, outcomes=(), keep_numbers=keep_numbers)
    return numbers


def number_on(
    session: Session, *, run_id: int, attempts: Sequence[Attempt]
) -> tuple[list[Attempt], Numbers]:
    """Pick the *attempts* that are not there, numbered on where others asked for the same.

    Besides, give the number of each by its fetch and the number that it had.
    """
    there: defaultdict[int, dict[datetime, int]] = defaultdict(dict)
    query = select(ATTEMPTS.c.fetch, ATTEMPTS.c.began_at, ATTEMPTS.c.number).where(
        ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.fetch.in_({each.fetch for each in attempts})
    )
    for fetch, began_at, number in session.connection().execute(query) if attempts else ():
        there[fetch][began_at] = number
    missing: list[Attempt] = []
    numbers: Numbers = {}
    for each in attempts:
        known = there[each.fetch]
        if each.began_at not in known:  # else it was stored by a try that could not say so
            known[each.began_at] = max(known.values(), default=0) + 1
            missing.append(replace(each, number=known[each.began_at]))
        numbers[each.fetch, each.number] = known[each.began_at]
    return missing, numbers


def _shown(
    attempts: Sequence[Attempt], spans: Sequence[contracts.Span], keep_numbers: bool
) -> list[Evidence | None]:
    """Choose which answers are kept as evidence."""
    begun = {id(span.first) for span in spans if span.row_id is None and keep_numbers}
    return [
        attempt.evidence if attempt.error or id(attempt) in begun else None for attempt in attempts
    ]


def _save_attempts(
    session: Session, run_id: int, attempts: Sequence[Attempt], shown: Sequence[Evidence | None]
) -> None:
    _know_sources(session, list(dict.fromkeys(attempt.source for attempt in attempts)))
    columns = as_columns(ATTEMPTS, Attempt, attempts)
    columns |= as_columns(ATTEMPTS, Timings, [attempt.timings for attempt in attempts])
    columns |= {
        "run_id": repeat(run_id),
        "detail": map(_storable, columns["detail"]),
        "evidence": save_evidence(session, attempts, shown),
        "request": save_requests(session, attempts),
    }
    execute_columns(session, _ADD_ATTEMPT, columns)


def decide_batches(session: Session, columns: Columns) -> int:
    """Write down outcomes, as ``outcome_columns`` gives them; tell how many batches had none.

    A batch that has its outcome keeps it.
    """
    return execute_columns(session, _DECIDE_BATCH, columns)


def outcome_columns(run_id: int, outcomes: Sequence[Outcome], keep_numbers: bool) -> Columns:
    """Flatten outcomes, without their numbers if they are not to be kept."""
    columns = as_columns(BATCHES, Outcome, outcomes)
    if keep_numbers:
        columns["digest"] = [stored_digest(each.digest, each.numbers) for each in outcomes]
    else:
        columns["numbers"] = repeat(None)
    return columns | {
        "in_run": repeat(run_id),
        "batch": [outcome.batch.number for outcome in outcomes],
        "detail": map(_storable, columns["detail"]),
    }


def _storable(text: str | None) -> str | None:
    # JSON strings can hold halves of surrogate pairs, which no database takes as text.
    return text and text.encode("utf-8", "backslashreplace").decode("utf-8")


def finish_run(
    session: Session,
    *,
    run_id: int,
    ended_at: datetime,
    clock_us: int | None,
    status: RunStatus | None = None,
    rest: ErrorName = ErrorName.CANCELLED,
    rules: Mapping[str, Rules] = NONE_KNOWN,
    obstacles: Mapping[str, Moment] = NONE_KNOWN,
    clock_offset_us: int | None = None,
) -> None:
    """End a run: fail its open batches with the error *rest*, write its totals, and seal it.

    Those of a source that has an obstacle are deferred instead, until the moment that it names.
    Without a *status* the totals decide between ok, partial and failed. *rules* are those that
    were in force, by source, as far as anybody knows; *clock_offset_us* is how far our clock was
    ahead of the upstreams'.

    Raises:
        StoreError: there is no such run, or it has ended already.
    """
    # Before anything is added up: two runs may end at once, and both have an hour to add to.
    seals.lock_chain(session.connection())
    _check_running(session, run_id)
    for source, moment in obstacles.items():
        defer_open_batches(session, run_id, moment, BATCHES.c.source == source)
    verdict = Verdict.CANCELLED if rest is ErrorName.CANCELLED else Verdict.FAILED
    decided = update(BATCHES).where(*_is_open(run_id))
    session.exec(decided.values(verdict=verdict, error=rest, detail="the run ended first"))
    totals = _totals(summaries.summarise_run(session, run_id=run_id, rules=rules))
    ended = totals | {"ended_at": ended_at, "status": status or _verdict_on(totals)}
    ended |= {"clock_us": clock_us, "clock_offset_us": clock_offset_us}
    session.exec(update(RUNS).where(RUNS.c.id == run_id).values(ended))
    heartbeats.end(session, run_id=run_id)
    position = seals.seal_run(session, run_id=run_id, sealed_at=ended_at)
    health.examine_run(session, position=position)


def _check_running(session: Session, run_id: int) -> None:
    query = select(RUNS.c.status).where(RUNS.c.id == run_id).with_for_update()
    if session.connection().scalar(query) != RunStatus.RUNNING:
        raise StoreError(f"run {run_id} is not running: it was never started or has ended already")


def _verdict_on(totals: dict[str, int]) -> RunStatus:
    """Choose the status; a deferred batch is no failure: the upstream's rules forbade asking."""
    if totals["failed"] + totals["cancelled"] == 0:
        return RunStatus.OK
    return RunStatus.PARTIAL if totals["collected"] else RunStatus.FAILED


def _is_open(run_id: int) -> tuple[ColumnElement[bool], ...]:
    return BATCHES.c.run_id == run_id, BATCHES.c.verdict.is_(None)


def defer_open_batches(
    session: Session, run_id: int, until: Moment, *chosen: ColumnElement[bool]
) -> None:
    """Put off those of the *chosen* batches of a run that have no outcome yet."""
    deferred = {"verdict": Verdict.DEFERRED, "detail": one_line(until.why), "not_before": until.at}
    session.exec(update(BATCHES).where(*_is_open(run_id), *chosen).values(deferred))


def _totals(tallies: Sequence[Tally]) -> dict[str, int]:
    figures = {
        total: sum(getattr(tally, name) for tally in tallies)
        for total, name in summaries.RUN_TOTALS.items()
    }
    return {"ordered": sum(tally.ordered for tally in tallies), **figures}


def interrupt_dead_runs(session: Session, *, ended_at: datetime) -> int:
    """End the runs that are called running and are dead, and tell how many there were.

    With a store in a file the caller vouches that nobody is present (``lock.presence``). What they
    collected stays.
    """
    dead = heartbeats.dead_runs(session)
    if dead:
        seals.lock_chain(session.connection())
        dead = heartbeats.dead_runs(session)  # on a server others may have been here first
    ending = partial(finish_run, session, status=RunStatus.INTERRUPTED, ended_at=ended_at)
    for run_id in dead:
        ending(run_id=run_id, clock_us=None)
    return len(dead)
