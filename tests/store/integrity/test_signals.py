"""``audit verify --all`` in several processes, stopped by signals while all of them are at work."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import Home, Running, check_invariants, homes, wait_for

# Enough processes for a small store, and a chain that has no end; or processes that do not come
# farther than their first import as long as they are wanted.
SITE = """
import os, sys, time
if {"verify", "--multiprocessing-fork"} & {*sys.orig_argv}:
    from pathlib import Path
    from pipeline.store.integrity import verify, walk

    def go_on(*_, **__):
        Path(os.environ["AT_WORK"], str(os.getpid())).touch()
        time.sleep(0.01)
        return True

    if "BEGINNING" in os.environ and "verify" not in sys.orig_argv:
        parent = os.getppid()
        while os.getppid() == parent:
            go_on()
    os.sched_getaffinity = lambda _: {0, 1}
    verify.ROWS_PER_PROCESS = 1
    walk.Walk.go_on = go_on
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Collect twice, a run for each process, and verify it, so that there is a note."""
    with homes(tmp_path, ["home"]) as made:
        home = made["home"]
        for _ in range(2):
            assert home.run("collect").code == 0
        assert home.run("audit", "verify").code == 0
        yield home


def is_anybody_left(session: int) -> bool:
    """Tell whether a process of a session is alive; one that nobody has buried yet is not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of, *_ = stat.read_text("utf-8").rpartition(")")[2].split()
            if int(of) == session and state != "Z":
                return True
    return False


def files_of(home: Home) -> dict[Path, bytes]:
    """Read all that there is, but what SQLite keeps beside an open database."""
    return {
        path: path.read_bytes()
        for path in home.folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def to_one(running: Running, signum: signal.Signals) -> None:
    """Send a signal to the command alone, as ``kill`` does."""
    running.send(signum)


def to_all(running: Running, signum: signal.Signals) -> None:
    """Send a signal to its processes too, as a terminal and systemd do."""
    os.killpg(running.process.pid, signum)


@pytest.mark.parametrize(
    ("send", "signum", "code", "env"),
    [
        (to_one, signal.SIGTERM, 143, {}),
        (to_all, signal.SIGTERM, 143, {}),
        (to_all, signal.SIGINT, 130, {}),
        (to_all, signal.SIGINT, 130, {"BEGINNING": "1"}),
        (to_one, signal.SIGKILL, 137, {}),
    ],
)
def test_whoever_stops_it_stops_all_of_its_processes(
    home: Home,
    send: Callable[[Running, signal.Signals], None],
    signum: signal.Signals,
    code: int,
    env: dict[str, str],
) -> None:
    """Nothing is said, nothing half written, and the next one finds all as it was."""
    site, at_work = home.folder.parent / "site", home.folder.parent / "at work"
    site.mkdir()
    at_work.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    path = f"{site}{os.pathsep}{home.environment['PYTHONPATH']}"
    before = files_of(home)

    running = home.start(
        *("audit", "verify", "--all"),
        env={"PYTHONPATH": path, "AT_WORK": str(at_work), **env},
        start_new_session=True,
    )
    wait_for(lambda: len(list(at_work.iterdir())) == 2)
    send(running, signum)
    ended = running.finish()

    assert (ended.code, ended.out, ended.err) == (code, "", "")
    wait_for(lambda: not is_anybody_left(running.process.pid))
    assert files_of(home) == before
    check_invariants(home.database)
    assert home.run("audit", "verify", "--all").code == 0
