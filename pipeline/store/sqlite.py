"""What only SQLite needs: its file, its pragmas, its journal, and what its errors mean."""

import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from pipeline.errors import StoreBusy, StoreError
from pipeline.files import blame, make_folder, opens_nothing, owner_at, publish, unfinished

IS_WRITE = "pipeline_is_write"  # execution option of an engine whose transactions write

# By SQLite's result code, the extended one first: what is wrong and what to do about it.
_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing more is stored until there is space",
    sqlite3.SQLITE_IOERR: "the disk failed or has no space; check space, quotas and the disk",
    sqlite3.SQLITE_READONLY: "read-only: check the permissions of the file, its folder and mount",
    sqlite3.SQLITE_READONLY_DBMOVED: "deleted or replaced by somebody while we had it open",
    sqlite3.SQLITE_CORRUPT: "damaged; restore a backup, or save what is left with `.recover`",
    sqlite3.SQLITE_NOTADB: "no database, or damaged; restore a backup, or choose another store.url",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check the permissions of the file and its folder",
    sqlite3.SQLITE_PERM: "cannot be locked, or may not be used: keep it on a local disk",
    **dict.fromkeys(
        (
            sqlite3.SQLITE_IOERR_LOCK,
            sqlite3.SQLITE_IOERR_RDLOCK,
            sqlite3.SQLITE_IOERR_UNLOCK,
            sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
        ),
        "cannot be locked: the file system, a network share perhaps, has no locks now; keep it on a"
        " local disk",
    ),
}
_OF_RIGHTS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def journal_mode_for(version: tuple[int, ...]) -> str:
    """Choose the journal for a version of the SQLite library.

    WAL lets readers and the writer work side by side. But in libraries before 3.51.3 (back-ported
    to 3.50.7) a checkpoint that meets another connection's write can reset the log too early and
    corrupt the database. There we take the rollback journal, and TRUNCATE rather than DELETE:
    with synchronous=FULL SQLite syncs the truncated journal, so a commit that was acknowledged
    survives a power cut, whereas a deleted journal may come back and undo it.
    """
    has_fix = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51)
    return "WAL" if has_fix else "TRUNCATE"


def make_engine(
    path: Path,
    *,
    busy_seconds: float,
    for_writing: bool,
    foreign_keys: bool = True,
    version: tuple[int, ...] = sqlite3.sqlite_version_info,
) -> Engine:
    """Make an engine for an existing file; it never creates one.

    Its transactions are real ones, DDL included: by default they are left to Python's sqlite3,
    which begins too late and knows no BEGIN IMMEDIATE. Who is going to write takes the lock first:
    a transaction that has read and then wants to write fails at once, busy timeout or not.
    """
    uri = f"{path.as_uri()}?mode=rw"  # for a read-only file SQLite itself falls back to reading
    pragmas = [
        f"foreign_keys = {'ON' if foreign_keys else 'OFF'}",
        "synchronous = FULL",
        f"journal_mode = {journal_mode_for(version)}" if for_writing else "query_only = ON",
    ]

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def begin(connection: Connection) -> None:
        is_write = connection.get_execution_options().get(IS_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, hide_parameters=True)
    event.listen(engine, "begin", begin)
    event.listen(engine, "reset", _undo)
    return engine


def _undo(connection: sqlite3.Connection, *_: object) -> None:
    """Undo what a commit has left open that readers did not let through.

    SQLAlchemy takes such a transaction for ended, and its lock would stay.
    """
    if connection.in_transaction:
        connection.rollback()


def check_file(path: Path) -> None:
    """See that *path* is a file that may hold a database.

    Raises:
        StoreError: it is missing, empty, or no regular file (SQLite would hang on a FIFO).
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise StoreError(f"no database yet at {path}: run `pipeline collect` first") from None
    except OSError as exc:
        raise StoreError(f"{path}: {exc.strerror}{blame(path)}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{path} is no file but a folder or a device; choose another store.url")
    if found.st_size == 0:
        raise StoreError(
            f"{path} is empty, not a pipeline database; remove it or choose another store.url"
        )


def identity(path: Path) -> tuple[int, int] | None:
    """Tell which file has this name now, to find out later whether it still does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def create_file(path: Path, content: bytes) -> None:
    """Put a complete database in place, unless somebody else did so in the meantime.

    Nobody ever sees a half of it, and of two that create it at once the second one keeps its hands
    off the first's.

    Raises:
        StoreError: the folder or the file cannot be made.
    """
    try:
        make_folder(path.parent)
        with unfinished(path, owner=owner_at(path)) as file:
            file.write(content)
            with suppress(FileExistsError):
                publish(file, path, replace=False)
    except OSError as exc:
        raise StoreError(f"{path} cannot be created: {exc.strerror}{blame(path)}") from exc


def back_up(path: Path, target: Path) -> None:
    """Copy a database, even one in use, to *target*, replacing it only with a copy that is whole.

    Raises:
        StoreError: the original is damaged, or *target* cannot be written.
        sqlite3.Error: as SQLite gives it; the caller knows the words.
    """
    owner = owner_at(path) if target.parent == path.parent else None
    try:
        with unfinished(target, owner=owner) as file:
            _copy(path, Path(file.name))
            publish(file, target, replace=True)
    except OSError as exc:
        raise StoreError(f"{target} cannot be written: {exc.strerror}{blame(target)}") from exc


def _copy(path: Path, copy: Path) -> None:
    # Nobody else knows the copy, so it needs neither locks nor a journal, which would be left too.
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as source,
        closing(sqlite3.connect(f"{copy.as_uri()}?mode=rw&nolock=1", uri=True)) as target,
    ):
        target.execute("PRAGMA journal_mode = OFF")
        source.backup(target)
    with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as whole:
        (verdict,) = whole.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        reason = " ".join(verdict.split())  # SQLite uses two lines
        raise StoreError(f"{path} is damaged; nothing was changed: {reason}")


def vacuum(path: Path, *, busy_seconds: float) -> None:
    """Write the database anew without its free pages; nobody else can write meanwhile.

    Raises:
        sqlite3.Error: as SQLite gives it; the caller knows the words.
    """
    engine = make_engine(path, busy_seconds=busy_seconds, for_writing=True)
    try:
        with closing(engine.raw_connection()) as raw:  # no transaction: VACUUM begins its own
            raw.cursor().execute("VACUUM")
    finally:
        engine.dispose()


def explain(exc: sqlite3.Error, path: Path, busy_seconds: float) -> StoreError:
    """Turn an error of SQLite into ours: one line with the file, what is wrong, what to do."""
    code = getattr(exc, "sqlite_errorcode", None) or 0  # Python's own complaints have none
    kind = code & 0xFF  # an extended result code has its family in the lowest byte
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{path} is locked by another process; waited {busy_seconds:g} s")
    if kind == sqlite3.SQLITE_CANTOPEN and opens_nothing():
        return StoreError(f"{path} cannot be opened: too many open files; see `ulimit -n`")
    if kind == sqlite3.SQLITE_NOMEM:
        return StoreError(f"{path}: there is no memory left ({exc})")
    meaning = _MEANINGS.get(code) or _MEANINGS.get(kind)
    known = (path, *(path.with_name(path.name + end) for end in ("-journal", "-wal", "-shm")))
    blamed = next(filter(None, map(blame, known)), "") if kind in _OF_RIGHTS else ""
    return StoreError(f"{path}: {meaning} ({exc}){blamed}" if meaning else f"{path}: {exc}")
