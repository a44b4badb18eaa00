"""The only place at an upstream that takes one request at a time: a locked file, or a lease.

One interface, two implementations: of a store in a file every process is on this machine, and the
kernel frees the lock of one that dies; on a server a place is held for as long as a request can
take, and comes free by itself after that.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

import anyio
from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.lock import exclusive_lock, name_holder
from pipeline.store import leases
from pipeline.store.db import Store
from pipeline.store.rows import at_once

SPARE = timedelta(seconds=10)  # that a lease lasts beyond the longest request


class Place:
    """The place for one request: a context manager, whose end gives it back.

    Attributes:
        look_again_seconds: how often a place that another has is tried again.
    """

    look_again_seconds: float

    async def __aenter__(self) -> Self:
        """Begin without it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        raise NotImplementedError

    def take(self, session: Session | None) -> bool:
        """Take it, in the transaction that takes the permission; False: another has it.

        Without a transaction only a place that is none of the store's can be taken.
        """
        raise NotImplementedError

    def hold(self, session: Session, wait: timedelta) -> None:
        """Hold it over the *wait* for the permission's moment, in the same transaction."""

    async def is_still_ours(self) -> bool:
        """Look once more, right before the request goes; True where nobody can take it away."""
        return True


class FilePlace(Place):
    """A place that is a locked file: for the processes of one machine."""

    look_again_seconds = 0.02  # flock cannot be awaited

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = ExitStack()
        self._lock: Callable[[], bool] | None = None

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self._opened.close()

    def take(self, session: Session | None) -> bool:
        """Lock the file, unless another has."""
        del session
        if self._lock is None:
            self._lock = self._opened.enter_context(exclusive_lock(self._path))
        return self._lock()


class LeasePlace(Place):
    """A place that is a lease in the store of a server: for the processes of all machines."""

    look_again_seconds = 0.1

    def __init__(self, store: Store, upstream: str, longest_seconds: float) -> None:
        self._store = store
        self._lasts = timedelta(seconds=longest_seconds) + SPARE
        self._mine = {"name": f"place {upstream}", "holder": name_holder()}

    async def __aexit__(self, *_: object) -> None:
        """Give it back; if the server is not there it comes free by itself."""
        with anyio.CancelScope(shield=True), suppress(StoreError):
            await self._store.in_thread(self._free)

    def _free(self) -> None:
        with self._store.write() as session:
            at_once(session)
            leases.free(session, **self._mine)

    def take(self, session: Session | None) -> bool:
        """Take the lease, unless another has it."""
        if session is None:
            raise TypeError("a lease is taken in a transaction")
        return leases.take(session, **self._mine, lasts=self._lasts)

    def hold(self, session: Session, wait: timedelta) -> None:
        """Let the lease last as much longer."""
        if wait > timedelta(0):
            leases.keep(session, **self._mine, lasts=wait + self._lasts)

    async def is_still_ours(self) -> bool:
        """Hold on to it, unless this process slept so long that another has taken it."""

        def keep(session: Session) -> bool:
            at_once(session)
            return leases.keep(session, **self._mine, lasts=self._lasts)

        return await self._store.commit(keep)
