"""Where exceptions end: one line on stderr and the documented exit code, never a traceback."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path

import typer

from pipeline.cli.render import OutputError, flush
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
    FINDINGS = 3  # of audit --strict; like PARTIAL: it worked, and not all is well
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


def _place_of(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-3:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))


def output_failed(reason: OSError) -> ExitCode:
    """Say that stdout takes no more, unless its reader has simply had enough, and shut it."""
    if sys.stdout is not None:
        # What is still buffered must not complain once more.
        with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    if isinstance(reason, BrokenPipeError):
        return ExitCode.READER_GONE
    complain(f"cannot write the output: {reason.strerror or reason}")
    return ExitCode.STORE_FAILED


def exit_code_of(exc: PipelineError) -> ExitCode:
    """Give the code that is documented for *exc*."""
    return next((code for kind, code in EXIT_CODES if isinstance(exc, kind)), ExitCode.BUG)


def _exit_code(exc: Exception) -> int:
    """Say on stderr what *exc* means, and give the code to leave with."""
    if isinstance(exc, OutputError):
        return output_failed(exc.reason)
    if isinstance(exc, PipelineError):
        complain(str(exc))
        return exit_code_of(exc)
    # The text of a foreign exception may quote what must stay secret; kind and place do not, nor
    # does what the system calls an error of its own.
    says = f" ({os.strerror(exc.errno)})" if isinstance(exc, OSError) and exc.errno else ""
    bug = f"a bug of ours: {type(exc).__name__}{says} at {_place_of(exc)}; please report it"
    complain(one_line(bug))
    return ExitCode.BUG


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turn what goes wrong inside into one line on stderr and an exit code."""
    # An upstream that hangs up, or a reader of ours, is an error to handle and not a reason to die.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
        flush()
    except KeyboardInterrupt as exc:
        raise typer.Exit(128 + signal.SIGINT) from exc
    except typer.Exit:
        raise
    except Exception as exc:  # noqa: BLE001 - this is the one place where everything ends
        raise typer.Exit(_exit_code(exc)) from None
