"""How commands write files."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.rendering.output import OutputError
from pipeline.rendering.output_file import STDOUT, new_file, write_file

CHUNKS = (b"one\n", b"", b"\xfftwo\n")


def listing(folder: Path) -> list[str]:
    """Name what lies in *folder*."""
    return sorted(path.name for path in folder.iterdir())


def failing_chunks(error: Exception) -> Iterator[bytes]:
    """Fail after the first chunk."""
    yield b"half"
    raise error


def test_a_file_holds_all_chunks_and_is_private(tmp_path: Path) -> None:
    """What is written may say more of a person's doings than others need to know."""
    target = tmp_path / "a.har"

    write_file(target, CHUNKS, force=False)

    assert target.read_bytes() == b"one\n\xfftwo\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert listing(tmp_path) == ["a.har"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """It is refused before the work begins, with the way out."""
    target = tmp_path / "a.har"
    target.write_text("mine")

    with pytest.raises(UsageError, match=r"a\.har: is there already; --force replaces it"):
        write_file(target, failing_chunks(AssertionError()), force=False)

    assert target.read_text() == "mine"
    assert listing(tmp_path) == ["a.har"]


@pytest.mark.parametrize("points_at", ["mine", "nowhere"])
def test_a_link_is_never_followed(tmp_path: Path, points_at: str) -> None:
    """Else a name that was guessed writes into a file that somebody chose; forced, it is replaced.

    Also where it points at nothing.
    """
    (tmp_path / "mine").write_text("mine")
    target = tmp_path / "a.har"
    target.symlink_to(points_at)

    with pytest.raises(UsageError, match="is there already"):
        write_file(target, CHUNKS, force=False)
    write_file(target, CHUNKS, force=True)

    assert not target.is_symlink()
    assert target.read_bytes() == b"".join(CHUNKS)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_name_that_is_taken_meanwhile_stays(tmp_path: Path) -> None:
    """A look at the beginning would not be enough."""
    target = tmp_path / "a.har"

    with pytest.raises(UsageError, match="is there already"), new_file(target, force=False):
        target.write_text("theirs")

    assert target.read_text() == "theirs"
    assert listing(tmp_path) == ["a.har"]


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory stick has none; a name that is taken stays there as well."""

    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "a.har"

    write_file(target, CHUNKS, force=False)
    with (
        pytest.raises(UsageError, match="is there already"),
        new_file(tmp_path / "b.har", force=False),
    ):
        (tmp_path / "b.har").write_text("theirs")

    assert target.read_bytes() == b"".join(CHUNKS)
    assert (tmp_path / "b.har").read_text() == "theirs"
    assert listing(tmp_path) == ["a.har", "b.har"]


def test_what_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    """Half a file looks like a whole one, and what was there is worth more."""
    target = tmp_path / "a.har"
    target.write_text("mine")

    with pytest.raises(ZeroDivisionError):
        write_file(target, failing_chunks(ZeroDivisionError()), force=True)

    assert target.read_text() == "mine"
    assert listing(tmp_path) == ["a.har"]


def test_a_full_disk_is_told_with_the_name(tmp_path: Path) -> None:
    """Nothing of it stays to fill the disk."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError) as caught:
        write_file(tmp_path / "a.har", failing_chunks(full), force=False)

    assert caught.value.reason.strerror == f"{tmp_path}/a.har: No space left on device"
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("none/a.har", "No such file or directory"),
        ("file/a.har", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_made_there_is_output_that_cannot_be_written(
    tmp_path: Path, name: str, complaint: str
) -> None:
    """As a disk that is full; it is told at once, and by name."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputError) as caught:
        write_file(tmp_path / name, failing_chunks(AssertionError()), force=True)

    assert caught.value.reason.strerror == f"{tmp_path}/{name}: {complaint}"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_no_file_whether_forced_or_not(tmp_path: Path, force: bool) -> None:
    """To be told of --force first, and then that it does not help, is one error too many."""
    with pytest.raises(UsageError, match="is a folder; name a file to write"):
        write_file(tmp_path, failing_chunks(AssertionError()), force=force)


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """With the rights for it, ``--force`` could take /dev/null from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(UsageError, match="is no file"):
        write_file(pipe, CHUNKS, force=True)

    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_dash_is_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """In the order of what was printed before, and byte by byte."""
    sys.stdout.write("before\n")

    write_file(STDOUT, CHUNKS, force=False)
    sys.stdout.flush()

    assert capfdbinary.readouterr().out == b"before\none\n\xfftwo\n"


def test_stdout_gets_nothing_of_what_failed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The exit code says so, and a reader has no half document."""
    with pytest.raises(ZeroDivisionError):
        write_file(STDOUT, failing_chunks(ZeroDivisionError()), force=False)

    assert capfdbinary.readouterr().out == b""


def test_a_closed_stdout_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere: `>&-` is no error."""
    monkeypatch.setattr(sys, "stdout", None)

    write_file(STDOUT, CHUNKS, force=False)


def test_a_full_disk_behind_stdout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirected to a full disk, the answer is lost."""
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)

        with pytest.raises(OutputError, match="No space left"):
            write_file(STDOUT, [b"x" * 100_000], force=False)
