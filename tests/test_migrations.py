"""Migrations: they lead to the tables as they are, and never leave a half."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pipeline.errors import StoreBusy, StoreError
from pipeline.store import schema
from pipeline.store.db import open_store
from pipeline.store.integrity.damage import find_damage
from pipeline.store.integrity.verify import verify
from pipeline.store.migrating import Migration, connect_to_migrate, migrate
from pipeline.store.schema import NEWEST, REVISIONS, migrations_folder
from pipeline.store.tables import Row
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.store.histories import record_history
from tests.store.makers import NOON, begin, make_attempt, make_batch, make_collected


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database that is not there yet."""
    return tmp_path / "pipeline.db"


@pytest.fixture
def url(path: Path) -> str:
    """Name it as the configuration does."""
    return f"sqlite:///{path}"


def config_for(connection: Connection) -> Config:
    """Let Alembic's own commands use a connection of ours."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_folder()))
    return config


def walk(url: str, *revisions: str) -> None:
    """Migrate to one revision after the other, up or down."""
    with connect_to_migrate(url) as connection:
        for revision in revisions:
            go = command.upgrade if revision == "head" else command.downgrade
            go(config_for(connection), revision)


def schema_of(path: Path) -> dict[str, list[str]]:
    """Read what the database says of itself, whatever the order of constraints and the quotes."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    lines = re.compile(r"\n|, (?=\w+ INTEGER)")  # SQLite adds a column to the line of the last one
    return {
        name: sorted(re.sub(r"[\s\"]+", " ", line).strip(" ,") for line in lines.split(sql))
        for name, sql in rows
    }


@pytest.fixture
def older(url: str, path: Path) -> Path:
    """Leave a database behind by an older version: the one before the first."""
    walk(url, "head", "base")
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM")
    return path


def test_the_migrations_make_the_very_schema_of_a_new_database(url: str, path: Path) -> None:
    """An old user's database must keep every constraint that a new user's has."""
    walk(url, "head")

    new = path.with_name("new.db")
    open_store(f"sqlite:///{new}", busy_seconds=1, for_writing=True).close()
    assert schema_of(path) == schema_of(new)


def test_alembic_finds_nothing_to_add(url: str) -> None:
    """A table that was changed without a migration is found here, not by a user."""
    open_store(url, busy_seconds=1, for_writing=True).close()

    with connect_to_migrate(url) as connection:
        command.check(config_for(connection))


def test_there_is_one_head_and_the_program_knows_every_revision() -> None:
    """``schema.py`` tells old from new without Alembic, from a list that must be complete."""
    scripts = ScriptDirectory(str(migrations_folder()))

    revisions = [script.revision for script in scripts.walk_revisions()]

    assert scripts.get_heads() == [NEWEST]
    assert tuple(reversed(revisions)) == REVISIONS


def test_migrations_are_numbered_in_the_order_in_which_they_are_made() -> None:
    """Two branches once took the same number: Git sees nothing wrong with two files."""
    scripts = ScriptDirectory(str(migrations_folder()))
    chain = list(scripts.walk_revisions())[::-1]
    files = sorted(file.name for file in (migrations_folder() / "versions").glob("*.py"))

    revisions = [file.partition("_")[0] for file in files]

    assert all(re.fullmatch("[0-9]{4}", revision) for revision in revisions)
    assert len({*revisions}) == len(files)
    assert [script.revision for script in chain] == revisions
    assert [script.down_revision for script in chain] == [None, *revisions[:-1]]
    assert [Path(script.path).name for script in chain] == files


def test_every_migration_goes_up_and_down_and_up(url: str, path: Path) -> None:
    """A way back that was never walked is not one."""
    walk(url, "head")
    once = schema_of(path)

    walk(url, "base", "head")

    assert schema_of(path) == once


def test_an_older_database_is_migrated_when_a_run_opens_it(url: str, older: Path) -> None:
    """Cron must go on working after an upgrade, with nobody there to type a command."""
    open_store(url, busy_seconds=1, for_writing=True).close()

    assert migrate(url, busy_seconds=1) is None
    assert "runs" in schema_of(older)


def test_a_reader_does_not_migrate(url: str, older: Path) -> None:
    """Looking must not change what is looked at."""
    before = older.read_bytes()

    with pytest.raises(StoreError, match="has an older schema; run `pipeline db migrate`"):
        open_store(url, busy_seconds=1, for_writing=False)

    assert older.read_bytes() == before


def test_a_copy_is_kept_beside_and_the_way_is_told(url: str, older: Path) -> None:
    """Whoever regrets the upgrade goes back with one ``mv``."""
    before = schema_of(older)

    done = migrate(url, busy_seconds=1)

    backup = older.with_name(f"pipeline.db.before-{NEWEST}")
    assert done == Migration(before=None, after=NEWEST, backup=backup)
    assert schema_of(backup) == before
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_migration_that_fails_leaves_the_old_schema(url: str, older: Path) -> None:
    """Alembic's own way leaves the first table behind, and every retry fails on it."""
    with closing(sqlite3.connect(older)) as raw:
        raw.execute("CREATE VIEW attempts AS SELECT 1")  # comes in the way of the last table
    before = schema_of(older)

    with pytest.raises(StoreError, match="already exists"):
        migrate(url, busy_seconds=1)

    assert schema_of(older) == before
    with closing(sqlite3.connect(older)) as raw:
        raw.execute("DROP VIEW attempts")
    assert migrate(url, busy_seconds=1) is not None


def test_a_migration_that_would_break_references_is_undone(url: str, older: Path) -> None:
    """Foreign keys are off while tables are made anew, so somebody must look afterwards."""
    trigger = """
        CREATE TRIGGER break_a_reference AFTER INSERT ON alembic_version BEGIN
            INSERT INTO batches (run_id, number, source, is_sandbox, n, min, max)
            VALUES (99, 0, 'x', 0, 1, 1, 1);
        END
    """
    with closing(sqlite3.connect(older)) as raw:
        raw.execute(trigger)
    before = schema_of(older)

    with pytest.raises(StoreError, match="would break references; nothing was changed"):
        migrate(url, busy_seconds=1)

    assert schema_of(older) == before


def test_a_migration_that_is_killed_leaves_the_old_schema(url: str, older: Path) -> None:
    """The power fails at the worst moment: all is written and nothing committed."""
    before = schema_of(older)
    script = f"""
import os, signal
from pipeline.store.migrating import connect_to_migrate
from pipeline.store.schema import upgrade

with connect_to_migrate({url!r}) as connection:
    upgrade(connection)
    os.kill(os.getpid(), signal.SIGKILL)
"""

    killed = subprocess.run([sys.executable, "-c", script], check=False)

    assert killed.returncode == -9
    assert schema_of(older) == before
    assert migrate(url, busy_seconds=1) is not None


def test_of_two_that_migrate_at_once_one_waits_and_finds_it_done(url: str, older: Path) -> None:
    """Two cron jobs start in the same second after an upgrade."""
    results: list[Migration | None] = []
    second = threading.Thread(target=lambda: results.append(migrate(url, busy_seconds=5)))

    with connect_to_migrate(url) as connection:
        second.start()
        second.join(0.1)
        command.upgrade(config_for(connection), "head")
        assert second.is_alive()
    second.join()

    assert results == [None]
    assert not list(older.parent.glob("*.before-*"))


def test_a_migration_does_not_wait_for_ever(url: str, older: Path) -> None:
    """Somebody who left a transaction open in a shell costs us exit code 75, not a hang."""
    with closing(sqlite3.connect(older, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreBusy):
            open_store(url, busy_seconds=0.05, for_writing=True)


def test_a_developer_names_a_database_on_the_command_line(url: str, path: Path) -> None:
    """``alembic check`` is how one finds out that a migration is missing, and it is quiet."""
    alembic = [sys.executable, "-W", "error", "-m", "alembic"]

    ran = subprocess.run(
        [*alembic, "-x", f"url={url}", "upgrade", "head"],
        check=True,
        cwd=migrations_folder().parent,
        capture_output=True,
    )
    unnamed = subprocess.run(
        [*alembic, "check"],
        check=False,
        cwd=migrations_folder().parent,
        capture_output=True,
        text=True,
    )

    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert "runs" in schema_of(path)
    assert unnamed.returncode != 0
    assert "name a database" in unnamed.stdout + unnamed.stderr


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{newest}"

def upgrade() -> None:
    op.execute("DROP VIEW run_list")
    with op.batch_alter_table("runs", recreate="always") as runs:
        runs.add_column(sa.Column("note", sa.String()))
    op.execute("CREATE VIEW run_list AS SELECT id, note FROM runs")
"""
MIGRATE = """
import sys
from pipeline.store.db import open_store
from pipeline.store.migrating import migrate
from pipeline.store.integrity.verify import verify

print(migrate(sys.argv[1], busy_seconds=5))
with open_store(sys.argv[1], busy_seconds=5, for_writing=False) as store:
    print(verify(store).problems)
"""


def rows_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read all there is of our tables, but the revision."""
    with closing(sqlite3.connect(path)) as raw:
        raw.row_factory = sqlite3.Row
        there = {row["name"] for row in raw.execute("SELECT name FROM sqlite_master")}
        return {
            name: [dict(row) for row in raw.execute(f"SELECT * FROM {name} ORDER BY 1, 2")]
            for name in Row.metadata.tables
            if name in there
        }


def test_the_next_version_migrates_a_database_with_rows(
    url: str, path: Path, tmp_path: Path
) -> None:
    """The numbers of years are worth more than any new feature, whichever table is made anew."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        record_history(store)
    before = rows_of(path)
    package = Path(schema.__file__).parents[1]
    shutil.copytree(package, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    folder = shutil.copytree(migrations_folder(), tmp_path / "migrations")
    (folder / "versions" / "next.py").write_text(NEXT.format(newest=NEWEST))
    newer = tmp_path / "pipeline" / "store" / "schema.py"
    newer.write_text(newer.read_text().replace("\nNEWEST =", '\nREVISIONS += ("next",)\nNEWEST ='))

    ran = subprocess.run(
        [sys.executable, "-c", MIGRATE, url],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    backup = path.with_name("pipeline.db.before-next")
    done = Migration(before=NEWEST, after="next", backup=backup)
    assert ran.stdout == f"{done}\n()\n"
    after = rows_of(path)
    assert [run.pop("note") for run in after["runs"]] == [None] * len(before["runs"])
    assert after == before == rows_of(backup)
    with pytest.raises(StoreError, match="was made by a newer version"):
        open_store(url, busy_seconds=1, for_writing=True)


def test_how_sources_sign_is_forgotten_on_the_way_back(url: str, path: Path) -> None:
    """An older program does not know the word; the way up allows it again."""
    open_store(url, busy_seconds=1, for_writing=True).close()
    show = """
        INSERT INTO contracts
        (source, aspect, value, first_at, last_at, first_attempt, last_attempt)
        VALUES ('beacon', ?, 'as it is', 0, 0, 1, 1)
    """
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(show, ["keys"])
    before = rows_of(path)["contracts"]
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(show, ["signing"])

    walk(url, "0011")

    assert rows_of(path)["contracts"] == before
    with closing(sqlite3.connect(path)) as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute(show, ["signing"])
    walk(url, "head")
    assert rows_of(path)["contracts"] == before
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(show, ["signing"])


def digests_of(path: Path) -> list[bytes]:
    """Read the digests of the first batch of each run."""
    with closing(sqlite3.connect(path)) as raw:
        query = "SELECT digest FROM batches WHERE number = 0 ORDER BY run_id"
        return [row[0] for row in raw.execute(query)]


def test_old_digests_are_cut_only_where_the_numbers_are_kept(url: str, path: Path) -> None:
    """All of it follows from them, and from nothing else; a number that was changed is found."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        for is_kept in (True, False):
            with store.write() as session:
                run_id = begin(session)
                order_batches(session, run_id=run_id, batches=[make_batch()])
                save_results(
                    session,
                    run_id=run_id,
                    attempts=[make_attempt()],
                    outcomes=[make_collected(make_batch())],
                    keep_numbers=is_kept,
                )
                finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)
    walk(url, "0010")
    whole = digests_of(path)
    changed = shutil.copy(path, path.with_name("changed.db"))
    with closing(sqlite3.connect(changed)) as raw, raw:
        raw.execute("UPDATE batches SET numbers = CAST(x'00' || substr(numbers, 2) AS BLOB)")

    for database in (path, changed):
        migrate(f"sqlite:///{database}", busy_seconds=1)

    assert [len(digest) for digest in whole] == [32, 32]
    assert digests_of(path) == [whole[0][:8], whole[1]]
    with open_store(url, busy_seconds=1, for_writing=False) as store:
        assert verify(store).problems == ()
    with open_store(f"sqlite:///{changed}", busy_seconds=1, for_writing=False) as store:
        assert "run 1 w0: its numbers are not those collected" in {
            problem.text for problem in verify(store).problems
        }


def test_rows_of_an_older_schema_say_the_same_afterwards(url: str, path: Path) -> None:
    """What lies there in other words has the seals that it had, and an id is never given twice."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        record_history(store)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE sqlite_sequence SET seq = 99 WHERE name = 'runs'")
        raw.execute("CREATE VIEW my_own AS SELECT id FROM runs")
        raw.execute("CREATE TRIGGER my_own_too AFTER DELETE ON seals BEGIN SELECT 1; END")
    before, schema_before = rows_of(path), schema_of(path)

    walk(url, "0002")
    old = rows_of(path)
    migrate(url, busy_seconds=1)

    assert rows_of(path) == before
    assert schema_of(path) == schema_before
    assert old["runs"][0]["started_at"] == "2026-03-01T12:00:00.000000Z"
    assert old["seals"][0]["chain"] == before["seals"][0]["chain"].hex()
    assert json.loads(old["timings"][0]["phases"])["exchange"]["n"] > 0
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        assert [problem.text for problem in verify(store).problems] == [
            "runs 5 to 99: were removed"
        ]
        with store.write() as session:
            assert begin(session) == 100


def test_what_is_damaged_stays_so_and_is_still_found(url: str, path: Path) -> None:
    """A migration is no reason to make up a time, or to refuse the rows that are sound."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        record_history(store)
    walk(url, "0002")
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE runs SET ended_at = 'noon' WHERE id = 1")
        raw.execute("UPDATE timings SET phases = '{'")
        raw.execute("UPDATE seals SET record = 'none' WHERE position = 2")

    migrate(url, busy_seconds=1)

    with open_store(url, busy_seconds=1, for_writing=False) as store, store.read() as session:
        damaged = [line.split(":")[0] for line in find_damage(session.connection())]
    assert sorted(damaged) == ["runs.ended_at", "seals.record", "timings.phases"]
    walk(url, "0002")
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT ended_at FROM runs WHERE id = 1").fetchall() == [("noon",)]


def test_a_new_migration_starts_from_the_template(url: str, tmp_path: Path) -> None:
    """The next developer gets a file that reads like the first one."""
    folder = shutil.copytree(migrations_folder(), tmp_path / "migrations")
    with connect_to_migrate(url) as connection:
        config = config_for(connection)
        command.upgrade(config, "head")
        config.set_main_option("script_location", str(folder))

        command.revision(config, message="add a table", rev_id="9999", autogenerate=True)

    (made,) = folder.glob("versions/9999*.py")
    text = made.read_text()
    assert text.startswith('"""add a table."""\n')
    assert f'down_revision = "{NEWEST}"' in text.replace("'", '"')
