"""Where exceptions end: the line, the code, and no word too many."""

import errno
import signal
from io import StringIO
from pathlib import Path

import pytest
import typer

from pipeline.cli.boundary import complain, error_boundary, last_exit_code, output_failed
from pipeline.errors import (
    ConfigError,
    ExitCode,
    LockHeld,
    PipelineError,
    StoreBusy,
    StoreError,
    UsageError,
)
from pipeline.rendering.output import OutputError

SECRET = "canary-7f3a9c51"


class _Full(StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, f"No space left on device for {len(text)}")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def code_of(error: BaseException) -> int:
    """Give the code with which a command leaves that *error* ends."""
    with pytest.raises(typer.Exit) as leaving, error_boundary():
        raise error
    return leaving.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), ExitCode.CONFIGURATION),
        (UsageError("wrong"), ExitCode.USAGE),
        (LockHeld("wrong"), ExitCode.TRY_LATER),
        (StoreBusy("wrong"), ExitCode.TRY_LATER),
        (StoreError("wrong"), ExitCode.STORE_FAILED),
        (PipelineError("wrong"), ExitCode.BUG),
    ],
)
def test_an_error_of_ours_is_its_text_and_its_code(
    capsys: pytest.CaptureFixture[str], error: PipelineError, code: ExitCode
) -> None:
    """The text was written for a person; a subclass comes before its base."""
    assert code_of(error) == code

    assert capsys.readouterr() == ("", "pipeline: wrong\n")


def test_each_complaint_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """All that is wrong with a file at once, each line with our name for the reader of a mail."""
    code_of(ConfigError("one", "two"))

    assert capsys.readouterr().err == "pipeline: one\npipeline: two\n"


def test_a_complaint_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """It may quote a file or an upstream."""
    complain("so\x1b]0;owned\x07\u202e")

    assert capsys.readouterr().err == "pipeline: so\\x1b]0;owned\\x07\\u202e\n"


def test_a_bug_tells_its_kind_and_place_but_not_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A foreign exception may quote a key; no traceback, which may show the line that has it."""
    assert code_of(ValueError(SECRET)) == ExitCode.BUG

    said = capsys.readouterr().err
    assert said.startswith("pipeline: a bug of ours: ValueError at test_boundary.py:")
    assert SECRET not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.EIO, ExitCode.STORE_FAILED, "the system refused: Input/output error (OSError at"),
        (errno.EACCES, ExitCode.STORE_FAILED, "refused: Permission denied (PermissionError at"),
        (errno.ELOOP, ExitCode.STORE_FAILED, "refused: Too many levels of symbolic links (OSError"),
        (errno.EBADF, ExitCode.BUG, "a bug of ours: OSError at"),
    ],
)
def test_a_refusal_of_the_system_is_told_in_its_words(
    capsys: pytest.CaptureFixture[str], number: int, code: ExitCode, words: str
) -> None:
    """It is no bug, and without the system's word nobody would know what to do."""
    assert code_of(OSError(number, SECRET)) == code

    said = capsys.readouterr().err
    assert words in said
    assert SECRET not in said
    assert said.count("\n") == 1


def caused_by(cause: BaseException) -> Exception:
    """Fail because of *cause*, as a library does that tells it in words of its own."""
    error = ValueError(SECRET)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, SECRET), "Too many open files; see `ulimit -n`"),
        (OSError(errno.ENFILE, SECRET), "Too many open files in system; see `ulimit -n`"),
        (OSError(errno.ENOMEM, SECRET), "there is no memory left"),
        (MemoryError(), "there is no memory left"),
        (ImportError("x.so: failed to map segment"), "there is no memory left"),
        (ValueError("field 'target' is required for AnnAssign"), "there is no memory left"),
        (SyntaxError("invalid syntax"), "there is no memory left"),
        (RuntimeError("can't start new thread"), "no thread can be started; see `ulimit -u`"),
        (caused_by(MemoryError()), "there is no memory left"),
        (OutputError(OSError(errno.EMFILE, SECRET)), "Too many open files"),
    ],
)
def test_what_the_machine_lacks_is_no_bug_of_ours(
    capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    """Later there may be enough of it."""
    assert code_of(error) == ExitCode.TRY_LATER

    said = capsys.readouterr().err
    assert said.startswith(f"pipeline: this machine has too little for it: {words}")
    assert SECRET not in said


def test_what_was_said_is_not_said_again_when_even_leaving_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where memory is short, to raise the exit may take more of it than there is."""
    assert code_of(MemoryError()) == ExitCode.TRY_LATER

    assert last_exit_code(MemoryError()) == ExitCode.TRY_LATER
    assert capsys.readouterr().err.count("\n") == 1


def test_a_keyboard_interrupt_is_130_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Who pressed the keys knows."""
    assert code_of(KeyboardInterrupt()) == 128 + signal.SIGINT

    assert capsys.readouterr() == ("", "")


def test_an_exit_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that has made up its mind."""
    assert code_of(typer.Exit(3)) == 3

    assert capsys.readouterr() == ("", "")


def test_the_output_is_flushed_before_the_command_counts_as_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What waits in a buffer may never arrive."""
    monkeypatch.setattr("sys.stdout", _Full())

    with pytest.raises(typer.Exit) as leaving, error_boundary():
        pass

    assert leaving.value.exit_code == ExitCode.STORE_FAILED
    assert capsys.readouterr().err == (
        "pipeline: cannot write the output: No space left on device\n"
    )


def test_a_reader_that_has_gone_is_no_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    """`| head` has what it wanted."""
    assert code_of(OutputError(BrokenPipeError())) == ExitCode.READER_GONE

    assert capsys.readouterr() == ("", "")


def test_what_is_still_buffered_for_a_broken_stdout_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the last flush would fail as well, and say so."""
    with (tmp_path / "out").open("w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        stdout.write("too late")
        output_failed(OSError(errno.ENOSPC, "No space left on device"))
        stdout.flush()

    assert (tmp_path / "out").read_text() == ""


@pytest.mark.parametrize("stream", [None, _Full()])
def test_a_complaint_that_cannot_be_written_is_no_error(
    monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    """With stderr closed there is nobody to tell."""
    monkeypatch.setattr("sys.stderr", stream)

    assert code_of(StoreError("wrong")) == ExitCode.STORE_FAILED


def test_without_a_stdout_there_is_nothing_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has no sys.stdout if it was closed before the start."""
    monkeypatch.setattr("sys.stdout", None)

    assert output_failed(OSError(errno.EBADF, "Bad file descriptor")) == ExitCode.STORE_FAILED
