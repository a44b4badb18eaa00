"""Where exceptions end: one line on stderr and the documented exit code, never a traceback.

Whatever the function of a command raises ends here; so their docstrings do not list it.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from pipeline.errors import ExitCode, as_ours, find_lack
from pipeline.rendering.output import OutputError, flush
from pipeline.rendering.shapes import Format
from pipeline.rendering.words import iso_time
from pipeline.sanitize import printable

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


_log = {"format": Format.TEXT}  # of this process
_ended: list[int] = []  # the code that this process has given its reason for


def log_as(shape: Format) -> None:
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
    if _log["format"] is Format.TEXT:
        return f"pipeline: {printable(line)}"
    at = iso_time(datetime.now(UTC))
    return json.dumps({"at": at, "level": level, "message": printable(line)})


def output_failed(reason: OSError) -> ExitCode:
    """Say that stdout takes no more, unless its reader has simply had enough, and shut it."""
    if sys.stdout is not None:
        # What is still buffered must not complain once more.
        with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    if isinstance(reason, BrokenPipeError):
        return ExitCode.READER_GONE
    complain(printable(f"cannot write the output: {reason.strerror or reason}"))
    return ExitCode.STORE_FAILED


def last_exit_code(exc: Exception) -> int:
    """Give the code to leave the process with when *exc* has passed every boundary.

    Where memory is short, even leaving with a code fails: its reason has then been said already.
    What the system refuses out here is the output: help and usage.
    """
    if _ended:
        return _ended[-1]
    return exit_code_after(OutputError(exc) if isinstance(exc, OSError) else exc)


def exit_code_after(exc: Exception) -> int:
    """Say on stderr what *exc* means, and give the code to leave with."""
    if isinstance(exc, OutputError) and not find_lack(exc):
        return output_failed(exc.reason)
    ours = as_ours(exc)
    for line in ours.complaints:  # a file may have a name that is two lines
        complain(printable(line))
    return ours.exit_code


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
