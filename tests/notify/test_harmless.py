"""What is told must never harm what it is told of."""

import threading

import pytest

from pipeline.notify.harmless import within


def test_what_went_well_is_not_worth_a_word() -> None:
    """Cron mails every word."""
    assert within(1, "telling", lambda: None) is None


def test_a_complaint_is_one_line() -> None:
    """It stands on stderr below others."""
    assert within(1, "telling", lambda: "line\nline\x1b") == r"line\nline\x1b"


def test_an_exception_becomes_a_complaint() -> None:
    """Whatever it is: the run has ended well."""

    def fail() -> None:
        raise ZeroDivisionError("by zero")

    assert within(1, "telling", fail) == "telling failed: ZeroDivisionError: by zero"


def test_what_hangs_is_left_behind() -> None:
    """It may hang in the kernel, where nobody can end it."""
    release = threading.Event()

    def hang() -> None:
        release.wait(10)

    assert within(0.01, "telling", hang) == "telling was not done within 0.01 s"
    release.set()


def test_a_system_without_threads_is_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ulimit -u`` is reached."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert within(1, "telling", lambda: None) == "telling failed: can't start new thread"
