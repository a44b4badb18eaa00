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
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pyte
import pytest

from pipeline.store.db import open_store
from tests.processes import (
    COMMAND,
    ROOT,
    Home,
    Running,
    all_bytes,
    check_invariants,
    homes,
    serving,
    wait_for,
)

GRACE_SECONDS = 5.0  # it takes a fraction of one, unless the machine has better things to do
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
    """The README's promise: no configuration, no network, the lesson's 28 workers."""
    shown = home.run("collect", "--format", "text")
    told = home.run("report", "--run", "last", "--format", "json")

    assert (shown.code, shown.err, told.code, told.err) == (0, "", 0, "")
    lines = shown.out.splitlines()
    rows = [line.split() for line in lines if re.match(r"w\d", line)]
    document = json.loads(told.out)
    assert [row[0] for row in rows] == [f"w{number}" for number in range(28)]
    assert [int(row[3]) for row in rows] == [batch["sum"] for batch in document["batches"]]
    assert lines[-1].startswith("Run 1 ok: 28 of 28 batches, 434 numbers in 9 requests.")
    assert [batch["sum"] for batch in document["batches"]] == [
        sum(batch["numbers"]) for batch in document["batches"]
    ]
    assert all(attempt["first_byte_us"] > 0 for attempt in document["attempts"])
    assert all(attempt["dns_us"] is None for attempt in document["attempts"])
    check_invariants(home.database)


def test_cron_hears_nothing_when_all_is_well(tmp_path: Path) -> None:
    """A crontab mails every word; it has no terminal, hardly an environment, and no open stdin."""
    bare = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "x"}

    done = subprocess.run(
        [*COMMAND, "collect"],
        cwd=tmp_path,
        env=bare | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    check_invariants(tmp_path / ".local/share/pipeline/pipeline.db")


def test_nothing_is_left_open_and_nothing_is_deprecated(home: Home) -> None:
    """In Python's development mode every forgotten socket, task and warning would be told."""
    ended = home.run("collect", env={"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"})

    assert (ended.code, ended.out, ended.err) == (0, "", "")


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
    assert imported("collect") & {"alembic", "rich", "IPython"} == set()


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
            started = {name: home.start("collect") for name, home in at.items()}
            for home in at.values():
                wait_for(partial(has_its_turn, home))
            sleep(0.05)

            stop_all(started)

        for home in at.values():
            assert home.rows("SELECT count(*) FROM runs") == [(0,)]
            check_invariants(home.database)


def has_its_turn(home: Home) -> bool:
    """Tell whether a run has begun, up to the point where it opens the database."""
    return any(home.database.parent.glob("*.turn-*"))


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


def test_a_second_signal_leaves_at_once(measured_home: Home) -> None:
    """While the disk is waited for, a person who insists is obeyed; the store survives that."""
    with serving("answer", "hold") as upstream:
        measured_home.ask(upstream.url)
        running = measured_home.start("collect")
        upstream.wait_until_held()
        wait_for(partial(has_collected, measured_home))
        with locked(measured_home.database):
            running.send(signal.SIGINT)
            sleep(0.2)
            assert running.process.poll() is None
            running.send(signal.SIGINT)
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
    many = "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = {count = 4000, size = 3}\n"
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


def test_a_report_during_a_run_shows_whole_batches(home: Home) -> None:
    """Reading neither fails nor sees half of a group; nor does it keep the run from writing."""
    home.config.write_text(
        "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = {count = 900, size = 3}\n"
    )
    make_database(home)
    running = home.start("collect")
    wait_for(lambda: home.rows("SELECT count(sum) > 0 FROM batches") == [(1,)])

    told = home.run("report", "--run", "last", "--format", "json")

    document = json.loads(told.out)
    assert (told.code, told.err) == (0, "")
    for batch in document["batches"]:
        if batch["verdict"] is not None:
            assert batch["sum"] == sum(batch["numbers"])
            assert len(batch["numbers"]) == batch["n"]
    assert document["run"]["ordered"] == 900
    assert running.finish().code == 0
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
            "INSERT INTO runs (uid, host, pid, version, config_digest, config_path, started_at,"
            " ended_at, status, clock_us, ordered, collected, failed, deferred, cancelled, numbers,"
            " attempts, waited_us) VALUES ('u', 'h', 1, '1', 'd', 'p',"
            " '2026-03-01T12:00:00.000000Z', '2026-03-01T12:00:01.000000Z',"
            " 'ok', 340, 0, 0, 0, 0, 0, 0, 0, 0)"
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
    assert shown[0].startswith("worker")
    assert [line.split()[0] for line in shown[2:30]] == [f"w{number}" for number in range(28)]
    assert not screen.cursor.hidden
    assert b"\x1b[32mcollected" in seen


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
    with serving() as upstream:
        # Six batches of eight bytes a number, too much for the pages of the empty tables; no two of
        # one size, for this upstream would answer them alike.
        home.ask(upstream.url, batches="'95..100'", high=2**40)
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


def test_a_store_locked_in_mid_run_says_what_is_not_stored(home: Home) -> None:
    """The lock comes when the answer is already on its way."""
    with serving("hold") as upstream:
        home.ask(upstream.url, batches="[2]", busy_seconds=0.1)
        running = home.start("collect")
        upstream.wait_until_held()
        with locked(home.database):
            upstream.release.set()
            ended = running.finish()

    assert ended.code == 75
    assert "NOT stored, though collected: 1 batches" in ended.err
    check_invariants(home.database, running=1)


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
