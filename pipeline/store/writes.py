"""Every change to the books, one function each; the caller owns the transaction and commits.

The statements are Core statements built once, and each executes for many rows at a time: a run
saves a hundred thousand outcomes, and an ORM object for each would cost more than SQLite does.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice, repeat

from sqlalchemy import bindparam, insert, literal_column, update
from sqlmodel import Session, select

from pipeline.errors import ErrorName, StoreError
from pipeline.models import (
    Attempt,
    Batch,
    Evidence,
    Outcome,
    Request,
    RunStatus,
    Tally,
    Verdict,
)
from pipeline.pacing import Rules
from pipeline.store import contracts, seals, summaries
from pipeline.store.inserting import insert_into
from pipeline.store.numbers import digest_of, pack
from pipeline.store.tables import ATTEMPTS, BATCHES, EVIDENCE, REQUESTS, RUNS

CHUNK = 1_000  # rows per statement: enough to make the statement free, small enough for memory

_DECIDED = (
    "verdict",
    "fetch",
    "attempt",
    "offset",
    "sum",
    "numbers",
    "digest",
    "error",
    "detail",
    "not_before",
)
_ADD_BATCH = insert(BATCHES)
_ADD_ATTEMPT = insert(ATTEMPTS)
_DECIDE_BATCH = (
    update(BATCHES)
    .where(
        BATCHES.c.run_id == bindparam("in_run"),
        BATCHES.c.number == bindparam("batch"),
        BATCHES.c.verdict.is_(None),
    )
    .values({column: bindparam(f"new_{column}") for column in _DECIDED})
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
) -> int:
    """Record a run as running and give its id.

    *uid* must be new (``uuid4().hex``); *host* must name this machine the same way every time,
    or ``interrupt_dead_runs`` cannot find its runs again.
    """
    new_run = insert(RUNS).values(
        uid=uid,
        host=host,
        pid=pid,
        version=version,
        config_digest=config_digest,
        config_path=config_path,
        started_at=started_at,
        status=RunStatus.RUNNING.value,
    )
    return int(session.exec(new_run.returning(RUNS.c.id)).scalar_one())


def order_batches(session: Session, *, run_id: int, batches: Iterable[Batch]) -> None:
    """Record what the run wants, before any of it is asked for.

    *batches* is read a little at a time, so it may be longer than memory.
    """
    rows = (
        {
            "run_id": run_id,
            "number": batch.number,
            "source": batch.source,
            "n": batch.n,
            "min": batch.min,
            "max": batch.max,
        }
        for batch in batches
    )
    while chunk := list(islice(rows, CHUNK)):
        session.exec(_ADD_BATCH, params=chunk)


def save_results(
    session: Session,
    *,
    run_id: int,
    attempts: Sequence[Attempt],
    outcomes: Sequence[Outcome],
    keep_numbers: bool,
) -> None:
    """Record attempts with what was sent and shown, and the one outcome of each batch.

    Of the answers that were accepted those are kept as evidence with which a contract begins;
    none if *keep_numbers* is off, for they hold the numbers.

    Raises:
        StoreError: a batch was never ordered, or it has its outcome already.
    """
    if attempts:
        spans = contracts.follow(session, attempts)
        _save_attempts(session, run_id, attempts, _shown(attempts, spans, keep_numbers))
        contracts.save(session, spans, run_id=run_id)
    if outcomes:
        rows = [_outcome_row(run_id, outcome, keep_numbers) for outcome in outcomes]
        decided = session.exec(_DECIDE_BATCH, params=rows).rowcount
        if decided != len(rows):
            raise StoreError(
                f"run {run_id}: {len(rows) - decided} of {len(rows)} outcomes are for batches"
                " that were never ordered or have their outcome already"
            )


def _shown(
    attempts: Sequence[Attempt], spans: Sequence[contracts.Span], keep_numbers: bool
) -> list[Evidence | None]:
    """Pick the evidence that is worth its place."""
    begun = {id(span.first) for span in spans if span.id is None and keep_numbers}
    return [
        attempt.evidence if attempt.error or id(attempt) in begun else None for attempt in attempts
    ]


def _save_attempts(
    session: Session, run_id: int, attempts: Sequence[Attempt], shown: Sequence[Evidence | None]
) -> None:
    digests = _save_evidence(session, attempts, shown)
    requests = _save_requests(session, attempts)
    rows = map(_attempt_row, repeat(run_id), attempts, digests, requests)
    session.exec(_ADD_ATTEMPT, params=list(rows))


def _attempt_row(
    run_id: int, attempt: Attempt, evidence: str | None, request: int | None
) -> dict[str, object]:
    timings = attempt.timings
    return {
        "run_id": run_id,
        "fetch": attempt.fetch,
        "number": attempt.number,
        "source": attempt.source,
        "began_at": attempt.began_at,
        "wait_us": timings.wait_us,
        "dns_us": timings.dns_us,
        "connect_us": timings.connect_us,
        "tls_us": timings.tls_us,
        "send_us": timings.send_us,
        "first_byte_us": timings.first_byte_us,
        "body_us": timings.body_us,
        "check_us": timings.check_us,
        "is_reused": attempt.is_reused,
        "status": attempt.status,
        "body_bytes": attempt.body_bytes,
        "error": attempt.error,
        "phase": attempt.phase,
        "detail": _storable(attempt.detail),
        "retry_after_us": attempt.retry_after_us,
        "evidence": evidence,
        "request": request,
    }


def _outcome_row(run_id: int, outcome: Outcome, keep_numbers: bool) -> dict[str, object]:
    batch = outcome.batch
    packed = digest = total = None
    if outcome.verdict is Verdict.COLLECTED:
        packed = pack(outcome.numbers, batch.min, batch.max)
        digest = digest_of(packed, batch.n, batch.min, batch.max)
        total = sum(outcome.numbers)
    return {
        "in_run": run_id,
        "batch": batch.number,
        "new_verdict": outcome.verdict,
        "new_fetch": outcome.fetch,
        "new_attempt": outcome.attempt,
        "new_offset": outcome.offset,
        "new_sum": total,
        "new_numbers": packed if keep_numbers else None,
        "new_digest": digest,
        "new_error": outcome.error,
        "new_detail": _storable(outcome.detail),
        "new_not_before": outcome.not_before,
    }


def _storable(text: str | None) -> str | None:
    # JSON strings can hold halves of surrogate pairs, which no database takes as text.
    return text and text.encode("utf-8", "backslashreplace").decode("utf-8")


def _save_requests(session: Session, attempts: Sequence[Attempt]) -> list[int | None]:
    """Store each different request once, and give the ids by attempt."""
    # By identity: mostly they are one and the same object, and to hash it takes as long as SQL.
    distinct = {id(request): request for attempt in attempts if (request := attempt.request)}
    digests = {key: digest_of_request(request) for key, request in distinct.items()}
    wanted = {digests[key]: request for key, request in distinct.items()}
    ids = _request_ids(session, wanted)
    new = [_request_row(digest, each) for digest, each in wanted.items() if digest not in ids]
    if new:
        adding = insert_into(session, REQUESTS).on_conflict_do_nothing(index_elements=["digest"])
        session.exec(adding, params=new)
        ids |= _request_ids(session, {row["digest"] for row in new})
    return [
        None if attempt.request is None else ids[digests[id(attempt.request)]]
        for attempt in attempts
    ]


def _request_ids(session: Session, digests: Collection[object]) -> dict[str, int]:
    if not digests:
        return {}
    query = select(REQUESTS.c.digest, REQUESTS.c.id).where(REQUESTS.c.digest.in_(digests))
    return dict(session.connection().execute(query).all())


def _request_row(digest: str, request: Request) -> dict[str, object]:
    return {
        "digest": digest,
        "method": request.method,
        "url": request.url,
        "headers": json.dumps(request.headers),
        "body": request.body,
    }


def digest_of_request(request: Request) -> str:
    """Hash what was sent; no two requests in the store are the same."""
    head = json.dumps([request.method, request.url, request.headers]).encode()
    return hashlib.sha256(head + b"\n" + request.body).hexdigest()


def _save_evidence(
    session: Session, attempts: Sequence[Attempt], shown: Sequence[Evidence | None]
) -> list[str | None]:
    digests = [None if evidence is None else digest_of_evidence(evidence) for evidence in shown]
    rows: dict[str, dict[str, object]] = {}
    for attempt, evidence, digest in zip(attempts, shown, digests, strict=True):
        if evidence and digest and digest not in rows:
            rows[digest] = {
                "digest": digest,
                "status": evidence.status,
                "headers": json.dumps(evidence.headers),
                "body": evidence.body,
                "body_bytes": evidence.body_bytes,
                "first_seen_at": attempt.began_at,
            }
    if rows:
        adding = insert_into(session, EVIDENCE).on_conflict_do_nothing(index_elements=["digest"])
        session.exec(adding, params=list(rows.values()))
    return digests


def digest_of_evidence(evidence: Evidence) -> str:
    """Hash what an upstream answered; that is the key under which it is kept."""
    # Without the Date, or a server that says the same thing all night is kept once a second.
    headers = [(name, value) for name, value in evidence.headers if name.lower() != "date"]
    head = json.dumps([evidence.status, headers]).encode()
    return hashlib.sha256(head + b"\n" + evidence.body).hexdigest()


def finish_run(
    session: Session,
    *,
    run_id: int,
    ended_at: datetime,
    clock_us: int | None,
    status: RunStatus | None = None,
    rest: ErrorName = ErrorName.CANCELLED,
    rules: Mapping[str, Rules] = summaries.NOT_KNOWN,
) -> None:
    """End a run: give the batches still open *rest* as their error, add it all up, and seal it.

    Without a *status* the totals decide between ok, partial and failed. *rules* are those that
    were in force, by source, as far as anybody knows.

    Raises:
        StoreError: there is no such run, or it has ended already.
    """
    # Before anything is added up: two runs may end at once, and both have an hour to add to.
    seals.lock_chain(session.connection())
    _check_running(session, run_id)
    _decide_open_batches(session, run_id, rest)
    totals = _totals(summaries.summarise_run(session, run_id=run_id, rules=rules))
    session.exec(
        update(RUNS)
        .where(RUNS.c.id == run_id)
        .values(
            status=(status or _verdict_on(totals)).value,
            ended_at=ended_at,
            clock_us=clock_us,
            **totals,
        )
    )
    seals.seal_run(session, run_id=run_id, sealed_at=ended_at)


def _check_running(session: Session, run_id: int) -> None:
    query = select(RUNS.c.status).where(RUNS.c.id == run_id).with_for_update()
    if session.connection().scalar(query) != RunStatus.RUNNING.value:
        raise StoreError(f"run {run_id} is not running: it was never started or has ended already")


def _verdict_on(totals: dict[str, int]) -> RunStatus:
    """Sum a run up; what was deferred is no failure: the upstream's rules forbade asking."""
    if totals["failed"] + totals["cancelled"] == 0:
        return RunStatus.OK
    return RunStatus.PARTIAL if totals["collected"] else RunStatus.FAILED


def _decide_open_batches(session: Session, run_id: int, error: ErrorName) -> None:
    is_cancelled = error is ErrorName.CANCELLED
    verdict = Verdict.CANCELLED if is_cancelled else Verdict.FAILED
    session.exec(
        update(BATCHES)
        .where(BATCHES.c.run_id == run_id, BATCHES.c.verdict.is_(None))
        .values(verdict=verdict.value, error=error.value, detail="the run ended first")
    )


def _totals(tallies: Sequence[Tally]) -> dict[str, int]:
    counts = {verdict.value: sum(getattr(t, verdict) for t in tallies) for verdict in Verdict}
    return {
        **counts,
        "ordered": sum(counts.values()),
        "numbers": sum(tally.numbers for tally in tallies),
        "attempts": sum(tally.attempts for tally in tallies),
        # Waits for permission are left out: one by one there would be none to queue behind.
        "waited_us": sum(tally.exchange_us for tally in tallies),
    }


def interrupt_dead_runs(session: Session, *, host: str, ended_at: datetime) -> int:
    """End the runs of *host* that still count as running, and tell how many there were.

    The caller vouches that they are dead (``lock.presence``). Runs of other machines are left
    alone: nothing here can know whether they live. What they collected stays.
    """
    query = select(RUNS.c.id).where(
        RUNS.c.status == literal_column("'running'"), RUNS.c.host == host
    )
    dead = session.exec(query).all()
    for run_id in dead:
        finish_run(
            session,
            run_id=run_id,
            status=RunStatus.INTERRUPTED,
            ended_at=ended_at,
            clock_us=None,
        )
    return len(dead)
