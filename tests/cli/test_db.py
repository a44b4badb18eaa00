"""``pipeline db`` in this process."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.cli.boundary import ExitCode
from tests.cli.conftest import Invoke


def collect(invoke: Invoke) -> None:
    """Fill the database with a run of the built-in configuration."""
    assert invoke("collect").exit_code == ExitCode.OK


def execute(database: Path, statement: str) -> None:
    """Change the database behind the program's back, as a fault of the disk would."""
    with closing(sqlite3.connect(database)) as raw, raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute(statement)


def test_a_sound_database_is_said_to_be_sound(invoke: Invoke) -> None:
    """And how much was looked at, so that nobody takes an empty look for a good one."""
    collect(invoke)

    result = invoke("db", "check")

    assert result.output == "All is well: 1 runs, 28 batches, 434 numbers verified.\n"
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


def test_a_backup_overwrites_nothing(invoke: Invoke, home: Path) -> None:
    """The last good copy must survive a slip of the fingers."""
    collect(invoke)
    (home / "copy.db").write_text("precious")

    result = invoke("db", "backup", "copy.db")

    assert result.exit_code == ExitCode.USAGE
    assert (home / "copy.db").read_text() == "precious"


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

    assert invoke("db", "migrate").output == "The schema is the newest already.\n"


def test_an_older_database_is_migrated_and_kept(invoke: Invoke, database: Path) -> None:
    """Whoever regrets it finds the old one beside."""
    database.parent.mkdir(parents=True)
    execute(database, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")

    result = invoke("db", "migrate")

    assert "Migrated from nothing to 0002." in result.output
    assert f"{database}.before-0002" in result.output
    assert invoke("db", "check").exit_code == ExitCode.OK
