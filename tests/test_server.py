"""The commands with a store on a PostgreSQL server."""

import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
from sqlalchemy import func, make_url, select, update

from pipeline.store import heartbeats
from pipeline.store.db import open_store
from pipeline.store.tables import ATTEMPTS, BATCHES, HEARTBEATS, RUNS
from tests.processes import Home, Running, Upstream, homes, serving, wait_for
from tests.servers import Server

STALE = heartbeats.SILENCE + timedelta(seconds=5)


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """Make an empty database on the server."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def users(tmp_path: Path, url: str) -> Iterator[dict[str, Home]]:
    """Give two users of this machine a home, and one store."""
    with homes(tmp_path, ["ann", "bob"]) as made:
        for home in made.values():
            home.config.write_text(
                f"[store]\nurl = '{url}'\n[sources.dice]\nkind = 'sandbox.randomnumberapi'\n"
                "min = 1\nmax = 6\nbatches = [2, 3]\nmerge = false\n"
            )
        yield made


def statuses(url: str) -> list[str]:
    """Read how the runs ended, in their order."""
    with (
        open_store(url, busy_seconds=1, for_writing=False) as store,
        store.read() as session,
    ):
        return list(session.connection().scalars(select(RUNS.c.status).order_by(RUNS.c.id)))


@pytest.mark.parametrize(
    "setting",
    [
        "DateStyle=German,DMY",
        "DateStyle=SQL,MDY",
        "IntervalStyle=sql_standard",
        "TimeZone=Asia/Kolkata",
        "bytea_output=escape",
        "extra_float_digits=-15",
        "client_encoding=LATIN1",
        "default_transaction_isolation=serializable",
    ],
)
def test_a_server_may_be_set_up_for_others(users: dict[str, Home], setting: str) -> None:
    """Its owner, or that of the role, may like dates and bytes written in another way."""
    env = {"PGOPTIONS": f"-c {setting}", "PIPELINE_SCHEDULE_EVERY": "1h"}

    commands = ("collect --slot always", "collect", "report slots", "audit verify", "status")
    ended = [users["ann"].run(*command.split(), env=env) for command in commands]

    assert [(each.code, each.err) for each in ended] == [(0, "")] * len(commands)


def test_users_of_one_machine_do_not_bury_each_others_runs(
    users: dict[str, Home], url: str
) -> None:
    """Each has a folder of locks that the other does not see; only the server knows who lives."""
    ann, bob = users["ann"], users["bob"]
    with serving("hold") as upstream:
        ann.config.write_text(
            f"{ann.config.read_text()}[sources.slow]\nkind = 'randomnumberapi'\n"
            f"url = '{upstream.url}'\nmin = 1\nmax = 6\nbatches = [2]\n"
        )
        living = ann.start("collect")
        upstream.wait_until_held()

        other = bob.run("collect")
        seen = bob.run("report")
        upstream.release.set()
        ended = living.finish()

    assert (other.code, other.err, ended.code, ended.err) == (0, "", 0, "")
    assert " running " in seen.out
    assert statuses(url) == ["ok", "ok"]


def test_a_run_that_was_killed_is_buried_when_it_was_silent_for_long(
    users: dict[str, Home], url: str
) -> None:
    """By whoever starts next, and by the server's clock."""
    ann, bob = users["ann"], users["bob"]
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        killed = ann.start("collect", env={"PIPELINE_SANDBOX_LATENCY_SECONDS": "30"})
        wait_for(lambda: statuses(url) == ["running"])
        killed.send(signal.SIGKILL)
        killed.finish()
        bob.run("collect")
        soon = statuses(url)
        with store.write() as session:
            silent = func.now() - STALE
            aged = update(HEARTBEATS).values(seen_at=silent, suspected_at=silent)
            session.connection().execute(aged)
            assert heartbeats.dead_runs(session) == [1]
    seen = bob.run("report")
    bob.run("collect")

    assert soon == ["running", "ok"]
    assert "interrupted?" in seen.out
    assert statuses(url) == ["interrupted", "ok", "ok"]


# ---- A server that comes and goes ----


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a user a home, whose commands are looked into."""
    with homes(tmp_path, ["eve"], is_measured=True) as made:
        yield made["eve"]


def ask(home: Home, url: str, upstream: str) -> None:
    """Want three batches, in three requests, two at a time; wait for others for a second."""
    home.config.write_text(
        f"[store]\nurl = '{url}'\nbusy_seconds = 1.0\n"
        f"[sources.dice]\nkind = 'randomnumberapi'\nurl = '{upstream}'\nmin = 1\nmax = 6\n"
        "batches = [2, 3, 4]\nin_flight = 2\nmerge = false\n"
    )


def check_whole(url: str) -> None:
    """See that each batch has its outcome once, and each request is on the books once."""
    assert statuses(url) == ["ok"]
    with open_store(url, busy_seconds=10, for_writing=False) as store, store.read() as session:
        connection = session.connection()
        assert connection.scalars(select(BATCHES.c.verdict)).all() == ["collected"] * 3
        assert connection.scalar(select(func.count()).select_from(ATTEMPTS)) == 3


@contextmanager
def asking_twice(home: Home, url: str) -> Iterator[tuple[Running, Upstream]]:
    """Begin a run, and let go on when its first two requests are in flight."""
    with serving("hold", "hold") as upstream:
        ask(home, url, upstream.url)
        run = home.start("collect")
        upstream.wait_until_held()
        upstream.wait_until_held()
        yield run, upstream


def release(upstream: Upstream) -> None:
    """Answer, and wait until what was held is in hand: only then the last is asked for."""
    upstream.release.set()
    wait_for(lambda: len(upstream.requests) == 3)


def test_a_server_that_is_away_for_a_while_costs_a_run_nothing(
    home: Home, url: str, postgres: Server
) -> None:
    """What was fetched meanwhile is held, and written when it is back."""
    with asking_twice(home, url) as (run, upstream):
        with postgres.away(url):
            release(upstream)
        ended = run.finish()

    assert (ended.code, ended.err) == (0, "")
    check_whole(url)


def test_a_run_that_is_stopped_while_its_server_is_silent_sets_aside_what_it_has(
    home: Home, url: str, postgres: Server
) -> None:
    """It does not wait for ever, and the next run stores what it had."""
    with asking_twice(home, url) as (run, upstream):
        with postgres.stopped(url):
            release(upstream)
            run.send(signal.SIGTERM)
            ended = run.finish()
        again = home.run("collect")

    assert ended.code == 75
    [count] = re.findall(r"(\d) collected batches are set aside in", ended.err)
    assert int(count) > 0
    assert f"run 1: {count} collected batches that were set aside in" in again.err


class Lossy(BaseRequestHandler):
    """Stands before a server, and once loses its answer to a commit, and the connection."""

    port = 0
    statement = b""  # the commit is the one after this
    has_lost = False
    is_lost = False

    def handle(self) -> None:
        """Pass on what both say."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as server:
            back = threading.Thread(target=self.pass_on, args=(server, self.request))
            back.start()
            try:
                self.listen(server)
            finally:
                server.shutdown(socket.SHUT_RDWR)
                back.join()

    def listen(self, server: socket.socket) -> None:
        """Pass on what is asked: the commit itself is not lost."""
        heard = b""
        while said := self.request.recv(65536):
            heard += said
            if b"COMMIT" in said and self.statement in heard and not self.has_lost:
                type(self).has_lost = self.is_lost = True
            server.sendall(said)

    def pass_on(self, server: socket.socket, client: socket.socket) -> None:
        """Pass on what is answered."""
        with suppress(OSError):
            while said := server.recv(65536):
                if self.is_lost:
                    break
                client.sendall(said)
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def losing(url: str, after: bytes) -> Iterator[tuple[str, type[Lossy]]]:
    """Give a way to a database on which the answer to one commit is lost, and who loses it."""
    real = make_url(url)

    class Handler(Lossy):
        port = real.port or 0
        statement = after

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, args=(0.01,)).start()
        try:
            way = real.set(port=proxy.server_address[1])
            yield way.render_as_string(hide_password=False), Handler
        finally:
            proxy.shutdown()


@pytest.mark.parametrize("statement", [b"INSERT INTO attempts", b"INSERT INTO seals"])
def test_what_a_server_did_and_could_not_say_is_done_once(
    home: Home, url: str, statement: bytes
) -> None:
    """Whether the connection was lost before a commit or after it, nobody can know at once."""
    with serving() as upstream, losing(url, statement) as (way, lossy):
        ask(home, way, upstream.url)
        ended = home.run("collect")

    assert lossy.has_lost
    assert (ended.code, ended.err) == (0, "")
    check_whole(url)


# ---- Who only reads ----

QUESTIONS = (
    ("report", "-r", "1"),
    ("plan",),
    ("audit", "verify"),
    ("db", "stats", "--exact"),
    ("export", "numbers"),
)


def test_a_role_that_may_only_read_is_answered_all_questions(
    users: dict[str, Home], url: str, postgres: Server
) -> None:
    """So is whoever asks a replica: nothing is locked, nothing written."""
    ann, bob = users["ann"], users["bob"]
    collected = ann.run("collect")
    with postgres.reader_of(url) as theirs:
        bob.config.write_text(ann.config.read_text().replace(url, theirs))
        answers = [bob.run(*question) for question in QUESTIONS]
        refused = bob.run("collect")

    assert collected.code == 0
    assert [(each.code, each.err) for each in answers] == [(0, "")] * len(QUESTIONS)
    assert all(each.out for each in answers)
    assert (refused.code, "read-only" in refused.err) == (74, True)
