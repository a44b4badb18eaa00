"""What the runs add up to: the history, and one run whole."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from pipeline.errors import UsageError
from pipeline.models import AttemptRecord, BatchRecord, PhaseTotals, RunSummary, Timings
from pipeline.store import queries
from pipeline.store.numbers import unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One batch of a run with what a reader wants to know of it.

    Attributes:
        took_us: all attempts of its fetch, with the waits between them; None if none was made.
        numbers: what was collected; None if not kept or not asked for.
    """

    batch: BatchRecord
    took_us: int | None
    numbers: tuple[int, ...] | None


def duration_us(timings: Timings) -> int:
    """Add up the phases that were reached."""
    phases = (
        timings.wait_us,
        timings.dns_us,
        timings.connect_us,
        timings.tls_us,
        timings.send_us,
        timings.first_byte_us,
        timings.body_us,
        timings.check_us,
    )
    return sum(us for us in phases if us is not None)


def find_run(session: Session, wanted: str) -> RunSummary:
    """Look up the run that a person calls ``last`` or by its number.

    Raises:
        UsageError: there is no such run.
    """
    if wanted != "last" and not wanted.isdecimal():
        raise UsageError(f"--run {wanted!a}: give a number or last")
    run = queries.find_run(session, run_id=None if wanted == "last" else int(wanted))
    if run is None:
        raise UsageError(f"--run {wanted}: there is no such run; `pipeline report` lists them")
    return run


def recent_runs(
    session: Session, *, since: datetime | None, source: str | None, limit: int
) -> list[RunSummary]:
    """List the newest runs, newest first."""
    return queries.recent_runs(session, since=since, source=source, limit=limit)


def batch_lines(
    session: Session, run: RunSummary, *, source: str | None = None, with_numbers: bool = False
) -> Iterator[BatchLine]:
    """Walk over the batches of *run* in order, each with the time that its fetch took."""
    took: defaultdict[int, int] = defaultdict(int)
    for record in queries.attempts_of_run(session, run_id=run.id):
        took[record.attempt.fetch] += duration_us(record.attempt.timings)
    for batch in queries.batches_of_run(session, run_id=run.id, with_numbers=with_numbers):
        if source in (None, batch.source):
            numbers = (
                None
                if batch.packed is None
                else unpack(batch.packed, batch.n, batch.min, batch.max)
            )
            took_us = None if batch.fetch is None else took.get(batch.fetch)
            yield BatchLine(batch=batch, took_us=took_us, numbers=numbers)


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
