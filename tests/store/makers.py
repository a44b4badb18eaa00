"""Values as the rest of the program hands them to the store, with as little said as possible."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlmodel import Session

from pipeline.errors import ErrorName, Phase
from pipeline.models import (
    Attempt,
    Batch,
    BatchRecord,
    Evidence,
    Outcome,
    Proof,
    ProofWord,
    RunStatus,
    Timings,
    Verdict,
)
from pipeline.store.numbers import CHECK_BYTES, collected, is_sound
from pipeline.store.writes import finish_run, order_batches, save_results, start_run

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOST = "machine-1"


PROOF = Proof(
    scheme="s",
    key_id="k",
    serial=2**62,
    made_at=NOON,
    message=b"\x00\xff",
    signature=b"\xff\x00",
    word=ProofWord.VERIFIED,
    is_expanded=True,
)


def at(minutes: int) -> datetime:
    """Give a time so many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def make_batch(number: int = 0, source: str = "dice", n: int = 3) -> Batch:
    """Want *n* rolls of a die."""
    return Batch(number=number, source=source, n=n, min=1, max=6)


def make_collected(
    batch: Batch,
    numbers: Sequence[int] = (),
    *,
    fetch: int | None = None,
    attempt: int = 1,
    offset: int = 0,
) -> Outcome:
    """Collect *numbers* or as many sixes as *batch* wants, each batch with a fetch of its own."""
    return collected(
        batch,
        numbers or (6,) * batch.n,
        fetch=batch.number if fetch is None else fetch,
        attempt=attempt,
        offset=offset,
    )


def make_lost(batch: Batch, verdict: Verdict = Verdict.FAILED) -> Outcome:
    """Lose *batch* to a server error."""
    return Outcome(
        batch=batch,
        verdict=verdict,
        fetch=batch.number,
        attempt=1,
        error=ErrorName.HTTP_5XX,
        detail="503 Service Unavailable",
        not_before=at(60) if verdict is Verdict.DEFERRED else None,
    )


def make_attempt(
    fetch: int = 0, number: int = 1, source: str = "dice", began_at: datetime = NOON
) -> Attempt:
    """Ask once, and get an answer over a connection that was open already."""
    return Attempt(
        fetch=fetch,
        number=number,
        source=source,
        began_at=began_at,
        timings=Timings(wait_us=5, send_us=10, first_byte_us=2000, body_us=20, check_us=7),
        is_reused=True,
        status=200,
        body_bytes=40,
    )


def make_signed(fetch: int = 0) -> Attempt:
    """Ask once, and get an answer with a proof."""
    return replace(make_attempt(fetch), proof=replace(PROOF, serial=fetch + 1))


def make_failed_attempt(
    fetch: int = 0,
    number: int = 1,
    source: str = "dice",
    *,
    error: ErrorName = ErrorName.HTTP_5XX,
    phase: Phase = Phase.CHECK,
    began_at: datetime = NOON,
    evidence: Evidence | None = None,
) -> Attempt:
    """Ask once in vain."""
    return Attempt(
        fetch=fetch,
        number=number,
        source=source,
        began_at=began_at,
        timings=Timings(wait_us=0, dns_us=100),
        status=503,
        error=error,
        phase=phase,
        detail="503 Service Unavailable",
        retry_after_us=30_000_000,
        evidence=evidence,
    )


def make_evidence(body: bytes = b"Service Unavailable", date: str = "today") -> Evidence:
    """Keep an answer of a server that is not well."""
    headers = (("Content-Type", "text/plain"), ("Date", date))
    return Evidence(status=503, headers=headers, body=body, body_bytes=len(body))


def begin(
    session: Session,
    *,
    host: str = HOST,
    started_at: datetime = NOON,
    uid: str | None = None,
    is_sandbox: bool = False,
) -> int:
    """Start a run."""
    return start_run(
        session,
        uid=uid or uuid4().hex,
        host=host,
        pid=4711,
        version="1.0",
        config_digest="c0ffee",
        config_path="/etc/pipeline.toml",
        is_sandbox=is_sandbox,
        started_at=started_at,
    )


def record_results(
    session: Session,
    *outcomes: Outcome,
    attempts: Iterable[Attempt] = (),
    batches: Iterable[Batch] | None = None,
    started_at: datetime = NOON,
    keep_numbers: bool = True,
    status: RunStatus | None = None,
    is_over: bool = True,
) -> int:
    """Record a run that wants *batches*, or those of its *outcomes*, and what came of them."""
    wanted = [each.batch for each in outcomes] if batches is None else list(batches)
    is_sandbox = any(batch.is_sandbox for batch in wanted)
    run_id = begin(session, started_at=started_at, is_sandbox=is_sandbox)
    order_batches(session, run_id=run_id, batches=wanted)
    sent = list(attempts)
    save_results(
        session, run_id=run_id, attempts=sent, outcomes=outcomes, keep_numbers=keep_numbers
    )
    if is_over:
        finish_run(session, run_id=run_id, status=status, ended_at=started_at, clock_us=1_000_000)
    return run_id


def record_run(
    session: Session,
    batches: Iterable[Batch],
    *,
    attempts: Iterable[Attempt] = (),
    started_at: datetime = NOON,
    status: RunStatus = RunStatus.OK,
) -> int:
    """Record a whole run that collects all *batches*."""
    outcomes = map(make_collected, batches)
    return record_results(
        session, *outcomes, attempts=attempts, started_at=started_at, status=status
    )


def is_intact(batch: BatchRecord) -> bool:
    """Tell whether a batch read back says what was collected, as far as its numbers were kept."""
    if batch.packed is None:
        return True
    assert batch.sum is not None
    assert batch.digest is not None
    return is_sound(
        batch.packed,
        batch.n,
        batch.min,
        batch.max,
        total=batch.sum,
        digest=batch.digest[:CHECK_BYTES],
    )
