"""Write files: whole or not at all, readable by their owner alone, replaced only on demand."""

import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import IO

from pipeline.errors import UsageError
from pipeline.files import publish, unfinished
from pipeline.rendering.output import MOST_IN_MEMORY, OutputError

STDOUT = Path("-")


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
    try:
        _check(target, force=force)  # a wrong name is told before the work and not after it
        with unfinished(target) as file:
            yield file
            publish(file, target, replace=force)
    except FileExistsError:  # it came while we wrote
        raise _exists(target) from None
    except OSError as exc:
        raise OutputError(OSError(exc.errno, f"{target}: {exc.strerror or exc}")) from exc


def _check(target: Path, *, force: bool) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        what = "a folder" if stat.S_ISDIR(mode) else "no file"
        raise UsageError(f"{target}: is {what}; name a file to write")
    if not force:
        raise _exists(target)


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target}: is there already; --force replaces it")
