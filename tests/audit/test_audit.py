"""A whole audit, on a real database."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlmodel import Session

from pipeline.audit.audit import examine
from pipeline.models import FindingKind
from pipeline.store.db import open_store
from pipeline.store.tables import LOSSES, RUNS, TALLIES
from pipeline.store.window import Window
from tests.audit.histories import History, after
from tests.store.makers import begin


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Open an empty database."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    with open_store(url, busy_seconds=0.1, for_writing=True) as store, store.write() as session:
        yield session


def keep(session: Session, history: History) -> None:
    """Put the summaries of *history* where runs put them."""
    for number in sorted({tally.run_id for tally in history.tallies}):
        assert begin(session, started_at=after(number)) == number
    connection = session.connection()
    connection.execute(RUNS.update().values(status="ok", ended_at=after(0)))
    rows = [asdict(tally) | {"sum": str(tally.sum)} for tally in history.tallies]
    connection.execute(insert(TALLIES), rows)
    if history.losses:
        connection.execute(insert(LOSSES), [asdict(loss) for loss in history.losses])


def kinds(session: Session, window: Window, source: str | None = None) -> Sequence[FindingKind]:
    """List the kinds of what is found."""
    return [finding.kind for finding in examine(session, window, source=source).findings]


WHOLE = Window(since=after(0), until=after(10))


def test_what_goes_on_comes_first_then_the_newest(session: Session) -> None:
    """A person reads the top of the list: what is true now, the worst of it first."""
    keep(
        session,
        History(
            card=". http_5xx http_5xx . . . .",
            chip=". . . . . . http_5xx",
            coin=". . . http_5xx http_5xx http_5xx http_5xx",
            dice=". . . http_5xx . . .",
        ),
    )

    found = examine(session, WHOLE)

    assert [(finding.severity, *finding.sources) for finding in found.findings] == [
        ("critical", "coin"),
        ("warning", "chip"),
        ("info", "dice"),
        ("warning", "card"),
    ]
    assert found.findings.are_alarming
    assert (found.runs, [of.source for of in found.availability]) == (
        7,
        ["card", "chip", "coin", "dice"],
    )
    assert [(loss.source, loss.attempts, loss.batches) for loss in found.failures] == [
        ("coin", 4, 4),
        ("card", 2, 2),
        ("chip", 1, 1),
        ("dice", 1, 1),
    ]


def test_one_source_alone(session: Session) -> None:
    """And what it shares with others: our side of the path is told from theirs by those."""
    keep(session, History(coin=". dns .", dice=". dns .", card=". . http_5xx"))

    found = examine(session, WHOLE, source="dice")

    assert [finding.sources for finding in found.findings] == [("coin", "dice")]
    assert [of.source for of in found.availability] == ["dice"]
    assert {loss.source for loss in found.failures} == {"dice"}
    assert not found.findings.are_alarming


def test_the_window_leaves_out_what_began_elsewhere(session: Session) -> None:
    """A run counts where it started."""
    keep(session, History(dice=". http_5xx . http_5xx ."))

    assert len(kinds(session, WHOLE)) == 2
    assert len(kinds(session, Window(since=after(3), until=after(9)))) == 1
    assert kinds(session, Window(since=after(0), until=after(2))) == []


def test_a_window_without_an_end_ends_now(session: Session) -> None:
    """What was enabled and seen long ago is silent by then."""
    history = History(dice=". " * 20)
    keep(session, history)

    assert after(99) < datetime.now(UTC)
    [finding] = examine(session, Window(), enabled={"dice"}).findings
    assert finding.kind is FindingKind.SILENT


def test_a_window_that_has_not_ended_yet_ends_now(session: Session) -> None:
    """`--until` tonight must not take the rest of the day for silence, nor for unknown time."""
    history = History(dice=". " * 20)
    shift = datetime.now(UTC) - after(20.5)
    history.tallies = [replace(t, started_at=t.started_at + shift) for t in history.tallies]
    keep(session, history)
    tonight = datetime.now(UTC) + timedelta(hours=12)

    found = examine(session, Window(since=after(1) + shift, until=tonight), enabled={"dice"})

    assert not found.findings
    assert [(of.share, of.unknown_us) for of in found.availability] == [(1.0, 0)]


def test_an_empty_store_has_nothing_to_say(session: Session) -> None:
    """Not even about sources that are enabled."""
    found = examine(session, WHOLE, enabled={"dice"})

    assert (found.runs, [*found.findings], found.availability, found.failures) == (0, [], [], [])
