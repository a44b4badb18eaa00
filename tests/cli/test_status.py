"""`pipeline status`: whether all is well now, on one screen and as an exit code."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import update
from sqlmodel import Session

from pipeline.errors import ExitCode
from pipeline.models import RunStatus
from pipeline.pacing import Embargo
from pipeline.store.permissions import lay_embargo
from pipeline.store.tables import SLOTS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.store.makers import (
    begin,
    make_attempt,
    make_batch,
    make_failed_attempt,
    make_lost,
    record_run,
)

DICE = "[sources.dice]\nkind = 'sandbox.anu_legacy'\nbatches = [2]\n"
HOURLY = "[schedule]\nevery = '1h'\n"
NOW = datetime.now(UTC)


def ago(minutes: float) -> datetime:
    """Give a moment in the past."""
    return NOW - timedelta(minutes=minutes)


def lose(session: Session, minutes: float) -> None:
    """Record a run that lost its batch."""
    run_id = begin(session, started_at=ago(minutes))
    order_batches(session, run_id=run_id, batches=[make_batch()])
    made = make_failed_attempt(began_at=ago(minutes))
    save_results(
        session,
        run_id=run_id,
        attempts=[made],
        outcomes=[make_lost(make_batch())],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=ago(minutes), clock_us=1)
    session.commit()


def collect(session: Session, minutes: float, status: RunStatus = RunStatus.OK) -> None:
    """Record a run that collected its batch."""
    attempts = [make_attempt(began_at=ago(minutes))]
    record_run(session, [make_batch()], attempts=attempts, started_at=ago(minutes), status=status)
    session.commit()


def test_before_the_first_run_all_is_not_well(home: Path, invoke: Invoke) -> None:
    """A monitor must learn that nothing has ever come."""
    (home / "config.toml").write_text(DICE)

    shown = invoke("status")

    assert shown.exit_code == ExitCode.FINDINGS
    assert shown.stdout.startswith("Not well: no run yet.\n")
    assert "`pipeline collect` makes one" in shown.stdout
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_after_a_good_run_all_is_well(home: Path, invoke: Invoke, session: Session) -> None:
    """One look, and coffee."""
    (home / "config.toml").write_text(DICE)
    collect(session, 5)

    shown = invoke("status")

    assert shown.exit_code == 0
    first, last, *_ = shown.stdout.splitlines()
    assert first == "All is well."
    assert last.startswith(f"Last run: 1, {ago(5):%Y-%m-%d %H:%M:%SZ}, ok, 1 of 1 batch;")


def test_what_was_lost_last_is_named(home: Path, invoke: Invoke, session: Session) -> None:
    """Who, and since when it was good."""
    (home / "config.toml").write_text(DICE)
    collect(session, 10)
    lose(session, 5)

    shown = invoke("status")

    assert shown.exit_code == ExitCode.FINDINGS
    expected = "Not well: run 2 failed; batches lost in the last run of dice"
    assert shown.stdout.startswith(expected)
    (row,) = [line.split() for line in shown.stdout.splitlines() if line.startswith("dice")]
    assert row[:4] == ["dice", "failed", *f"{ago(10):%Y-%m-%d %H:%M:%SZ}".split()]


def test_an_outage_that_goes_on_is_told_with_its_evidence(
    home: Path, invoke: Invoke, session: Session
) -> None:
    """The findings of the audit, those that go on; what is over is not the news of this morning."""
    (home / "config.toml").write_text(DICE)
    collect(session, 60)
    for minutes in (40, 30, 20, 10):
        lose(session, minutes)
    during = invoke("status")
    collect(session, 5)
    collect(session, 1)
    after = invoke("status")

    assert "1 finding of the audit" in during.stdout
    assert "see: pipeline audit show" in during.stdout
    assert (after.exit_code, "finding" in after.stdout) == (0, False)


def test_an_interrupted_run_is_not_well(home: Path, invoke: Invoke, session: Session) -> None:
    """Somebody, or the machine, has killed it."""
    (home / "config.toml").write_text(DICE)
    collect(session, 5, RunStatus.INTERRUPTED)

    shown = invoke("status")

    assert shown.exit_code == ExitCode.FINDINGS
    assert "run 1 interrupted" in shown.stdout


def test_an_embargo_is_told_but_is_no_fault(home: Path, invoke: Invoke, session: Session) -> None:
    """We keep to what the upstream asked for."""
    (home / "config.toml").write_text(DICE)
    collect(session, 5)
    embargo = Embargo(until=NOW + timedelta(hours=1), why="Retry-After: 3600")
    lay_embargo(session, upstream="x", source="dice", embargo=embargo, said_at=NOW)
    session.commit()

    shown = invoke("status")

    assert shown.exit_code == 0
    assert "dice must not be asked before" in shown.stdout


def test_slots_that_nobody_runs_any_more_are_noticed(home: Path, invoke: Invoke) -> None:
    """Where cron has died, no run is there to say so."""
    (home / "config.toml").write_text(HOURLY + DICE)
    invoke("collect", "--slot", "always")
    well = invoke("status", "--format", "json")
    from pipeline.store.db import open_store  # noqa: PLC0415 - the store is there only now

    database = home / "data" / "pipeline" / "pipeline.db"
    with (
        open_store(f"sqlite:///{database}", busy_seconds=1, for_writing=True) as store,
        store.write() as session,
    ):
        session.exec(update(SLOTS).values(due_at=NOW - timedelta(hours=3)))
    over = invoke("status", "--format", "json")

    (before,), (after,) = (json.loads(x.stdout)["schedules"] for x in (well, over))
    assert (before["is_overdue"], after["is_overdue"]) == (False, True)
    assert over.exit_code == ExitCode.FINDINGS
    assert json.loads(over.stdout)["complaints"][0] == "slots of default are not run"
