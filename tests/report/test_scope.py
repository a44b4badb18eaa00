"""What stretch of time and which source a person asks about."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import Session

from pipeline.errors import UsageError
from pipeline.scope import A_WEEK, check_source, make_window, show_window, window_json
from pipeline.settings import load_settings
from pipeline.store.window import Window
from tests.store.makers import NOON, make_attempt, make_batch, record_run

FAR = datetime(2999, 1, 1, tzinfo=UTC)


def test_without_since_it_looks_back_from_now() -> None:
    """A default that is a week is the last week."""
    window = make_window(None, None, looks_back=A_WEEK)

    assert window.until is not None
    assert window.since == window.until - A_WEEK
    assert datetime.now(UTC) - window.until < timedelta(minutes=1)


def test_without_since_it_looks_back_from_the_end() -> None:
    """The week before a moment."""
    assert make_window(None, NOON, looks_back=A_WEEK) == Window(since=NOON - A_WEEK, until=NOON)


def test_without_since_no_week_to_come_is_looked_at() -> None:
    """`--until` tonight looks at the week that there was."""
    window = make_window(None, FAR, looks_back=A_WEEK)

    assert window.until == FAR
    assert window.since is not None
    assert datetime.now(UTC) - A_WEEK - window.since < timedelta(minutes=1)


def test_a_window_may_hold_all_there_is() -> None:
    """A listing of the last runs has no need of a week."""
    assert make_window(None, None, looks_back=None) == Window()
    assert make_window(None, NOON, looks_back=None) == Window(until=NOON)


def test_a_window_that_began_ends_now() -> None:
    """So that the answer can say of what time it is."""
    window = make_window(NOON, None, looks_back=None)

    assert window.since == NOON
    assert window.until is not None


def test_the_first_days_of_the_calendar_are_no_error() -> None:
    """There is no week before the year 1."""
    first = datetime(1, 1, 2, tzinfo=UTC)

    assert make_window(None, first, looks_back=A_WEEK).since == datetime.min.replace(tzinfo=UTC)


def test_what_has_not_been_cannot_be_reported() -> None:
    """A wrong year is a slip of the finger, and an empty report would hide it."""
    with pytest.raises(UsageError, match="--since 2999-01-01 00:00:00Z lies in the future"):
        make_window(FAR, None, looks_back=A_WEEK)


@pytest.mark.parametrize("until", [NOON, NOON - timedelta(days=1)])
def test_a_window_ends_after_it_begins(until: datetime) -> None:
    """Two dates the wrong way round."""
    with pytest.raises(UsageError, match="is not after --since 2026-03-01 12:00:00Z"):
        make_window(NOON, until, looks_back=A_WEEK)


def test_an_end_in_the_future_is_fine() -> None:
    """`--until` tonight takes what there is so far."""
    assert make_window(NOON, FAR, looks_back=None) == Window(since=NOON, until=FAR)


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        (Window(), "All there is"),
        (Window(until=NOON), "Before 2026-03-01 12:00:00Z"),
        (Window(since=NOON, until=FAR), "From 2026-03-01 12:00:00Z to 2999-01-01 00:00:00Z"),
    ],
)
def test_a_window_is_said(window: Window, shown: str) -> None:
    """A figure without its time is none."""
    assert show_window(window) == shown
    assert window_json(window) == {"since": window.since, "until": window.until}


@pytest.mark.parametrize("name", ["dice", "sandbox_anu"])
def test_a_source_is_known_by_the_store_or_the_configuration(session: Session, name: str) -> None:
    """One that was taken out of the file still has a history; a new one has none yet."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])

    check_source(load_settings(None, {}, will_ask=False), session, name)


def test_an_unknown_source_is_told_which_are_known(session: Session) -> None:
    """`-s dcie` would find nothing, and nothing looks like good news."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    settings = load_settings(None, {}, will_ask=False)

    with pytest.raises(UsageError, match=r"--source 'dcie': there is none; known are .*, dice, "):
        check_source(settings, session, "dcie")
