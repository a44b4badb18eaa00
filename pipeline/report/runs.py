"""The last runs, one run whole, and the last batches."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from sqlmodel import Session

from pipeline.errors import StoreError, UsageError
from pipeline.lock import has_process, host_identity
from pipeline.models import (
    AttemptRecord,
    BatchRecord,
    PhaseTotals,
    RunStatus,
    RunSummary,
    Timings,
    Verdict,
)
from pipeline.store import history, queries
from pipeline.store.numbers import unpack

MOST_DIGITS = 18  # of an id: SQLite's integers have 19, but not all of those

_phases_of = attrgetter(*(field.name for field in fields(Timings)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One batch of a run with what a reader wants to know of it.

    Attributes:
        took_us: all attempts of its fetch, with the waits between them; None if none was made.
        tries: how many attempts of its fetch were made.
        attempt_id: the attempt that decided it, as ``audit show`` takes it.
        numbers: what was collected; None if not kept or not asked for.
    """

    batch: BatchRecord
    took_us: int | None
    tries: int
    attempt_id: int | None
    numbers: tuple[int, ...] | None


def duration_us(timings: Timings) -> int:
    """Add up the phases that were reached."""
    return sum(us for us in _phases_of(timings) if us is not None)


def find_run(session: Session, wanted: str) -> RunSummary:
    """Look up the run that a person calls ``last`` or by its number, as it stands now.

    Raises:
        UsageError: there is no such run.
    """
    if wanted != "last" and not wanted.isdecimal():
        raise UsageError(f"--run {wanted!a}: give a number or last")
    run = None
    if len(wanted) <= MOST_DIGITS:
        run = queries.find_run(session, run_id=None if wanted == "last" else int(wanted))
    if run is None:
        raise UsageError(f"--run {wanted}: there is no such run; `pipeline report` lists them")
    return _as_it_stands(session, run)


def is_alive(run: RunSummary) -> bool | None:
    """Tell whether the process of a run that is called running is still there.

    None if the run has ended, or goes on at another machine. Not asked of the presence lock: who
    tries it holds it for a moment, and a run that starts just then would not bury the dead.
    """
    if run.status is not RunStatus.RUNNING or run.host != host_identity():
        return None
    return has_process(run.pid)


def recent_runs(
    session: Session,
    *,
    since: datetime | None,
    until: datetime | None = None,
    source: str | None,
    limit: int,
) -> list[RunSummary]:
    """List the newest runs as they stand now, newest first."""
    runs = queries.recent_runs(session, since=since, until=until, source=source, limit=limit)
    return [_as_it_stands(session, run) for run in runs]


def retries_by_run(session: Session, runs: Sequence[RunSummary]) -> dict[int, int]:
    """Count the attempts of each run after the first of a fetch."""
    counted = history.retries_by_run(session, run_ids=[run.id for run in runs])
    going_on = [run for run in runs if run.status is RunStatus.RUNNING]
    so_far = {
        run.id: sum(record.attempt.number > 1 for record in attempts(session, run))
        for run in going_on
    }
    return {run.id: 0 for run in runs} | counted | so_far


def _as_it_stands(session: Session, run: RunSummary) -> RunSummary:
    """Count what the store adds up only when a run ends."""
    if run.status is not RunStatus.RUNNING:
        return run
    verdicts: Counter[Verdict | None] = Counter()
    numbers = 0
    for batch in queries.batches_of_run(session, run_id=run.id):
        verdicts[batch.verdict] += 1
        numbers += batch.n if batch.verdict is Verdict.COLLECTED else 0
    spent = [
        duration_us(replace(record.attempt.timings, wait_us=None))
        for record in attempts(session, run)
    ]
    return replace(
        run,
        ordered=verdicts.total(),
        collected=verdicts[Verdict.COLLECTED],
        failed=verdicts[Verdict.FAILED],
        deferred=verdicts[Verdict.DEFERRED],
        cancelled=verdicts[Verdict.CANCELLED],
        numbers=numbers,
        attempts=len(spent),
        waited_us=sum(spent),
    )


def batch_lines(
    session: Session, run: RunSummary, *, source: str | None = None, with_numbers: bool = False
) -> Iterator[BatchLine]:
    """Walk over the batches of *run* in order, each with the time that its fetch took.

    Raises:
        StoreError: the numbers of a batch are damaged.
    """
    made = queries.attempts_of_run(session, run_id=run.id)
    batches = queries.batches_of_run(session, run_id=run.id, with_numbers=with_numbers)
    return _lines((batch for batch in batches if source in (None, batch.source)), made)


def newest_batch_lines(
    session: Session,
    *,
    since: datetime | None,
    until: datetime | None,
    source: str | None,
    limit: int,
    with_numbers: bool = False,
) -> Iterator[BatchLine]:
    """Walk over the last batches of the newest runs, the last of the newest run first.

    Raises:
        StoreError: the numbers of a batch are damaged.
    """
    newest = queries.newest_batches(
        session, since=since, until=until, source=source, limit=limit, with_numbers=with_numbers
    )
    for run_id, of_run in groupby(newest, key=attrgetter("run_id")):
        batches = list(of_run)
        numbers = [batch.fetch for batch in batches if batch.fetch is not None]
        fetches = (min(numbers, default=0), max(numbers, default=0))
        made = queries.attempts_of_run(session, run_id=run_id, fetches=fetches)
        yield from _lines(batches, made)


def _lines(batches: Iterable[BatchRecord], made: Iterable[AttemptRecord]) -> Iterator[BatchLine]:
    """Put batches and attempts of one run together."""
    took: defaultdict[int | None, int] = defaultdict(int)
    tries: Counter[int | None] = Counter()
    ids: dict[tuple[int | None, int | None], int] = {}
    for record in made:
        attempt = record.attempt
        took[attempt.fetch] += duration_us(attempt.timings)
        tries[attempt.fetch] += 1
        ids[attempt.fetch, attempt.number] = record.id
    for batch in batches:
        yield BatchLine(
            batch=batch,
            took_us=took.get(batch.fetch),
            tries=tries[batch.fetch],
            attempt_id=ids.get((batch.fetch, batch.attempt)),
            numbers=_numbers(batch),
        )


def _numbers(batch: BatchRecord) -> tuple[int, ...] | None:
    if batch.packed is None:
        return None
    try:
        return unpack(batch.packed, batch.n, batch.min, batch.max)
    except ValueError as exc:
        damage = f"run {batch.run_id}, {batch.name}: the database is damaged: {exc}"
        raise StoreError(damage) from exc


def attempts(
    session: Session, run: RunSummary, *, source: str | None = None
) -> Iterator[AttemptRecord]:
    """Walk over the attempts of *run*, fetch by fetch."""
    for record in queries.attempts_of_run(session, run_id=run.id):
        if source in (None, record.attempt.source):
            yield record


def phases(session: Session, run: RunSummary, *, source: str | None = None) -> list[PhaseTotals]:
    """Add up the phases of *run* by source."""
    totals = queries.phase_totals(session, run_id=run.id)
    return [total for total in totals if source in (None, total.source)]
