"""What only SQLite needs: journal, files, backup, and words for its errors."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from pipeline.errors import StoreBusy, StoreError
from pipeline.store.db import Store, open_store
from pipeline.store.sqlite import back_up, create_file, explain, journal_mode_for, make_engine
from tests.store.makers import make_batch, record_run

NEW_LIBRARY = (3, 51, 3)
OLD_LIBRARY = (3, 40, 1)


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "TRUNCATE"),
        ((3, 50, 6), "TRUNCATE"),
        ((3, 50, 7), "WAL"),
        ((3, 50, 12), "WAL"),
        ((3, 51, 0), "TRUNCATE"),
        ((3, 51, 2), "TRUNCATE"),
        ((3, 51, 3), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_wal_is_used_only_where_it_is_safe(version: tuple[int, ...], mode: str) -> None:
    """Older libraries can corrupt a WAL database when a checkpoint meets a write."""
    assert journal_mode_for(version) == mode


def engine_for(path: Path, version: tuple[int, ...]) -> Engine:
    """Open as if by another version of the library."""
    return make_engine(path, busy_seconds=0.05, for_writing=True, version=version)


def pragma(engine: Engine, name: str) -> object:
    """Ask a new connection for one of its settings."""
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_the_journal_follows_the_library_there_and_back(store: Store, path: Path) -> None:
    """Whoever upgrades the library gets WAL; whoever goes back is not left with what is unsafe."""
    store.close()

    seen = []
    for version in (NEW_LIBRARY, OLD_LIBRARY, NEW_LIBRARY):
        engine = engine_for(path, version)
        seen.append(pragma(engine, "journal_mode"))
        engine.dispose()

    assert seen == ["wal", "truncate", "wal"]


def test_a_wal_database_in_use_is_not_converted_but_busy(url: str, path: Path) -> None:
    """An old library must not write into the log that another process is using."""
    open_store(url, busy_seconds=0.05, for_writing=True).close()
    engine = engine_for(path, NEW_LIBRARY)

    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM runs").all()
        with pytest.raises(StoreBusy):
            open_store(url, busy_seconds=0.05, for_writing=True)
    engine.dispose()


@pytest.mark.parametrize(
    ("name", "value"),
    [("foreign_keys", 1), ("synchronous", 2), ("busy_timeout", 50), ("query_only", 0)],
)
def test_every_connection_has_its_pragmas(url: str, path: Path, name: str, value: object) -> None:
    """SQLite forgets them with every connection, and its defaults are those of 2004."""
    open_store(url, busy_seconds=1, for_writing=True).close()
    engine = engine_for(path, OLD_LIBRARY)

    found = pragma(engine, name)
    engine.dispose()

    assert found == value


def test_two_that_create_the_same_database_end_up_with_one(tmp_path: Path) -> None:
    """Of two runs that start for the first time at once, none may lose what it wrote."""
    target = tmp_path / "pipeline.db"

    create_file(target, b"first")
    create_file(target, b"second")

    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Evidence and history are nobody else's business on a shared machine."""
    path = tmp_path / "a" / "b" / "pipeline.db"
    before = os.umask(0)
    try:
        with open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=True) as store:
            with store.write() as session:
                record_run(session, [make_batch()])
                modes = [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()]
            back_up(path, path.with_name("backup.db"))
    finally:
        os.umask(before)

    modes += [stat.S_IMODE(path.with_name("backup.db").stat().st_mode)]
    folders = [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)]
    assert len(modes) >= 3, "the database, its journal and its backup"
    assert set(modes) == {0o600}
    assert folders == [0o700] * 2


def test_a_backup_holds_what_was_committed(store: Store, path: Path, tmp_path: Path) -> None:
    """``cp`` of a database in use is a gamble, this is not."""
    with store.write() as session:
        record_run(session, [make_batch()])

    back_up(path, tmp_path / "copy.db")

    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT collected FROM runs").fetchall() == [(1,)]
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_damaged_database_does_not_replace_an_older_backup(
    store: Store, path: Path, tmp_path: Path
) -> None:
    """The last good copy is the one thing that must survive."""
    with store.write() as session:
        record_run(session, [make_batch(number) for number in range(500)])
    store.close()
    (tmp_path / "copy.db").write_text("good")
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 9 * 4096] = bytes(4096)
    path.write_bytes(content)

    with pytest.raises(StoreError, match="damaged"):
        back_up(path, tmp_path / "copy.db")

    assert (tmp_path / "copy.db").read_text() == "good"
    assert not list(tmp_path.glob(".copy.db.*"))


def test_a_backup_into_nowhere_says_so(path: Path) -> None:
    """The text names the copy, for that is what could not be made."""
    with pytest.raises(StoreError, match=r"nowhere/copy\.db cannot be written: No such file"):
        back_up(path, path.parent / "nowhere" / "copy.db")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """One line, before a single request is sent."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match=r"file/pipeline\.db cannot be created"):
        create_file(tmp_path / "file" / "pipeline.db", b"")


def test_an_error_without_a_code_keeps_its_own_words(path: Path) -> None:
    """Python's sqlite3 has complaints of its own, and they are better than nothing."""
    error = explain(sqlite3.ProgrammingError("closed"), path, 1)

    assert str(error) == f"{path}: closed"
