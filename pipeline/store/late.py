"""Attempts that came to the books when others had ended their run: kept beside it, and told.

The first outcomes, the sums and the seal of the run are over what it was when it ended, and stay:
these attempts are no part of any sum or seal.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session

from pipeline.models import Attempt, Late, Verdict
from pipeline.store import plain
from pipeline.store.rows import as_row, execute_many, insert_into, records
from pipeline.store.shared_clock import read_clock
from pipeline.store.tables import ATTEMPTS, LATE_ATTEMPTS, MEMBERS, RUNS
from pipeline.store.window import EVERYTHING, Window, within


def keep(
    session: Session,
    *,
    run_id: int,
    attempts: Sequence[Attempt],
    outcomes: Sequence[Mapping[str, Any]],
    keep_numbers: bool,
    file: str | None = None,
) -> int:
    """Keep those *attempts* that are not on the books yet, and tell how many these are.

    Each is kept with its *outcomes*, rows as ``writes.outcome_columns`` gives them. *file* is where
    they had been set aside.
    """
    decided = defaultdict(list)
    for row in outcomes:
        decided[row["fetch"], row["attempt"]].append(row)
    connection, fetches = session.connection(), {attempt.fetch for attempt in attempts}
    known: set[tuple[object, ...]] = set()
    for each in (ATTEMPTS.c, LATE_ATTEMPTS.c):
        query = select(each.fetch, each.began_at).where(each.run_id == run_id)
        known |= set(map(tuple, connection.execute(query.where(each.fetch.in_(fetches)))))
    came_at = read_clock(connection)
    rows = []
    for attempt in attempts:
        if (attempt.fetch, attempt.began_at) in known:
            continue
        of_it = decided[attempt.fetch, attempt.number]
        row = as_row(LATE_ATTEMPTS, attempt)
        row |= {"run_id": run_id, "came_at": came_at, "file": file}
        row["collected"] = sum(each["verdict"] == Verdict.COLLECTED.value for each in of_it)
        shown = attempt if keep_numbers else plain.without_numbers(attempt)
        row["facts"] = json.loads(plain.write({"attempt": shown, "outcomes": of_it}))
        rows.append(row)
    execute_many(session, insert_into(session, LATE_ATTEMPTS).on_conflict_do_nothing(), rows)
    return len(rows)


def find_late(
    session: Session, window: Window = EVERYTHING, *, run_id: int | None = None
) -> list[Late]:
    """Count what came late in *window*, or of one run: by source, worker and file."""
    late = LATE_ATTEMPTS.c
    groups = (late.run_id, late.source, late.file, RUNS.c.host, MEMBERS.c.host, MEMBERS.c.pid)
    first_at = func.min(late.came_at)
    query = (
        select(
            late.run_id,
            late.source,
            late.file,
            func.coalesce(MEMBERS.c.host, RUNS.c.host).label("host"),
            MEMBERS.c.pid,
            func.count().label("attempts"),
            func.sum(late.collected).label("collected"),
            first_at.label("first_at"),
            func.max(late.came_at).label("last_at"),
        )
        .join(RUNS, RUNS.c.id == late.run_id)
        .outerjoin(MEMBERS, MEMBERS.c.id == late.member)
        .where(*within(late.came_at, window))
        .group_by(*groups)
        .order_by(late.run_id, first_at, late.source, late.file)
    )
    if run_id is not None:
        query = query.where(late.run_id == run_id)
    return records(session, Late, query)
