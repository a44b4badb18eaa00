"""The circuit breaker of one upstream, and how many retries are left to a run."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio

from pipeline.errors import ErrorName, Whose


def is_failure(error: ErrorName | None) -> bool | None:
    """Tell whether an attempt that ended so counts as a failure; None: as nothing at all."""
    if error in (ErrorName.CANCELLED, ErrorName.INTERNAL):
        return None
    # The limit of an attempt is ours, but it was the upstream that did not keep to it.
    return error is ErrorName.DEADLINE or (
        error is not None and error.whose in (Whose.PATH, Whose.UPSTREAM)
    )


class Breaker:
    """Leaves an upstream alone that fails again and again, and lets one probe through next time.

    Only failures of the path and of the upstream count: any other answer shows that it lives.
    """

    def __init__(self, limit: int, failures: int) -> None:
        self.limit = limit
        self._probe = anyio.Lock()
        self._must_probe = 0 < limit <= failures
        self.failures = failures
        self.last_error: ErrorName | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether the upstream is to be left alone for the rest of the run."""
        return not self._must_probe and 0 < self.limit <= self.failures

    def turn(self) -> AbstractAsyncContextManager[bool]:
        """Say whether to ask; while a probe is out, the others wait here for what it finds."""
        return self._wait_for_probe() if self._must_probe else nullcontext(not self.is_open)

    @asynccontextmanager
    async def _wait_for_probe(self) -> AsyncIterator[bool]:
        async with self._probe:
            if self._must_probe:
                yield True
                return
        yield not self.is_open

    def note(self, error: ErrorName | None) -> bool:
        """Take in how an attempt ended, and tell whether that changed what is to be remembered."""
        failed = is_failure(error)
        if failed is None:
            return False
        was_broken = self.is_open or self._must_probe
        if failed:
            self.failures += 1
            self.last_error = error
        else:
            self.failures = 0
        self._must_probe = False
        return self.is_open or was_broken


class RetryBudget:
    """How many retries are left to a source, within how many are left to the run."""

    def __init__(self, left: int, run: "RetryBudget | None" = None) -> None:
        self._left = left
        self._run = run

    def take(self) -> bool:
        """Take one retry, if there is one."""
        if self._left <= 0 or (self._run is not None and not self._run.take()):
            return False
        self._left -= 1
        return True
