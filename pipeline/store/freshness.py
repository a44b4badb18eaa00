"""Find the numbers that came before, so that an old answer can be told from a fresh one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Integer, case, cast, func, text
from sqlmodel import Session

from pipeline.models import Verdict
from pipeline.store.numbers import CHECK_BYTES, count_telling, width_of
from pipeline.store.queries import newest_of
from pipeline.store.tables import BATCHES

MOST_BYTES = 512  # of a batch whose end is read: what is longer lies on pages of its own

# A run that still goes on has no tally.
_WITH_HISTORY = text(
    """
    SELECT source FROM unnest(CAST(:sources AS text[])) AS wanted (source)
    WHERE EXISTS (SELECT FROM tallies WHERE tallies.source = wanted.source)
    UNION
    SELECT name FROM sources
    WHERE name = ANY(CAST(:sources AS text[])) AND id IN (
        SELECT source FROM batches
        WHERE run_id IN (SELECT id FROM runs WHERE status = 'running') AND verdict = 1
    )
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a source brought before, the newest last.

    Attributes:
        endings: how batches ended, each with its run and its number within the run. An ending is
            the packed numbers up to the end of the batch that say 64 bits, those of the batches
            before it included; the first 64 bits of the digest of a batch that says as much, where
            its numbers are not kept or are many.
        tail: the packed numbers that came last, as many as an ending has at most.
    """

    endings: Sequence[tuple[bytes, int, int]] = ()
    tail: bytes = b""


def sources_with_history(session: Session, sources: Collection[str]) -> set[str]:
    """Tell of which *sources* there may be numbers from before, without a look at them.

    On a server, where a worker asks for a thousand of them, most of which are new.
    """
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        return set(sources)
    return set(connection.scalars(_WITH_HISTORY, {"sources": list(sources)}))


def find_earlier(session: Session, *, source: str, low: int, high: int, limit: int) -> Earlier:
    """Read how those of the newest *limit* batches of *source* ended that were collected.

    Batches of another range than [*low*, *high*] are left out.
    """
    n = count_telling(low, high)
    if n is None:
        return Earlier()
    width = width_of(low, high)
    first = case((BATCHES.c.n > n, BATCHES.c.n - n), else_=0) * width + 1
    begin = cast(first, Integer)  # PostgreSQL's substr takes no bigint
    is_short = func.length(BATCHES.c.numbers) <= MOST_BYTES
    is_wanted = (
        (BATCHES.c.verdict == Verdict.COLLECTED) & (BATCHES.c.min == low) & (BATCHES.c.max == high)
    )
    # What is not wanted counts as well, or a source that has failed for a year would cost a walk
    # over all of that year. What is still to be asked does not: of a long order it would be all.
    columns = (
        case((is_wanted & is_short, func.substr(BATCHES.c.numbers, begin))),
        case((is_wanted, BATCHES.c.digest)),
        *(BATCHES.c.n, BATCHES.c.run_id, BATCHES.c.number),
    )
    decided = newest_of(source, columns, limit=limit).where(BATCHES.c.verdict.is_not(None))
    newest = session.connection().execute(decided).all()
    endings: list[tuple[bytes, int, int]] = []
    tail = b""
    for ending, digest, size, run_id, number in reversed(newest):
        if digest is None:
            continue
        tail = (tail + ending)[-n * width :] if isinstance(ending, bytes) else b""
        if len(tail) == n * width:
            endings.append((tail, run_id, number))
        elif not tail and size >= n:
            endings.append((digest[:CHECK_BYTES], run_id, number))
    return Earlier(endings=endings, tail=tail)
