"""One run at a time, and who is still alive: locks that the kernel frees when a process dies.

Some files lie beside the database (``lock_path``), and only ``flock`` says what they mean; nothing
ever deletes them, or two processes could hold a lock on two files of the same name. Not the
database file itself and not POSIX record locks: those are dropped, without a word, as soon as any
code of the process closes any descriptor of the file. Not a PID file: it outlives its process.

The lock of a run (``run_lock``). A run holds it exclusively; the next one finds it taken, and who
has it.

The presence (``presence``), beside a store that is a file. Every run holds it too, but shared, so
several can (with two configurations, say). Whoever can have it exclusively is alone, and then every
run of this kernel that the store still calls running is dead, in whatever container it was. A run
cannot ask that while it holds the lock itself, nor turn an exclusive lock into a shared one: flock
drops the old lock before it takes the new one, and a second run that starts in between would
believe that it is alone, and bury the first. So a third lock, the gate, lets in one starting run at
a time:

    take the gate → alone? then bury the dead → take the presence, shared → leave the gate

A run is written down as running only after that. So whoever is alone behind the gate sees rows of
dead runs only; a run that is alive either has no row yet or holds the presence. Somebody who asks
``is_alone`` without the gate holds the lock for a moment, and at worst the dead of one start are
buried by the next.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep
from uuid import uuid4

from pipeline.errors import LockHeld, StoreError
from pipeline.files import blame, create, database_file, make_folder, owner_at
from pipeline.sanitize import one_line

NOTE_BYTES = 200
LOOK_AGAIN_SECONDS = 0.1

# What a file system says that has no locks, or has lost the service that keeps them.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL, errno.EBADF)


def presence_at(file: Path) -> Path:
    """Say where the presence lock of a database lies."""
    return file.with_name(f"{file.name}.presence")


def lock_path(url: str, name: str, *, state_folder: Path) -> Path:
    """Say where a lock of the database at *url* lies: ``<file>.<name>`` beside an SQLite file.

    For a server it is a file in *state_folder*, named after a hash of the URL: such a lock counts
    on this machine only.
    """
    if file := database_file(url):
        return file.with_name(f"{file.name}.{name}")
    return state_folder / f"{sha256(url.encode()).hexdigest()[:16]}.{name}"


@contextmanager
def run_lock(path: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run while the block runs; wait for it as long as *patience_seconds*.

    Raises:
        LockHeld: another process has it; the text names its pid and since when.
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        give_up_at = monotonic() + patience_seconds
        while not _lock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
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
        gate_path = path.with_name(f"{path.name}-gate")
        with _opened(gate_path) as gate:
            _lock(gate_path, gate, fcntl.LOCK_EX)
            if is_alone(path):
                if_alone()
            _lock(path, descriptor, fcntl.LOCK_SH)
        yield


def is_alone(path: Path) -> bool:
    """Tell whether nobody is present now: see ``presence`` for what that means.

    Raises:
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        return _lock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool | None:
    """Tell whether anybody is present, without making the lock file; None if we may not know.

    Whoever asks holds the lock for a moment, like ``is_alone``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        return False if exc.errno == errno.ENOENT else None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        return True if isinstance(exc, BlockingIOError) else None
    finally:
        os.close(descriptor)
    return False


def sign_of(path: Path) -> str | None:
    """Name a lock file so that two processes with the same name for it see each other's locks.

    That is: which file it is, and of which kernel. None if there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    kernel = host_identity()
    with suppress(OSError):  # only Linux has it
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{kernel}:{found.st_dev}:{found.st_ino}"


def host_name() -> str:
    """Name this machine in text that can be kept and shown: the kernel takes any bytes."""
    return one_line(os.fsencode(gethostname()).decode("utf-8", "backslashreplace"))


def host_identity() -> str:
    """Name this machine the same way every time, and unlike its neighbours where it can be told."""
    with suppress(OSError, UnicodeError):
        return f"{host_name()}/{Path('/etc/machine-id').read_text('ascii').strip()[:8]}"
    return host_name()


def name_holder() -> str:
    """Name whoever holds a lease: a machine and a process, for people; unlike any other."""
    return f"{host_identity()} pid {os.getpid()} {uuid4().hex}"


@contextmanager
def exclusive_lock(path: Path) -> Iterator[Callable[[], bool]]:
    """Give a function that tries to take the only place at *path*; the block's end gives it back.

    Raises:
        StoreError: the lock file cannot be used.
    """
    with _opened(path) as descriptor:
        yield lambda: _lock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a lock file, making it if need be, but never through a symbolic link."""
    try:
        make_folder(path.parent)
        descriptor = _open(path)
    except OSError as exc:
        reason = f"{exc.strerror}{blame(path)}"
        if path.is_symlink():
            reason = "it is a symbolic link, which may lead to another's lock; remove it"
        raise StoreError(f"{path} cannot be opened for locking: {reason}") from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # and this frees the lock


def _open(path: Path) -> int:
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        with suppress(FileExistsError):  # another one was quicker
            # The names of locks have no dot: without its suffix, that of one is the database's.
            return create(path, owner=owner_at(path.with_suffix("")))


def _lock(path: Path, descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as exc:
        why = (
            "; the file system, a network share perhaps, has no locks now, and without them runs"
            " could harm each other: keep the store on a local disk (store.url)"
        )
        hint = why if exc.errno in _NO_LOCKS else ""
        raise StoreError(f"{path} cannot be locked: {exc.strerror}{hint}") from exc
    return True


def _write_note(descriptor: int) -> None:
    note = f"pid {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, note.encode(), 0)


def _read_note(descriptor: int) -> str:
    note = os.pread(descriptor, NOTE_BYTES, 0).decode(errors="replace").strip()
    return note if note.isprintable() and note else "it has not said which"
