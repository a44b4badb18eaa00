"""Files: whole or not at all, nothing left behind, and in the hands of whom they belong to.

What is written has a name of its own until it is whole: ``.pipeline-<hex>.tmp`` in the folder of
its target, locked by whoever writes it. The kernel frees that lock when a process dies; so the
next one that writes into the folder sees what is dead, and removes it.
"""

import errno
import fcntl
import os
import pwd
import re
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from pipeline.errors import StoreError

# At the end of the URL of a file. A `?` elsewhere belongs to the name of a folder.
URL_QUERY = r"\?(\w+=[^/?]*)?$"

WRITER_SECONDS = 10  # that the writer of a pipe may take

_UNFINISHED = ".pipeline-*.tmp"

_KNOWS_EFFECTIVE = os.access in os.supports_effective_ids

# What file systems say that cannot put a folder on the disk.
_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def unfinished(target: Path, *, owner: os.stat_result | None = None) -> Iterator[IO[bytes]]:
    """Give an empty private file to become *target*; what is left of it at the end is removed.

    Made by root, it belongs to *owner*. ``name`` tells where it is until then.

    Raises:
        OSError: it cannot be made.
    """
    remove_dead(target.parent)
    path, descriptor = _make_locked(target.parent, owner)
    file = open(path, "w+b", opener=lambda *_: descriptor)  # noqa: SIM115 - Path.open has no opener
    try:
        yield file
    finally:
        with suppress(OSError):  # of a disk that has turned read-only: later is soon enough
            path.unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written has been told
            file.close()  # and this frees the lock


def _make_locked(folder: Path, owner: os.stat_result | None) -> tuple[Path, int]:
    while True:
        path = folder / _UNFINISHED.replace("*", uuid4().hex)
        descriptor = create(path, owner=owner)
        with suppress(OSError):  # where nobody can lock, nobody can take it for dead either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)  # it was taken for dead before it was locked


def create(path: Path, *, owner: os.stat_result | None = None) -> int:
    """Create a file for its owner's eyes only, and give its descriptor; root's belongs to *owner*.

    Raises:
        FileExistsError: there is something of that name.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    give(descriptor, owner)
    return descriptor


def remove_dead(folder: Path) -> None:
    """Remove what processes that were killed have left unfinished in *folder*, as far as we may."""
    left: list[Path] = []
    with suppress(OSError):
        left.extend(folder.glob(_UNFINISHED))
    for path in left:
        with suppress(OSError):
            found = path.lstat()
            # One of two names: the file is finished. To open it would do harm: whoever closes a
            # database, under whichever name, drops the locks that SQLite has on it in this process.
            if found.st_nlink > 1:
                path.unlink()
            elif stat.S_ISREG(found.st_mode):
                _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def publish(file: IO[bytes], target: Path, *, replace: bool) -> None:
    """Put an ``unfinished`` file on the disk and call it *target*, which may *replace* another.

    Raises:
        FileExistsError: there is something of that name, and it is not to be replaced.
        OSError: the disk does not take it.
    """
    file.flush()
    os.fsync(file.fileno())
    if replace:
        Path(file.name).replace(target)
    else:
        _name(Path(file.name), target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _name(path: Path, target: Path) -> None:
    try:
        os.link(path, target)  # unlike a rename, it fails if the name is taken
    except FileExistsError:
        raise
    except OSError:  # memory sticks and some network shares know no hard links
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)  # one of us at a time
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            path.rename(target)
        finally:
            os.close(folder)


def read_bytes(file: Path, most: int) -> bytes:
    """Read *file*, which may be one without an end, or a pipe into which nobody writes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than *most* bytes, or its name is none.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll, content = select.poll(), b""
        poll.register(descriptor, select.POLLIN)
        while len(content) <= most:
            if not poll.poll(1000 * WRITER_SECONDS):
                why = f"nothing came from it for {WRITER_SECONDS} s"
                raise TimeoutError(errno.ETIMEDOUT, why)
            piece = os.read(descriptor, most + 1 - len(content))
            if not piece:
                return content
            content += piece
    finally:
        os.close(descriptor)
    raise ValueError(f"it is longer than {most} bytes")


def make_folder(folder: Path) -> None:
    """Make *folder* and what is missing above it, for the owner's eyes only.

    Made by root, they belong to the owner of the folder above.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if folder.is_dir():
            return
        folder.stat()  # of a loop of links it says so
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            give(descriptor, folder.parent.stat())
        finally:
            os.close(descriptor)


def owner_at(path: Path) -> os.stat_result | None:
    """Find whom a file beside *path* should belong to: its owner, else that of the folder."""
    for place in (path, path.parent):
        with suppress(OSError):
            return place.stat()
    return None


def give(descriptor: int, owner: os.stat_result | None) -> None:
    """Let *owner* have a file that root has made: one run of root must not lock the owner out."""
    if owner is not None and os.geteuid() == 0 and owner.st_uid != 0:
        with suppress(OSError):  # of a file system without owners
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def blame(path: Path) -> str:
    """Say what keeps us from using *path*, whose it is and what to do; nothing if all is open."""
    if opens_nothing():
        return "; see `ulimit -n`"
    folders = [(folder, os.X_OK) for folder in reversed(path.parents)]
    for place, needed in (*folders, (path, os.R_OK | os.W_OK), (path.parent, os.W_OK)):
        with suppress(OSError):
            found = place.stat()
            if place != path and not stat.S_ISDIR(found.st_mode):
                return ""
            can = os.access(place, needed, effective_ids=_KNOWS_EFFECTIVE)
            if not can and not os.statvfs(place).f_flag & os.ST_RDONLY:
                return f"; {place} {_about_rights(found)}"
    return ""


def _about_rights(found: os.stat_result) -> str:
    mode, owner, we = stat.S_IMODE(found.st_mode), _user(found.st_uid), _user(os.geteuid())
    if owner == we:
        return f"has mode {mode:o}: give yourself the rights with chmod"
    remedy = (
        "choose another place" if stat.S_ISDIR(found.st_mode) else f"have root chown it to {we}"
    )
    return f"belongs to {owner} (mode {mode:o}), and this is {we}: run as {owner}, or {remedy}"


def opens_nothing() -> bool:
    """Tell whether this process has too many open files for one more."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        return exc.errno in (errno.EMFILE, errno.ENFILE)
    return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


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
    name = re.sub(URL_QUERY, "", rest.removeprefix("///"))
    if not rest.startswith("///") or not name or name.startswith((":memory:", "file:")):
        raise StoreError(f"{url}: store.url must name a file, as in sqlite:///pipeline.db")
    return Path(os.path.realpath(name))  # unlike Path.resolve, it leaves a loop of links to others
