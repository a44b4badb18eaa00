"""Files that commands write: whole or not at all, for their owner's eyes, never by accident."""

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.cli.render import MOST_IN_MEMORY, OutputError
from pipeline.errors import UsageError

STDOUT = Path("-")

# What a file system says that knows no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def write_file(target: Path, chunks: Iterable[bytes], *, force: bool) -> None:
    """Write *chunks* one after the other as ``new_file`` does, which also says what is raised."""
    with new_file(target, force=force) as file:
        file.writelines(chunks)


@contextmanager
def new_file(target: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Give a file to write while the block runs; when it has ended, all of it is *target*.

    Until then it has another name in the same folder, and if the block fails it is gone. Only its
    owner may read it. With *force* a file or a symbolic link of that name is replaced. The target
    ``-`` is stdout, which also gets nothing before the block has ended: so the store that the
    block reads can be closed before a slow reader is waited for.

    Raises:
        UsageError: *target* exists and *force* is not given, or it is a folder or a device.
        OutputError: it cannot be made there, or the disk, or stdout, takes no more.
    """
    writing = _stdout() if target == STDOUT else _renamed(target, force=force)
    with writing as file:
        yield file


@contextmanager
def _stdout() -> Iterator[IO[bytes]]:
    from shutil import copyfileobj
    from tempfile import SpooledTemporaryFile

    try:
        with SpooledTemporaryFile(MOST_IN_MEMORY) as spool:
            yield spool
            spool.seek(0)
            if sys.stdout is not None:
                sys.stdout.flush()
                copyfileobj(spool, sys.stdout.buffer)
    except OSError as exc:
        raise OutputError(exc) from exc


@contextmanager
def _renamed(target: Path, *, force: bool) -> Iterator[IO[bytes]]:
    temporary = _begin(target, force=force)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, target, force=force)
    except FileExistsError:  # it came while we wrote
        raise _exists(target) from None
    except OSError as exc:
        raise OutputError(OSError(exc.errno, f"{target}: {exc.strerror or exc}")) from exc
    finally:
        temporary.unlink(missing_ok=True)


def _begin(target: Path, *, force: bool) -> Path:
    """Make an empty file beside *target*: a wrong name is told before the work and not after it."""
    from tempfile import mkstemp

    try:
        mode = _mode(target)
        if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            what = "a folder" if stat.S_ISDIR(mode) else "no file"
            raise UsageError(f"{target}: is {what}; name a file to write")
        if mode is not None and not force:
            raise _exists(target)
        descriptor, name = mkstemp(prefix=".pipeline-", suffix=".tmp", dir=target.parent)
    except OSError as exc:
        raise OutputError(OSError(exc.errno, f"{target}: {exc.strerror}")) from exc
    os.close(descriptor)
    return Path(name)


def _mode(target: Path) -> int | None:
    try:
        return target.lstat().st_mode
    except FileNotFoundError:
        return None


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target}: is there already; --force replaces it")


def _publish(temporary: Path, target: Path, *, force: bool) -> None:
    """Give *temporary* its name; without *force* never one that somebody else has taken."""
    if not force:
        try:
            os.link(temporary, target)  # unlike a rename, it fails if the name is taken
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))  # take the name, then the file
        else:
            _sync(target.parent)
            return
    temporary.replace(target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
