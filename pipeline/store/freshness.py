"""Which numbers came before, so that an old answer can be told from a fresh one."""

from sqlalchemy import select
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.store.tables import BATCHES, TALLIES


def recent_digests(session: Session, *, source: str, limit: int) -> list[tuple[bytes, int, int]]:
    """Read the digests of the newest *limit* batches that *source* brought, the newest last.

    Each comes with its run and its number within the run. Runs are looked at that have ended, the
    newest *limit* of them.
    """
    # By the tallies, which are found by source: or a source that was left alone for a year, or
    # stands beside one with thousands of batches, would cost a walk over all that is not its own.
    runs = (
        select(TALLIES.c.run_id)
        .where(TALLIES.c.source == source)
        .order_by(TALLIES.c.started_at.desc())
        .limit(limit)
        .scalar_subquery()
    )
    query = (
        select(BATCHES.c.digest, BATCHES.c.run_id, BATCHES.c.number)
        # Left to itself SQLite takes the primary key, and reads the batches of all sources.
        .with_hint(BATCHES, "INDEXED BY ix_batches_run_id_source", "sqlite")
        .where(
            BATCHES.c.run_id.in_(runs),
            BATCHES.c.source == source,
            BATCHES.c.verdict == Verdict.COLLECTED.value,
        )
        .order_by(BATCHES.c.run_id.desc(), BATCHES.c.number.desc())
        .limit(limit)
    )
    newest_first = session.connection().execute(query).all()
    return [(digest, run_id, number) for digest, run_id, number in reversed(newest_first)]
