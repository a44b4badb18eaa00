"""Where exceptions end: one line on stderr and the documented exit code, never a traceback."""

import errno
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from pipeline.errors import LACK, ExitCode, PipelineError, find_lack
from pipeline.rendering.output import OutputError, flush
from pipeline.rendering.words import iso_time
from pipeline.sanitize import one_line, printable

__all__ = [
    "ExitCode",
    "complain",
    "error_boundary",
    "exit_code_after",
    "last_exit_code",
    "output_failed",
]

# What the system answers to a program that is wrong; all else is about the machine.
_MISUSE = (errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK, errno.ENOTTY)


# How pydantic, with which Typer checks values, begins a complaint, and how we say it.
PLAIN = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be greater than or equal to ", "must be at least "),
    (r"Input should be less than or equal to ", "must be at most "),
    (r"Input should be ", "must be "),
)


class PlainGroup(TyperGroup):
    """Commands that complain of the values of options in our words, as the settings do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - as below
        """Read the arguments; ``--json`` is short for ``--format json``, as elsewhere."""
        end = args.index("--") if "--" in args else len(args)
        args[:end] = ["--format=json" if word == "--json" else word for word in args[:end]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401 - Typer keeps the class to itself
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as exc:
            for theirs, ours in PLAIN:
                exc.message, is_known = re.subn(f"^{theirs}", ours, exc.message)
                if is_known:
                    break
            raise


class LogFormat(StrEnum):
    """How lines on stderr are written."""

    TEXT = "text"
    JSON = "json"


_log = {"format": LogFormat.TEXT}  # of this process
_ended: list[int] = []  # the code that this process has given its reason for


def log_as(shape: LogFormat) -> None:
    """Write lines on stderr in this shape from now on."""
    _log["format"] = shape


def complain(text: str, level: str = "warning") -> None:
    """Write *text* to stderr, each line with our name; a closed stderr is no reason to die.

    Or each as a JSON object with ``at``, ``level`` and ``message``, if ``log_as`` was told so.
    """
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            for line in text.splitlines():
                sys.stderr.write(f"{_log_line(line, level)}\n")
            sys.stderr.flush()


def _log_line(line: str, level: str) -> str:
    if _log["format"] is LogFormat.TEXT:
        return f"pipeline: {printable(line)}"
    at = iso_time(datetime.now(UTC))
    return json.dumps({"at": at, "level": level, "message": printable(line)})


def inform(text: str) -> None:
    """Write *text* to stderr like ``complain``, though nothing is wrong."""
    complain(text, level="info")


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


def last_exit_code(exc: Exception) -> int:
    """Give the code to leave the process with when *exc* has passed every boundary.

    Where memory is short, even leaving with a code fails: its reason has then been said already.
    """
    return _ended[-1] if _ended else exit_code_after(exc)


def exit_code_after(exc: Exception) -> int:
    """Say on stderr what *exc* means, and give the code to leave with."""
    if isinstance(exc, PipelineError):
        complain(str(exc))
        return exc.exit_code
    if lack := find_lack(exc):
        complain(f"{LACK}: {lack}")
        return ExitCode.TRY_LATER
    if isinstance(exc, OutputError):
        return output_failed(exc.reason)
    # The text of a foreign exception may quote what must stay secret; kind and place do not, nor
    # does what the system calls an error of its own.
    kind, place = type(exc).__name__, _place_of(exc)
    if isinstance(exc, OSError) and exc.errno and exc.errno not in _MISUSE:
        complain(one_line(f"the system refused: {os.strerror(exc.errno)} ({kind} at {place})"))
        return ExitCode.STORE_FAILED
    complain(one_line(f"a bug of ours: {kind} at {place}; please report it"))
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
        _ended.append(exit_code_after(exc))
        raise typer.Exit(_ended[-1]) from None
