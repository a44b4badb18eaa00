"""``pipeline db`` in this process."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from sqlmodel import Session

from pipeline.errors import ExitCode
from pipeline.store.schema import NEWEST
from pipeline.store.upkeep import show_bytes
from tests.cli.conftest import Invoke
from tests.store.makers import NOON, make_attempt, make_batch, record_run


def collect(invoke: Invoke) -> None:
    """Fill the database with a run of the built-in configuration."""
    assert invoke("collect").exit_code == ExitCode.OK


def execute(database: Path, statement: str) -> None:
    """Change the database behind the program's back, as a fault of the disk would."""
    with closing(sqlite3.connect(database)) as raw, raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute(statement)


@pytest.fixture
def history(session: Session, database: Path) -> Path:
    """Record a run of three days ago, and two of an hour ago."""
    now = datetime.now(UTC)
    for age in (timedelta(days=3), timedelta(hours=1), timedelta(hours=1)):
        record_run(session, [make_batch()], attempts=[make_attempt()], started_at=now - age)
    session.commit()
    return database


def test_a_sound_database_is_said_to_be_sound(invoke: Invoke) -> None:
    """And how much was looked at, so that nobody takes an empty look for a good one."""
    collect(invoke)

    result = invoke("db", "check")

    assert result.output == "All is well: 1 run, 28 batches, 434 numbers verified.\n"
    assert result.exit_code == ExitCode.OK


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE batches SET numbers = zeroblob(length(numbers)) WHERE number = 27",
            "run 1 w27: its numbers are not those collected",
        ),
        ("UPDATE batches SET sum = sum + 1 WHERE number = 3", "run 1 w3: its numbers are not"),
        ("DELETE FROM batches WHERE number = 27", "run 1: its total says 28 collected, its batch"),
        (
            "UPDATE batches SET verdict=NULL, sum=NULL, digest=NULL, numbers=NULL WHERE number=0",
            "run 1: 1 batches have no outcome",
        ),
        ("UPDATE attempts SET evidence = 'gone' WHERE id = 1", "refers to a row of evidence"),
    ],
)
def test_what_was_changed_is_named(
    invoke: Invoke, database: Path, statement: str, problem: str
) -> None:
    """SQLite itself would read all of these without a word."""
    collect(invoke)
    execute(database, statement)

    result = invoke("db", "check")

    assert problem in result.stderr
    assert result.exit_code == ExitCode.STORE_FAILED


def test_a_backup_is_whole_and_private(invoke: Invoke, home: Path) -> None:
    """It holds what the database holds, and is for its owner alone."""
    collect(invoke)

    result = invoke("db", "backup", "copy.db")

    assert result.output == "Copied and checked: copy.db\n"
    with closing(sqlite3.connect(home / "copy.db")) as raw:
        assert raw.execute("SELECT count(*) FROM batches").fetchone() == (28,)
    assert (home / "copy.db").stat().st_mode & 0o077 == 0


def test_a_backup_can_be_verified_at_once(invoke: Invoke, history: Path) -> None:
    """A copy of a damaged original is found out before the last good one is thrown away."""
    sound = invoke("db", "backup", "one.db", "--verify")
    execute(history, "UPDATE batches SET sum = 17 WHERE run_id = 2")

    rotten = invoke("db", "backup", "two.db", "--verify")

    assert sound.output.splitlines() == [
        "All is well: 3 runs, 3 batches, 9 numbers verified.",
        "Copied and checked: one.db",
    ]
    assert "run 2 w0: its numbers are not those collected" in rotten.stderr
    assert rotten.exit_code == ExitCode.STORE_FAILED


def test_a_backup_overwrites_nothing(invoke: Invoke, home: Path) -> None:
    """The last good copy must survive a slip of the fingers."""
    collect(invoke)
    (home / "copy.db").write_text("precious")

    result = invoke("db", "backup", "copy.db")

    assert result.exit_code == ExitCode.USAGE
    assert (home / "copy.db").read_text() == "precious"


@pytest.mark.parametrize("name", ["x" * 300, "none/copy.db"])
def test_a_backup_that_has_no_place_is_one_line(invoke: Invoke, name: str) -> None:
    """A name that is too long is a mistake of whoever gave it, and no bug."""
    collect(invoke)

    result = invoke("db", "backup", name)

    assert result.exit_code == ExitCode.STORE_FAILED
    assert len(result.stderr.splitlines()) == 1
    assert "bug" not in result.stderr


def test_a_backup_of_a_server_is_left_to_the_server(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own tools do it better."""
    monkeypatch.setenv("PIPELINE_STORE_URL", "postgresql://127.0.0.1:1/nobody")

    result = invoke("db", "backup", "copy.db")

    assert result.exit_code == ExitCode.CONFIGURATION
    assert "only SQLite files are backed up here" in result.stderr


def test_a_new_database_needs_no_migration(invoke: Invoke) -> None:
    """And is told so."""
    collect(invoke)

    said = invoke("db", "migrate").output

    # Unless it was midnight in between, and a day is over.
    assert said.removesuffix("Days added up: 1.\n") == "The schema is the newest already.\n"


def test_an_older_database_is_migrated_and_kept(invoke: Invoke, database: Path) -> None:
    """Whoever regrets it finds the old one beside."""
    database.parent.mkdir(parents=True)
    execute(database, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")

    result = invoke("db", "migrate")

    assert result.output.startswith(f"Migrated from nothing to {NEWEST}.\nThe database as it was:")
    assert f"{database}.before-{NEWEST}" in result.output
    assert invoke("db", "check").exit_code == ExitCode.OK


def test_a_migration_adds_up_the_days_of_a_long_history(invoke: Invoke, session: Session) -> None:
    """A run would do so a month at a time."""
    for day in range(40):
        record_run(session, [make_batch()], started_at=NOON + timedelta(days=day))
    session.commit()

    result = invoke("db", "migrate")

    assert result.output == "The schema is the newest already.\nDays added up: 40.\n"
    assert "sheets" in invoke("db", "stats").output
    assert invoke("audit", "verify").exit_code == ExitCode.OK


def test_a_run_adds_up_the_days_before_it(invoke: Invoke, session: Session) -> None:
    """A month of them, so that nobody waits for long."""
    for day in range(40):
        record_run(session, [make_batch()], started_at=NOON + timedelta(days=day))
    session.commit()

    collect(invoke)

    assert invoke("db", "migrate").output.endswith("Days added up: 9.\n")


def test_a_dry_run_only_says_what_would_go(invoke: Invoke, history: Path) -> None:
    """Before anybody believes in `--keep`."""
    before = history.read_bytes()

    result = invoke("db", "prune", "--keep", "2d", "--force", "--dry-run")

    assert result.output.startswith("Would prune 1 run, the newest of ")
    assert ": 1 batch with 3 numbers, 1 attempt." in result.output
    assert history.read_bytes() == before


def test_nothing_to_prune_is_said(invoke: Invoke, history: Path) -> None:
    """And is no failure: cron prunes every night."""
    del history

    assert invoke("db", "prune", "--keep", "90d", "--dry-run").output == "Nothing to prune.\n"
    assert "Pruned 0 runs: 0 batches" in invoke("db", "prune", "--keep", "90d").output


def test_old_runs_are_pruned(invoke: Invoke, history: Path) -> None:
    """What is left verifies."""
    del history

    result = invoke("db", "prune", "--keep", "2d", "--force")

    said = result.output.splitlines()
    assert said[0] == "Pruned 1 run: 1 batch, 1 attempt, 0 answers, 0 requests."
    assert said[1].startswith("The database has ")
    checked = invoke("db", "check")
    assert checked.output == "All is well: 3 runs (1 pruned), 2 batches, 6 numbers verified.\n"


def test_a_pruning_that_leaves_a_hole_asks_for_force(invoke: Invoke, history: Path) -> None:
    """Between the runs that go and those that stay lies more than is to be kept: a clock jumped."""
    del history

    result = invoke("db", "prune", "--keep", "2d")

    assert "no run started between" in result.stderr
    assert "is a clock wrong? If not, give --force" in result.stderr
    assert result.exit_code == ExitCode.USAGE


def test_the_file_gets_smaller_when_asked_to(
    invoke: Invoke, session: Session, database: Path
) -> None:
    """Free pages are used again by new runs, so nobody waits for this without asking."""
    now = datetime.now(UTC)
    for age in (timedelta(days=3), timedelta(hours=1)):
        batches = [make_batch(number, n=100) for number in range(1_000)]
        attempts = [make_attempt(0)]
        record_run(session, batches, attempts=attempts, started_at=now - age)
    session.commit()
    size = database.stat().st_size

    hinted = invoke("db", "prune", "--keep", "2d", "--force").output
    kept = database.stat().st_size
    done = invoke("db", "prune", "--keep", "2d", "--force", "--vacuum").output

    assert "of it free; new runs fill it, or `pipeline db prune --vacuum`" in hinted
    assert kept == size
    assert done.splitlines()[-1].endswith(" 0 B of it free.")
    assert database.stat().st_size < size * 0.75


def test_a_server_is_made_smaller_by_the_server(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own ways."""
    monkeypatch.setenv("PIPELINE_STORE_URL", "postgresql://127.0.0.1:1/nobody")

    result = invoke("db", "prune", "--keep", "2d", "--vacuum")

    assert result.exit_code == ExitCode.CONFIGURATION
    assert "only SQLite files are made smaller here" in result.stderr


def test_keep_is_a_time(invoke: Invoke) -> None:
    """And the complaint says what one looks like."""
    result = invoke("db", "prune", "--keep", "long")

    assert result.exit_code == ExitCode.USAGE
    assert "give 90d or 12w" in result.stderr


def test_stats_say_what_a_person_asks(invoke: Invoke, history: Path) -> None:
    """How large, how old, how fast it grows."""
    del history

    said = invoke("db", "stats").output.splitlines()

    assert said[0].startswith("sqlite 3.")
    assert f", schema {NEWEST}, journal " in said[0]
    assert said[1].endswith(" 0 B of it free")
    assert said[2].startswith("grows by about ")
    assert said[3].endswith(", 0 of them pruned")
    assert any(line.split() == ["batches", "3"] for line in said)
    assert any(line.split() == ["evidence", "0"] for line in said)


def test_exact_stats_have_bytes(invoke: Invoke, history: Path) -> None:
    """Where this SQLite can tell."""
    del history

    said = invoke("db", "stats", "--exact").output

    (line,) = (line.split() for line in said.splitlines() if line.startswith("evidence"))
    assert line[1] == "0"
    assert int(line[2]) > 0


def test_stats_for_a_program(invoke: Invoke, session: Session) -> None:
    """The published shape; an empty database has no oldest run."""
    session.commit()

    answer = json.loads(invoke("db", "stats", "--format", "json").output)

    assert answer["schema"] == "pipeline.stats/1"
    assert (answer["revision"], answer["runs"], answer["oldest_at"]) == (NEWEST, 0, None)
    assert {"name": "runs", "rows": 0, "bytes": None} in answer["tables"]


@pytest.mark.parametrize(
    ("n", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (2**41, "2.2 TB")],
)
def test_a_size_reads_like_one(n: int | None, text: str) -> None:
    """Three digits, and never 1e+03."""
    assert show_bytes(n) == text


@pytest.mark.parametrize("options", [(), ("--exact",)])
def test_stats_are_as_published(invoke: Invoke, history: Path, options: tuple[str, ...]) -> None:
    """Whoever wrote a program for them finds every key."""
    del history
    schema = json.loads((files("pipeline") / "schemas" / "stats.1.json").read_text())

    jsonschema.validate(json.loads(invoke("db", "stats", *options, "-f", "json").stdout), schema)


def test_pruning_makes_no_database(invoke: Invoke, database: Path) -> None:
    """Where there is none there is nothing to prune, and perhaps a wrong configuration."""
    result = invoke("db", "prune", "--keep", "90d")

    assert "no database yet" in result.stderr
    assert result.exit_code == ExitCode.STORE_FAILED
    assert not database.exists()
