"""What the questions to the store have in common: opening it, whom and what stretch of time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.cli.render import show_time
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from sqlmodel import Session

    from pipeline.settings import Settings, StoreSettings
    from pipeline.store.history import Window

A_WEEK = timedelta(days=7)  # what is looked at without --since


@contextmanager
def reading(settings: "StoreSettings") -> Iterator["Session"]:
    """Open the store for questions only, all answered from the same moment.

    A run may have to wait for it to be closed: write nothing to stdout before it is.
    """
    from pipeline.store.db import open_store

    with (
        open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=False) as store,
        store.read() as session,
    ):
        yield session


def check_source(settings: "Settings", session: "Session", name: str) -> None:
    """See that *name* is a source that is configured, or was asked once.

    Raises:
        UsageError: it is not; the known names are listed.
    """
    from pipeline.store.history import known_sources

    if name in settings.sources:
        return
    known = sorted({*settings.sources, *known_sources(session)})
    if name not in known:
        raise UsageError(f"--source {name!a}: there is none; known are {', '.join(known)}")


def make_window(
    since: datetime | None, until: datetime | None, *, looks_back: timedelta | None
) -> "Window":
    """Give the stretch of time that was asked for: it ends now unless *until* says otherwise.

    Without *since* it begins *looks_back* before its end, or before now if it has not ended yet; if
    *looks_back* is None, it holds all there is.

    Raises:
        UsageError: it lies in the future, or would end before it begins.
    """
    from pipeline.store.history import Window

    now = datetime.now(UTC)
    if since is not None and since > now:
        raise UsageError(f"--since {show_time(since)} lies in the future; it is {show_time(now)}")
    if since is not None and until is not None and until <= since:
        raise UsageError(f"--until {show_time(until)} is not after --since {show_time(since)}")
    if since is None and looks_back is not None:
        since = _before(min(until or now, now), looks_back)
    if until is None and since is not None:
        until = now
    return Window(since=since, until=until)


def _before(end: datetime, distance: timedelta) -> datetime:
    try:
        return end - distance
    except OverflowError:  # --until in the first days of the year 1
        return datetime.min.replace(tzinfo=UTC)


def show_window(window: "Window") -> str:
    """Say from when to when it is."""
    if window.since is None:
        return "All there is" if window.until is None else f"Before {show_time(window.until)}"
    return f"From {show_time(window.since)} to {show_time(window.until)}"


def window_json(window: "Window") -> dict[str, object]:
    """Make of it what is published."""
    return {"since": window.since, "until": window.until}
