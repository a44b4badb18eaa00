"""The figures that answers hold beside their numbers, such as a Bell value: kept, and looked at."""

from collections.abc import Sequence

from sqlalchemy import func, insert, select
from sqlmodel import Session

from pipeline.models import Attempt, Measure, WeakMeasure
from pipeline.store.columns import name_of
from pipeline.store.rows import as_row, execute_many, records
from pipeline.store.tables import ATTEMPT_KEY, ATTEMPTS, MEASURE_KEY, MEASURES, RUNS, same
from pipeline.store.window import Window, of_source, within

_ADD = insert(MEASURES)


def save(session: Session, attempts: Sequence[Attempt], *, run_id: int) -> None:
    """Write the figures of *attempts*, which are stored by now, in the run *run_id*."""
    rows = (
        {"run_id": run_id} | as_row(MEASURES, attempt) | as_row(MEASURES, measure)
        for attempt in attempts
        for measure in attempt.measures
    )
    execute_many(session, _ADD, rows)


def measures_of(session: Session, key: tuple[int, int, int]) -> tuple[Measure, ...]:
    """Read the figures of the attempt of a run, a fetch and a number, by name."""
    query = select(MEASURES).where(same(MEASURE_KEY, key)).order_by(MEASURES.c.name)
    return tuple(records(session, Measure, query))


def find_weak(session: Session, window: Window, *, source: str | None) -> list[WeakMeasure]:
    """Count, by source and figure, the answers of *window* that were below what was wanted."""
    is_weak = MEASURES.c.value < MEASURES.c.at_least
    weak_at = ATTEMPTS.c.began_at
    query = (
        select(
            ATTEMPTS.c.source,
            MEASURES.c.name,
            func.count().label("n"),
            func.count().filter(is_weak).label("below"),
            func.min(MEASURES.c.value).label("lowest"),
            func.max(MEASURES.c.at_least).label("at_least"),
            func.min(weak_at).filter(is_weak).label("first_at"),
            func.max(weak_at).filter(is_weak).label("last_at"),
            func.min(ATTEMPTS.c.id).filter(is_weak).label("first_attempt"),
            func.max(ATTEMPTS.c.id).filter(is_weak).label("last_attempt"),
            func.max(ATTEMPTS.c.id).label("newest_attempt"),
        )
        .join_from(MEASURES, ATTEMPTS, same(MEASURE_KEY, ATTEMPT_KEY))
        .join(RUNS, RUNS.c.id == MEASURES.c.run_id)
        .where(*within(RUNS.c.started_at, window), *of_source(ATTEMPTS.c.source, source))
        .group_by(ATTEMPTS.c.source, MEASURES.c.name)
        .having(func.count().filter(is_weak) > 0)
        .order_by(name_of(ATTEMPTS.c.source), MEASURES.c.name)
    )
    return records(session, WeakMeasure, query)
