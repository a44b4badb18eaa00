"""The turn of a configuration: two runs of the same one would collect the same things twice.

One interface, two implementations, as with places: a locked file beside a store in a file, a lease
in the store of a server.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from sqlmodel import Session

from pipeline.errors import LockHeld, StoreError
from pipeline.lock import lock_path, name_holder, run_lock
from pipeline.settings import Settings
from pipeline.store import leases
from pipeline.store.db import Store
from pipeline.store.heartbeats import SILENCE

LOOK_AGAIN_SECONDS = 1.0  # on a server


class Turn:
    """A turn that nobody can take away, or that nobody needs."""

    def keep(self, session: Session) -> None:
        """Have it for longer, with a sign of life: the kernel keeps it while this process lives."""


class LeaseTurn(Turn):
    """A turn that is a lease: it ends with the signs of life of its run."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._mine = {"name": f"turn {key}", "holder": name_holder()}

    def keep(self, session: Session) -> None:
        """Have it for longer, unless another run has it by now: then both go on."""
        leases.keep(session, **self._mine, lasts=SILENCE)

    def take(self) -> bool:
        """Take it, if it is free."""
        with self._store.write() as session:
            return leases.take(session, **self._mine, lasts=SILENCE)

    def free(self) -> None:
        """Give it back; if the server is not there, it comes free by itself."""
        with suppress(StoreError), self._store.write() as session:
            leases.free(session, **self._mine)

    def who(self) -> str:
        """Tell who has it, and since when."""
        with self._store.read() as session:
            lease = leases.find(session, name=self._mine["name"])
        if lease is None:
            return "it has ended just now"
        return f"on {lease.held_by.rpartition(' ')[0]}, since {lease.since:%Y-%m-%d %H:%M:%SZ}"


@contextmanager
def turn_of(
    settings: Settings, store: Store, state_folder: Path, *, patience_seconds: float
) -> Iterator[Turn]:
    """Have the turn of a configuration while the block runs; wait for it so long at most.

    Of a store in a file a configuration is known by its path; on a server by the names of its
    sources, too: containers have the same path for whatever is in it.

    Raises:
        LockHeld: another run has it; the text says which.
        StoreError: the lock file, or the server, cannot be used.
    """
    path = str(settings.path)
    if not store.is_server:
        name = f"turn-{_digest(path)}"
        lock = lock_path(settings.store.url, name, state_folder=state_folder)
        with run_lock(lock, patience_seconds=patience_seconds):
            yield Turn()
        return
    turn = LeaseTurn(store, _digest("\n".join([path, *settings.sources])))
    give_up_at = monotonic() + patience_seconds
    while not turn.take():
        if monotonic() >= give_up_at:
            raise LockHeld(f"another run of this configuration is going on ({turn.who()})")
        sleep(LOOK_AGAIN_SECONDS)
    try:
        yield turn
    finally:
        turn.free()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
