"""The command where the machine is in the way: rights, file systems, limits, names, kills."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.store.db import open_store
from tests.processes import Finished, Home, check_invariants, homes, serving, wait_for
from tests.store.makers import at, make_batch, record_run

SOMEBODY = 1234
AS_SOMEBODY = (  # who may read and search all, to find Python, but write nothing
    f"exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups"
    ' --inh-caps +dac_read_search --ambient-caps +dac_read_search "$@"'
)

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
)


def _can_trace() -> bool:
    strace = shutil.which("strace")
    if strace is None:
        return False
    return not subprocess.run([strace, "true"], check=False, capture_output=True).returncode


injected = pytest.mark.skipif(not _can_trace(), reason="strace is missing, or may trace nobody")


def inject(calls: str, fault: str, *, path: Path | None = None) -> str:
    """Let strace answer system *calls* (about *path*) with *fault*, as a shell prefix."""
    calls = ",".join(f"?{call}" for call in calls.split(","))
    about = f"-P '{path}' " if path else ""
    return f'exec strace -f -qq -o /dev/null {about}-e trace={calls} -e inject={calls}:{fault} "$@"'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give one user a home."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


def play(home: Home, name: str = "c.toml") -> str:
    """Configure one source that the program plays itself."""
    (home.folder / name).write_text(
        "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nmin = 1\nmax = 6\nbatches = [5]\n"
    )
    return name


def left_in(folder: Path) -> list[str]:
    """Name what is unfinished in *folder*."""
    return [path.name for path in folder.glob(".*")]


def assert_told(ended: Finished, *codes: int) -> None:
    """Hold a failure to one line that does not take the blame."""
    assert ended.code in codes, ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert "a bug of ours" not in ended.err


# ---- Rights ----


@as_root
def test_one_run_of_root_does_not_lock_the_owner_out(home: Home) -> None:
    """Root tries a configuration once; the owner's cron job uses it for years."""
    os.chown(home.folder, SOMEBODY, SOMEBODY)
    mine, roots = play(home), play(home, "d.toml")

    codes = [
        home.run("collect", "-c", roots).code,
        home.run("collect", "-c", roots, before=AS_SOMEBODY).code,
        home.run("collect", "-c", mine, before=AS_SOMEBODY).code,
        home.run("db", "backup", str(home.database.with_name("copy.db")), "-c", roots).code,
    ]

    made = [home.folder / "data", *(home.folder / "data").rglob("*")]
    assert codes == [0, 0, 0, 0]
    assert len(made) >= 7
    assert {path.stat().st_uid for path in made} == {SOMEBODY}


@as_root
def test_a_file_of_root_is_named_with_the_way_out(home: Home) -> None:
    """Where root ran an older version, somebody must know what to do."""
    os.chown(home.folder, SOMEBODY, SOMEBODY)
    config = play(home)
    home.run("collect", "-c", config, before=AS_SOMEBODY)
    lock = home.database.with_name("pipeline.db.presence")
    told = {}
    for path in (lock, home.database):
        os.chown(path, 0, 0)
        told[path] = home.run("collect", "-c", config, before=AS_SOMEBODY)

    for path in (lock, home.database):
        assert_told(told[path], 74)
    assert f"{lock} belongs to root (mode 600)" in told[lock].err
    assert "have root chown it" in told[lock].err


@injected
@pytest.mark.parametrize("command", ["plan", "sources", "report", "collect"])
def test_a_store_that_may_not_be_looked_at_is_no_bug(home: Home, command: str) -> None:
    """A home that may not be searched, told by each command."""
    config = play(home)
    calls = "stat,lstat,newfstatat,statx"

    ended = home.run(
        command, "-c", config, before=inject(calls, "error=EACCES", path=home.database)
    )

    assert_told(ended, 74)
    assert f"{home.database}: Permission denied" in ended.err


@pytest.mark.parametrize("command", ["plan", "sources", "report", "collect", "db check"])
@pytest.mark.parametrize("name", ["loop", "loop/p.db"])
def test_a_loop_of_links_is_no_bug(home: Home, command: str, name: str) -> None:
    """Told in the words of the system."""
    (home.folder / "loop").symlink_to("loop")
    url = {"PIPELINE_STORE_URL": f"sqlite:///{home.folder}/{name}"}

    ended = home.run(*command.split(), "-c", play(home), env=url)

    assert_told(ended, 74)
    assert "Too many levels of symbolic links" in ended.err


# ---- File systems ----


@injected
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EACCES"])
def test_a_share_without_locks_is_named_with_the_way_out(home: Home, error: str) -> None:
    """A run without a lock could harm another one, so there is none."""
    ended = home.run("collect", "-c", play(home), before=inject("flock", f"error={error}"))

    assert_told(ended, 74)
    assert f"{home.database}.presence" in ended.err
    assert "cannot be locked" in ended.err
    assert "keep the store on a local disk (store.url)" in ended.err


@injected
@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP", "EXDEV"])
def test_a_file_system_without_hard_links_gets_a_store(home: Home, error: str) -> None:
    """A memory stick, or what is mounted into a container."""
    no_links = inject("link,linkat", f"error={error}")

    ended = home.run("collect", "-c", play(home), before=no_links)
    exported = home.run("export", "numbers", "n.csv", "-c", play(home), before=no_links)

    assert (ended.code, ended.err, exported.code) == (0, "", 0)
    assert (home.folder / "n.csv").exists()
    assert left_in(home.database.parent) == []
    check_invariants(home.database)


@injected
def test_a_file_that_cannot_be_cleaned_up_is_no_bug(home: Home) -> None:
    """The export is whole, and what is left is removed by the next one."""
    config = play(home)
    home.run("collect", "-c", config)
    stuck = inject("unlink,unlinkat", "error=EIO")

    ended = home.run("export", "numbers", "n.csv", "-c", config, before=stuck)
    left = left_in(home.folder)
    home.run("export", "numbers", "m.csv", "-c", config)

    assert (ended.code, ended.err) == (0, "")
    assert (home.folder / "n.csv").read_bytes() == (home.folder / "m.csv").read_bytes()
    assert len(left) == 1
    assert left_in(home.folder) == []


@injected
@pytest.mark.parametrize(
    ("command", "calls"),
    [
        ("collect", "link,linkat"),
        ("collect", "rename,renameat,renameat2"),  # the metrics
        ("db backup copy.db", "rename,renameat,renameat2"),
        ("export numbers n.csv", "link,linkat"),
    ],
)
def test_what_a_kill_left_goes_with_the_next_start(home: Home, command: str, calls: str) -> None:
    """A nightly backup that is cut off every time would fill the disk."""
    config = play(home)
    metrics = {"PIPELINE_NOTIFY_METRICS_FILE": str(home.folder / "m.prom")}
    if command != "collect" or "rename" in calls:
        home.run("collect", "-c", config)
    arguments = (*command.split(), "-c", config)

    killed = home.run(*arguments, env=metrics, before=inject(calls, "signal=KILL"))
    left = left_in(home.folder) + left_in(home.database.parent)
    again = home.run(*arguments, env=metrics)

    assert (killed.code, len(left)) == (137, 1)
    assert (again.code, again.err) == (0, "")
    assert left_in(home.folder) + left_in(home.database.parent) == []


# ---- Limits ----


@pytest.mark.parametrize("descriptors", [8, 12, 16])
def test_too_few_descriptors_are_no_bug(home: Home, descriptors: int) -> None:
    """Said in one line, with a code that means it."""
    config = play(home)
    home.run("collect", "-c", config)

    ended = home.run("collect", "-c", config, before=f"ulimit -n {descriptors}")

    if ended.code:
        assert_told(ended, 74, 75)
        assert "check the permissions" not in ended.err


def test_too_little_memory_is_no_bug(home: Home) -> None:
    """Said in the last line, unless the interpreter itself does not survive it."""
    config = play(home)
    home.run("collect", "-c", config)

    ended = [
        home.run("collect", "-c", config, before=f"ulimit -v {kilobytes}")
        for kilobytes in range(36_000, 66_000, 5_000)
    ]

    told = [each.err for each in ended if each.code == 75]
    assert told
    assert all("there is no memory left" in err.splitlines()[-1] for err in told)
    assert not any("a bug of ours" in each.err for each in ended)


@as_root
def test_no_more_threads_is_no_bug(home: Home) -> None:
    """Somebody else's processes have used them up."""
    shutil.chown(home.folder, SOMEBODY)
    config = play(home)
    limited = AS_SOMEBODY.replace("exec setpriv", "exec prlimit --nproc=1 setpriv")

    ended = home.run("collect", "-c", config, before=limited)

    assert_told(ended, 75)
    assert "no thread can be started; see `ulimit -u`" in ended.err


# ---- Names ----


@pytest.mark.parametrize("name", ["a?b=c", "a#b %3F", "?", ":memory:"])
def test_the_store_is_made_where_it_was_asked(home: Home, name: str) -> None:
    """In whatever folder: the one by default, and those of a backup."""
    folder = home.folder / name
    folder.mkdir()
    data = {"XDG_DATA_HOME": str(folder)}

    ended = home.run("collect", "-c", play(home), env=data)
    copied = home.run("db", "backup", "--verify", f"{folder}/copy.db", "-c", "c.toml", env=data)

    assert (ended.code, ended.err, copied.code, copied.err) == (0, "", 0, "")
    check_invariants_of(folder / "pipeline" / "pipeline.db")
    check_invariants_of(folder / "copy.db")


def check_invariants_of(path: Path) -> None:
    """Look at the database where another program would look for it."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("ok",)]


def test_names_are_names_under_an_ascii_locale(home: Home) -> None:
    """A crontab of old says LC_ALL=C, and Python can be told to take that at its word."""
    folder = home.folder / "Büro"
    folder.mkdir()
    (folder / "c.toml").write_text((home.folder / play(home)).read_text())
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    at = ascii_only | {"XDG_DATA_HOME": str(folder)}

    ended = home.run("collect", "-c", "Büro/c.toml", env=at)
    refused = home.run("report", "-c", "Büro/none.toml", env=at)

    assert (ended.code, ended.err) == (0, "")
    check_invariants_of(folder / "pipeline" / "pipeline.db")
    missing = f"{folder}/none.toml (--config)"
    assert refused.err == f"pipeline: {missing}: cannot be read: No such file or directory\n"


def test_a_connection_too_many_loses_its_batch_and_is_no_bug(home: Home) -> None:
    """The books say what the machine lacked; exit code 1 would ask for a report to us."""
    hold = ["hold"] * 40
    with serving(*hold) as upstream:
        home.ask(upstream.url, batches="{ count = 40, size = 5 }", high=1)  # else they were stale
        text = home.config.read_text().replace("in_flight = 1\n", "in_flight = 40\n")
        home.config.write_text(text)
        running = home.start("collect", before="ulimit -n 32")
        upstream.wait_until_held()
        upstream.release.set()
        ended = running.finish(60)

    assert_told(ended, 3)
    [(error, detail)] = home.rows("SELECT DISTINCT error, detail FROM attempts WHERE error > ''")
    assert error == "internal"
    assert detail == "this machine has too little for it: Too many open files; see `ulimit -n`"


# ---- Clocks, zones, locales ----

stopped_clock = pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is missing")


def test_the_zone_of_the_caller_changes_nothing(home: Home) -> None:
    """Cron and the shell have a zone each; the books have one (C05)."""
    config = play(home)
    shown = ("report", "--format", "json", "-c", config)
    began = datetime.now(UTC)

    home.run("collect", "-c", config, env={"TZ": "Asia/Kolkata"})
    east, west = (home.run(*shown, env={"TZ": zone}).out for zone in ("Asia/Kolkata", "UTC"))

    [run] = json.loads(east)["runs"]
    assert east == west
    assert run["started_at"].endswith("Z")
    assert timedelta() <= datetime.fromisoformat(run["started_at"]) - began < timedelta(minutes=1)


@stopped_clock
def test_two_runs_of_one_moment_are_two(home: Home) -> None:
    """Neither names nor order may hang on how finely time is told (C09)."""
    config = play(home)
    frozen = """exec faketime -f '2026-03-01 12:00:00' "$@\""""
    still = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "TZ": "UTC"}

    for _ in range(2):
        home.run("collect", "-c", config, env=still, before=frozen)
    shown = json.loads(home.run("report", "--format", "json", "-c", config).out)["runs"]
    verified = home.run("audit", "verify", "-c", config)

    assert {run["started_at"] for run in shown} == {"2026-03-01T12:00:00.000000Z"}
    assert [run["run_id"] for run in shown] == [2, 1]
    assert len({run["uid"] for run in shown}) == 2
    assert verified.code == 0
    check_invariants(home.database)


def test_a_locale_changes_no_answer_for_a_program(home: Home, tmp_path: Path) -> None:
    """1,5 is not 1.5, and Dienstag no day of a CSV (U16)."""
    german = tmp_path / "de_DE.UTF-8"
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", german], check=False, capture_output=True
    )
    if not made or made.returncode > 1:
        pytest.skip("there is no localedef, or it knows no German")
    config = play(home)
    home.run("collect", "-c", config)
    speak = {"LC_ALL": german.name, "LOCPATH": str(tmp_path)}

    for shape in ("json", "csv"):
        shown = ("report", "--run", "1", "--format", shape, "-c", config)
        assert home.run(*shown, env=speak).out == home.run(*shown).out


# ---- Where nothing can be put aside ----


def test_a_missing_folder_for_temporary_files_is_said_or_not_needed(home: Home) -> None:
    """A service without a /tmp of its own (X07)."""
    config = play(home)
    nowhere = {"TMPDIR": "/nonexistent"}

    for command in ("collect", "report", "export numbers n.csv", "db backup copy.db", "audit"):
        ended = home.run(*command.split(), "-c", config, env=nowhere)
        assert (ended.code, ended.err) == (0, ""), command


# ---- Power ----


@injected
def test_what_is_told_is_on_the_disk(home: Home) -> None:
    """A power cut takes along what was written and not synced, and no told run may be in it (P06).

    So whatever a run has written to the store is synced before the answer goes out; and of each
    commit the journal before the database, or a cut in between would leave a half.
    """
    config, log = play(home), home.folder / "calls"
    calls = "write,pwrite64,fdatasync,fsync"
    home.run("collect", "-c", config)

    told = home.run(
        "collect",
        *("-c", config, "--format", "json"),
        before=f'exec strace -f -y -qq -s 1 -o {log} -e trace={calls} "$@"',
    )

    unsynced: set[str] = set()
    synced = 0
    for call, number, name in re.findall(r"(\w+)\((\d+)<([^>]*)>", log.read_text()):
        if call in ("fsync", "fdatasync"):
            synced += name in unsynced
            unsynced.discard(name)
        elif number == "1":
            assert unsynced == set()
        elif name.startswith(str(home.database)) and ".turn-" not in name:
            if name == str(home.database):
                assert f"{name}-journal" not in unsynced
            unsynced.add(name)
    assert told.code == 0
    assert json.loads(told.out)["run"]["status"] == "ok"
    assert synced >= 3


# ---- A long history ----


@injected
def test_a_run_reads_no_more_after_ten_times_as_many_runs(home: Home) -> None:
    """Each tick of years must cost what the first one did (D15).

    Of other sources, that is: of its own the last 10,000 batches are read, to know old numbers.
    """
    config = play(home)
    home.run("collect", "-c", config)

    def reads() -> int:
        log = home.folder / "reads"
        trace = f'exec strace -f -qq -o {log} -P {home.database} -e trace=pread64 "$@"'
        assert home.run("collect", "-c", config, before=trace).code == 0
        return log.read_text().count("pread64(")

    def grow(runs: int) -> None:
        url = f"sqlite:///{home.database}"
        with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
            for number in range(runs):
                record_run(session, [make_batch(0, "coins")], started_at=at(number))

    grow(200)  # so that all trees of pages have branches
    home.run("collect", "-c", config)  # adds up the days that are over, which is done once
    young = reads()
    grow(1800)
    home.run("collect", "-c", config)
    old = reads()

    assert young > 20
    assert old < 1.3 * young


# ---- Names ----


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("export numbers two\nlines/x.csv", 74),
        ("export numbers two\nlines/x", 2),
        ("db backup two\nlines/x.db", 74),
        ("collect -c two\nlines/x.toml", 78),
        ("collect --slot always -c rival/c.toml", 78),
    ],
)
def test_a_name_of_two_lines_is_told_in_one(home: Home, command: str, code: int) -> None:
    """Else whoever may name a file could write lines in our name."""
    for folder in ("first\npipeline: all is well", "rival"):
        (home.folder / folder).mkdir()
        play(home, f"{folder}/c.toml")
    slots = {"PIPELINE_SCHEDULE_EVERY": "1d"}
    first = home.folder / "first\npipeline: all is well/c.toml"
    home.run("collect", "-c", str(first), "--slot", "always", env=slots)

    ended = home.run(*command.split(" "), env=slots)

    assert_told(ended, code)
    assert r"\n" in ended.err


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31m", "\udcff"])
def test_a_home_that_cannot_be_shown_is_named(home: Home, name: str) -> None:
    """Not a setting that is nowhere in the file."""
    folder = home.folder / name
    folder.mkdir()

    ended = home.run("collect", "-c", play(home), env={"XDG_DATA_HOME": str(folder)})

    assert_told(ended, 78)
    assert "store.url: is not set, and by $HOME" in ended.err


# ---- Two that look like one ----


def _can_unshare() -> bool:
    unshare = ["unshare", "--pid", "--fork", "true"]
    try:
        return not subprocess.run(unshare, check=False, capture_output=True).returncode
    except OSError:
        return False


@pytest.mark.skipif(not _can_unshare(), reason="there is no unshare, or it may not")
@pytest.mark.parametrize("name", [b"h\xff\x1b[31m", b"", "Büro".encode()])
def test_a_machine_may_be_called_anything(home: Home, name: bytes) -> None:
    """The kernel takes any bytes, and an image may hold any machine-id."""
    number = home.folder / "machine-id"
    number.write_bytes(b"un\xfcinitialized\n")
    config = play(home)
    rename = home.folder / "rename.py"
    rename.write_text(f"import socket\nsocket.sethostname({name!r})\n")
    before = (
        f"exec unshare --uts --mount sh -c '{sys.executable} {rename}"
        f' && mount --bind {number} /etc/machine-id && exec "$0" "$@"\' "$@"'
    )

    ran = home.run("collect", "-c", config, before=before)
    shown = home.run("report", "-c", config, "-f", "html", before=before)

    assert [(each.code, each.err) for each in (ran, shown)] == [(0, ""), (0, "")]
    assert home.rows("SELECT status, host FROM runs") == [
        ("ok", name.decode("utf-8", "backslashreplace").replace("\x1b", r"\x1b"))
    ]


@pytest.mark.skipif(not _can_unshare(), reason="there is no unshare, or it may not")
def test_two_machines_of_one_name_stay_two(home: Home) -> None:
    """A machine that was cloned, or two containers: one name, one number, one store (O10)."""
    alone = 'exec unshare --pid --fork --kill-child "$@"'
    with serving("hold") as upstream:
        home.ask(upstream.url, batches="[3]")
        first = home.start("collect", before=alone)
        upstream.wait_until_held()
        second = home.start("collect", "--overlap", "allow", before=alone)
        wait_for(lambda: home.rows("SELECT count(*) FROM batches") == [(2,)])
        upstream.release.set()
        ended = [first.finish(), second.finish()]

    assert [(each.code, each.err) for each in ended] == [(0, ""), (0, "")]
    assert home.rows("SELECT count(DISTINCT uid), count(DISTINCT pid), min(status) FROM runs") == [
        (2, 1, "ok")
    ]
    check_invariants(home.database)


# ---- What others are handed ----


def test_a_command_of_others_is_handed_no_file_of_ours(home: Home) -> None:
    """Who shares a descriptor of a database drops its locks, or writes into it (D18)."""
    listed = home.folder / "open"
    hook = f"['/bin/sh', '-c', 'ls -l /proc/$$/fd > {listed}; cat > /dev/null']"
    with serving(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") as upstream:
        home.ask(upstream.url, batches="[3]")
        home.config.write_text(f"{home.config.read_text()}[notify]\non_failure = {hook}\n")
        ended = home.run("collect")

    assert ended.code == 4
    assert "pipeline" not in listed.read_text().replace(str(home.folder / "open"), "")
