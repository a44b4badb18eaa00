"""Locks that the kernel frees, among real processes."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import LockHeld, StoreError
from pipeline.files import database_file
from pipeline.lock import is_alone, is_held, lock_path, presence, run_lock

HOLD = """
import sys
from pathlib import Path
from pipeline.lock import presence, run_lock

path = Path(sys.argv[2])
print("ready", flush=True)
with run_lock(path) if sys.argv[1] == "turn" else presence(path, if_alone=lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a lock until the block ends or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "held\n"
        yield process


def ignore() -> None:
    """Bury nobody."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a lock file that is not there yet."""
    return tmp_path / "pipeline.db.lock"


def test_a_turn_that_is_taken_names_its_holder(path: Path) -> None:
    """Whoever reads cron's mail wants to know which process to look for."""
    with held_elsewhere("turn", path) as other:
        words = (
            rf"another run of this configuration is going on \(pid {other.pid}, since 20\d\d-.*Z\)"
        )
        with pytest.raises(LockHeld, match=words), run_lock(path):
            pass


def test_a_turn_that_was_given_back_can_be_taken_again(path: Path) -> None:
    """The file stays; only the lock on it counts."""
    with run_lock(path):
        pass

    with run_lock(path):
        note = path.read_text()

    assert note.startswith(f"pid {os.getpid()}, since ")


def test_the_turn_of_a_process_that_was_killed_is_free_at_once(path: Path) -> None:
    """No stale file may keep cron from working until somebody comes back from holiday."""
    with held_elsewhere("turn", path) as other:
        other.kill()
        other.wait()

        with run_lock(path):
            pass


@pytest.mark.parametrize("note", [b"", b"\x1b]0;owned\x07", b"\xff\xfe", b"a\nb"])
def test_a_strange_note_is_not_shown(path: Path, note: bytes) -> None:
    """The file may be half-written, or written by somebody who means harm to a terminal."""
    with held_elsewhere("turn", path):
        path.write_bytes(note)

        with pytest.raises(LockHeld, match=r"it has not said which|\ufffd\ufffd"), run_lock(path):
            pass


def test_locks_are_private_and_do_not_follow_links(path: Path, tmp_path: Path) -> None:
    """A link at a name that can be guessed must not make us write into another file."""
    target = tmp_path / "precious"
    target.write_text("precious")
    path.symlink_to(target)

    with pytest.raises(StoreError, match="locking: it is a symbolic link"), run_lock(path):
        pass
    assert target.read_text() == "precious"

    path.unlink()
    before = os.umask(0)
    try:
        with run_lock(path):
            mode = stat.S_IMODE(path.stat().st_mode)
    finally:
        os.umask(before)
    assert mode == 0o600


def test_a_folder_that_is_missing_is_made_and_private(tmp_path: Path) -> None:
    """The turn is taken before the database is made, so its folder may not be there yet."""
    path = tmp_path / "a" / "b" / "lock"

    with run_lock(path):
        modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, tmp_path / "a")]

    assert modes == [0o700, 0o700]


def test_without_a_place_for_the_lock_nothing_runs(tmp_path: Path) -> None:
    """An unlocked run is worse than none."""
    (tmp_path / "file").touch()

    with (
        pytest.raises(StoreError, match="cannot be opened for locking"),
        run_lock(tmp_path / "file/x"),
    ):
        pass


def test_who_comes_first_buries_the_dead_and_who_comes_second_does_not(path: Path) -> None:
    """The second would bury the first, which is alive."""
    burials = []

    with presence(path, if_alone=lambda: burials.append("first")):
        with presence(path, if_alone=lambda: burials.append("second")):
            pass
        with presence(path, if_alone=lambda: burials.append("third")):
            pass

    assert burials == ["first"]


def test_presence_ends_with_the_process(path: Path) -> None:
    """A run that was killed is the very case that this is for."""
    with held_elsewhere("presence", path) as other:
        assert not is_alone(path)

        other.kill()
        other.wait()

        assert is_alone(path)


def test_asking_leaves_nothing_behind(path: Path) -> None:
    """A report may ask while a run starts."""
    assert is_alone(path)

    with presence(path, if_alone=ignore):
        assert not is_alone(path)

    assert is_alone(path)


def test_nobody_begins_while_the_dead_are_buried(path: Path) -> None:
    """A run that begins just then writes a row that the burial would take for a dead one."""

    def bury() -> None:
        other = subprocess.Popen(
            [sys.executable, "-c", HOLD, "presence", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        started.append(other)
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.1)

    started: list[subprocess.Popen[bytes]] = []
    with presence(path, if_alone=bury):
        output, _ = started[0].communicate()

    assert output == b"held\n"


def test_an_error_while_burying_leaves_the_gate_open(path: Path) -> None:
    """A store that is busy for once must not lock out all runs to come."""

    def fail() -> None:
        raise StoreError("busy")

    with pytest.raises(StoreError, match="busy"), presence(path, if_alone=fail):
        pass

    with presence(path, if_alone=ignore):
        pass


def test_a_lock_lies_beside_an_sqlite_file(tmp_path: Path) -> None:
    """Whoever moves the database moves its locks; a link and its target share them."""
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")

    found = lock_path(f"sqlite:///{tmp_path}/link.db?timeout=3", "lock", state_folder=Path("/no"))

    assert found == tmp_path / "real.db.lock"


@pytest.mark.parametrize("name", ["a?b/p.db", "a?b=c/p.db", "a#b/p.db", "a%3Fb/p.db", "a b/p.db"])
@pytest.mark.parametrize("query", ["", "?", "?timeout=3", "?a=b&c=d"])
def test_a_url_names_the_file_that_it_says(tmp_path: Path, name: str, query: str) -> None:
    """Only what ends the URL like a query is one; nothing is decoded, and nothing cut."""
    assert database_file(f"sqlite:///{tmp_path}/{name}{query}") == tmp_path / name


def test_a_lock_of_a_server_lies_in_the_state_folder(tmp_path: Path) -> None:
    """Two databases have two locks, and no password is in a name."""
    urls = ["postgresql://me:secret@host/a", "postgresql://me:secret@host/b"]

    found = [lock_path(url, "lock", state_folder=tmp_path) for url in urls]

    assert len(set(found)) == 2
    assert {path.parent for path in found} == {tmp_path}
    assert "secret" not in str(found)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:x"])
def test_a_database_in_memory_has_no_lock(url: str) -> None:
    """It could not be shared, and would be forgotten after the run."""
    with pytest.raises(StoreError, match="must name a file"):
        lock_path(url, "lock", state_folder=Path("/no"))


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, Path.mkdir])
def test_whether_a_lock_is_held_is_told_at_once(path: Path, make: Callable[[Path], None]) -> None:
    """Whatever lies there: to open a pipe could wait for ever."""
    assert is_held(path) is False

    make(path)

    assert is_held(path) is False
