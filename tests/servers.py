"""A PostgreSQL server of the tests' own: in a folder of its own, on a free port, for one session.

It is the one whose ``initdb`` is found in ``PATH``, else the newest of Debian's. It keeps nothing
safe unless asked, so it is quick, and it sorts texts as people do rather than by their bytes.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import OperationalError

from pipeline.store.db import open_store
from tests.processes import wait_for

MUST = "PIPELINE_TEST_POSTGRES"  # =must: where there is no server, what needs one fails
DEBIAN = Path("/usr/lib/postgresql")  # <version>/bin below it are in nobody's PATH
NOBODY = "nobody"  # runs the server if we are root, which it refuses
OWNER = "pipeline"  # the role that owns the databases: no superuser, as with our users
LIKE_NEW = "like_new"  # a database as a new store makes it, to be copied
INITDB = (
    *("--username=postgres", "--auth=password", "--encoding=UTF8", "--no-sync"),
    *("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"),
)
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",  # the name of a socket may not be long
    "shared_buffers=32MB",
    *(f"{name}=off" for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")),
)


class NoServerError(Exception):
    """There is no server to be had; the text says why."""


@dataclass(slots=True, kw_only=True)
class Server:
    """A server that runs.

    Attributes:
        password: of all its roles; ``postgres`` is the superuser.
    """

    port: int
    password: str
    _command: Sequence[str | Path]
    _log: IO[bytes]
    _admin: Engine
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        """Name its first process, the parent of one for each connection and of its helpers."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """Name all its processes, the first one first."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        return [self.pid, *map(int, found.stdout.split())]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        self._process = process
        wait_for(lambda: process.poll() is not None or _answers(self._admin))
        if process.poll() is not None:
            said = Path(self._log.name).read_bytes()
            raise NoServerError(f"postgres ends at once: {_last_line(said)}")

    def end(self) -> None:
        """End it, if it was started: its fast shutdown."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    @contextmanager
    def crashed(self) -> Iterator[None]:
        """Kill all its processes at once, and start it again in the end."""
        first, *others = self.pids
        for pid in (first, *others):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._admin.dispose()
        try:
            yield
        finally:
            self.start()

    def url(self, database: str, *, role: str = OWNER) -> str:
        """Name a database as the configuration does."""
        return _url(self.port, role, self.password, database)

    def run(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out *statement* as superuser, and give its rows."""
        if database == "postgres":
            return _run(self._admin, statement)
        with _connecting(self.url(database, role="postgres")) as engine:
            return _run(engine, statement)

    @contextmanager
    def database(self, *, like: str = "template0") -> Iterator[str]:
        """Make a database, give its URL, and drop it in the end."""
        name = f"test_{uuid4().hex}"
        self.run(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {like} STRATEGY file_copy")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def reader_of(self, url: str) -> Iterator[str]:
        """Let a role read a database and do nothing else, as on a replica; give its URL."""
        name = name_of(url)
        role = f"reader_of_{name}"
        self.run(f"CREATE ROLE {role} LOGIN PASSWORD '{self.password}'")
        self.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", database=name)
        self.run(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        try:
            yield self.url(name, role=role)
        finally:
            self.run(f"DROP OWNED BY {role}", database=name)
            self.run(f"DROP ROLE {role}")

    def connections(self, url: str) -> list[int]:
        """List the processes of the server that serve a database's connections."""
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{name_of(url)}'"
        return [pid for (pid,) in self.run(query)]

    def cut(self, url: str) -> None:
        """End all connections to a database."""
        for pid in self.connections(url):
            self.run(f"SELECT pg_terminate_backend({pid})")

    @contextmanager
    def away(self, url: str) -> Iterator[None]:
        """Have no room for connections to a database, and end those that there are."""
        self.run(f"ALTER DATABASE {name_of(url)} CONNECTION LIMIT 0")
        try:
            self.cut(url)
            yield
        finally:
            self.run(f"ALTER DATABASE {name_of(url)} CONNECTION LIMIT -1")

    @contextmanager
    def stopped(self, url: str) -> Iterator[None]:
        """Stop the server as a frozen machine would: it takes connections, and says nothing."""
        pids = [self.pid, *self.connections(url)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


def name_of(url: str) -> str:
    """Give the name of the database."""
    return str(make_url(url).database)


@contextmanager
def running() -> Iterator[Server]:
    """Run a server that has the database ``LIKE_NEW``.

    Raises:
        NoServerError: it cannot be.
    """
    programs = _find_programs()
    with tempfile.TemporaryDirectory(prefix="pipeline-postgres-") as name:
        password, port = secrets.token_hex(), _free_port()
        data = _make_cluster(programs, Path(name), password)
        options = [f"-c{setting}" for setting in (f"port={port}", *SETTINGS)]
        command = _as_nobody(programs / "postgres", "-D", data, *options)
        with (
            (Path(name) / "log").open("w+b") as log,
            _connecting(_url(port, "postgres", password, "postgres")) as admin,
        ):
            server = Server(port=port, password=password, _command=command, _log=log, _admin=admin)
            try:
                server.start()
                _prepare(server)
                yield server
            finally:
                server.end()


def _find_programs() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = list(DEBIAN.glob("*/bin/initdb"))
    if not installed:
        raise NoServerError(f"PostgreSQL is not installed: no initdb in PATH or {DEBIAN}")
    return max(installed, key=lambda path: float(path.parts[-3])).parent


def _make_cluster(programs: Path, folder: Path, password: str) -> Path:
    data, secret = folder / "data", folder / "password"
    data.mkdir()
    secret.write_text(password)
    if os.geteuid() == 0:
        for path in (folder, data, secret):
            shutil.chown(path, NOBODY)
    made = subprocess.run(
        _as_nobody(programs / "initdb", *INITDB, f"--pwfile={secret}", "-D", data),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if made.returncode:
        raise NoServerError(f"initdb fails: {_last_line(made.stdout)}")
    return data


def _as_nobody(*command: str | Path) -> list[str | Path]:
    """Write the command that ends when we do, whatever ends us, and never runs as root."""
    if not shutil.which("setpriv"):  # of Linux
        return list(command)
    user = ["--reuid", NOBODY, "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *user, "--pdeathsig", "INT", *command]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _url(port: int, role: str, password: str, database: str) -> str:
    return f"postgresql+psycopg://{role}:{password}@127.0.0.1:{port}/{database}"


@contextmanager
def _connecting(url: str) -> Iterator[Engine]:
    try:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
    except ImportError as exc:
        raise NoServerError(f"{exc}") from exc
    try:
        yield engine
    finally:
        engine.dispose()


def _run(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return [tuple(row) for row in result] if result.returns_rows else []


def _answers(engine: Engine) -> bool:
    try:
        engine.connect().close()
    except OperationalError:
        return False
    return True


def _last_line(said: bytes) -> str:
    return said.decode("utf-8", "replace").strip().rpartition("\n")[-1]


def _prepare(server: Server) -> None:
    server.run(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{server.password}'")
    server.run(f"CREATE DATABASE {LIKE_NEW} OWNER {OWNER}")
    open_store(server.url(LIKE_NEW), busy_seconds=10, for_writing=True).close()
    server.run(f"ALTER DATABASE {LIKE_NEW} IS_TEMPLATE true")
