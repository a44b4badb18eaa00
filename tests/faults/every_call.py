"""Break one call that changes a file, look at what is left, go on: call after call.

Run by ``test_every_call.py`` with ``shim.c`` preloaded, as a process of its own, because it forks:
to import everything anew for each victim would take ten times as long as the victim lives.
"""

import gc
import importlib
import json
import os
import pkgutil
import re
import select
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from ctypes import CDLL
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any, NoReturn

import pipeline
from pipeline.cli.app import main
from pipeline.cli.commands import make_app
from pipeline.store import db, schema
from pipeline.store.db import open_store
from pipeline.store.integrity.verify import verify
from tests.processes import check_invariants
from tests.store.histories import record_mixed_run

PATIENCE_SECONDS = 60
DIE, DIE_HALF_WAY, WRITE_HALF = -1, -2, -3  # as in shim.c
FAULTS = {  # what the call answers, and whether all calls after it do so too
    "kill": (DIE, False),
    "no space": (ENOSPC, False),
    "no more space": (ENOSPC, True),
    "I/O error": (EIO, False),
    "dead disk": (EIO, True),
    "torn write": (DIE_HALF_WAY, False),
    "short write": (WRITE_HALF, False),
}
IN_TURN_ONLY = ("no space", "dead disk")  # what they lead to is much like what their kin do
OF_WRITES = ("torn write", "short write")
DOCUMENTED = (0, 74, -signal.SIGKILL)

CONFIG = """
[store]
url = "x.db"
busy_seconds = 2.0
[sandbox]
latency_seconds = 0.0
[sources.dice]
kind = "sandbox.randomnumberapi"
batches = [3, 4, 5]
min = 1
max = 6
merge = false
"""
NEXT = """
from alembic import op

revision = "next"
down_revision = "{newest}"

def upgrade() -> None:
    op.execute("UPDATE runs SET host = host")
    op.create_index("ix_runs_host", "runs", ["host"])
"""
COLLECT = ("collect", "--format", "json")
KEPT = re.compile(
    r"config\.toml|x\.db(-journal|-wal|-shm|\.presence|\.presence-gate|\.turn-\w+|\.before-\w+)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is done to which store.

    Attributes:
        prepare: makes the store in the folder that it is given.
        target: the file that the command writes beside the store.
        again: the command that must go well afterwards, and clean up.
    """

    command: tuple[str, ...]
    prepare: Callable[[Path], object]
    target: str | None = None
    again: tuple[str, ...] = ("collect", "--quiet")


def _nothing(folder: Path) -> None:
    del folder


def _some_runs(folder: Path) -> None:
    """Leave two old runs, two young ones, and one by the command."""
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{folder / 'x.db'}", busy_seconds=1, for_writing=True) as store:
        for days in (40, 39, 20, 0):
            record_mixed_run(store, started_at=now - timedelta(days=days, minutes=1))
    run_command(folder, "collect", "--quiet").check()


def _next_version(folder: Path) -> None:
    """Turn this program into its next version, which has one migration more."""
    _some_runs(folder)
    ours = folder.parent / "migrations"
    shutil.copytree(schema.migrations_folder(), ours)
    (ours / "versions" / "next.py").write_text(NEXT.format(newest=schema.NEWEST))
    newer: Any = schema
    opener: Any = db
    newer.REVISIONS += ("next",)
    newer.NEWEST = opener.NEWEST = "next"
    newer.migrations_folder = lambda: ours


SCENARIOS = {
    "first collect": Scenario(command=COLLECT, prepare=_nothing),
    "next collect": Scenario(command=COLLECT, prepare=_some_runs),
    "migrate": Scenario(command=("db", "migrate"), prepare=_next_version),
    "prune": Scenario(command=("db", "prune", "--keep", "30d"), prepare=_some_runs),
    "vacuum": Scenario(command=("db", "prune", "--keep", "30d", "--vacuum"), prepare=_some_runs),
    "backup": Scenario(
        command=("db", "backup", "copy.db"),
        prepare=_some_runs,
        target="copy.db",
        again=("db", "backup", "second.db"),
    ),
    "export": Scenario(
        command=("export", "numbers", "numbers.csv"),
        prepare=_some_runs,
        target="numbers.csv",
        again=("export", "numbers", "second.csv"),
    ),
}


# ---- A command in a process that is forked ----


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def check(self) -> None:
        """Hold it to silence and success."""
        assert (self.code, self.err) == (0, ""), self


@dataclass(frozen=True, slots=True)
class Break:
    """What the shim is told: which call, and what to do to it."""

    at: int
    how: int
    for_good: bool


def run_command(folder: Path, *arguments: str, what: Break | None = None) -> Ended:
    """Run ``pipeline`` with *arguments* in *folder*, with one of its calls broken."""
    out, err, log = (folder.parent / name for name in ("out", "err", "log"))
    child = os.fork()
    if child == 0:
        _become(folder, arguments, what, out, err, log)
    _wait(child)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())


def _become(folder: Path, arguments: tuple[str, ...], what: Break | None, *files: Path) -> NoReturn:
    try:
        os.chdir(folder)
        out, err, log = (
            os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND) for file in files
        )
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.argv = ["pipeline", *arguments]
        if what is not None:
            CDLL(None).break_calls(bytes(folder), what.at, what.how, what.for_good, log)
        main()
    finally:
        os._exit(99)


def _wait(child: int) -> None:
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], PATIENCE_SECONDS)[0]:
            os.kill(child, signal.SIGKILL)  # and its code will say so
            raise AssertionError(f"it hangs after {PATIENCE_SECONDS} s")
    finally:
        os.close(ended)


# ---- What must hold ----

Batches = dict[tuple[int, int], tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Books:
    """What a store holds that no fault may change."""

    runs: dict[int, str]
    collected: Batches

    @property
    def running(self) -> set[int]:
        """Name the runs that have not ended."""
        return {run for run, status in self.runs.items() if status == "running"}


def read_books(store: Path) -> Books:
    """Read a copy of *store*, with its journal: to look must not mend what is to be looked at."""
    if not store.exists():
        return Books({}, {})
    copy = store.parents[1] / "looked at"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in (store.name, f"{store.name}-journal", f"{store.name}-wal"):
        if store.with_name(name).exists():
            shutil.copy2(store.with_name(name), copy / name)
    with closing(sqlite3.connect(copy / store.name)) as raw:
        found = raw.execute("PRAGMA integrity_check").fetchall()
        assert found == [("ok",)], f"damaged: {found[:2]}"
        assert not raw.execute("PRAGMA foreign_key_check").fetchall(), "references lead nowhere"
        batches = raw.execute(
            "SELECT run_id, number, sum, digest, numbers FROM batches WHERE verdict = 1"
        )
        collected = {(run, number): tuple(rest) for run, number, *rest in batches}
        return Books(dict(raw.execute("SELECT id, status FROM runs").fetchall()), collected)


def check_said(ended: Ended) -> None:
    """Hold the broken command to a documented code, and to one line that takes no blame."""
    assert ended.code in DOCUMENTED, f"exit code {ended.code}"
    assert ended.err.count("\n") <= 1, "more than one line on stderr"
    assert "bug of ours" not in ended.err, "it says that it is a bug of ours"
    assert ended.err or ended.code != 74, "it failed without a word"


def check_kept(before: Books, after: Books, *, pruned: bool) -> None:
    """Hold the store to every batch and run that it had."""
    assert before.runs.keys() <= after.runs.keys(), "a run is lost"
    for key, values in before.collected.items():
        if key in after.collected or not pruned:
            assert after.collected.get(key) == values, f"batch {key} is lost, or another"


def check_pruned(before: Books, after: Books) -> None:
    """Hold a pruning to whole runs, and to the old ones."""
    old, young = {1, 2}, before.runs.keys() - {1, 2}
    for run in before.runs:
        had = {key for key in before.collected if key[0] == run}
        has = {key for key in after.collected if key[0] == run}
        assert has == had or (run in old and not has), f"half of run {run} is pruned"
    assert young <= after.runs.keys(), "a young run is lost"


@dataclass(slots=True)
class Trial:
    """One scenario, prepared once and tried again and again."""

    scenario: Scenario
    folder: Path
    calls: list[str] = field(default_factory=list)
    wanted: bytes = b""

    @property
    def work(self) -> Path:
        """Where the command runs."""
        return self.folder / "work"

    def prepare(self) -> None:
        """Make the store, and see which calls the command makes when all goes well."""
        self.work.mkdir(parents=True)
        (self.work / "config.toml").write_text(CONFIG)
        self.scenario.prepare(self.work)
        shutil.copytree(self.work, self.folder / "base")
        run_command(self.work, *self.scenario.command, what=Break(0, 0, for_good=False)).check()
        self.calls = (self.folder / "log").read_text().splitlines()
        if self.scenario.target:
            self.wanted = (self.work / self.scenario.target).read_bytes()

    def play(self, fault: str, number: int) -> int:
        """Break the call *number*, and hold what is left to all that was promised of it."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "base", self.work)
        before = read_books(self.work / "x.db")
        how, for_good = FAULTS[fault]
        ended = run_command(self.work, *self.scenario.command, what=Break(number, how, for_good))
        check_said(ended)
        after = read_books(self.work / "x.db")
        self._check_books(before, after)
        self._check_answer(ended, after)
        self._check_target(ended)
        self._go_on(after)
        return ended.code

    def _check_books(self, before: Books, after: Books) -> None:
        pruned = "prune" in self.scenario.command
        check_kept(before, after, pruned=pruned)
        if pruned:
            check_pruned(before, after)

    def _check_answer(self, ended: Ended, after: Books) -> None:
        if self.scenario.command == COLLECT and (ended.out or ended.code == 0):
            run = json.loads(ended.out)["run"]
            assert after.runs.get(run["run_id"]) == run["status"], (
                "a run that was told is not there"
            )

    def _check_target(self, ended: Ended) -> None:
        if self.scenario.target is None:
            return
        target = self.work / self.scenario.target
        assert target.exists() or ended.code != 0, "the file that was told is not there"
        if target.exists():
            assert target.read_bytes() == self.wanted, "there is half a file"
        target.unlink(missing_ok=True)

    def _go_on(self, after: Books) -> None:
        """Collect, verify, and give the command another try."""
        run_command(self.work, "collect", "--quiet").check()
        if self.scenario.again[0] != "collect":
            run_command(self.work, *self.scenario.again).check()
            (self.work / self.scenario.again[-1]).unlink()
        left = [path.name for path in self.work.iterdir() if not KEPT.fullmatch(path.name)]
        assert left == [], f"left behind: {left}"
        now = read_books(self.work / "x.db")
        check_kept(after, now, pruned=False)
        elsewhere = read_books(self.folder / "base" / "x.db").running
        assert now.running <= elsewhere, "a run is still running"
        check_invariants(self.work / "x.db", running=len(now.running))
        with open_store(
            f"sqlite:///{self.work / 'x.db'}", busy_seconds=1, for_writing=False
        ) as store:
            problems = verify(store).problems
        assert not problems, problems


def rounds(calls: list[str], stride: int) -> Iterator[tuple[str, int]]:
    """Choose what to break: by most faults the first of each kind of call and file; else some.

    The faults take turns, so that together they miss no call if the stride is not larger than the
    number of those that break any call.
    """
    kinds = [re.sub(r"[0-9a-f]{8,}", "#", call) for call in calls]
    for turn, fault in enumerate(FAULTS):
        for number, kind in enumerate(kinds, 1):
            if fault in OF_WRITES and "write" not in kind.split()[0]:
                continue
            is_first = fault not in IN_TURN_ONLY and kind not in kinds[: number - 1]
            if is_first or (number + turn) % stride == 0:
                yield fault, number


def warm_up(folder: Path) -> None:
    """Import what any command imports, and use it once, so that no child has to."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if module.name != "pipeline.__main__":
            importlib.import_module(module.name)
    importlib.import_module("alembic.command")
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    os.chdir(folder)
    with suppress(SystemExit):
        make_app()(["collect", "--quiet"])
    gc.freeze()  # or each child would copy what it looks over


def try_all(name: str, folder: Path, stride: int) -> int:
    """Play the rounds of a scenario, and tell how many went wrong."""
    warm_up(folder / "warm")
    trial = Trial(SCENARIOS[name], folder)
    trial.prepare()
    codes: Counter[int] = Counter()
    bad = 0
    for fault, number in rounds(trial.calls, stride):
        try:
            codes[trial.play(fault, number)] += 1
        except AssertionError as exc:
            bad += 1
            print(f"{fault} at {number}, {trial.calls[number - 1]}: {exc}")
            print(f"  {(folder / 'err').read_text().strip()}")
    print(f"{name}: {len(trial.calls)} calls, exit codes {dict(codes)}, {bad} bad")
    return bad


if __name__ == "__main__":
    sys.exit(min(try_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])), 1))
