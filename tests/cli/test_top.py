"""`pipeline top`: what goes on now, live on a terminal, once elsewhere; it only reads."""

import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ, tcgetattr
from time import monotonic

import pyte
import pytest

from tests.processes import COMMAND, PATIENCE_SECONDS, Home, homes, serving

LEAVES = b"\x1b[?1049l"  # the screen of before
MOST_BYTES = 65536


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Have a home folder."""
    with homes(tmp_path, ["me"]) as made:
        yield made["me"]


class Terminal:
    """A terminal of 100 columns that a program is shown on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._screen = pyte.Screen(100, 30)
        self._stream = pyte.ByteStream(self._screen)
        self.seen = b""

    def shows(self, *words: str) -> bool:
        """Wait until all of *words* stand on the screen at once."""
        until = monotonic() + PATIENCE_SECONDS
        while monotonic() < until:
            lines = self._screen.display  # a word that is wrapped goes on in the next one
            text = "\n".join(lines) + "".join(lines)
            if all(word in text for word in words):
                return True
            self._read()
        return False

    def _read(self) -> None:
        if select.select([self._descriptor], [], [], 1)[0]:
            data = os.read(self._descriptor, MOST_BYTES)
            self.seen += data
            self._stream.feed(data)

    def type(self, keys: bytes) -> None:
        """Type these keys."""
        os.write(self._descriptor, keys)

    def read_to_the_end(self, process: "subprocess.Popen[bytes]") -> None:
        """Read until the process has ended, and what it wrote last has come through."""
        while process.poll() is None:
            self._read()
        until = monotonic() + PATIENCE_SECONDS
        while LEAVES not in self.seen and monotonic() < until:
            self._read()
        while select.select([self._descriptor], [], [], 0)[0]:
            self._read()


@contextmanager
def watching(home: Home, *options: str) -> "Iterator[tuple[subprocess.Popen[bytes], Terminal]]":
    """Show ``pipeline top`` on a terminal while the block runs."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, pack("4H", 30, 100, 0, 0))
    before = tcgetattr(theirs)
    env = home.environment | {"PIPELINE_CONFIG": str(home.config), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*COMMAND, "top", "--every", "0.2", *options],
        env=env,
        cwd=home.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    terminal = Terminal(ours)
    try:
        yield process, terminal
        terminal.type(b"q")
        terminal.read_to_the_end(process)
        assert LEAVES in terminal.seen
        assert tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_it_follows_a_run_of_another_process_and_leaves_the_screen_as_it_was(home: Home) -> None:
    """Who is asked, what came, what failed; q quits, and nothing of it stays."""
    with serving("answer", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "hold") as upstream:
        home.ask(upstream.url)
        with watching(home) as (process, terminal):
            assert terminal.shows("No run goes on.", "dice", "ready", "q to quit")
            run = home.start("collect")
            upstream.wait_until_held()
            assert terminal.shows("Run 1 goes on since", "asking", "1/3, 1 open", ".x")
            upstream.release.set()
            run.finish()
            assert terminal.shows("No run goes on.", ".x.", "ready")
        assert process.returncode == 0


def test_an_embargo_counts_down(home: Home) -> None:
    """With the reason that the upstream gave."""
    refused = b"HTTP/1.1 429 No\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"
    with serving(refused) as upstream:
        home.ask(upstream.url, batches="[2]")
        home.run("collect")
        with watching(home) as (_, terminal):
            assert terminal.shows("waiting", "min", "left", "dice: not before", "Retry-After: 600")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_screen_as_it_was(home: Home, signum: signal.Signals) -> None:
    """A terminal without echo would look broken."""
    home.ask("http://127.0.0.1:1")
    with watching(home) as (process, terminal):
        assert terminal.shows("q to quit")
        process.send_signal(signum)
        terminal.read_to_the_end(process)
    assert process.returncode == 128 + signum


def test_a_store_that_breaks_is_told_and_may_come_back(home: Home) -> None:
    """It is looked at for hours; a restart of a disk must not end it."""
    with serving() as upstream:
        home.ask(upstream.url, batches="[2]")
        home.run("collect")
        with watching(home) as (_, terminal):
            assert terminal.shows("ready")
            away = home.database.with_name("away")
            home.database.rename(away)
            home.database.write_bytes(b"no database at all, and longer than a head is" * 9)
            assert terminal.shows("pipeline.db")
            away.replace(home.database)
            assert terminal.shows("ready")


def test_without_a_terminal_it_answers_once(home: Home) -> None:
    """As text, and as one snapshot for programs; without a store too."""
    with serving("answer", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as upstream:
        home.ask(upstream.url)
        before = home.run("top")
        home.run("collect")
        after, machine = home.run("top"), home.run("top", "--format", "json")

    assert before.code == after.code == machine.code == 0
    assert before.out.startswith("No run goes on.\n")
    (row,) = [line for line in after.out.splitlines() if line.startswith("dice")]
    assert row.split()[:4] == ["dice", "ready", "-", ".x."]
    snapshot = json.loads(machine.out)
    assert snapshot["schema"] == "pipeline.top/1"
    assert snapshot["sources"][0]["recent"] == [None, "http_5xx", None]


def test_it_reads_only(home: Home) -> None:
    """Also of what is left of a quota: looking costs nothing."""
    home.config.write_text(
        "[sources.org]\nkind = 'random_org'\nurl = 'http://127.0.0.1:1'\nmin = 1\nmax = 6\n"
        "email = 'me@example.org'\nbatches = [2]\nattempt_seconds = 150.0\n"
    )

    shown = home.run("top")

    assert "200000/200000 bits/day" in shown.out
    assert not home.database.exists()
    home.database.parent.mkdir(parents=True)
    home.run("collect")
    content = home.database.read_bytes()
    home.run("top")
    assert home.database.read_bytes() == content
    with closing(sqlite3.connect(home.database)) as raw:
        assert raw.execute("SELECT count(*) FROM runs").fetchone() == (1,)
