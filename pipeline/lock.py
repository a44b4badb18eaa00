"""One run at a time, and who is still alive: locks that the kernel frees when a process dies.

Some files lie beside the database (``lock_path``), and only ``flock`` says what they mean; nothing
ever deletes them, or two processes could hold a lock on two files of the same name. Not the
database file itself and not POSIX record locks: those are dropped, without a word, as soon as any
code of the process closes any descriptor of the file. Not a PID file: it outlives its process.

The turn (``turn``). A run holds it exclusively; the next one finds it taken, and who has it.

The presence (``presence``). Every run holds it too, but shared, so several can (with two
configurations, say). Whoever can have it exclusively is alone, and then every run
that the store still calls running is dead. A run cannot ask that while it holds the lock itself,
nor turn an exclusive lock into a shared one: flock drops the old lock before it takes the new one,
and a second run that starts in between would believe that it is alone, and bury the first. So a
third lock, the gate, lets in one starting run at a time:

    take the gate → alone? then bury the dead → take the presence, shared → leave the gate

A run is written down as running only after that. So whoever is alone behind the gate sees rows of
dead runs only; a run that is alive either has no row yet or holds the presence. Somebody who asks
``is_alone`` without the gate holds the lock for a moment, and at worst the dead of one start are
buried by the next.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep

from pipeline.errors import LockHeld, StoreError

NOTE_BYTES = 200
LOOK_AGAIN_SECONDS = 0.1


def database_file(url: str) -> Path | None:
    """Find the file that an SQLite URL names, as it stands there; None if it is another URL.

    A symbolic link is followed, also to a place where nothing is yet: SQLite keeps the journal of
    a database beside the real file, and so do we with everything else that lies beside it.

    Raises:
        StoreError: it is an SQLite URL, but of a database in memory or a ``file:`` URI.
    """
    scheme, _, rest = url.partition(":")
    if scheme.partition("+")[0] != "sqlite":
        return None
    name = rest.removeprefix("///").partition("?")[0]
    if not rest.startswith("///") or not name or name.startswith((":memory:", "file:")):
        raise StoreError(f"{url}: store.url must name a file, as in sqlite:///pipeline.db")
    return Path(name).resolve()


def lock_path(url: str, name: str, *, state_folder: Path) -> Path:
    """Say where a lock of the database at *url* lies: ``<file>.<name>`` beside an SQLite file.

    For a server it is a file in *state_folder*, named after a hash of the URL: such a lock counts
    on this machine only.
    """
    if file := database_file(url):
        return file.with_name(f"{file.name}.{name}")
    return state_folder / f"{sha256(url.encode()).hexdigest()[:16]}.{name}"


def make_folder(folder: Path) -> None:
    """Make *folder* and what is missing above it, for the owner's eyes only."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def turn(path: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the turn while the block runs; wait for it as long as *patience_seconds*.

    Raises:
        LockHeld: another process has it; the text names its pid and since when.
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        give_up_at = monotonic() + patience_seconds
        while not _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if monotonic() < give_up_at:
                sleep(LOOK_AGAIN_SECONDS)
                continue
            raise LockHeld(
                f"another run of this configuration is going on ({_read_note(descriptor)})"
            )
        with suppress(OSError):  # the note is a courtesy: on a full disk the lock still holds
            _write_note(descriptor)
        yield


@contextmanager
def presence(path: Path, *, if_alone: Callable[[], object]) -> Iterator[None]:
    """Be present while the block runs; *if_alone* is called first if nobody else is.

    Nobody can begin to be present while *if_alone* runs, so it must not take long.

    Raises:
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        with _opened(path.with_name(f"{path.name}-gate")) as gate:
            _lock(gate, fcntl.LOCK_EX)
            if is_alone(path):
                if_alone()
            _lock(descriptor, fcntl.LOCK_SH)
        yield


def is_alone(path: Path) -> bool:
    """Tell whether nobody is present now: then all runs that are called running are dead.

    Raises:
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        return _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def host_identity() -> str:
    """Name this machine the same way every time, and unlike its neighbours where it can be told."""
    with suppress(OSError):
        return f"{gethostname()}/{Path('/etc/machine-id').read_text('ascii').strip()[:8]}"
    return gethostname()


def has_process(pid: int) -> bool:
    """Tell whether a process of this machine has the number *pid*, perhaps a later one."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def place(path: Path) -> Iterator[Callable[[], bool]]:
    """Give a function that tries to take the only place at *path*; the block's end gives it back.

    Raises:
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        yield lambda: _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a lock file, making it if need be, but never through a symbolic link."""
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened for locking: {exc.strerror}") from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # and this frees the lock


def _lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise StoreError(f"a lock beside the store cannot be taken: {exc.strerror}") from exc
    return True


def _write_note(descriptor: int) -> None:
    note = f"pid {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, note.encode(), 0)


def _read_note(descriptor: int) -> str:
    note = os.pread(descriptor, NOTE_BYTES, 0).decode(errors="replace").strip()
    return note if note.isprintable() and note else "it has not said which"
