"""The open database: transactions, threads, and one clear line for everything that can be wrong."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from anyio import from_thread
from sqlalchemy import func, select

from pipeline.errors import StoreBusy, StoreError
from pipeline.models import RunStatus
from pipeline.store.db import Store, open_store
from pipeline.store.migrating import migrate
from pipeline.store.queries import find_run, recent_runs
from pipeline.store.sqlite import journal_mode_for
from pipeline.store.tables import RUNS
from pipeline.store.writes import finish_run
from tests.store.makers import NOON, begin, make_batch, record_run

NOT_OURS = "CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('Les feuilles mortes');"
FROM_THE_FUTURE = "UPDATE alembic_version SET version_num = '9999'"


def count_runs(store: Store) -> int:
    """Count the runs that anybody can see."""
    with store.read() as session:
        query = select(func.count()).select_from(RUNS)
        return int(session.connection().execute(query).scalar_one())


def change_with_sqlite(path: Path, script: str) -> None:
    """Do something to the file behind the store's back."""
    with closing(sqlite3.connect(path)) as other:
        other.executescript(script)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the other process that is writing just now."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_what_is_written_is_there_after_the_block(store: Store) -> None:
    """What is reported is on disk."""
    with store.write() as session:
        begin(session)

    assert count_runs(store) == 1


def test_an_error_within_the_block_undoes_all_of_it(store: Store) -> None:
    """Half a group must never count, whatever the error was."""
    with pytest.raises(KeyError), store.write() as session:
        raise KeyError(begin(session))

    assert count_runs(store) == 0


def test_a_reader_sees_one_moment(store: Store, url: str) -> None:
    """A report whose parts are of different moments does not add up."""
    with open_store(url, busy_seconds=0.01, for_writing=False) as reader, reader.read() as session:
        before = recent_runs(session, limit=9)
        with suppress(StoreBusy), store.write() as other:  # a rollback journal lets nobody in
            begin(other)
        after = recent_runs(session, limit=9)

    assert before == after == []


@pytest.mark.skipif(
    journal_mode_for(sqlite3.sqlite_version_info) == "WAL",
    reason="readers keep nobody out of a WAL",
)
def test_a_commit_that_readers_did_not_let_through_is_undone(store: Store, path: Path) -> None:
    """Its lock must not stay, or nobody could write any more, this process included."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM runs").fetchall()
        with pytest.raises(StoreBusy), store.write() as session:
            begin(session)
        other.execute("ROLLBACK")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")

    with store.write() as session:
        begin(session)

    assert count_runs(store) == 1


def test_a_reader_works_while_a_run_writes(store: Store, url: str) -> None:
    """Looking at the history must not wait for a run of an hour, nor disturb it."""
    with store.write() as session:
        begin(session)

    with store.write() as session:
        begin(session)
        with open_store(url, busy_seconds=0.01, for_writing=False) as reader:
            seen = count_runs(reader)

    assert seen == 1
    assert count_runs(store) == 2


def test_a_reader_cannot_write(store: Store, url: str) -> None:
    """A report that changes what it reports on is a bug that must show."""
    with (
        open_store(url, busy_seconds=0.01, for_writing=False) as reader,
        pytest.raises(StoreError, match="read-only"),
        reader.write() as session,
    ):
        begin(session)

    assert count_runs(store) == 0


def test_a_writer_that_reads_first_still_gets_its_turn(store: Store, url: str) -> None:
    """Taking the lock late fails at once in SQLite, however long one is ready to wait."""
    with open_store(url, busy_seconds=5, for_writing=True) as patient:
        release = threading.Timer(0.1, lambda: None)
        with locked_for_a_moment(store, release), patient.write() as session:
            find_run(session, run_id=None)
            begin(session)

    assert count_runs(store) == 2


@contextmanager
def locked_for_a_moment(store: Store, timer: threading.Timer) -> Iterator[None]:
    """Write from another thread, slowly."""
    has_lock = threading.Event()

    def write_slowly() -> None:
        with store.write() as session:
            begin(session)
            has_lock.set()
            timer.join()

    timer.start()
    thread = threading.Thread(target=write_slowly)
    thread.start()
    has_lock.wait()
    yield
    thread.join()


def test_somebody_else_writing_makes_us_busy(store: Store, path: Path) -> None:
    """Cron comes again in a minute; exit code 75 says so."""
    with (
        locked(path),
        pytest.raises(StoreBusy, match=r"locked by another process; waited 0\.1 s"),
        store.write() as session,
    ):
        begin(session)


def test_a_missing_database_is_not_made_by_reading(url: str, path: Path) -> None:
    """A mistyped name must not turn into an empty history."""
    with pytest.raises(StoreError, match=r"no database yet at .*: run `pipeline collect` first"):
        open_store(url, busy_seconds=0.1, for_writing=False)

    assert not path.exists()


def test_a_place_that_cannot_be_is_named(path: Path) -> None:
    """A file where a folder should be is a mistake in the configuration, not a traceback."""
    path.touch()

    with pytest.raises(StoreError, match=r"pipeline\.db/x\.db: Not a directory"):
        open_store(f"sqlite:///{path}/x.db", busy_seconds=0.1, for_writing=False)


def test_an_empty_file_is_refused(url: str, path: Path) -> None:
    """SQLite would adopt it silently; it may be what a full disk left of something else."""
    path.touch()

    with pytest.raises(StoreError, match="is empty, not a pipeline database; remove it or choose"):
        open_store(url, busy_seconds=0.1, for_writing=True)

    assert path.read_bytes() == b""


def make_folder(path: Path) -> None:
    """Put a folder where the database should be."""
    path.mkdir()


def make_fifo(path: Path) -> None:
    """Put a pipe there, whose opening would wait for ever."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """Put a socket there."""
    with closing(socket.socket(socket.AF_UNIX)) as listener, chdir(path.parent):
        listener.bind(path.name)  # the length of such a name is limited


@pytest.mark.parametrize("make", [make_folder, make_fifo, make_socket])
def test_what_is_no_file_is_refused_at_once(url: str, path: Path, make: object) -> None:
    """One line instead of a hang."""
    assert callable(make)
    make(path)

    with pytest.raises(StoreError, match="is no file but a folder or a device"):
        open_store(url, busy_seconds=0.1, for_writing=True)


@pytest.mark.parametrize("for_writing", [True, False])
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (NOT_OURS, "belongs to another program; choose another store.url"),
        (FROM_THE_FUTURE, "made by a newer version of pipeline; upgrade pipeline"),
        ("VACUUM", "holds no tables"),
    ],
)
def test_a_database_that_is_not_ours_is_left_byte_for_byte(
    url: str, path: Path, script: str, words: str, for_writing: bool
) -> None:
    """Whoever mistypes a name must not lose the songs that lie there."""
    if script == FROM_THE_FUTURE:
        open_store(url, busy_seconds=0.1, for_writing=True).close()
    change_with_sqlite(path, script)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=words):
        open_store(url, busy_seconds=0.1, for_writing=for_writing)
    with pytest.raises(StoreError, match=words):
        migrate(url, busy_seconds=0.1)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("at", [0, 100])
def test_a_damaged_start_is_refused_and_kept(url: str, path: Path, at: int) -> None:
    """A damaged database is never made anew: somebody may still save something of it."""
    open_store(url, busy_seconds=0.1, for_writing=True).close()
    content = bytearray(path.read_bytes())
    content[at : at + 16] = b"\xff" * 16
    path.write_bytes(content)

    with pytest.raises(StoreError, match=r"pipeline\.db: (no database, or )?damaged"):
        open_store(url, busy_seconds=0.1, for_writing=True)

    assert path.read_bytes() == content


def test_a_truncated_file_is_called_damaged(store: Store, url: str, path: Path) -> None:
    """Half of a copy that was interrupted looks like this."""
    with store.write() as session:
        record_run(session, [make_batch(number) for number in range(500)])
    store.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)

    with pytest.raises(StoreError, match="damaged; restore a backup"):
        count_runs(open_store(url, busy_seconds=0.1, for_writing=True))


@pytest.mark.sqlite
def test_a_full_disk_is_named_and_leaves_what_was_there(store: Store) -> None:
    """Nothing is half-stored, and it works again when there is space."""
    with store.write() as session:
        record_run(session, [make_batch(number) for number in range(10)])

    def record_many(most_pages: int) -> None:
        with store.write() as session:
            session.connection().exec_driver_sql(f"PRAGMA max_page_count = {most_pages}")
            record_run(session, [make_batch(number) for number in range(5_000)])

    with pytest.raises(StoreError, match="the disk is full"):
        record_many(most_pages=16)

    assert count_runs(store) == 1
    record_many(most_pages=1_000_000)
    assert count_runs(store) == 2


def test_a_file_that_may_not_grow_is_an_error_of_one_line(url: str, path: Path) -> None:
    """This is how a quota shows; SQLite knows it as a disk I/O error."""
    open_store(url, busy_seconds=0.1, for_writing=True).close()
    script = f"""
import resource
from pipeline.errors import StoreError
from pipeline.store.db import open_store
from tests.store.makers import make_batch, record_run

resource.setrlimit(resource.RLIMIT_FSIZE, (170_000, 170_000))
with open_store({url!r}, busy_seconds=0.1, for_writing=True) as store:
    try:
        with store.write() as session:
            record_run(session, [make_batch(number) for number in range(20_000)])
    except StoreError as exc:
        print(exc)
"""

    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert "pipeline.db: the disk failed or has no space" in ran.stdout
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_file_that_is_gone_fails_the_commit(store: Store, path: Path, is_replaced: bool) -> None:
    """SQLite would go on writing into a file without a name, and say that all is well."""
    path.rename(path.with_suffix(".old"))
    if is_replaced:
        path.write_bytes(path.with_suffix(".old").read_bytes())

    with pytest.raises(StoreError, match="deleted or replaced"), store.write() as session:
        begin(session)


def test_a_database_behind_a_link_is_the_one_it_points_to(tmp_path: Path) -> None:
    """People move a database to a larger disk and leave a link."""
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")

    url = f"sqlite:///{tmp_path}/link.db"
    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        begin(session)

    assert (tmp_path / "link.db").is_symlink()
    with open_store(f"sqlite:///{tmp_path}/real.db", busy_seconds=1, for_writing=False) as store:
        assert count_runs(store) == 1


@pytest.mark.parametrize("name", ["a b.db", "per%cent.db", "number#1.db", "ümlaut.db"])
def test_any_name_of_a_file_will_do(tmp_path: Path, name: str) -> None:
    """SQLite's own URLs give a meaning to some characters."""
    with open_store(f"sqlite:///{tmp_path}/{name}", busy_seconds=1, for_writing=True) as store:
        assert count_runs(store) == 0

    assert (tmp_path / name).is_file()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///file:x.db?uri=true", "must name a file"),
        ("nonsense", "cannot be understood"),
        ("postgresql://host:port/name", "cannot be understood"),
        ("nosuch://host/name", "nosuch://host/name: .*nosuch"),
        ("postgresql+nosuch://me:secret@host/name", r"me:\*\*\*@host/name: .*nosuch"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, words: str) -> None:
    """One line that names the setting, without the password in it."""
    with pytest.raises(StoreError, match=words) as caught:
        open_store(url, busy_seconds=0.1, for_writing=True)

    assert "secret" not in str(caught.value)


def test_no_error_shows_what_was_to_be_stored(store: Store) -> None:
    """Whatever an upstream said, keys included, stays out of logs and mails."""
    with store.write() as session:
        run_id = record_run(session, [])

    with pytest.raises(StoreError) as caught, store.write() as session:
        session.connection().execute(
            RUNS.update().where(RUNS.c.id == run_id).values(status="canary-4711")
        )

    assert "\n" not in str(caught.value)
    assert "canary" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.anyio
async def test_a_change_is_carried_out_off_the_event_loop(store: Store) -> None:
    """A slow disk must not stop forty downloads."""
    with store.write() as session:
        run_id = begin(session)

    await store.commit(finish_run, run_id=run_id, status=RunStatus.OK, ended_at=NOON, clock_us=1)

    with store.read() as session:
        run = find_run(session, run_id=run_id)
    assert run is not None
    assert run.status is RunStatus.OK


@pytest.mark.anyio
@pytest.mark.sqlite
async def test_only_one_thread_is_in_the_store_at_a_time(store: Store) -> None:
    """Two would wait for each other inside SQLite, and one would give up."""
    inside = threading.Lock()

    def work() -> None:
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.005)
        inside.release()

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(store.in_thread, work)


@pytest.mark.anyio
async def test_a_commit_that_has_begun_is_not_abandoned(store: Store) -> None:
    """Who is cancelled in the middle of a commit must still know that it is on disk."""
    scope = anyio.CancelScope()

    def write_slowly() -> int:
        with store.write() as session:
            run_id = begin(session)
            from_thread.run_sync(scope.cancel)
            return run_id

    run_id = None
    with scope:
        run_id = await store.in_thread(write_slowly)

    assert run_id == 1
    assert count_runs(store) == 1
