"""The limits that were in force, once for each configuration and version of the program."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session

from pipeline.store.rows import insert_into
from pipeline.store.tables import CONFIGURATIONS, RUNS
from pipeline.store.window import Window, within


def save_limits(
    session: Session, *, config_digest: str, version: str, describe: Callable[[], object]
) -> None:
    """Keep the limits of a configuration, unless an earlier run of this version has done so."""
    connection, known = session.connection(), CONFIGURATIONS.c
    key = (known.digest == config_digest) & (known.version == version)
    if connection.scalar(select(known.digest).where(key)) is None:
        row = {"digest": config_digest, "version": version, "limits": json.dumps(describe())}
        connection.execute(insert_into(session, CONFIGURATIONS).on_conflict_do_nothing(), row)


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
        *within(RUNS.c.started_at, Window(since=since)),
    )
    first: datetime | None = session.connection().scalar(query)
    return first
