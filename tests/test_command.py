"""The real command as a process: what cron, a shell and a terminal see, and what a kill leaves."""

import fcntl
import json
import os
import pty
import random
import re
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pyte
import pytest

from pipeline.store.db import open_store
from tests.processes import (
    COMMAND,
    ROOT,
    Finished,
    Home,
    Running,
    all_bytes,
    answer_with,
    check_invariants,
    homes,
    serving,
    wait_for,
)

GRACE_SECONDS = 30.0  # it takes a fraction of one, unless the machine has better things to do
STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": 137}
NOBODY = "http://127.0.0.1:1"  # nothing listens on a port that only root may take
CANARY = "canary-7f3a9c51-secret"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give one user a home."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


@pytest.fixture
def measured_home(tmp_path: Path) -> Iterator[Home]:
    """Give one user a home, for what only a process of its own can run."""
    with homes(tmp_path, ["home"], is_measured=True) as made:
        yield made["home"]


def make_database(home: Home) -> None:
    """Put an empty database where the command will look for it."""
    open_store(f"sqlite:///{home.database}", busy_seconds=1, for_writing=True).close()


# ---- The first minute ----


def test_the_quick_start_ends_with_28_sums(home: Home) -> None:
    """The README's promise: nothing to write, no network, the lesson's 28 workers."""
    shown = home.run("collect", "--config", "builtin", "--format", "text")
    told = home.run("report", "--run", "last", "--format", "json")

    assert (shown.code, shown.err, told.code, told.err) == (0, "", 0, "")
    lines = shown.out.splitlines()
    rows = [line.split() for line in lines if re.match(r"w\d", line)]
    document = json.loads(told.out)
    assert [row[0] for row in rows] == [f"w{number}" for number in range(28)]
    assert {row[2] for row in rows} == {"(sandbox)"}
    assert [int(row[4]) for row in rows] == [batch["sum"] for batch in document["batches"]]
    assert lines[-1].startswith("Run 1 ok: 28 of 28 batches, 434 numbers in 6 requests.")
    assert [batch["sum"] for batch in document["batches"]] == [
        sum(batch["values"]) for batch in document["batches"]
    ]
    assert all(attempt["first_byte_us"] > 0 for attempt in document["attempts"])
    assert all(attempt["dns_us"] is None for attempt in document["attempts"])
    check_invariants(home.database)


def test_cron_hears_nothing_when_all_is_well(tmp_path: Path) -> None:
    """A crontab mails every word; it has no terminal, hardly an environment, and no open stdin."""
    bare = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "x"}

    done = subprocess.run(
        [*COMMAND, "collect", "-c", "builtin"],
        cwd=tmp_path,
        env=bare | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    check_invariants(tmp_path / ".local/share/pipeline/pipeline.db")


UNCONFIGURED = {"PIPELINE_CONFIG": ""}


@pytest.mark.parametrize("command", [("collect",), ("schedule", "run")])
def test_without_a_terminal_the_sandbox_is_asked_on_demand_only(
    home: Home, command: tuple[str, ...]
) -> None:
    """Who misplaced the file must not find 28 numbers a run in the books that nobody made."""
    done = home.run(*command, env={**UNCONFIGURED, "PIPELINE_SCHEDULE_EVERY": "5m"})

    places = f"{home.folder}/config.toml or {home.folder}/config/pipeline/config.toml"
    assert (done.code, done.out) == (78, "")
    assert done.err == (
        "pipeline: no configuration found: none is named by --config or $PIPELINE_CONFIG, and"
        f" there is none of ours at {places}; --config builtin asks the sandbox\n"
    )
    assert not home.database.exists()


@pytest.mark.parametrize("command", ["plan", "report", "sources", "audit"])
def test_a_question_needs_no_configuration(home: Home, command: str) -> None:
    """It writes nothing, and the database lies where it lies."""
    make_database(home)

    done = home.run(command, env=UNCONFIGURED)

    assert (done.code, done.err) == (0, "")


def test_the_file_of_another_program_is_passed_over(home: Home) -> None:
    """Many programs call their file so; the one line names it, and the search goes on."""
    (home.folder / "config.toml").write_text("baseURL = 'https://example.org/'\n[params]\na = 1\n")
    users = home.folder / "config" / "pipeline"
    users.mkdir(parents=True)

    lost = home.run("collect", env=UNCONFIGURED)
    (users / "config.toml").write_text("[sources.dice]\nkind = 'sandbox.anu_legacy'\nbatches=[2]\n")
    found = home.run("collect", env=UNCONFIGURED)

    passed_over = f"pipeline: {home.folder}/config.toml: is not for this program"
    assert [lost.code, lost.err.count("\n"), found.code] == [78, 2, 0]
    assert lost.err.startswith(passed_over)
    assert found.err == f"{passed_over} (none of its tables), passed over\n"
    assert home.rows("SELECT name FROM sources") == [("dice",)]


def test_nothing_is_left_open_and_nothing_is_deprecated(home: Home) -> None:
    """In Python's development mode every forgotten socket, task and warning would be told."""
    ended = home.run("collect", env={"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"})
    # Of a busy machine it tells that a step took more than 0.1 s.
    told = [line for line in ended.err.splitlines() if not line.startswith("Executing <")]

    assert (ended.code, ended.out, told) == (0, "", [])


def test_what_is_not_needed_is_not_imported(home: Home) -> None:
    """Each tick pays for every import: help needs no database, a run no migrations."""
    probe = (
        "import os, sys, pipeline.cli.app as app\n"
        "app._leave = lambda code: (print(*sys.modules), sys.stdout.flush(), os._exit(code))\n"
        "sys.argv = ['pipeline', *sys.argv[1:]]\n"
        "app.main()"
    )
    make_database(home)

    def imported(*arguments: str) -> set[str]:
        command = [sys.executable, "-c", probe, *arguments]
        out = subprocess.check_output(command, env=home.environment, cwd=home.folder, text=True)
        return set(out.splitlines()[-1].split())

    heavy = {"sqlmodel", "sqlalchemy", "httpx2", "alembic", "pydantic", "rich", "anyio"}
    assert imported("--help") & heavy == set()
    assert imported("collect", "-c", "builtin") & {"alembic", "rich", "IPython"} == set()


# ---- Exit codes ----


def test_each_complaint_is_one_line_and_one_exit_code(tmp_path: Path) -> None:
    """Scripts rely on the code and people on the line; nobody wants a traceback."""
    cases = {
        "usage": (2, "No such option"),
        "no such run": (2, "there is no such run"),
        "partial": (3, "2 of 3 batches collected; lost: 1 http_4xx (dice)"),
        "nothing": (4, "0 of 3 batches collected; lost: 3 connect_refused (dice)"),
        "no store": (74, "no database yet"),
        "config": (78, "nonsense.toml"),
    }
    refusal = b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n"
    with homes(tmp_path, [*cases]) as at, serving("answer", refusal) as upstream:
        at["partial"].ask(upstream.url)
        at["nothing"].ask(NOBODY)
        make_database(at["no such run"])
        started = {
            "usage": at["usage"].start("collect", "--nonsense"),
            "no such run": at["no such run"].start("report", "--run", "7"),
            "partial": at["partial"].start("collect"),
            "nothing": at["nothing"].start("collect"),
            "no store": at["no store"].start("report"),
            "config": at["config"].start("collect", "-c", "nonsense.toml"),
        }
        ended = {name: running.finish() for name, running in started.items()}

    assert {name: done.code for name, done in ended.items()} == {
        name: code for name, (code, _) in cases.items()
    }
    for name, (_, says) in cases.items():
        assert says in ended[name].err
        assert "Traceback" not in ended[name].err
        assert ended[name].out == ""
        if name != "usage":
            assert ended[name].err.count("\n") == 1
            assert ended[name].err.startswith("pipeline: ")


# ---- Signals ----


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the write lock of a database, as a backup or a careless shell may."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def has_collected(home: Home) -> bool:
    """Tell whether the first batch, and no other, is on disk."""
    return home.rows("SELECT number FROM batches WHERE sum IS NOT NULL") == [(0,)]


def stop_all(started: dict[str, Running]) -> None:
    """Send each process the signal that it is named after; see it end as it should, and soon."""
    began = monotonic()
    for name, running in started.items():
        running.send(signal.Signals[name])
    for name, running in started.items():
        ended = running.finish()
        assert ended.code == STOPS[name]
        assert "Traceback" not in ended.err
        assert ended.out == ""
        assert ended.err.count("\n") <= 1
    assert monotonic() - began < GRACE_SECONDS


def test_a_signal_before_the_store_is_open_leaves_no_run(tmp_path: Path) -> None:
    """While SQLite waits for its lock nothing has begun, so there is nothing to wait for."""
    with homes(tmp_path, [*STOPS]) as at:
        for home in at.values():
            make_database(home)
        with ExitStack() as locks:
            for home in at.values():
                locks.enter_context(locked(home.database))
            patient = {"PIPELINE_STORE_BUSY_SECONDS": "300"}
            started = {name: home.start("collect", env=patient) for name, home in at.items()}
            for name, home in at.items():
                wait_for(partial(has_opened, started[name], home.database))
            sleep(0.05)

            stop_all(started)

        for home in at.values():
            assert home.rows("SELECT count(*) FROM runs") == [(0,)]
            check_invariants(home.database)


def has_opened(running: Running, file: Path) -> bool:
    """Tell whether a process has opened *file*."""
    with suppress(FileNotFoundError):  # one that was closed meanwhile
        descriptors = Path(f"/proc/{running.process.pid}/fd").iterdir()
        return any(descriptor.readlink() == file for descriptor in descriptors)
    return False


@contextmanager
def unanswering() -> Iterator[str]:
    """Listen with a full queue: whoever comes waits in connect(2) for ever."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def is_connecting(url: str) -> bool:
    """Tell whether some process waits for a connection to *url* (SYN_SENT in Linux's table)."""
    port = int(url.rpartition(":")[2])
    rows = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    return any(row.split()[2].endswith(f":{port:04X}") and row.split()[3] == "02" for row in rows)


def test_a_signal_while_connecting_ends_the_run_as_interrupted(tmp_path: Path) -> None:
    """Nothing has come yet; the books say so."""
    with homes(tmp_path, ["SIGINT", "SIGTERM"]) as at, unanswering() as one, unanswering() as other:
        for home, url in zip(at.values(), (one, other), strict=True):
            home.ask(url)
        started = {name: home.start("collect") for name, home in at.items()}
        wait_for(lambda: is_connecting(one) and is_connecting(other))

        stop_all(started)

        for home in at.values():
            assert home.rows("SELECT status, cancelled FROM runs") == [("interrupted", 3)]
            assert home.rows("SELECT error, phase FROM attempts") == [("cancelled", "connect")]
            check_invariants(home.database)


@pytest.mark.parametrize(("stage", "phase"), [("hold", "first_byte"), ("half", "body")])
def test_a_signal_in_mid_answer_keeps_what_was_collected(
    tmp_path: Path, stage: str, phase: str
) -> None:
    """One batch is on disk, one is on its way, one was not asked for: each has its outcome."""
    with homes(tmp_path, [*STOPS]) as at, ExitStack() as stack:
        upstreams = {name: stack.enter_context(serving("answer", stage)) for name in at}
        for name, home in at.items():
            home.ask(upstreams[name].url)
        started = {name: home.start("collect") for name, home in at.items()}
        for name, home in at.items():
            upstreams[name].wait_until_held()
            wait_for(partial(has_collected, home))

        stop_all(started)

        dead = at.pop("SIGKILL")
        check_invariants(dead.database, running=1)
        assert has_collected(dead)
        for home in at.values():
            check_invariants(home.database)
            assert home.rows("SELECT status, collected, cancelled FROM runs") == [
                ("interrupted", 1, 2)
            ]
            assert home.rows("SELECT phase FROM attempts WHERE error = 'cancelled'") == [(phase,)]


def test_a_stopped_run_says_by_what_and_what_it_cost(tmp_path: Path) -> None:
    """The mail that cron sends is all that its owner sees."""
    with homes(tmp_path, ["home"]) as at, serving("answer", "hold") as upstream:
        at["home"].ask(upstream.url)
        running = at["home"].start("collect")
        upstream.wait_until_held()
        running.send(signal.SIGTERM)
        ended = running.finish()

    assert ended.err == (
        "pipeline: run 1 interrupted by SIGTERM: 1 of 3 batches collected; lost:"
        " 1 cancelled (dice), 1 never asked; see `pipeline report --run 1`\n"
    )


def test_the_next_run_buries_a_killed_one_and_keeps_its_batches(home: Home) -> None:
    """SIGKILL leaves a run that is called running: nobody else could put that right."""
    with serving("answer", "hold") as upstream:
        home.ask(upstream.url)
        running = home.start("collect")
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        running.send(signal.SIGKILL)
        running.finish()
        between = home.run("report", "--run", "last")

        after = home.run("collect")

    assert between.out.splitlines()[-1].startswith("Run 1 running: 1 of 3 batches, 2 numbers in 1")
    assert after.code == 0
    check_invariants(home.database)
    assert home.rows("SELECT status, collected, cancelled, clock_us FROM runs ORDER BY id") == [
        ("interrupted", 1, 2, None),
        ("ok", 3, 0, home.rows("SELECT clock_us FROM runs WHERE id = 2")[0][0]),
    ]


@pytest.fixture
def container() -> Callable[[str], str]:
    """Give what a shell does to become a container with a name: other processes, another host."""
    namespaces = ["unshare", "-rupf", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespaces, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a namespace")
    run = """sh -c 'hostname "$0" && exec "$@"'"""
    return lambda name: f'exec {" ".join(namespaces)} {run} {name} "$@"'


@pytest.mark.parametrize("successor", ["c1", "c2"])
def test_a_run_that_died_in_a_container_is_buried_by_the_next_at_once(
    home: Home, container: Callable[[str], str], successor: str
) -> None:
    """Each of them has a process 1, and often a host name that nobody has seen before."""
    with serving("answer", "hold") as upstream:
        home.ask(upstream.url)
        running = home.start("collect", before=container("c1"))
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        during = home.run("report", before=container(successor))
        running.send(signal.SIGKILL)
        running.finish()
        between = home.run("report", before=container(successor))

        after = home.run("collect", before=container(successor))

    assert (" running " in during.out, "interrupted?" in between.out) == (True, True)
    assert after.code == 0
    check_invariants(home.database)
    assert home.rows("SELECT status, collected FROM runs ORDER BY id") == [
        ("interrupted", 1),
        ("ok", 3),
    ]


def test_a_run_that_lives_in_another_container_is_not_buried(
    home: Home, container: Callable[[str], str]
) -> None:
    """Nor taken for dead by a report there."""
    with serving("hold") as upstream:
        home.ask(upstream.url)
        living = home.start("collect", before=container("c1"))
        upstream.wait_until_held()

        home.run("collect", "--config", "builtin", before=container("c2"))
        reported = home.run("report", "-f", "json", before=container("c2"))
        upstream.release.set()
        ended = living.finish()

    assert [run["is_alive"] for run in json.loads(reported.out)["runs"]] == [None, True]
    assert (ended.code, ended.err) == (0, "")
    assert home.rows("SELECT DISTINCT status FROM runs") == [("ok",)]


def test_a_second_signal_leaves_at_once(measured_home: Home) -> None:
    """While the disk is waited for, a person who insists is obeyed; the store survives that.

    One signal that comes twice at once, as ``timeout`` sends it, does not insist.
    """
    with serving("answer", "hold") as upstream:
        measured_home.ask(upstream.url, busy_seconds=300)
        running = measured_home.start("collect")
        upstream.wait_until_held()
        wait_for(partial(has_collected, measured_home))
        with locked(measured_home.database):
            running.send(signal.SIGINT)
            running.send(signal.SIGINT)
            sleep(0.5)
            assert running.process.poll() is None
            for _ in range(int(GRACE_SECONDS)):
                if running.process.poll() is None:
                    running.send(signal.SIGINT)
                    sleep(1)
            ended = running.finish(GRACE_SECONDS)

    assert (ended.code, ended.err) == (130, "")
    check_invariants(measured_home.database, running=1)


def test_nohup_is_respected(home: Home) -> None:
    """Who switches SIGHUP off wants the run to outlive the terminal."""
    with serving("hold") as upstream:
        home.ask(upstream.url, batches="[2]")
        running = home.start("collect", before="trap '' HUP")
        upstream.wait_until_held()
        running.send(signal.SIGHUP)
        sleep(0.1)
        assert running.process.poll() is None
        running.send(signal.SIGTERM)

        assert running.finish().code == 143


def test_kills_at_any_moment_leave_the_books_in_order(tmp_path: Path) -> None:
    """Four homes, killed three times each wherever they happen to be; then one run that ends."""
    moments = random.Random(20261122)
    names = ["a", "b", "c", "d"]
    many = (
        "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = {count = 4000, size = 3}\n"
        "merge = false\n"
    )
    with homes(tmp_path, names) as at:
        for home in at.values():
            home.config.write_text(many)
            make_database(home)
        for _ in range(3):
            started = [home.start("collect") for home in at.values()]
            for running in started:
                sleep(moments.uniform(0.1, 0.5))
                running.send(signal.SIGKILL)
                running.finish()
        for home in at.values():
            dead = home.rows("SELECT count(*) FROM runs WHERE status = 'running'")[0][0]
            check_invariants(home.database, running=dead)
        ended = [home.start("collect", "-q", "--deadline", "0.2") for home in at.values()]

        assert {running.finish().code for running in ended} <= {3, 4}
        for home in at.values():
            check_invariants(home.database)


# ---- Overlap ----


def test_two_runs_do_not_overlap(home: Home) -> None:
    """The second one names the first, is on the books as skipped, and asks nobody."""
    with serving("hold") as upstream:
        home.ask(upstream.url, batches="[2]")
        first = home.start("collect")
        upstream.wait_until_held()

        second = home.run("collect", "--format", "json")

        assert second.code == 75
        assert second.out == ""
        assert (
            f"another run of this configuration is going on (pid {first.process.pid}, since "
            in second.err
        )
        assert second.err.count("\n") == 1
        assert home.rows("SELECT status FROM runs ORDER BY id") == [("running",), ("skipped",)]
        assert len(upstream.requests) == 1
        first.send(signal.SIGKILL)
        first.finish()
        upstream.release.set()

        assert home.run("collect").code == 0  # the kernel has freed the lock

    check_invariants(home.database)


def test_a_configuration_that_is_edited_in_mid_run_waits_for_the_next(home: Home) -> None:
    """A run is by one text from its start to its end, and the books say by which (F13)."""
    with serving("hold") as upstream:
        home.ask(upstream.url)
        edited = home.start("collect")
        upstream.wait_until_held()
        home.ask(upstream.url, batches="[5]", high=9)
        upstream.release.set()
        first, second = edited.finish(), home.run("collect")

    assert (first.code, second.code) == (0, 0)
    assert home.rows("SELECT run_id, n, max FROM batches ORDER BY run_id, n") == [
        (1, 2, 6),
        (1, 3, 6),
        (1, 4, 6),
        (2, 5, 9),
    ]
    assert home.rows("SELECT count(DISTINCT config_digest) FROM runs") == [(2,)]


def test_a_failure_that_cannot_be_stored_is_told_with_what_failed(home: Home) -> None:
    """The disk is full just when there is an error to write down (P12)."""
    make_database(home)
    size = home.database.stat().st_size
    down = b"HTTP/1.1 404 No\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000
    with serving(down, down, down) as upstream:
        home.ask(upstream.url)
        ended = home.run("collect", before=f"ulimit -f {size // 512 + 1}")

    assert ended.code == 74
    assert ended.err.count("\n") == 1
    assert "the disk failed or has no space" in ended.err
    assert ended.err.endswith(
        "; NOT stored, though collected: 0 batches; lost: 3 http_4xx (dice)\n"
    )
    check_invariants(home.database, running=1)


def test_a_report_during_a_run_shows_whole_batches(home: Home) -> None:
    """Reading neither fails nor sees half of a group; nor does it keep the run from writing."""
    home.config.write_text(
        "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = {count = 900, size = 3}\n"
        "merge = false\n"
    )
    make_database(home)
    running = home.start("collect")
    wait_for(lambda: home.rows("SELECT count(sum) > 0 FROM batches") == [(1,)])

    told = home.run("report", "--run", "last", "--format", "json")

    document = json.loads(told.out)
    assert (told.code, told.err) == (0, "")
    for batch in document["batches"]:
        if batch["verdict"] is not None:
            assert batch["sum"] == sum(batch["values"])
            assert len(batch["values"]) == batch["n"]
    assert document["run"]["ordered"] == 900
    assert running.finish().code == 0
    check_invariants(home.database)


def test_a_run_that_waits_for_an_upstream_keeps_nobody_out(home: Home) -> None:
    """Its store is open all the time, but no transaction is: others write, copy and clean up."""
    with serving("answer", "hold") as upstream:
        home.ask(upstream.url)
        running = home.start("collect", "--format", "json")
        upstream.wait_until_held()
        wait_for(lambda: home.rows("SELECT count(sum) FROM batches") == [(1,)])
        with closing(sqlite3.connect(home.database, timeout=0, isolation_level=None)) as raw:
            raw.execute("BEGIN EXCLUSIVE")
            raw.execute("ROLLBACK")

        pruned = home.run("db", "prune", "--keep", "1d", "--vacuum", "--force")
        copied = home.run("db", "backup", "copy.db", "--verify")
        upstream.release.set()
        ended = running.finish()

    assert (pruned.code, copied.code, ended.code) == (0, 0, 0), (pruned, copied, ended)
    assert json.loads(ended.out)["run"]["collected"] == 3
    check_invariants(home.database)


def test_a_reader_that_takes_its_time_does_not_keep_runs_from_writing(home: Home) -> None:
    """`report --format json | less` may stay open for an hour.

    Under a rollback journal an open read transaction would fail every run of that hour.
    """
    home.config.write_text(
        "[store]\nbusy_seconds = 0.2\n[sandbox]\nrules = false\n"
        "[sources.dice]\nkind = 'sandbox.anu_legacy'\nbatches = {count = 900, size = 3}\n"
    )
    assert home.run("collect").code == 0
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        report = home.start("report", "--run", "1", "--format", "json", stdout=writer)
        os.close(writer)
        first = pipe.read(1)  # and the pipe is full now, for all the rest does not fit

        assert home.run("collect", "-q").code == 0

        json.loads(first + pipe.read())
        assert report.finish().code == 0


# ---- Streams ----


@pytest.mark.parametrize("shape", ["text", "json"])
def test_a_reader_that_leaves_is_no_drama(home: Home, shape: str) -> None:
    """`pipeline report | head -1`: silence, and the code that the shell gives a SIGPIPE."""
    make_database(home)
    reader, writer = os.pipe()
    os.close(reader)

    ended = home.start("report", "--format", shape, stdout=writer).finish()
    os.close(writer)

    assert (ended.code, ended.err) == (141, "")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("report", "-f", "json"), ("collect", "-f", "text")]
)
def test_a_full_disk_behind_stdout_is_said(measured_home: Home, arguments: tuple[str, ...]) -> None:
    """An answer that did not arrive must not look like success; what is stored is said, too."""
    make_database(measured_home)
    with Path("/dev/full").open("wb") as full:
        ended = measured_home.run(*arguments, stdout=full)

    assert ended.code == 74
    *before, last = ended.err.splitlines()
    assert last == "pipeline: cannot write the output: No space left on device"
    if arguments[0] == "collect":
        assert before == [
            "pipeline: run 1 ok: 28 of 28 batches collected; see `pipeline report --run 1`"
        ]
        assert measured_home.rows("SELECT status, collected FROM runs") == [("ok", 28)]
    check_invariants(measured_home.database)


def test_closed_streams_cost_nothing(tmp_path: Path) -> None:
    """Some supervisors start with nothing open; the database must not become file number 1."""
    with homes(tmp_path, ["out", "err", "all"], is_measured=True) as at:
        started = {
            "out": at["out"].start("collect", "-f", "text", before="exec >&-"),
            "err": at["err"].start("collect", "-f", "text", before="exec 2>&-"),
            "all": at["all"].start("collect", before="exec <&- >&- 2>&-"),
        }
        ended = {name: running.finish() for name, running in started.items()}

        assert {done.code for done in ended.values()} == {0}
        assert "w27" in ended["err"].out
        for home in at.values():
            assert home.rows("SELECT status, collected FROM runs") == [("ok", 28)]
            check_invariants(home.database)


def test_a_terminal_that_cannot_draw_gets_plain_signs(home: Home) -> None:
    """A crontab's LC_ALL=C makes Python write ASCII; a table is no reason to die."""
    make_database(home)
    with closing(sqlite3.connect(home.database)) as connection, connection:
        connection.execute(
            "INSERT INTO runs (uid, host, pid, version, config_digest, config_path, is_sandbox,"
            " started_at, ended_at, status, clock_us, ordered, collected, failed, deferred,"
            " cancelled, numbers, attempts, waited_us) VALUES ('u', 'h', 1, '1', 'd', 'p', 0,"
            " 1772366400000000, 1772366401000000, 'ok', 340, 0, 0, 0, 0, 0, 0, 0, 0)"
        )

    shown = home.run("report", env={"PYTHONIOENCODING": "ascii"})

    assert (shown.code, shown.err) == (0, "")
    assert shown.out.isascii()
    assert "\\u" not in shown.out
    assert "0.34 ms" in shown.out


# ---- A terminal ----


@contextmanager
def terminal(columns: int = 120, lines: int = 60) -> Iterator[tuple[int, int]]:
    """Open a pseudo-terminal of that size: our end, and the command's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        for end in (ours, theirs):
            with suppress(OSError):
                os.close(end)


def watch(running: Running, ours: int, theirs: int) -> tuple[int, bytes]:
    """Read all that the command writes to its terminal; give its exit code, too."""
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # EIO: the other end was closed
            return running.finish().code, seen


def on_screen(seen: bytes, columns: int = 120, lines: int = 60) -> pyte.Screen:
    """Show what a terminal shows after these bytes."""
    screen = pyte.Screen(columns, lines)
    pyte.ByteStream(screen).feed(seen)
    return screen


def start_on(home: Home, theirs: int, *arguments: str, **env: str) -> Running:
    """Start the command with all its streams on a terminal."""
    return home.start(
        *arguments,
        env={"TERM": "xterm-256color", **env},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )


def test_a_terminal_sees_progress_and_then_the_table(home: Home) -> None:
    """Who looks on wants to know that it goes on; afterwards only the answer is left."""
    with terminal() as (ours, theirs):
        running = start_on(home, theirs, "collect", PIPELINE_SANDBOX_LATENCY_SECONDS="0.2")
        code, seen = watch(running, ours, theirs)

    screen = on_screen(seen)
    shown = [line.rstrip() for line in screen.display]
    assert code == 0
    assert b"collecting" in seen
    assert not any("collecting" in line for line in shown)
    assert shown[0].startswith("batch")
    assert [line.split()[0] for line in shown[2:30]] == [f"w{number}" for number in range(28)]
    assert not screen.cursor.hidden
    assert b"\x1b[32mcollected" in seen


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_person_gets_the_sandbox_unasked(home: Home, stream: str) -> None:
    """One terminal is enough: the first command after the installation just works."""
    with terminal() as (_, theirs):
        running = home.start("collect", env=UNCONFIGURED, **{stream: theirs})  # type: ignore[arg-type] # one of three
        done = running.finish()

    assert done.code == 0
    assert home.rows("SELECT collected FROM runs") == [(28,)]


def test_odd_terminals_are_served(tmp_path: Path) -> None:
    """Narrow, dumb, colourless or of no width at all: readable, and never an error."""
    odd = {
        "narrow": (20, {}),
        "no width": (120, {"COLUMNS": "0"}),
        "dumb": (120, {"TERM": "dumb"}),
        "no colour": (120, {"NO_COLOR": "1"}),
    }
    ended: dict[str, tuple[int, bytes]] = {}
    with homes(tmp_path, [*odd]) as at, ExitStack() as stack:
        ends = {name: stack.enter_context(terminal(columns)) for name, (columns, _) in odd.items()}
        started = {
            name: start_on(home, ends[name][1], "collect", **odd[name][1])
            for name, home in at.items()
        }
        for name, running in started.items():
            ended[name] = watch(running, *ends[name])

    for name, (code, seen) in ended.items():
        assert code == 0, name
        assert b"w27" in seen, name
        assert (b"\x1b[32m" in seen) == (name in {"narrow", "no width"})


def test_a_stopped_run_gives_the_cursor_back(home: Home) -> None:
    """Ctrl-C at a terminal must not cost the user the terminal."""
    with serving("answer", "hold") as upstream, terminal() as (ours, theirs):
        home.ask(upstream.url)
        running = start_on(home, theirs, "collect")
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        running.send(signal.SIGINT)
        code, seen = watch(running, ours, theirs)

    screen = on_screen(seen)
    assert code == 130
    assert not screen.cursor.hidden
    assert "Run 1 interrupted: 1 of 3 batches, 2 cancelled" in "".join(screen.display)


def test_a_terminal_that_goes_away_is_a_hangup(home: Home) -> None:
    """The window is closed in mid-run: stored as interrupted, and nothing is left running."""
    with serving("answer", "hold") as upstream, terminal() as (ours, theirs):
        home.ask(upstream.url)
        running = start_on(home, theirs, "collect", "-f", "text")
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        os.close(ours)  # the last of our end: the kernel hangs up, and writing to theirs fails
        running.send(signal.SIGHUP)

        assert running.finish().code == 74

    assert home.rows("SELECT status, collected FROM runs") == [("interrupted", 1)]
    check_invariants(home.database)


def test_an_upstream_cannot_steer_the_terminal(home: Home) -> None:
    """Its text is shown, not obeyed: no title, no cleared screen, no forged line."""
    home.config.write_text(
        "[sandbox]\nfaults = ['ansi']\n[sources.dice]\nkind = 'sandbox.randomnumberapi'\n"
        "batches = [2]\nretries = 0\n"
    )
    with terminal() as (ours, theirs):
        collected, first = watch(start_on(home, theirs, "collect"), ours, theirs)
    with terminal() as (ours, theirs):
        _, second = watch(start_on(home, theirs, "audit", "show", "1"), ours, theirs)
    told = home.run("audit", "show", "1", "--format", "json")

    assert collected == 4
    for seen in (first, second):
        screen = on_screen(seen)
        assert screen.title == ""
        assert b"\x1b]" not in seen
        assert "\u202e".encode() not in seen
    shown = "\n".join(line.rstrip() for line in on_screen(second).display)
    assert "\\x1b]0;owned\\x07\\x1b[2J" in shown
    assert "[/x]" in shown
    assert "Attempt 1" in shown
    assert told.out.isascii()
    assert "\x1b" not in told.out
    assert json.loads(told.out)["answer"]["body"].startswith("\x1b]0;owned")


# ---- The store ----


def test_a_full_disk_in_mid_run_says_what_is_not_stored(home: Home) -> None:
    """The numbers are lost, and whoever counts on them must hear of it."""
    make_database(home)
    size = home.database.stat().st_size
    # Six batches of eight bytes a number, too much for the pages of the empty tables.
    answers = [answer_with(*range(first, first + 100)) for first in range(1, 601, 100)]
    with serving(*answers) as upstream:
        home.ask(upstream.url, batches="{count = 6, size = 100}", high=2**40)
        ended = home.run("collect", before=f"ulimit -f {size // 512 + 1}")

    assert ended.code == 74
    assert ended.err.count("\n") == 1
    assert "the disk failed or has no space" in ended.err
    assert "NOT stored, though collected: 6 batches" in ended.err
    check_invariants(home.database, running=1)


def test_a_store_that_stays_locked_means_try_later(home: Home) -> None:
    """Somebody else writes for longer than we wait: 75, before anything was asked."""
    make_database(home)
    with serving() as upstream, locked(home.database):
        home.ask(upstream.url, busy_seconds=0.1)
        ended = home.run("collect")

    assert ended.code == 75
    assert ended.err.count("\n") == 1
    assert "is locked by another process; waited 0.1 s" in ended.err
    assert upstream.requests == []


@contextmanager
def read_for_long(database: Path) -> Iterator[None]:
    """Hold a read transaction, as a program does that walks over all of it at its ease."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM runs").fetchone()
        yield
        connection.execute("ROLLBACK")


def test_a_store_that_is_locked_for_a_while_costs_nothing_but_time(home: Home) -> None:
    """Much longer than we wait for it, but the run has time left: nobody need hear of it."""
    with serving("answer", "hold") as upstream:
        home.ask(upstream.url, busy_seconds=0.1)
        running = home.start("collect")
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        with locked(home.database):
            upstream.release.set()
            sleep(2)
        ended = running.finish()

    assert (ended.code, ended.err) == (0, "")
    check_invariants(home.database)
    assert home.rows("SELECT status, collected, attempts FROM runs") == [("ok", 3, 3)]


def set_aside(home: Home, hold: Callable[[Path], AbstractContextManager[None]]) -> Finished:
    """Collect three batches, of which two can be stored neither in time nor after it."""
    with serving("answer", "hold") as upstream:
        home.ask(upstream.url, busy_seconds=0.1)
        running = home.start("collect", "--deadline", "5")
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        with hold(home.database):
            upstream.release.set()
            return running.finish()


def spools(home: Home) -> list[Path]:
    """List what is set aside."""
    return list(home.database.parent.glob("*.spool-*"))


@pytest.mark.parametrize("hold", [locked, read_for_long])
def test_what_cannot_be_stored_is_set_aside_and_stored_by_the_next_run(
    home: Home, hold: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """Somebody reads or writes for longer than the run may take: the numbers are kept, and once."""
    ended = set_aside(home, hold)
    [path] = spools(home)
    check_invariants(home.database, running=1)

    following = home.run("collect")

    assert (ended.code, ended.err.count("\n")) == (75, 1)
    assert f"2 collected batches are set aside in {path}; the next run stores them" in ended.err
    assert f"run 1: 2 collected batches that were set aside in {path} are stored" in following.err
    assert spools(home) == []
    check_invariants(home.database)
    query = "SELECT status, collected, attempts FROM runs WHERE id = 1"
    assert home.rows(query) == [("interrupted", 3, 3)]
    assert home.run("audit", "verify").code == 0


def test_a_file_that_was_set_aside_counts_once_whenever_a_process_dies(home: Home) -> None:
    """Between the transaction and the removal of the file, also when the run has been ended."""
    set_aside(home, locked)
    [path] = spools(home)
    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    home.run("sources", "release", "dice")  # any command that writes will do
    once = home.rows("SELECT run_id, number, sum, verdict FROM batches")

    for command in (("sources", "release", "dice"), ("collect",), ("collect",)):
        path.write_bytes(content)
        ended = home.run(*command)

        assert spools(home) == []
        assert "stored" in ended.err
    assert home.rows("SELECT run_id, number, sum, verdict FROM batches WHERE run_id = 1") == once
    assert home.rows("SELECT count(*) FROM attempts WHERE run_id = 1") == [(3,)]
    check_invariants(home.database)
    assert home.run("audit", "verify").code == 0


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_told_and_kept_and_never_half_stored(home: Home, damage: str) -> None:
    """Who wrote to it, or where it broke, nobody knows; all the rest goes on."""
    set_aside(home, locked)
    [path] = spools(home)
    content = path.read_bytes()
    flipped = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    broken = {"cut": content[:-30], "flip": flipped, "empty": b""}[damage]
    path.write_bytes(broken)

    ended = home.run("collect")

    assert f"{path} is kept, and nothing of it is stored: it is damaged" in ended.err
    assert path.read_bytes() == broken
    check_invariants(home.database)
    assert home.rows("SELECT collected FROM runs WHERE id = 1") == [(1,)]


def test_a_signal_ends_the_waiting_and_the_numbers_are_set_aside(home: Home) -> None:
    """Whoever stops the service gets it stopped, long before the deadline."""
    with serving("answer", "hold") as upstream:
        home.ask(upstream.url, batches="[2, 3]", busy_seconds=0.1)
        running = home.start("collect")
        upstream.wait_until_held()
        wait_for(partial(has_collected, home))
        with locked(home.database):
            upstream.release.set()
            sleep(2)  # it has its answer, and tries to store it
            running.send(signal.SIGTERM)
            ended = running.finish(GRACE_SECONDS)
        home.run("collect")

    assert (ended.code, "1 collected batches are set aside in" in ended.err) == (75, True)
    assert home.rows("SELECT collected, attempts FROM runs WHERE id = 1") == [(2, 2)]


def overwrite(content: bytes) -> Callable[[Path], object]:
    """Put *content* where the database should be."""
    return lambda path: path.write_bytes(content)


def damage(path: Path) -> None:
    """Overwrite the first bytes of a good database."""
    open_store(f"sqlite:///{path}", busy_seconds=1, for_writing=True).close()
    with path.open("r+b") as file:
        file.write(b"\0" * 16)


def test_an_unusable_store_stops_the_run_before_anybody_is_asked(tmp_path: Path) -> None:
    """What cannot be written down is not asked for, and the file is left as it was."""
    spoil: dict[str, Callable[[Path], object]] = {
        "damaged": damage,
        "text": overwrite(b"Dear diary, today I was not a database.\n" * 100),
        "empty": overwrite(b""),
        "folder": lambda path: path.mkdir(),
        "fifo": os.mkfifo,
    }
    with homes(tmp_path, [*spoil, "parent"]) as at, serving() as upstream:
        for name, home in at.items():
            home.ask(upstream.url)
            home.database.parent.mkdir(parents=True)
            if name in spoil:
                spoil[name](home.database)
        at["parent"].database.parent.rmdir()
        at["parent"].database.parent.write_text("no folder")
        before = {name: content_of(home.database) for name, home in at.items()}
        started = {name: home.start("collect") for name, home in at.items()}
        ended = {name: running.finish() for name, running in started.items()}

        assert {name: done.code for name, done in ended.items()} == dict.fromkeys(at, 74)
        assert {name: content_of(home.database) for name, home in at.items()} == before
    assert upstream.requests == []
    for done in ended.values():
        assert done.err.count("\n") == 1
        assert "a bug of ours" not in done.err


def test_a_read_only_store_can_be_read_and_stops_a_run(home: Home) -> None:
    """A disk that was remounted after an error, or a backup: told before anybody is asked."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount anything")
    make_database(home)
    folder = home.database.parent
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    read_only = f"""exec unshare -rm sh -c '{mount} && exec "$@"' sh "$@\""""
    with serving() as upstream:
        home.ask(upstream.url)
        collected = home.start("collect", before=read_only)
        reported = home.run("report", before=read_only)
        ended = collected.finish()

    assert (ended.code, ended.err.count("\n")) == (74, 1)
    assert "Read-only file system" in ended.err
    assert upstream.requests == []
    assert (reported.code, reported.out) == (0, "No run yet.\n")


def content_of(path: Path) -> bytes | None:
    """Read a file, if it is one."""
    return path.read_bytes() if path.is_file() else None


def test_all_files_are_the_owners_alone(home: Home) -> None:
    """Under any umask: the numbers may be somebody's keys."""
    ended = home.run("collect", before="umask 0")

    made = list((home.folder / "data").rglob("*"))
    assert ended.code == 0
    assert made
    for path in made:
        assert path.stat().st_mode & 0o077 == 0, path


# ---- Secrets ----


def test_an_echoed_key_is_nowhere(home: Home) -> None:
    """The upstream repeats the whole request in its error; we must not."""
    sandbox = subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0", "--no-rules", "--fault", "echo_secret"],
        env=home.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sandbox.stdout is not None
        url = sandbox.stdout.readline().split()[-1].rsplit("/", 1)[0]
        home.config.write_text(
            f"[sources.aqn]\nkind = 'anu_aqn'\nurl = '{url}/anu_aqn'\napi_key_env = 'AQN_KEY'\n"
            f"batches = [2]\nretries = 1\nbackoff_seconds = 0.0\n"
            f"[sources.rpc]\nkind = 'random_org_jsonrpc'\nurl = '{url}/random_org_jsonrpc'\n"
            f"api_key_env = 'AQN_KEY'\nbatches = [2]\nretries = 0\n"
        )
        env = {"AQN_KEY": CANARY}
        collected = home.run("collect", "--format", "json", env=env)
        shown = ("audit", "show", "1")
        questions = [shown, (*shown, "-f", "json"), ("audit",), ("audit", "dossier", "aqn")]
        asked = [home.start(*question, env=env) for question in questions]
        said = [collected, *(running.finish() for running in asked)]
    finally:
        sandbox.terminate()
        sandbox.communicate()

    assert [done.code for done in said] == [4, 0, 0, 0, 0]
    assert "[REDACTED]" in said[1].out
    assert "${AQN_KEY}" in said[4].out
    assert "cannot serve GET" in said[1].out
    assert CANARY not in "".join(done.out + done.err for done in said)
    assert CANARY.encode() not in all_bytes(home.folder)
    sent = home.rows("SELECT headers || body FROM requests ORDER BY method")
    assert len(sent) == 2
    assert all("${AQN_KEY}" in text for (text,) in sent)


def test_a_missing_key_is_named_and_nothing_is_sent(tmp_path: Path) -> None:
    """A source without its key would only be refused, and counted against us."""
    values: dict[str, dict[str, str]] = {
        "unset": {},
        "empty": {"AQN_KEY": ""},
        "odd": {"AQN_KEY": "two words"},
    }
    with homes(tmp_path, [*values]) as at, serving() as upstream:
        for home in at.values():
            home.config.write_text(
                f"[sources.aqn]\nkind = 'anu_aqn'\nurl = '{upstream.url}'\n"
                "api_key_env = 'AQN_KEY'\nbatches = [2]\n"
            )
        started = [home.start("collect", env=values[name]) for name, home in at.items()]
        ended = [running.finish() for running in started]

        assert not any(home.database.exists() for home in at.values())
    for done in ended:
        assert done.code == 78
        assert done.err.count("\n") == 1
        assert "AQN_KEY" in done.err
    assert upstream.requests == []


def test_a_misspelt_variable_is_a_complaint(home: Home) -> None:
    """A setting that is silently not applied is found months later."""
    ended = home.run("collect", env={"PIPELINE_COLECT_DEADLINE_SECONDS": "5"})

    assert ended.code == 78
    assert "PIPELINE_COLECT_DEADLINE_SECONDS" in ended.err
    assert not home.database.exists()
