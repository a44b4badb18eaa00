"""The process of a command: how it is set up, and how it ends.

Nothing heavy is imported before ``main`` has seen to the signals.
"""

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, lest a file of ours takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _die_of_signals() -> None:
    """Let signals end the process at once, as they end ``cat``; a run asks for more time itself.

    Python would answer SIGINT with a traceback, and only when SQLite has waited for its lock.
    What is to be ignored (under ``nohup``, in the background of a script) stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Until a command begins, which may have sockets: help and usage write to a pipe at most.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _speak_utf8() -> None:
    """Begin anew with UTF-8 where Python would take the names of files for ASCII.

    That is so in the C locale if somebody has switched off what Python does about it. Names with
    other letters could then neither be stored nor shown.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    with suppress(OSError):
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def main() -> NoReturn:
    """Run the command line, and end the process."""
    _speak_utf8()
    _die_of_signals()
    if not sys.flags.dev_mode:
        # What Python cannot raise it would print: tracebacks of objects that were never finished.
        sys.unraisablehook = lambda _: None
    # What is imported stays: looking it over for garbage again and again is a fifth of the start.
    gc.disable()
    _open_standard_streams()
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a TextIOWrapper unless replaced by a test

    from pipeline.cli.boundary import last_exit_code
    from pipeline.cli.commands import make_app

    code: object = None
    try:
        make_app(only="".join(sys.argv[1:2]))()
    except SystemExit as leaving:
        code = leaving.code
    except Exception as exc:  # noqa: BLE001 - there is too little memory, or a full disk behind help
        code = last_exit_code(exc)
    _leave(code)


def _leave(code: object) -> NoReturn:
    """End the process here and now; what it had to say has been flushed.

    Python would first wait for threads, so that a hung name resolution outlasts every deadline,
    and then take a thousand modules apart for a tenth of a second.
    """
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
