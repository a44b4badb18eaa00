"""Every question to the store, one function each, answered with frozen values.

Nothing here opens a session or ends its transaction. What may be long comes as an iterator that
reads as it goes: use it up while its session lives. A reader in mid-answer keeps writers waiting
under a rollback journal, so nobody should hold one open across a slow pipe.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Float,
    Row,
    Select,
    cast,
    exists,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.models import (
    Attempt,
    AttemptCase,
    AttemptRecord,
    BatchRecord,
    ContractSpan,
    Evidence,
    PhaseTotals,
    Request,
    RunStatus,
    RunSummary,
    Timings,
    Verdict,
)
from pipeline.store.contracts import make_span
from pipeline.store.evidence import find_evidence, find_request, make_evidence, make_request
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    CONTRACTS,
    EVIDENCE,
    PHASE_COLUMNS,
    REQUESTS,
    RUNS,
    TALLIES,
)
from pipeline.store.window import within

ROWS_AT_ONCE = 1_000  # held in memory while an iterator reads

_RUNS = select(RUNS).order_by(RUNS.c.id.desc())
_BATCHES = select(BATCHES).order_by(BATCHES.c.run_id, BATCHES.c.number)
_BATCHES_BARE = _BATCHES.with_only_columns(
    *(column for column in BATCHES.c if column is not BATCHES.c.numbers), null().label("numbers")
)


def add_up(column: ColumnElement[Any]) -> ColumnElement[float]:
    """Sum as a float: exact up to 2**53, and never SQLite's "integer overflow"."""
    return func.sum(cast(column, Float(53)))


def _stream(session: Session, query: Select[*tuple[Any, ...]]) -> Iterator[Row[*tuple[Any, ...]]]:
    options = {"yield_per": ROWS_AT_ONCE}
    return iter(session.connection().execute(query, execution_options=options))


def recent_runs(
    session: Session,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    source: str | None = None,
    limit: int,
) -> list[RunSummary]:
    """List the newest *limit* runs, newest first.

    Runs that started before *since*, or at *until* or later, are left out, and with *source* those
    that wanted nothing from it.
    """
    query = _RUNS.limit(limit)
    if chosen := within(RUNS.c.started_at, since, until):
        # By the index that finds the window: in the order of ids a long one would be sorted first.
        newest_first = (RUNS.c.started_at.desc(), RUNS.c.id.desc())
        query = query.where(*chosen).order_by(None).order_by(*newest_first)
    if source is not None:
        query = query.where(RUNS.c.id.in_(_runs_that_asked(source, since, until, limit)))
    return [_run_summary(row) for row in session.connection().execute(query)]


def _runs_that_asked(
    source: str, since: datetime | None, until: datetime | None, limit: int
) -> CompoundSelect[int]:
    """Find the newest runs that wanted something from *source*, pruned ones as well."""
    newest = (
        select(TALLIES.c.run_id)
        .where(TALLIES.c.source == source, *within(TALLIES.c.started_at, since, until))
        .order_by(TALLIES.c.started_at.desc(), TALLIES.c.run_id.desc())
        .limit(limit)
        .subquery()
    )
    # A run that still goes on has no tally.
    running = (
        select(RUNS.c.id)
        .where(RUNS.c.status == literal_column("'running'"))
        .where(exists().where(BATCHES.c.run_id == RUNS.c.id, BATCHES.c.source == source))
    )
    return union_all(select(newest.c.run_id), running)


def find_run(session: Session, *, run_id: int | None) -> RunSummary | None:
    """Look up one run, the newest if *run_id* is None; None if there is no such run."""
    query = _RUNS.limit(1) if run_id is None else _RUNS.where(RUNS.c.id == run_id)
    row = session.connection().execute(query).first()
    return None if row is None else _run_summary(row)


def run_before(session: Session, *, run: RunSummary) -> RunSummary | None:
    """Look up the last run of the same configuration that ended before *run* and asked anybody."""
    said_nothing = (RunStatus.RUNNING.value, RunStatus.SKIPPED.value)
    query = _RUNS.where(
        RUNS.c.id < run.id,
        RUNS.c.config_path == run.config_path,
        RUNS.c.status.not_in(said_nothing),
    )
    row = session.connection().execute(query.limit(1)).first()
    return None if row is None else _run_summary(row)


def get_run(session: Session, *, run_id: int) -> RunSummary:
    """Look up a run that is known to be there."""
    return _run_summary(session.connection().execute(_RUNS.where(RUNS.c.id == run_id)).one())


def _run_summary(row: Row[*tuple[Any, ...]]) -> RunSummary:
    return RunSummary(**(row._asdict() | {"status": RunStatus(row.status)}))


def batches_of_run(
    session: Session, *, run_id: int, with_numbers: bool = False
) -> Iterator[BatchRecord]:
    """Read the batches of a run in the order of their numbers."""
    columns = _BATCHES if with_numbers else _BATCHES_BARE
    return map(_batch_record, _stream(session, columns.where(BATCHES.c.run_id == run_id)))


def _batch_record(row: Row[*tuple[Any, ...]]) -> BatchRecord:
    return BatchRecord(
        run_id=row.run_id,
        number=row.number,
        source=row.source,
        n=row.n,
        min=row.min,
        max=row.max,
        verdict=row.verdict and Verdict(row.verdict),
        fetch=row.fetch,
        attempt=row.attempt,
        offset=row.offset,
        sum=row.sum,
        packed=row.numbers,
        digest=row.digest,
        error=row.error and ErrorName(row.error),
        detail=row.detail,
        not_before=row.not_before,
    )


def newest_batches(
    session: Session,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    source: str | None = None,
    limit: int,
    with_numbers: bool = False,
) -> Iterator[BatchRecord]:
    """Read the last *limit* batches of the newest runs, the last of the newest run first."""
    columns = _BATCHES if with_numbers else _BATCHES_BARE
    query = columns.order_by(None).order_by(BATCHES.c.run_id.desc(), BATCHES.c.number.desc())
    chosen = within(RUNS.c.started_at, since, until)
    if source is not None:
        asked = _runs_that_asked(source, since, until, limit)
        query = query.where(BATCHES.c.source == source, BATCHES.c.run_id.in_(asked))
    if chosen:
        # The bounds let the walk begin and end where it should; clocks that jump need the rest.
        ids = select(func.min(RUNS.c.id), func.max(RUNS.c.id)).where(*chosen)
        first, last = session.connection().execute(ids).one()
        query = query.join(RUNS, RUNS.c.id == BATCHES.c.run_id).where(
            BATCHES.c.run_id.between(first, last), *chosen
        )
    return map(_batch_record, _stream(session, query.limit(limit)))


def attempts_of_run(
    session: Session, *, run_id: int, fetches: tuple[int, int] | None = None
) -> Iterator[AttemptRecord]:
    """Read the attempts of a run, fetch by fetch, each fetch's in the order of its tries.

    *fetches* are the first and the last that are wanted.
    """
    query = (
        select(ATTEMPTS)
        .where(ATTEMPTS.c.run_id == run_id)
        .order_by(ATTEMPTS.c.fetch, ATTEMPTS.c.number)
    )
    if fetches is not None:
        query = query.where(ATTEMPTS.c.fetch.between(*fetches))
    return map(_attempt_record, _stream(session, query))


def exchanges_of_run(session: Session, *, run_id: int) -> Iterator[AttemptRecord]:
    """Read the attempts of a run in the order in which they began, with what was sent and got."""
    query = (
        select(
            ATTEMPTS,
            *(column.label(f"request_{column.name}") for column in REQUESTS.c),
            *(column.label(f"evidence_{column.name}") for column in EVIDENCE.c),
        )
        .outerjoin(REQUESTS, ATTEMPTS.c.request == REQUESTS.c.id)
        .outerjoin(EVIDENCE, ATTEMPTS.c.evidence == EVIDENCE.c.digest)
        .where(ATTEMPTS.c.run_id == run_id)
        .order_by(ATTEMPTS.c.began_at, ATTEMPTS.c.id)
    )
    for row in _stream(session, query):
        found = row._asdict()
        request = make_request(found, prefix="request_") if row.request else None
        evidence = make_evidence(found, prefix="evidence_") if row.evidence else None
        yield _attempt_record(row, request=request, evidence=evidence)


def _attempt_record(
    row: Row[*tuple[Any, ...]], *, request: Request | None = None, evidence: Evidence | None = None
) -> AttemptRecord:
    attempt = Attempt(
        fetch=row.fetch,
        number=row.number,
        source=row.source,
        began_at=row.began_at,
        timings=Timings(
            wait_us=row.wait_us,
            dns_us=row.dns_us,
            connect_us=row.connect_us,
            tls_us=row.tls_us,
            send_us=row.send_us,
            first_byte_us=row.first_byte_us,
            body_us=row.body_us,
            check_us=row.check_us,
        ),
        is_reused=row.is_reused,
        status=row.status,
        body_bytes=row.body_bytes,
        error=row.error and ErrorName(row.error),
        phase=row.phase and Phase(row.phase),
        detail=row.detail,
        retry_after_us=row.retry_after_us,
        request=request,
        evidence=evidence,
    )
    return AttemptRecord(id=row.id, run_id=row.run_id, attempt=attempt, evidence=row.evidence)


def find_attempt(session: Session, *, attempt_id: int) -> AttemptCase | None:
    """Look up one attempt with all that is known of it."""
    connection = session.connection()
    row = connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt_id)).first()
    if row is None:
        return None
    decided = (
        (BATCHES.c.run_id == row.run_id)
        & (BATCHES.c.fetch == row.fetch)
        & (BATCHES.c.attempt == row.number)
    )
    of_fetch = (ATTEMPTS.c.run_id == row.run_id) & (ATTEMPTS.c.fetch == row.fetch)
    tries = select(ATTEMPTS).where(of_fetch).order_by(ATTEMPTS.c.number)
    return AttemptCase(
        record=_attempt_record(
            row,
            request=find_request(session, request_id=row.request) if row.request else None,
            evidence=find_evidence(session, digest=row.evidence) if row.evidence else None,
        ),
        batches=tuple(map(_batch_record, connection.execute(_BATCHES.where(decided)))),
        tries=tuple(map(_attempt_record, connection.execute(tries))),
        contracts=() if row.status is None else _contracts_at(session, row.source, row.id),
    )


def _contracts_at(session: Session, source: str, attempt_id: int) -> tuple[ContractSpan, ...]:
    """Find what was agreed upon when an attempt was made; ids are given in the order of time."""
    query = (
        select(CONTRACTS)
        .where(
            CONTRACTS.c.source == source,
            CONTRACTS.c.first_attempt <= attempt_id,
            CONTRACTS.c.last_attempt >= attempt_id,
        )
        .order_by(CONTRACTS.c.aspect, CONTRACTS.c.id)
    )
    return tuple(map(make_span, session.connection().execute(query)))


def phase_totals(session: Session, *, run_id: int) -> list[PhaseTotals]:
    """Add up how long each phase took, by source and then in the order of the phases.

    A phase that no attempt of a source reached is left out.
    """
    columns = [
        figure(ATTEMPTS.c[name])
        for figure in (func.count, add_up, func.min, func.max)
        for name in PHASE_COLUMNS.values()
    ]
    query = (
        select(ATTEMPTS.c.source, *columns)
        .where(ATTEMPTS.c.run_id == run_id)
        .group_by(ATTEMPTS.c.source)
        .order_by(ATTEMPTS.c.source)
    )
    return [
        PhaseTotals(source=source, phase=phase, n=n, total_us=int(total), min_us=low, max_us=high)
        for source, *figures in session.connection().execute(query)
        for phase, (n, total, low, high) in zip(PHASE_COLUMNS, _by_phase(figures), strict=True)
        if n
    ]


def _by_phase(figures: list[Any]) -> Iterator[tuple[Any, ...]]:
    size = len(PHASE_COLUMNS)
    return zip(*(figures[at : at + size] for at in range(0, len(figures), size)), strict=True)
