"""The overview as a page that stays open: written anew after each run, loaded again by itself."""

from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.rendering.shapes import Shape
from pipeline.report import overview
from pipeline.report.question import Question
from pipeline.scope import A_WEEK, origin_of, show_window
from pipeline.settings import Settings
from pipeline.store.window import Window

REFRESH_SECONDS = 60


def make_html_file(session: Session, settings: Settings) -> str:
    """Write the overview of the last week for a browser that looks again by itself."""
    now = datetime.now(UTC)
    window = Window(since=now - A_WEEK, until=now)
    question = Question(
        window=window,
        shape=Shape.HTML,
        origin=origin_of(settings.store, show_window(window), refresh_seconds=REFRESH_SECONDS),
        enabled=settings.enabled_sources,
    )
    return "\n".join(overview.lines(session, question))
