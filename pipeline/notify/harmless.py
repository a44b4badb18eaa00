"""What makes telling harmless: a limit in time, and no exception that gets out."""

from collections.abc import Callable
from threading import Thread

from pipeline.sanitize import one_line

SECONDS = 5.0  # what one way of telling may take, if nobody says otherwise


def within(seconds: float, what: str, action: Callable[[], str | None]) -> str | None:
    """Carry *action* out, and give its complaint, ours about it, or None.

    It runs in a thread that is left behind when the time is up: a name that is not resolved or a
    file system that hangs cannot be interrupted, but nobody needs to wait for them.
    """
    said: list[str | None] = []

    def act() -> None:
        try:
            said.append(action())
        except Exception as exc:  # noqa: BLE001 - whatever it is, the run that is told of went on without it
            said.append(f"{what} failed: {type(exc).__name__}: {exc}")

    thread = Thread(target=act, name=what, daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:  # the system has no more threads
        return one_line(f"{what} failed: {exc}")
    thread.join(seconds)
    complaint = said[0] if said else f"{what} was not done within {seconds:g} s"
    return complaint and one_line(complaint)
