"""The store, open for the runs of one start; who died before is marked first, or meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio

from pipeline.errors import StoreError
from pipeline.files import database_file
from pipeline.lock import lock_path, presence, presence_at
from pipeline.run.turns import Turn
from pipeline.settings import StoreSettings
from pipeline.store import heartbeats, slots, writes
from pipeline.store.db import Store, open_store

# On a server a slot may be claimed for so long before its run begins, which waits for its turn.
LONGEST_START = timedelta(hours=1)


def spool_path(settings: StoreSettings, uid: str, state_folder: Path) -> Path:
    """Say where a run sets aside what the store does not take."""
    return lock_path(settings.url, f"spool-{uid}", state_folder=state_folder)


@contextmanager
def open_for_runs(settings: StoreSettings, state_folder: Path) -> Iterator[Store]:
    """Open the store for the runs of one start; runs that died are marked first.

    With a store in a file only if we are alone.

    Raises:
        StoreBusy, StoreError: as ``open_store`` does, or a lock file cannot be used.
    """
    file = database_file(settings.url)
    with open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=True) as store:
        if file is None:
            store.take_in(spool_path(settings, "", state_folder))
            mark_dead_runs(store)
            yield store
        else:
            with presence(presence_at(file), if_alone=partial(mark_dead_runs, store)):
                yield store


def mark_dead_runs(store: Store) -> None:
    """End the runs that died, and give their slots a fate."""
    claimed_before = datetime.now(UTC) - LONGEST_START if store.is_server else None
    with store.write() as session:
        heartbeats.suspect(session)
        writes.interrupt_dead_runs(session, ended_at=datetime.now(UTC))
        slots.interrupt_dead(session, claimed_before=claimed_before)


async def give_signs_of_life(store: Store, run_id: int, turn: Turn) -> None:
    """Say again and again that a run goes on, and on a server look who has fallen silent.

    In a thread of its own: the books must not wait for it. If the database is busy, the next time
    is soon enough; if it is broken, others say so.
    """

    def beat() -> None:
        with suppress(StoreError):
            with store.write() as session:
                heartbeats.beat(session, run_id=run_id)
                turn.keep(session)
            if store.is_server:
                bury_the_silent(store)

    while True:
        await anyio.sleep(heartbeats.BEAT_SECONDS / 2)
        await anyio.to_thread.run_sync(beat)


def bury_the_silent(store: Store) -> None:
    """End the runs of other machines that have not been heard of for too long, if there are any."""
    with store.write() as session:
        heartbeats.suspect(session)
        dead = heartbeats.dead_runs(session)
    if dead:
        mark_dead_runs(store)
