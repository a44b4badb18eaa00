"""What sources signed, kept with the attempts that brought it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, select, tuple_
from sqlmodel import Session

from pipeline.models import Attempt, Batch, Fetch, Proof, Verdict
from pipeline.store.numbers import whole_digest
from pipeline.store.rows import AnyRow, as_row, record
from pipeline.store.tables import ATTEMPTS, BATCHES, PROOFS

PROOFS_AT_ONCE = 200

_ADD = insert(PROOFS)
_KEY = (PROOFS.c.run_id, PROOFS.c.fetch, PROOFS.c.number)
_BATCH_KEY = (BATCHES.c.run_id, BATCHES.c.fetch, BATCHES.c.attempt)
_ATTEMPT_KEY = (ATTEMPTS.c.run_id, ATTEMPTS.c.fetch, ATTEMPTS.c.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """A proof with the batches whose numbers must follow from it.

    Attributes:
        digests: what was collected for each of them.
    """

    proof: Proof
    source: str
    fetch: Fetch
    digests: tuple[bytes | None, ...]


def save(session: Session, attempts: Sequence[Attempt], *, run_id: int) -> None:
    """Write the proofs of *attempts*, which are stored by now, in the run *run_id*."""
    rows = [
        {"run_id": run_id, "fetch": attempt.fetch, "number": attempt.number}
        | as_row(PROOFS, attempt.proof)
        for attempt in attempts
        if attempt.proof is not None
    ]
    if rows:
        session.exec(_ADD, params=rows)


def proof_of(session: Session, *, run_id: int, fetch: int, number: int) -> Proof | None:
    """Read the proof of one attempt, if it has one."""
    query = select(PROOFS).where(tuple_(*_KEY) == tuple_(run_id, fetch, number))
    row = session.connection().execute(query).first()
    return None if row is None else record(Proof, row)


def newest_serial(session: Session, *, source: str) -> int | None:
    """Find the number of the newest proof of *source*."""
    query = (
        select(PROOFS.c.serial)
        .join(ATTEMPTS, tuple_(*_ATTEMPT_KEY) == tuple_(*_KEY))
        .where(ATTEMPTS.c.source == source)
        .order_by(*(column.desc() for column in _KEY))
        .limit(1)
    )
    return session.connection().scalar(query)


def count_proofs(session: Session) -> int:
    """Count all there are."""
    return session.connection().scalar(select(func.count()).select_from(PROOFS)) or 0


def count_unsigned(session: Session) -> int:
    """Count the collected batches that no proof is about."""
    proof = exists().where(tuple_(*_KEY) == tuple_(*_BATCH_KEY))
    query = select(func.count()).where(BATCHES.c.verdict == Verdict.COLLECTED, ~proof)
    return session.connection().scalar(query) or 0


def read_proved(reading: Callable[[], AbstractContextManager[Session]]) -> Iterator[Proved]:
    """Read all proofs by run, fetch and attempt, some in each session that *reading* opens."""
    last = (0, -1, -1)
    query = (
        select(PROOFS, ATTEMPTS.c.source)
        .join(ATTEMPTS, tuple_(*_ATTEMPT_KEY) == tuple_(*_KEY))
        .order_by(*_KEY)
        .limit(PROOFS_AT_ONCE)
    )
    while True:
        with reading() as session:
            rows = session.connection().execute(query.where(tuple_(*_KEY) > last)).all()
            found = [_proved(session, row) for row in rows]
        if not found:
            return
        yield from found
        last = (rows[-1].run_id, rows[-1].fetch, rows[-1].number)


def _proved(session: Session, row: AnyRow) -> Proved:
    is_served = tuple_(*_BATCH_KEY) == tuple_(row.run_id, row.fetch, row.number)
    query = (
        select(BATCHES)
        .where(is_served, BATCHES.c.verdict == Verdict.COLLECTED)
        .order_by(BATCHES.c.number)
    )
    rows = session.connection().execute(query).all()
    batches = tuple(record(Batch, batch) for batch in rows)
    return Proved(
        proof=record(Proof, row),
        source=row.source,
        fetch=Fetch(number=row.fetch, batches=batches, run=row.run_id),
        digests=tuple(
            whole_digest(each.digest, each.numbers, each.n, each.min, each.max) for each in rows
        ),
    )
