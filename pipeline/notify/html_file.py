"""The overview as a page that stays open: written anew after each run, loaded again by itself."""

from datetime import UTC, datetime
from pathlib import Path

from sqlmodel import Session

from pipeline.notify.harmless import put_file
from pipeline.report.overview import write_page
from pipeline.report.question import Question
from pipeline.scope import A_WEEK, origin_of, show_window
from pipeline.settings import Settings
from pipeline.store.window import Window

REFRESH_SECONDS = 60


def make_html_file(session: Session, settings: Settings) -> str:
    """Write the overview of the last week for a browser that looks again by itself."""
    now = datetime.now(UTC)
    window = Window(since=now - A_WEEK, until=now)
    return write_page(
        session,
        Question(
            window=window,
            origin=origin_of(settings.store, show_window(window), refresh_seconds=REFRESH_SECONDS),
            enabled=settings.enabled_sources,
        ),
    )


def write_html_file(path: Path, page: str, *, seconds: float) -> str | None:
    """Put the page where a web server, or a browser, finds it; give the complaint, if any."""
    return put_file(path, lambda: page, what="the page", seconds=seconds)
