"""The command as a process, an upstream that stops where a test wants it, and what must hold after.

Whatever is done to the process, ``check_invariants`` looks at the database with nothing of ours in
between: plain sqlite3, hashlib and struct.
"""

import hashlib
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from socketserver import BaseRequestHandler, StreamRequestHandler, ThreadingTCPServer
from time import monotonic, sleep
from typing import IO, Any, TypedDict, Unpack
from urllib.parse import parse_qs, urlsplit

PATIENCE_SECONDS = 60.0  # costs nothing, unless the machine has better things to do
COMMAND = (sys.executable, "-m", "pipeline")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended; ``code`` is what a shell would say of it."""

    code: int
    out: str
    err: str


class Options(TypedDict, total=False):
    """How a process is started.

    As ``subprocess.Popen`` takes it; and what a shell is to do ``before`` it becomes the command.
    """

    env: Mapping[str, str]
    stdin: int | IO[bytes]
    stdout: int | IO[bytes]
    stderr: int | IO[bytes]
    before: str
    start_new_session: bool


@dataclass(slots=True)
class Running:
    """A process that was started; killed at the latest when its test ends."""

    process: "subprocess.Popen[bytes]"

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(signum)

    def finish(self, seconds: float = PATIENCE_SECONDS) -> Finished:
        """Wait until it has ended, and read what it said."""
        out, err = self.process.communicate(timeout=seconds)
        code = self.process.returncode
        return Finished(128 - code if code < 0 else code, _text(out), _text(err))


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "backslashreplace")


class Home:
    """A user's home folder: its own configuration, database and environment.

    *is_measured*: whether coverage looks into its processes, which makes them slow. *within* is
    what a command is handed to: a program that runs it elsewhere.
    """

    def __init__(self, folder: Path, *, is_measured: bool, within: Sequence[str] = ()) -> None:
        self.folder = folder
        self.within = within
        self.config = folder / "config.toml"
        self.database = folder / "data" / "pipeline" / "pipeline.db"
        self._measuring = {
            key: value
            for key, value in os.environ.items()
            if is_measured and key.startswith("COVERAGE_")
        }
        self._started: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Give an environment that leads nowhere else."""
        return self._measuring | {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "PIPELINE_SANDBOX_LATENCY_SECONDS": "0",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, *arguments: str, **options: Unpack[Options]) -> Running:
        """Start ``pipeline`` with *arguments*; an ``env`` comes on top of the environment."""
        env = self.environment | dict(options.pop("env", {}))
        config = str(self.config) if self.config.exists() else "builtin"
        env = {"PIPELINE_CONFIG": config, **env}
        shell = (
            ["/bin/sh", "-c", f'{options["before"]}; exec "$@"', "sh"]
            if "before" in options
            else []
        )
        process = subprocess.Popen(
            [*self.within, *shell, *COMMAND, *arguments],
            env=env,
            cwd=self.folder,
            stdin=options.get("stdin", subprocess.DEVNULL),
            stdout=options.get("stdout", subprocess.PIPE),
            stderr=options.get("stderr", subprocess.PIPE),
            start_new_session=options.get("start_new_session", False),
        )
        self._started.append(process)
        return Running(process)

    def run(self, *arguments: str, **options: Unpack[Options]) -> Finished:
        """Run ``pipeline`` with *arguments* to its end."""
        return self.start(*arguments, **options).finish()

    def ask(
        self, url: str, *, batches: str = "[2, 3, 4]", high: int = 6, busy_seconds: float = 10
    ) -> None:
        """Configure one source, ``dice``, which is asked at *url* one request at a time."""
        self.config.write_text(
            f"[store]\nbusy_seconds = {busy_seconds:.1f}\n"
            f"[sources.dice]\nkind = 'randomnumberapi'\nurl = '{url}'\nmin = 1\nmax = {high}\n"
            f"batches = {batches}\nin_flight = 1\nmerge = false\nretries = 0\n"
        )

    def close(self) -> None:
        """Leave no process behind."""
        for process in self._started:
            process.kill()
            process.communicate()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database, past the program."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def homes(
    folder: Path, names: Sequence[str], *, is_measured: bool = False
) -> Iterator[dict[str, Home]]:
    """Give a home for each of *names*, so that their commands can run at the same time."""
    made = {name: Home(folder / name, is_measured=is_measured) for name in names}
    try:
        yield made
    finally:
        for home in made.values():
            home.close()


# ---- An upstream that stops where a test wants it ----


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        del request, client_address  # a client that was killed is no error of the test


def answer_with(*numbers: int) -> bytes:
    """Write the answer that brings *numbers*."""
    body = json.dumps(numbers).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


@dataclass(slots=True)
class Upstream:
    """randomnumberapi.com, answering request after request by a script.

    Its steps are ``answer``; ``hold`` (not a byte until ``release``); ``half`` (of the body, and
    the rest after ``release``); or the bytes to send.

    Attributes:
        requests: all that was asked, the request lines.
        reached: counts the requests that were held.
    """

    url: str
    script: Iterator[str | bytes]
    requests: list[str] = field(default_factory=list)
    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: threading.Event = field(default_factory=threading.Event)

    def wait_until_held(self) -> None:
        """Wait until one more request is held."""
        assert self.reached.acquire(timeout=PATIENCE_SECONDS), "nobody asked"

    def answer(self, head: str, send: "IO[bytes]") -> None:
        """Play the next step for the request *head*."""
        self.requests.append(head)
        step = next(self.script)
        query = parse_qs(urlsplit(head.split()[1]).query)
        answer = answer_with(*[int(query["min"][0])] * int(query["count"][0]))
        if isinstance(step, bytes):
            send.write(step)
        elif step == "answer":
            send.write(answer)
        else:
            at = 0 if step == "hold" else (answer.index(b"[") + len(answer)) // 2
            send.write(answer[:at])
            self.reached.release()
            self.release.wait(PATIENCE_SECONDS)
            send.write(answer[at:])


@contextmanager
def serving(*steps: str | bytes) -> Iterator[Upstream]:
    """Serve an upstream that plays *steps* and then answers well for ever."""

    class Handler(StreamRequestHandler):
        wbufsize = 0

        def handle(self) -> None:
            with suppress(OSError):
                while head := self.rfile.readline():
                    while self.rfile.readline().strip():
                        pass
                    upstream.answer(head.decode(), self.wfile)  # type: ignore[arg-type] # a raw file is one

    with _served(Handler) as url:
        upstream = Upstream(url, chain(steps, repeat("answer")))
        try:
            yield upstream
        finally:
            upstream.release.set()


@contextmanager
def _served(handler: type[BaseRequestHandler]) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def wait_for(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until *condition* is true."""
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, "it did not come about"
        sleep(0.005)


# ---- What must hold after every fault ----


def check_invariants(path: Path, *, running: int = 0) -> None:
    """Hold the database at *path* to what it promises, whatever was done to its writers.

    *running* is how many runs may still be called running.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        runs = connection.execute("SELECT * FROM runs ORDER BY id").fetchall()
        assert sum(run["status"] == "running" for run in runs) == running
        pruned = connection.execute("SELECT run_id FROM seals WHERE pruned_by IS NOT NULL")
        without_batches = {run_id for (run_id,) in pruned}
        for run in runs:
            if run["id"] not in without_batches:
                _check_run(connection, run)


def _check_run(connection: sqlite3.Connection, run: sqlite3.Row) -> None:
    batches = connection.execute("SELECT * FROM batches WHERE run_id = ?", (run["id"],)).fetchall()
    attempts = connection.execute(
        "SELECT * FROM attempts WHERE run_id = ?", (run["id"],)
    ).fetchall()
    made = {(attempt["fetch"], attempt["number"]): attempt for attempt in attempts}
    assert len(made) == len(attempts)
    for attempt in attempts:
        assert attempt["wait_us"] is not None
    collected = [batch for batch in batches if batch["verdict"] == 1]
    for batch in collected:
        assert made[batch["fetch"], batch["attempt"]]["error"] is None
        _check_numbers(batch)
    if run["status"] == "running":
        return
    verdicts = [batch["verdict"] for batch in batches]
    for code, verdict in enumerate(("collected", "failed", "deferred", "cancelled"), 1):
        assert run[verdict] == verdicts.count(code)
    assert None not in verdicts
    assert run["ordered"] == len(batches)
    assert run["numbers"] == sum(batch["n"] for batch in collected)
    assert run["attempts"] == len(attempts)


def _check_numbers(batch: sqlite3.Row) -> None:
    n, low, high, packed = (batch[key] for key in ("n", "min", "max", "numbers"))
    digest = hashlib.sha256(struct.pack("<3q", n, low, high) + packed).digest()
    assert batch["digest"] == digest[:8]
    width = next(width for width in (1, 2, 4, 8) if high - low < 256**width)
    assert len(packed) == n * width
    parts = (packed[at : at + width] for at in range(0, len(packed), width))
    numbers = [low + int.from_bytes(part, "little") for part in parts]
    assert all(low <= number <= high for number in numbers)
    assert sum(numbers) == batch["sum"]


def all_bytes(folder: Path) -> bytes:
    """Read every file below *folder*."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
