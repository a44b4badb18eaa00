"""Questions to the store about runs, batches and attempts, answered with frozen values.

Nothing here opens a session or ends its transaction. What may be long comes as an iterator that
reads as it goes: use it up while its session lives. A reader in mid-answer keeps writers waiting
under a rollback journal, so nobody should hold one open across a slow pipe.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import lt
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Dialect,
    Float,
    TypeDecorator,
    cast,
    exists,
    func,
    literal_column,
    null,
    select,
    type_coerce,
    union_all,
)
from sqlmodel import Session

from pipeline.clock import MADE_AT, TOLERANCE, Stamp
from pipeline.errors import ErrorName, Phase
from pipeline.models import (
    Attempt,
    AttemptCase,
    AttemptRecord,
    BatchRecord,
    ContractSpan,
    Evidence,
    Measure,
    PhaseTotals,
    Proof,
    Request,
    RunStatus,
    RunSummary,
    Timings,
    Verdict,
)
from pipeline.store.columns import PHASE_COLUMNS, name_of
from pipeline.store.evidence import find_evidence, find_request
from pipeline.store.measures import measures_of
from pipeline.store.numbers import whole_digest
from pipeline.store.proofs import proof_of
from pipeline.store.rows import AnyRow, record, stream
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    CONFIGURATIONS,
    CONTRACTS,
    EVIDENCE,
    MEMBERS,
    REQUESTS,
    RUNS,
    TALLIES,
)
from pipeline.store.window import Window, within

_RUNS = select(RUNS).order_by(RUNS.c.id.desc())
_BATCHES = select(BATCHES).order_by(BATCHES.c.run_id, BATCHES.c.number)
_ATTEMPTS = (
    select(ATTEMPTS, MEMBERS.c.host, MEMBERS.c.pid)
    .select_from(ATTEMPTS)
    .outerjoin(MEMBERS, MEMBERS.c.id == ATTEMPTS.c.member)
)
_OF_NUMBERS = ("numbers", "digest")
_BATCHES_BARE = _BATCHES.with_only_columns(
    *(column for column in BATCHES.c if column.name not in _OF_NUMBERS),
    *(null().label(name) for name in _OF_NUMBERS),
)


class _Whole(TypeDecorator[int]):
    """A float that is a whole number; 0 for the sum of nothing."""

    impl = Float
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> int:
        """Make it one."""
        del dialect
        return int(value or 0)


def add_up(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Sum as a float: exact up to 2**53, and never SQLite's "integer overflow"."""
    return type_coerce(func.sum(cast(column, Float(53))), _Whole)


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
        has_batches = exists().where(BATCHES.c.run_id == RUNS.c.id, BATCHES.c.source == source)
        query = query.where(
            RUNS.c.id.in_(runs_that_may_have_asked(source, limit=limit, since=since, until=until)),
            (RUNS.c.status != literal_column("'running'")) | has_batches,
        )
    return [record(RunSummary, row, is_alive=None) for row in session.connection().execute(query)]


def first_run_at(session: Session) -> datetime | None:
    """Tell when the first run of all started, by a clock that was set."""
    begin: datetime | None = session.connection().scalar(
        select(func.min(RUNS.c.started_at)).where(RUNS.c.started_at >= MADE_AT)
    )
    return begin


def runs_that_may_have_asked(
    source: str, *, limit: int, since: datetime | None = None, until: datetime | None = None
) -> CompoundSelect[int]:
    """Find the newest runs that wanted something from *source*, and all that still go on.

    The way to the batches and attempts of a source, which no index names. Pruned runs count too.
    """
    newest = (
        select(TALLIES.c.run_id)
        .where(TALLIES.c.source == source, *within(TALLIES.c.started_at, since, until))
        .order_by(TALLIES.c.started_at.desc(), TALLIES.c.run_id.desc())
        .limit(limit)
        .subquery()
    )
    # A run that still goes on has no tally.
    running = select(RUNS.c.id).where(RUNS.c.status == literal_column("'running'"))
    return union_all(select(newest.c.run_id), running)


def find_run(session: Session, *, run_id: int | None) -> RunSummary | None:
    """Look up one run, the newest if *run_id* is None; None if there is no such run."""
    query = _RUNS.limit(1) if run_id is None else _RUNS.where(RUNS.c.id == run_id)
    row = session.connection().execute(query).first()
    return None if row is None else record(RunSummary, row, is_alive=None)


def stamps(
    session: Session,
    *,
    first: int = 0,
    later: datetime | None = None,
    least_offset: timedelta = timedelta(0),
) -> list[Stamp]:
    """List when the runs from number *first* on started, in the order of their numbers.

    With *later* those before them as well that started later than that: in the future. With a
    *least_offset* only those whose clock was farther off by the answers.
    """
    is_wanted = RUNS.c.id >= first
    if later is not None:
        is_wanted |= RUNS.c.started_at > later
    if least_offset:
        is_wanted &= func.abs(RUNS.c.clock_offset_us) > least_offset // timedelta(microseconds=1)
    query = select(RUNS.c.id, RUNS.c.started_at, RUNS.c.clock_offset_us).where(is_wanted)
    return [
        Stamp(run_id=run_id, started_at=started_at, offset_us=offset_us)
        for run_id, started_at, offset_us in session.connection().execute(query.order_by(RUNS.c.id))
    ]


def count_runs(session: Session, window: Window) -> int:
    """Count the runs that started in *window*."""
    chosen = within(RUNS.c.started_at, window.since, window.until)
    return session.connection().scalar(select(func.count()).select_from(RUNS).where(*chosen)) or 0


def is_in_order(session: Session, *, first: int, earliest: datetime) -> bool:
    """Tell whether the runs from number *first* on started one after the other, not too early."""
    # From the index of the moments alone: the rows are ten times as long, and may be a year's.
    connection = session.connection()
    begin = connection.scalar(select(RUNS.c.started_at).where(RUNS.c.id == first))
    if begin is None:
        return True
    numbers = select(RUNS.c.id).where(RUNS.c.id >= first)
    if begin < earliest or connection.scalar(numbers.where(RUNS.c.started_at < begin).limit(1)):
        return False
    later = numbers.where(RUNS.c.started_at >= begin).order_by(RUNS.c.started_at, RUNS.c.id)
    in_time = connection.scalars(later).all()
    return all(map(lt, in_time, in_time[1:]))


def first_run(session: Session, *, since: datetime | None, until: datetime) -> int:
    """Find the first run of a window, or the newest of all: that may have a time of its own."""
    chosen = within(RUNS.c.started_at, since, until)
    first = select(func.min(RUNS.c.id)).where(*chosen).scalar_subquery()
    newest = select(func.max(RUNS.c.id)).scalar_subquery()
    return int(session.connection().scalar(select(func.coalesce(first, newest, 0))) or 0)


def last_stamps(session: Session) -> list[Stamp]:
    """List when the last two runs started, the newest last."""
    last = select(RUNS.c.id).order_by(RUNS.c.id.desc()).limit(2)
    numbers = session.connection().scalars(last).all()
    return stamps(session, first=numbers[-1]) if numbers else []


def count_future(session: Session, *, now: datetime) -> tuple[int, int]:
    """Count all runs, and those that started later than *now*."""
    count = select(func.count()).select_from(RUNS)
    is_later = RUNS.c.started_at > now + TOLERANCE  # by the index: there are few or none
    connection = session.connection()
    return connection.scalar(count) or 0, connection.scalar(count.where(is_later)) or 0


def run_before(session: Session, *, run: RunSummary) -> RunSummary | None:
    """Look up the last run of the same configuration that ended before *run* and asked anybody."""
    said_nothing = (RunStatus.RUNNING, RunStatus.SKIPPED)
    query = _RUNS.where(
        RUNS.c.id < run.id,
        RUNS.c.config_path == run.config_path,
        RUNS.c.status.not_in(said_nothing),
    )
    row = session.connection().execute(query.limit(1)).first()
    return None if row is None else record(RunSummary, row, is_alive=None)


def get_run(session: Session, *, run_id: int) -> RunSummary:
    """Look up a run that is known to be there."""
    query = _RUNS.where(RUNS.c.id == run_id)
    return record(RunSummary, session.connection().execute(query).one(), is_alive=None)


def find_limits(
    session: Session, *, run_id: int, source: str | None = None
) -> dict[str, Any] | None:
    """Look up the limits in force in a run, of one *source* alone if it is given.

    None: it ran before they were kept, or asked nobody.
    """
    query = select(CONFIGURATIONS.c.limits).where(
        RUNS.c.id == run_id,
        CONFIGURATIONS.c.digest == RUNS.c.config_digest,
        CONFIGURATIONS.c.version == RUNS.c.version,
    )
    kept = session.connection().scalar(query)
    if kept is None:
        return None
    limits: dict[str, Any] = json.loads(kept)
    if source is not None:
        limits["sources"] = {name: of for name, of in limits["sources"].items() if name == source}
    return limits


def first_of_configuration(
    session: Session, *, run_id: int, since: datetime | None
) -> datetime | None:
    """Tell when the first run from *since* on began that had the configuration of *run_id*."""
    run = RUNS.alias("given")
    query = select(func.min(RUNS.c.started_at)).where(
        run.c.id == run_id,
        RUNS.c.config_digest == run.c.config_digest,
        RUNS.c.version == run.c.version,
        *([] if since is None else [RUNS.c.started_at >= since]),
    )
    first: datetime | None = session.connection().scalar(query)
    return first


def ended_runs(session: Session, window: Window) -> Iterator[RunSummary]:
    """Walk over the runs of a window that have ended and wanted something, the oldest first."""
    query = (
        select(RUNS)
        .where(RUNS.c.status != RunStatus.RUNNING.value, RUNS.c.ordered > 0)
        .where(*within(RUNS.c.started_at, window.since, window.until))
        .order_by(RUNS.c.started_at, RUNS.c.id)
    )
    rows = session.connection().execute(query).all()
    return (record(RunSummary, row, is_alive=None) for row in rows)


def running_runs(session: Session) -> list[RunSummary]:
    """List the runs that are called running, whether their process is there or not."""
    query = _RUNS.where(RUNS.c.status == RunStatus.RUNNING.value)
    return [record(RunSummary, row, is_alive=None) for row in session.connection().execute(query)]


def progress_by_source(session: Session, *, run_id: int) -> dict[str, Counter[Verdict | None]]:
    """Count the batches of a run by source and verdict; those without one are still open."""
    query = (
        select(BATCHES.c.source, BATCHES.c.verdict, func.count().label("batches"))
        .where(BATCHES.c.run_id == run_id)
        .group_by(BATCHES.c.source, BATCHES.c.verdict)
    )
    found: defaultdict[str, Counter[Verdict | None]] = defaultdict(Counter)
    for row in session.connection().execute(query):
        found[row.source][row.verdict and Verdict(row.verdict)] = row.batches
    return dict(found)


def newest_errors(session: Session, *, source: str, limit: int) -> list[str | None]:
    """List what went wrong in the last *limit* attempts at *source*, the newest last.

    None stands for an attempt that brought numbers.
    """
    newest = (
        select(ATTEMPTS.c.error)
        .where(
            ATTEMPTS.c.source == source,
            ATTEMPTS.c.run_id.in_(runs_that_may_have_asked(source, limit=limit)),
        )
        .order_by(ATTEMPTS.c.id.desc())
        .limit(limit)
    )
    return list(session.connection().scalars(newest))[::-1]


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
        asked = runs_that_may_have_asked(source, limit=limit, since=since, until=until)
        query = query.where(BATCHES.c.source == source, BATCHES.c.run_id.in_(asked))
    if chosen:
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
    query = _ATTEMPTS.where(ATTEMPTS.c.run_id == run_id).order_by(
        ATTEMPTS.c.fetch, ATTEMPTS.c.number
    )
    if fetches is not None:
        query = query.where(ATTEMPTS.c.fetch.between(*fetches))
    return map(_attempt_record, stream(session, query))


def workers_of_run(session: Session, *, run_id: int) -> dict[tuple[str, int], int]:
    """Count the attempts of a run by the workers that made them, by host and pid."""
    query = (
        select(MEMBERS.c.host, MEMBERS.c.pid, func.count())
        .join(ATTEMPTS, ATTEMPTS.c.member == MEMBERS.c.id)
        .where(ATTEMPTS.c.run_id == run_id)
        .group_by(MEMBERS.c.host, MEMBERS.c.pid)
        .order_by(MEMBERS.c.host, MEMBERS.c.pid)
    )
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
        request = record(Request, row, prefix="request_") if row.request else None
        evidence = record(Evidence, row, prefix="evidence_") if row.evidence else None
        yield _attempt_record(row, request=request, evidence=evidence)


def _attempt_record(
    row: AnyRow,
    *,
    request: Request | None = None,
    evidence: Evidence | None = None,
    measures: tuple[Measure, ...] = (),
    proof: Proof | None = None,
) -> AttemptRecord:
    timings = record(Timings, row)
    attempt = record(
        Attempt,
        row,
        timings=timings,
        request=request,
        contract=(),
        evidence=evidence,
        measures=measures,
        proof=proof,
    )
    return record(AttemptRecord, row, attempt=attempt)


def find_attempt(session: Session, *, attempt_id: int) -> AttemptCase | None:
    """Look up one attempt with all that is known of it."""
    connection = session.connection()
    row = connection.execute(_ATTEMPTS.where(ATTEMPTS.c.id == attempt_id)).first()
    if row is None:
        return None
    decided = (
        (BATCHES.c.run_id == row.run_id)
        & (BATCHES.c.fetch == row.fetch)
        & (BATCHES.c.attempt == row.number)
    )
    of_fetch = (ATTEMPTS.c.run_id == row.run_id) & (ATTEMPTS.c.fetch == row.fetch)
    tries = _ATTEMPTS.where(of_fetch).order_by(ATTEMPTS.c.number)
    return AttemptCase(
        record=_attempt_record(
            row,
            request=find_request(session, request_id=row.request) if row.request else None,
            evidence=find_evidence(session, digest=row.evidence) if row.evidence else None,
            measures=measures_of(session, run_id=row.run_id, fetch=row.fetch, number=row.number),
            proof=proof_of(session, run_id=row.run_id, fetch=row.fetch, number=row.number),
        ),
        batches=tuple(map(_batch_record, connection.execute(_BATCHES.where(decided)))),
        tries=tuple(map(_attempt_record, connection.execute(tries))),
        contracts=() if row.status is None else _contracts_at(session, row.source, row.id),
        limits=find_limits(session, run_id=row.run_id, source=row.source),
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
    return tuple(record(ContractSpan, row) for row in session.connection().execute(query))


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
        .order_by(name_of(ATTEMPTS.c.source))
    )
    return [
        PhaseTotals(source=source, phase=phase, n=n, total_us=total, min_us=low, max_us=high)
        for source, *figures in session.connection().execute(query)
        for phase, (n, total, low, high) in zip(PHASE_COLUMNS, _by_phase(figures), strict=True)
        if n
    ]


def _by_phase(figures: list[Any]) -> Iterator[tuple[Any, ...]]:
    size = len(PHASE_COLUMNS)
    return zip(*(figures[at : at + size] for at in range(0, len(figures), size)), strict=True)
