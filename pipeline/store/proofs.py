"""What sources signed, kept with the attempts that brought it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, select, tuple_
from sqlmodel import Session

from pipeline.models import Attempt, Batch, Fetch, Proof, Verdict
from pipeline.store.numbers import whole_digest
from pipeline.store.rows import AnyRow, as_row, execute_many, find, record
from pipeline.store.tables import ATTEMPT_KEY, ATTEMPTS, BATCH_KEY, BATCHES, PROOF_KEY, PROOFS, same

PROOFS_AT_ONCE = 200

_ADD = insert(PROOFS)
_SIGNED = select(PROOFS, ATTEMPTS.c.source).join(ATTEMPTS, same(ATTEMPT_KEY, PROOF_KEY))


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
    rows = (
        {"run_id": run_id} | as_row(PROOFS, attempt) | as_row(PROOFS, attempt.proof)
        for attempt in attempts
        if attempt.proof is not None
    )
    execute_many(session, _ADD, rows)


def proof_of(session: Session, key: tuple[int, int, int]) -> Proof | None:
    """Read the proof of the attempt of a run, a fetch and a number, if it has one."""
    return find(session, Proof, select(PROOFS).where(same(PROOF_KEY, key)))


def newest_serial(session: Session, *, source: str) -> int | None:
    """Find the number of the newest proof of *source*."""
    query = _SIGNED.with_only_columns(PROOFS.c.serial).where(ATTEMPTS.c.source == source)
    newest_first = (column.desc() for column in PROOF_KEY)
    return session.connection().scalar(query.order_by(*newest_first).limit(1))


def count_proofs(session: Session) -> int:
    """Count all there are."""
    return session.connection().scalar(select(func.count()).select_from(PROOFS)) or 0


def count_unsigned(session: Session) -> int:
    """Count the collected batches that no proof is about."""
    proof = exists().where(same(PROOF_KEY, BATCH_KEY))
    query = select(func.count()).where(BATCHES.c.verdict == Verdict.COLLECTED, ~proof)
    return session.connection().scalar(query) or 0


def read_proved(reading: Callable[[], AbstractContextManager[Session]]) -> Iterator[Proved]:
    """Read all proofs by run, fetch and attempt, some in each session that *reading* opens."""
    last = (0, -1, -1)
    query = _SIGNED.order_by(*PROOF_KEY).limit(PROOFS_AT_ONCE)
    while True:
        with reading() as session:
            rows = session.connection().execute(query.where(tuple_(*PROOF_KEY) > last)).all()
            found = [_proved(session, row) for row in rows]
        if not found:
            return
        yield from found
        last = (rows[-1].run_id, rows[-1].fetch, rows[-1].number)


def _proved(session: Session, row: AnyRow) -> Proved:
    is_served = same(BATCH_KEY, (row.run_id, row.fetch, row.number))
    query = select(BATCHES).where(is_served, BATCHES.c.verdict == Verdict.COLLECTED)
    rows = session.connection().execute(query.order_by(BATCHES.c.number)).all()
    batches = tuple(record(Batch, batch) for batch in rows)
    return Proved(
        proof=record(Proof, row),
        source=row.source,
        fetch=Fetch(number=row.fetch, batches=batches, run=row.run_id),
        digests=tuple(
            whole_digest(each.digest, each.numbers, each.n, each.min, each.max) for each in rows
        ),
    )
