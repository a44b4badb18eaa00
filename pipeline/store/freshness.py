"""Which numbers came before, so that an old answer can be told from a fresh one."""

from sqlalchemy import select
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.store.tables import BATCHES


def recent_digests(session: Session, *, source: str, limit: int) -> list[tuple[bytes, int, int]]:
    """Read what was collected among the newest *limit* batches of *source*, the newest last.

    Each digest comes with its run and its number within the run.
    """
    # The limit comes before the verdict, or a source that has failed for a year would cost a walk
    # over all of that year.
    newest = (
        select(BATCHES.c.digest, BATCHES.c.run_id, BATCHES.c.number, BATCHES.c.verdict)
        .where(BATCHES.c.source == source)
        .order_by(BATCHES.c.run_id.desc(), BATCHES.c.number.desc())
        .limit(limit)
        .subquery()
    )
    query = (
        select(newest.c.digest, newest.c.run_id, newest.c.number)
        .where(newest.c.verdict == Verdict.COLLECTED.value)
        .order_by(newest.c.run_id, newest.c.number)
    )
    rows = session.connection().execute(query)
    return [(digest, run_id, number) for digest, run_id, number in rows]
