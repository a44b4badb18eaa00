"""Run a notification with a timeout; return its failure as one line."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from pipeline.files import publish, unfinished
from pipeline.sanitize import one_line

SECONDS = 5.0  # what one notification may take, unless [notify] says otherwise
MODE = 0o644  # whoever reads the files is another user, and nothing in them is secret


def within(seconds: float, what: str, action: Callable[[], str | None]) -> str | None:
    """Run *action*, called *what* in messages, and give its complaint, or None if all went well.

    It runs in a thread that is abandoned when the time is up: a hanging name resolution or file
    system cannot be interrupted, but nobody needs to wait for it.
    """
    said: list[str | None] = []

    def act() -> None:
        try:
            said.append(action())
        except Exception as exc:  # noqa: BLE001 - whatever it is, the run itself is done
            said.append(f"{what} failed: {type(exc).__name__}: {exc}")

    thread = Thread(target=act, name=what, daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:  # the system has no more threads
        return one_line(f"{what} failed: {exc}")
    thread.join(seconds)
    complaint = said[0] if said else f"{what} was not done within {seconds:g} s"
    return complaint and one_line(complaint)


def put_file(path: Path, make_text: Callable[[], str], *, what: str, seconds: float) -> str | None:
    """Write a file for other users to read, whole or not at all; give the complaint, if any."""

    def write() -> str | None:
        try:
            if path.exists() and not path.is_file():  # nobody wants to lose their /dev/null
                return f"{what}: {path} cannot be written: it is no file"
            text = make_text()
            with unfinished(path) as file:
                os.fchmod(file.fileno(), MODE)
                file.write(text.encode("utf-8", "backslashreplace"))
                publish(file, path, replace=True)
        except OSError as exc:
            return f"{what}: {path} cannot be written: {exc.strerror}"
        return None

    return within(seconds, f"writing {what}", write)
