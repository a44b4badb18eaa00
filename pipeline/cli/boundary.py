"""Where exceptions end: one line on stderr and the documented exit code, never a traceback."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from pipeline.errors import (
    ConfigError,
    LockHeld,
    PipelineError,
    StoreBusy,
    StoreError,
    UsageError,
)
from pipeline.sanitize import one_line, printable


class ExitCode(IntEnum):
    """The numbers that scripts rely on; 74, 75 and 78 are those of BSD's sysexits.h."""

    OK = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    NOTHING_COLLECTED = 4
    STORE_FAILED = 74
    TRY_LATER = 75
    CONFIGURATION = 78
    READER_GONE = 128 + signal.SIGPIPE


EXIT_CODES: tuple[tuple[type[PipelineError], ExitCode], ...] = (
    (ConfigError, ExitCode.CONFIGURATION),
    (UsageError, ExitCode.USAGE),
    (LockHeld, ExitCode.TRY_LATER),
    (StoreBusy, ExitCode.TRY_LATER),
    (StoreError, ExitCode.STORE_FAILED),
)


def complain(text: str) -> None:
    """Write *text* to stderr, each line with our name; a closed stderr is no reason to die."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            for line in text.splitlines():
                sys.stderr.write(f"pipeline: {printable(line)}\n")
            sys.stderr.flush()


def _leave_on_signal(signum: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + signum)


def _place_of(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-3:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))


def _reader_gone() -> ExitCode:
    """Make sure that Python's own last flush finds nothing to complain about."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.READER_GONE


def _exit_code(exc: Exception) -> int:
    """Say on stderr what *exc* means, and give the code to leave with."""
    if isinstance(exc, BrokenPipeError):
        return _reader_gone()
    if isinstance(exc, PipelineError):
        complain(str(exc))
        return next((code for kind, code in EXIT_CODES if isinstance(exc, kind)), ExitCode.BUG)
    if isinstance(exc, OSError) and exc.filename is None:
        complain(f"cannot write the output: {exc.strerror or exc}")
        _reader_gone()
        return ExitCode.STORE_FAILED
    # The text of a foreign exception may quote what must stay secret; kind and place do not.
    complain(one_line(f"a bug of ours: {type(exc).__name__} at {_place_of(exc)}; please report it"))
    return ExitCode.BUG


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turn what goes wrong inside into one line on stderr and an exit code."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _leave_on_signal)
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt as exc:
        raise typer.Exit(128 + signal.SIGINT) from exc
    except typer.Exit:
        raise
    except Exception as exc:  # noqa: BLE001 - this is the one place where everything ends
        raise typer.Exit(_exit_code(exc)) from None
