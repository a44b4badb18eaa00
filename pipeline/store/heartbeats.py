"""Signs of life: each run that goes on has a row here, with a moment that it keeps up to date.

Never a process id, nor the name of a host: a container has either again for its successor.

With a store in a file the presence lock decides (``lock.presence``): whoever has it alone knows
that no run of this kernel goes on, in whatever container it was. A machine that uses the same file
over a network share may not see our locks, nor we its; so runs that name another lock than ours
are spared while their heart beats.

On a server there is no such lock, and the heartbeat alone decides, by the server's clock. It
decides in two steps, because while the server was away nobody could be heard: who seems to be dead
is suspected, and is dead if no sign came for a whole beat after that.
"""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, exists, insert, select, update
from sqlmodel import Session

from pipeline.lock import is_held, presence_at, sign_of
from pipeline.models import Overdue, RunStatus
from pipeline.store.rows import AnyRow, record
from pipeline.store.shared_clock import read_clock
from pipeline.store.tables import BATCHES, HEARTBEATS, PORTIONS, RUNS

# Signs are given twice in a beat, so that within three of them a run that died is found: it is dead
# when nothing was heard of it for two and a half, and the living look twice in each.
BEAT_SECONDS = 10.0
SILENCE = timedelta(seconds=2.5 * BEAT_SECONDS)
BEAT = timedelta(seconds=BEAT_SECONDS)


def begin(session: Session, *, run_id: int, until: datetime) -> None:
    """Say that a run goes on, which is to have ended at *until*."""
    connection = session.connection()
    path = _presence_path(connection)
    row = {"run_id": run_id, "presence": path and sign_of(path), "until": until}
    connection.execute(insert(HEARTBEATS), row | {"seen_at": read_clock(connection)})


def beat(session: Session, *, run_id: int) -> None:
    """Say that a run still goes on."""
    connection = session.connection()
    beating = update(HEARTBEATS).where(HEARTBEATS.c.run_id == run_id)
    connection.execute(beating.values(seen_at=read_clock(connection), suspected_at=None))


def suspect(session: Session) -> None:
    """Note, on a server, who is not heard of any more; the next sign takes that back."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        now, seen_at = read_clock(connection), HEARTBEATS.c.seen_at
        is_silent = (seen_at < now - SILENCE + BEAT) | (seen_at > now + SILENCE)
        suspecting = update(HEARTBEATS).where(HEARTBEATS.c.suspected_at.is_(None), is_silent)
        connection.execute(suspecting.values(suspected_at=now))


def end(session: Session, *, run_id: int) -> None:
    """Forget a run that has ended."""
    session.connection().execute(delete(HEARTBEATS).where(HEARTBEATS.c.run_id == run_id))


def dead_runs(session: Session) -> list[int]:
    """List the runs that are called running and are dead.

    With a store in a file the caller vouches that nobody is present (``lock.presence``).
    """
    connection = session.connection()
    query = (
        select(
            RUNS.c.id,
            HEARTBEATS.c.presence,
            HEARTBEATS.c.seen_at,
            HEARTBEATS.c.suspected_at,
            HEARTBEATS.c.until,
            exists().where(PORTIONS.c.run_id == RUNS.c.id).label("is_shared"),
        )
        .outerjoin(HEARTBEATS, HEARTBEATS.c.run_id == RUNS.c.id)
        .where(RUNS.c.status == RunStatus.RUNNING.value)
    )
    rows = connection.execute(query).all()
    if not rows:
        return []
    path, now = _presence_path(connection), read_clock(connection)
    ours = path and sign_of(path)

    def is_dead(row: AnyRow) -> bool:
        if path is None:
            return row.seen_at is None or bool(row.suspected_at and now - row.suspected_at >= BEAT)
        return (ours is not None and row.presence == ours) or not _is_fresh(row.seen_at, now)

    return [
        row.id
        for row in rows
        # Of a run that machines share others may still come and go on, until its deadline.
        if not (row.is_shared and row.until and row.until + SILENCE > now) and is_dead(row)
    ]


def is_alive(session: Session, *, run_id: int) -> bool | None:
    """Tell whether the process of a run that is called running is there; None: nobody can know.

    Of a run that was killed a moment ago it may say True, if others hold the presence too.
    """
    connection = session.connection()
    row = connection.execute(select(HEARTBEATS).where(HEARTBEATS.c.run_id == run_id)).first()
    if row is None:
        return None
    is_fresh = _is_fresh(row.seen_at, read_clock(connection))
    path = _presence_path(connection)
    if path is None or row.presence != sign_of(path):
        return is_fresh
    return is_held(path) and (True if is_fresh else None)


def find_overdue(session: Session, *, now: datetime) -> list[Overdue]:
    """Find the runs that go on, as it seems, and were to have ended before *now*, or are silent."""
    connection = session.connection()
    query = (
        select(RUNS.c.host, RUNS.c.started_at, HEARTBEATS)
        .join(HEARTBEATS, HEARTBEATS.c.run_id == RUNS.c.id)
        .where(RUNS.c.status == RunStatus.RUNNING.value)
        .order_by(RUNS.c.id)
    )
    rows = connection.execute(query).all()
    if not rows:
        return []
    clock, asked = read_clock(connection), select(BATCHES.c.source).distinct()
    return [
        record(
            Overdue,
            row,
            is_alive=is_alive(session, run_id=row.run_id),
            sources=tuple(sorted(connection.scalars(asked.where(BATCHES.c.run_id == row.run_id)))),
            silent_since=None if _is_fresh(row.seen_at, clock) else row.seen_at,
        )
        for row in rows
        if row.until < now or not _is_fresh(row.seen_at, clock)
    ]


def _presence_path(connection: Connection) -> Path | None:
    """Find the presence lock of a store in a file; None for a server."""
    if connection.dialect.name != "sqlite":
        return None
    (_, _, name) = connection.exec_driver_sql("PRAGMA database_list").one()
    return presence_at(Path(name))


def _is_fresh(seen_at: datetime | None, now: datetime) -> bool:
    """Tell whether a sign that was given at *seen_at* still counts.

    One from the future does not: else a clock that was wrong once would keep a run for alive as
    long as it was ahead.
    """
    return seen_at is not None and abs(now - seen_at) <= SILENCE
