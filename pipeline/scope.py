"""Shared by read-only commands: open the store, check --run, --source, --since and --until."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import Session

from pipeline import __version__
from pipeline.errors import UsageError
from pipeline.files import database_file
from pipeline.lock import host_name
from pipeline.models import RunSummary
from pipeline.rendering.document import Origin
from pipeline.rendering.words import show_time
from pipeline.settings import Settings, StoreSettings, hide_password
from pipeline.store import queries
from pipeline.store.db import Store, open_store
from pipeline.store.history import known_sources
from pipeline.store.window import Window

MOST_DIGITS = 18  # of an id: SQLite's integers have 19, but not all of those
A_WEEK = timedelta(days=7)  # what is looked at without --since


def open_to_read(settings: StoreSettings) -> Store:
    """Open the store for questions; each session in it has a moment of its own."""
    return open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=False)


@contextmanager
def reading(settings: StoreSettings) -> Iterator[Session]:
    """Open the store for questions only, all answered from the same moment.

    A run may have to wait for it to be closed: write nothing to stdout before it is.
    """
    with open_to_read(settings) as store, store.read() as session:
        yield session


@contextmanager
def reading_if_there(settings: StoreSettings) -> Iterator[Session | None]:
    """Open the store for questions, or give None where there is none yet."""
    file = database_file(settings.url)
    if file is not None and _is_missing(file):
        yield None
        return
    with reading(settings) as session:
        yield session


def _is_missing(file: Path) -> bool:
    try:
        file.stat()
    except FileNotFoundError:
        return True
    except OSError:  # the store has the words for it
        return False
    return False


def find_run(session: Session, wanted: str) -> RunSummary:
    """Look up the run that a person calls ``last`` or by its number.

    Raises:
        UsageError: there is no such run.
    """
    if wanted != "last" and not wanted.isdecimal():
        raise UsageError(f"--run {wanted!a}: give a number or last")
    run = None
    if len(wanted) <= MOST_DIGITS:
        run = queries.find_run(session, run_id=None if wanted == "last" else int(wanted))
    if run is None:
        raise UsageError(f"--run {wanted}: there is no such run; `pipeline report` lists them")
    return run


def check_source(
    settings: Settings, session: Session, name: str | None, *, given_as: str = "--source"
) -> None:
    """See that *name*, if one was given, is a source that is configured, or was asked once.

    Raises:
        UsageError: it is not; the known names are listed.
    """
    if name is None or name in settings.sources:
        return
    known = sorted({*settings.sources, *known_sources(session)})
    if name not in known:
        raise UsageError(f"{given_as} {name!a}: there is none; known are {', '.join(known)}")


def make_window(
    since: datetime | None, until: datetime | None, *, looks_back: timedelta | None
) -> Window:
    """Give the stretch of time that was asked for: it ends now unless *until* says otherwise.

    Without *since* it begins *looks_back* before its end, or before now if it has not ended yet; if
    *looks_back* is None, it holds all there is.

    Raises:
        UsageError: it lies in the future, or would end before it begins.
    """
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


def show_window(window: Window) -> str:
    """Say from when to when it is."""
    if window.since is None:
        return "All there is" if window.until is None else f"Before {show_time(window.until)}"
    return f"From {show_time(window.since)} to {show_time(window.until)}"


def origin_of(
    settings: StoreSettings, window: str, *, refresh_seconds: int | None = None
) -> Origin:
    """Say where an answer of now comes from."""
    return Origin(
        store=str(database_file(settings.url) or hide_password(settings.url)),
        host=host_name(),
        version=__version__,
        window=window,
        written_at=datetime.now(UTC),
        refresh_seconds=refresh_seconds,
    )


def window_json(window: Window) -> dict[str, object]:
    """Make of it what is published."""
    return {"since": window.since, "until": window.until}
