"""Files that are whole or not there, what is left of dead writers, and whose files are."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import files
from pipeline.files import (
    blame,
    create,
    make_folder,
    owner_at,
    publish,
    read_bytes,
    remove_dead,
    unfinished,
)

WRITE = """
import sys
from pathlib import Path
from pipeline.files import unfinished

with unfinished(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
"""
SOMEBODY = 1234
AS_SOMEBODY = (  # who may read and search all, to find Python, but write nothing
    *("setpriv", "--reuid", str(SOMEBODY), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@contextmanager
def writing_elsewhere(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process write *target* until the block ends or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        yield process


def left_in(folder: Path) -> list[Path]:
    """List what is unfinished in *folder*."""
    return list(folder.glob(".pipeline-*"))


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    """Whatever the next one writes: a nightly copy that is cut off every time fills the disk."""
    with writing_elsewhere(tmp_path / "a.db") as other:
        other.kill()
        other.wait()
    [left] = left_in(tmp_path)
    assert left.read_bytes() == b"half"

    with unfinished(tmp_path / "b.csv") as file:
        assert left_in(tmp_path) == [Path(file.name)]

    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    """By another process or by this one: to remove it would lose somebody's work."""
    with writing_elsewhere(tmp_path / "a.db"), unfinished(tmp_path / "b.csv"):
        before = left_in(tmp_path)
        remove_dead(tmp_path)

        assert len(before) == 2
        assert left_in(tmp_path) == before


def test_the_second_name_of_a_finished_file_goes_alone(tmp_path: Path) -> None:
    """Killed between its two names, a database has both; and a link is none of ours."""
    (tmp_path / "a.db").write_bytes(b"whole")
    (tmp_path / ".pipeline-1.tmp").hardlink_to(tmp_path / "a.db")
    (tmp_path / ".pipeline-2.tmp").symlink_to(tmp_path / "a.db")

    remove_dead(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".pipeline-2.tmp", "a.db"]
    assert (tmp_path / "a.db").read_bytes() == b"whole"


def test_a_folder_that_cannot_be_looked_into_is_no_reason_to_stop(tmp_path: Path) -> None:
    """To clean up is a courtesy."""
    (tmp_path / "file").touch()

    remove_dead(tmp_path / "nowhere")
    remove_dead(tmp_path / "file")


@pytest.mark.parametrize("replace", [False, True])
def test_a_published_file_is_whole_and_private(tmp_path: Path, replace: bool) -> None:
    """Also what still waits in a buffer."""
    target = tmp_path / "a.db"

    with unfinished(target) as file:
        file.write(b"whole")
        publish(file, target, replace=replace)

    assert target.read_bytes() == b"whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """Unless it was meant to be replaced."""
    target = tmp_path / "a.db"
    target.write_bytes(b"theirs")

    with unfinished(target) as file, pytest.raises(FileExistsError):
        publish(file, target, replace=False)

    assert target.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


@as_root
def test_what_root_makes_beside_a_store_belongs_to_the_stores_owner(tmp_path: Path) -> None:
    """To that of the folder where there is no store yet; one run of root must lock nobody out."""
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    database = tmp_path / "a" / "b" / "pipeline.db"

    make_folder(database.parent)
    os.close(create(database, owner=owner_at(database)))
    os.chown(database, SOMEBODY + 1, SOMEBODY + 1)
    os.close(create(database.with_name("lock"), owner=owner_at(database)))

    made = (database.parent.parent, database.parent, database.with_name("lock"))
    found = [path.stat() for path in made]
    assert [each.st_uid for each in found] == [SOMEBODY, SOMEBODY, SOMEBODY + 1]
    assert [each.st_gid for each in found] == [SOMEBODY, SOMEBODY, SOMEBODY + 1]


def test_what_is_open_is_nobodys_fault(tmp_path: Path) -> None:
    """There must be another reason, and a false lead would be worse than none."""
    (tmp_path / "file").touch()

    assert blame(tmp_path / "file") == ""
    assert blame(tmp_path / "nowhere") == ""
    assert blame(tmp_path / "file" / "below") == ""


@as_root
def test_who_has_a_file_that_we_may_not_use_is_named(tmp_path: Path) -> None:
    """Said by a process without root's powers: which file, whose, and the way out."""
    lock = tmp_path / "p.db.lock"
    lock.touch(mode=0o600)
    ask = "import sys, pathlib; from pipeline.files import blame; "
    ask += "print(blame(pathlib.Path(sys.argv[1])))"

    said = subprocess.run(
        [*AS_SOMEBODY, sys.executable, "-c", ask, str(lock)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert said == (
        f"; {lock} belongs to root (mode 600), and this is user {SOMEBODY}:"
        f" run as root, or have root chown it to user {SOMEBODY}\n"
    )


def test_a_pipe_is_read_as_far_as_it_is_written(tmp_path: Path) -> None:
    """A shell's `<(…)` is one, and its writer may take its time."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = ["sh", "-c", 'exec >"$0"; sleep 0.2; echo one; sleep 0.2; echo two', str(pipe)]

    with subprocess.Popen(command):
        assert read_bytes(pipe, 100) == b"one\ntwo\n"


def test_a_pipe_without_a_writer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open() would wait for ever; so would a read() from a writer that is silent."""
    monkeypatch.setattr(files, "WRITER_SECONDS", 0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(TimeoutError, match="nothing came from it"):
        read_bytes(pipe, 100)
    with pipe.open("r+b", buffering=0), pytest.raises(TimeoutError, match="nothing came from it"):
        read_bytes(pipe, 100)


@pytest.mark.parametrize("most", [0, 1, 99, 100, 101])
def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path, most: int) -> None:
    """What may be too long is not read to its end to find out."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)

    if most < 100:
        with pytest.raises(ValueError, match=f"longer than {most} bytes"):
            read_bytes(file, most)
        with pytest.raises(ValueError, match=f"longer than {most} bytes"):
            read_bytes(Path("/dev/zero"), most)
    else:
        assert read_bytes(file, most) == b"x" * 100
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, most)
