"""Questions to the store about runs, batches and attempts, answered with frozen values.

Nothing here opens a session or ends its transaction. What may be long comes as an iterator that
reads as it goes: use it up while its session lives. A reader in mid-answer keeps writers waiting
under a rollback journal, so nobody should hold one open across a slow pipe.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
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
    Evidence,
    PhaseTotals,
    Request,
    RunStatus,
    RunSummary,
    Timings,
    Verdict,
)
from pipeline.store.columns import PHASE_COLUMNS, add_up, name_of
from pipeline.store.configurations import find_limits
from pipeline.store.contracts import contracts_at
from pipeline.store.evidence import find_evidence, find_request
from pipeline.store.measures import measures_of
from pipeline.store.numbers import whole_digest
from pipeline.store.proofs import proof_of
from pipeline.store.rows import AnyRow, find, record, records, stream
from pipeline.store.tables import (
    ATTEMPT_KEY,
    ATTEMPTS,
    BATCH_KEY,
    BATCHES,
    EVIDENCE,
    MEMBERS,
    REQUESTS,
    RUNS,
    TALLIES,
    same,
)
from pipeline.store.window import EVERYTHING, Window, within

_RUNS = select(RUNS).order_by(RUNS.c.id.desc())
_BATCHES = select(BATCHES).order_by(BATCHES.c.run_id, BATCHES.c.number)
_ATTEMPTS = (
    select(ATTEMPTS, MEMBERS.c.host, MEMBERS.c.pid)
    .select_from(ATTEMPTS)
    .outerjoin(MEMBERS, MEMBERS.c.id == ATTEMPTS.c.member)
)
_IS_RUNNING = RUNS.c.status == literal_column("'running'")
_OF_NUMBERS = ("numbers", "digest")
_BATCHES_BARE = _BATCHES.with_only_columns(
    *(column for column in BATCHES.c if column.name not in _OF_NUMBERS),
    *(null().label(name) for name in _OF_NUMBERS),
)


def recent_runs(
    session: Session, window: Window = EVERYTHING, *, source: str | None = None, limit: int
) -> list[RunSummary]:
    """List the newest *limit* runs of a window, newest first; with *source* those that asked it."""
    query = _RUNS.limit(limit)
    if chosen := within(RUNS.c.started_at, window):
        # By the index that finds the window: in the order of ids a long one would be sorted first.
        newest_first = (RUNS.c.started_at.desc(), RUNS.c.id.desc())
        query = query.where(*chosen).order_by(None).order_by(*newest_first)
    if source is not None:
        has_batches = exists().where(BATCHES.c.run_id == RUNS.c.id, BATCHES.c.source == source)
        query = query.where(
            RUNS.c.id.in_(runs_that_may_have_asked(source, window, limit=limit)),
            ~_IS_RUNNING | has_batches,
        )
    return records(session, RunSummary, query, is_alive=None)


def runs_that_may_have_asked(
    source: str, window: Window = EVERYTHING, *, limit: int
) -> CompoundSelect[int]:
    """Find the newest runs that wanted something from *source*, and all that still go on.

    The way to the batches and attempts of a source, which no index names. Pruned runs count too.
    """
    newest = (
        select(TALLIES.c.run_id)
        .where(TALLIES.c.source == source, *within(TALLIES.c.started_at, window))
        .order_by(TALLIES.c.started_at.desc(), TALLIES.c.run_id.desc())
        .limit(limit)
        .subquery()
    )
    # A run that still goes on has no tally.
    return union_all(select(newest.c.run_id), select(RUNS.c.id).where(_IS_RUNNING))


def newest_of(
    source: str, columns: Iterable[ColumnElement[Any]], *, limit: int
) -> Select[*tuple[Any, ...]]:
    """Ask for *columns* of the newest *limit* batches of *source*, the last of the newest first."""
    asked = runs_that_may_have_asked(source, limit=limit)
    query = select(*columns).where(BATCHES.c.source == source, BATCHES.c.run_id.in_(asked))
    return query.order_by(BATCHES.c.run_id.desc(), BATCHES.c.number.desc()).limit(limit)


def find_run(session: Session, *, run_id: int | None) -> RunSummary | None:
    """Look up one run, the newest if *run_id* is None; None if there is no such run."""
    query = _RUNS.limit(1) if run_id is None else _RUNS.where(RUNS.c.id == run_id)
    return find(session, RunSummary, query, is_alive=None)


def run_before(session: Session, *, run: RunSummary) -> RunSummary | None:
    """Look up the last run of the same configuration that ended before *run* and asked anybody."""
    said_nothing = (RunStatus.RUNNING, RunStatus.SKIPPED)
    is_wanted = (RUNS.c.id < run.id) & (RUNS.c.config_path == run.config_path)
    query = _RUNS.where(is_wanted, RUNS.c.status.not_in(said_nothing))
    return find(session, RunSummary, query.limit(1), is_alive=None)


def get_run(session: Session, *, run_id: int) -> RunSummary:
    """Look up a run that is known to be there."""
    (run,) = records(session, RunSummary, _RUNS.where(RUNS.c.id == run_id), is_alive=None)
    return run


def ended_runs(session: Session, window: Window) -> list[RunSummary]:
    """List the runs of a window that have ended and wanted something, the oldest first."""
    query = (
        select(RUNS)
        .where(RUNS.c.status != RunStatus.RUNNING.value, RUNS.c.ordered > 0)
        .where(*within(RUNS.c.started_at, window))
        .order_by(RUNS.c.started_at, RUNS.c.id)
    )
    return records(session, RunSummary, query, is_alive=None)


def running_runs(session: Session) -> list[RunSummary]:
    """List the runs that are called running, whether their process is there or not."""
    return records(session, RunSummary, _RUNS.where(_IS_RUNNING), is_alive=None)


def progress_by_source(session: Session, *, run_id: int) -> dict[str, Counter[Verdict | None]]:
    """Count the batches of a run by source and verdict; those without one are still open."""
    of = (BATCHES.c.source, BATCHES.c.verdict)
    query = select(*of, func.count()).where(BATCHES.c.run_id == run_id).group_by(*of)
    found: defaultdict[str, Counter[Verdict | None]] = defaultdict(Counter)
    for source, verdict, batches in session.connection().execute(query):
        found[source][verdict] = batches
    return dict(found)


def newest_errors(session: Session, *, source: str, limit: int) -> list[str | None]:
    """List what went wrong in the last *limit* attempts at *source*, the newest last.

    None stands for an attempt that brought numbers.
    """
    asked = runs_that_may_have_asked(source, limit=limit)
    query = select(ATTEMPTS.c.error).where(ATTEMPTS.c.source == source)
    query = query.where(ATTEMPTS.c.run_id.in_(asked)).order_by(ATTEMPTS.c.id.desc()).limit(limit)
    return list(session.connection().scalars(query))[::-1]


def batches_of_run(
    session: Session, *, run_id: int, with_numbers: bool = False
) -> Iterator[BatchRecord]:
    """Read the batches of a run in the order of their numbers."""
    columns = _BATCHES if with_numbers else _BATCHES_BARE
    return map(_batch_record, stream(session, columns.where(BATCHES.c.run_id == run_id)))


def _batch_record(row: AnyRow) -> BatchRecord:
    digest = whole_digest(row.digest, row.numbers, row.n, row.min, row.max)
    return record(BatchRecord, row, packed=row.numbers, digest=digest)


def newest_batches(
    session: Session, window: Window, *, source: str | None, limit: int, with_numbers: bool
) -> Iterator[BatchRecord]:
    """Read the last *limit* batches of a window's newest runs, the last of the newest run first."""
    columns = _BATCHES if with_numbers else _BATCHES_BARE
    query = columns.order_by(None).order_by(BATCHES.c.run_id.desc(), BATCHES.c.number.desc())
    if source is not None:
        asked = runs_that_may_have_asked(source, window, limit=limit)
        query = query.where(BATCHES.c.source == source, BATCHES.c.run_id.in_(asked))
    if chosen := within(RUNS.c.started_at, window):
        # The bounds let the walk begin and end where it should; clocks that jump need the rest.
        ids = select(func.min(RUNS.c.id), func.max(RUNS.c.id)).where(*chosen)
        first, last = session.connection().execute(ids).one()
        query = query.join(RUNS, RUNS.c.id == BATCHES.c.run_id).where(
            BATCHES.c.run_id.between(first, last), *chosen
        )
    return map(_batch_record, stream(session, query.limit(limit)))


def attempts_of_run(
    session: Session, *, run_id: int, fetches: tuple[int, int] | None = None
) -> Iterator[AttemptRecord]:
    """Read the attempts of a run, fetch by fetch, each fetch's in the order of its tries.

    *fetches* are the first and the last that are wanted.
    """
    query = _ATTEMPTS.where(ATTEMPTS.c.run_id == run_id).order_by(*ATTEMPT_KEY)
    if fetches is not None:
        query = query.where(ATTEMPTS.c.fetch.between(*fetches))
    return map(_attempt_record, stream(session, query))


def workers_of_run(session: Session, *, run_id: int) -> dict[tuple[str, int], int]:
    """Count the attempts of a run by the workers that made them, by host and pid."""
    worker = (MEMBERS.c.host, MEMBERS.c.pid)
    query = select(*worker, func.count()).join(ATTEMPTS, ATTEMPTS.c.member == MEMBERS.c.id)
    query = query.where(ATTEMPTS.c.run_id == run_id).group_by(*worker).order_by(*worker)
    return {(host, pid): n for host, pid, n in session.connection().execute(query)}


def hosts_of_failures(
    session: Session, *, run_id: int
) -> dict[tuple[str, ErrorName, Phase | None], list[str]]:
    """List the machines of the workers whose attempts failed, by source, error and phase."""
    columns = (ATTEMPTS.c.source, ATTEMPTS.c.error, ATTEMPTS.c.phase, MEMBERS.c.host)
    query = (
        select(*columns)
        .join(MEMBERS, MEMBERS.c.id == ATTEMPTS.c.member)
        .where(ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.error.is_not(None))
        .distinct()
        .order_by(*columns)
    )
    found: defaultdict[tuple[str, ErrorName, Phase | None], list[str]] = defaultdict(list)
    for source, error, phase, host in session.connection().execute(query):
        found[source, error, phase].append(host)
    return dict(found)


def exchanges_of_run(session: Session, *, run_id: int) -> Iterator[AttemptRecord]:
    """Read the attempts of a run in the order in which they began, with what was sent and got."""
    query = (
        _ATTEMPTS.add_columns(
            *(column.label(f"request_{column.name}") for column in REQUESTS.c),
            *(column.label(f"evidence_{column.name}") for column in EVIDENCE.c),
        )
        .outerjoin(REQUESTS, ATTEMPTS.c.request == REQUESTS.c.id)
        .outerjoin(EVIDENCE, ATTEMPTS.c.evidence == EVIDENCE.c.digest)
        .where(ATTEMPTS.c.run_id == run_id)
        .order_by(ATTEMPTS.c.began_at, ATTEMPTS.c.id)
    )
    for row in stream(session, query):
        request = record(Request, row, "request_") if row.request else None
        evidence = record(Evidence, row, "evidence_") if row.evidence else None
        yield _attempt_record(row, request=request, evidence=evidence)


def _attempt_record(row: AnyRow, **more: object) -> AttemptRecord:
    """Make an attempt of a row and, as *more*, of what belongs to it."""
    parts: dict[str, object] = {"timings": record(Timings, row), "request": None, "evidence": None}
    parts |= {"contract": (), "measures": (), "proof": None}
    return record(AttemptRecord, row, attempt=record(Attempt, row, **parts | more))


def find_attempt(session: Session, *, attempt_id: int) -> AttemptCase | None:
    """Look up one attempt with all that is known of it."""
    connection = session.connection()
    row = connection.execute(_ATTEMPTS.where(ATTEMPTS.c.id == attempt_id)).first()
    if row is None:
        return None
    key = (row.run_id, row.fetch, row.number)
    decided = connection.execute(_BATCHES.where(same(BATCH_KEY, key)))
    of_fetch = (ATTEMPTS.c.run_id == row.run_id) & (ATTEMPTS.c.fetch == row.fetch)
    tries = connection.execute(_ATTEMPTS.where(of_fetch).order_by(ATTEMPTS.c.number))
    return AttemptCase(
        record=_attempt_record(
            row,
            request=find_request(session, request_id=row.request) if row.request else None,
            evidence=find_evidence(session, digest=row.evidence) if row.evidence else None,
            measures=measures_of(session, key),
            proof=proof_of(session, key),
        ),
        batches=tuple(map(_batch_record, decided)),
        tries=tuple(map(_attempt_record, tries)),
        contracts=() if row.status is None else contracts_at(session, row.source, row.id),
        limits=find_limits(session, run_id=row.run_id, source=row.source),
    )


def phase_totals(session: Session, *, run_id: int) -> list[PhaseTotals]:
    """Add up how long each phase took, by source and then in the order of the phases.

    A phase that no attempt of a source reached is left out.
    """
    figures = (func.count, add_up, func.min, func.max)
    columns = [of(ATTEMPTS.c[name]) for name in PHASE_COLUMNS.values() for of in figures]
    query = (
        select(ATTEMPTS.c.source, *columns)
        .where(ATTEMPTS.c.run_id == run_id)
        .group_by(ATTEMPTS.c.source)
        .order_by(name_of(ATTEMPTS.c.source))
    )
    return [
        PhaseTotals(source=source, phase=phase, n=n, total_us=total, min_us=low, max_us=high)
        for source, *found in session.connection().execute(query)
        for phase, n, total, low, high in zip(
            PHASE_COLUMNS, found[::4], found[1::4], found[2::4], found[3::4], strict=True
        )
        if n
    ]
