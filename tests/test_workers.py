"""Workers that share the runs of one PostgreSQL store, as real processes on several machines."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from subprocess import PIPE, Popen
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from pipeline.run.opening import spool_path
from pipeline.settings import StoreSettings
from pipeline.store.db import Store, open_store
from pipeline.store.tables import (
    ATTEMPTS,
    BATCHES,
    LATE_ATTEMPTS,
    LEASES,
    MEMBERS,
    PORTIONS,
    RUNS,
    SLOTS,
)
from tests.benchmarks.cluster import smallest_gap
from tests.machines import machines
from tests.playing import playing
from tests.processes import Home, homes, serving, wait_for
from tests.servers import LIKE_NEW, Server, running

pytest.importorskip("procrastinate")

DICE = "kind = 'randomnumberapi'\nmin = 1\nmax = 6\nmerge = false\n"


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """Name a store of a server."""
    with postgres.database(like=LIKE_NEW) as url:
        yield url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Look into it, and change what time would change."""
    with open_store(url, busy_seconds=10, for_writing=True) as store:
        yield store


def head(url: str, more: str = "") -> str:
    """Write the tables that all configurations have."""
    return f"[store]\nurl = '{url}'\n[collect]\ndeadline_seconds = 120\n{more}"


def count(store: Store, query: str) -> int:
    """Ask for one number."""
    with store.read() as session:
        return int(session.connection().scalar(text(query)) or 0)


def wait_for_workers(store: Store, n: int) -> None:
    """Wait until so many workers are here."""
    wait_for(
        lambda: count(store, f"SELECT count(*) FROM {MEMBERS.name} WHERE left_at IS NULL") == n
    )


def age_worker_of(store: Store, source: str) -> None:
    """Let the worker that has a portion of *source* be silent for long, as time would."""
    statement = text(
        "UPDATE procrastinate.procrastinate_workers SET last_heartbeat = now() - interval '1 hour'"
        " WHERE id IN (SELECT worker_id FROM procrastinate.procrastinate_jobs AS job"
        " JOIN portions ON job.queueing_lock = portions.run_id || ':' || portions.first"
        " WHERE job.status = 'doing' AND portions.source = :source)"
    )
    with store.write() as session:
        session.connection().execute(statement, {"source": source})


def outcomes(store: Store) -> list[tuple[str, str, int]]:
    """Count the batches by source and verdict."""
    query = select(BATCHES.c.source, BATCHES.c.verdict, func.count()).group_by(
        BATCHES.c.source, BATCHES.c.verdict
    )
    with store.read() as session:
        rows = session.connection().execute(query.order_by(BATCHES.c.source))
        return [(source, str(verdict), n) for source, verdict, n in rows]


def test_a_run_outlives_a_worker_that_is_killed(tmp_path: Path, url: str, store: Store) -> None:
    """Its portion goes to another, which asks for the rest: nothing is lost, nothing twice."""
    with machines(tmp_path, ["m1", "m2"], "", is_measured=True) as at, playing(at["m1"]) as played:
        at["m1"].config.write_text(
            f"{head(url)}[sources.dice]\n{DICE}url = '{played.url('randomnumberapi')}'\n"
            "batches = {count = 30, size = 3}\nin_flight = 2\nrate = '5/s'\n"
        )
        workers = {name: at[name].start("worker") for name in at}
        wait_for_workers(store, 2)
        spread = at["m1"].start("collect", "--spread")
        wait_for(lambda: count(store, "SELECT count(*) FROM batches WHERE sum > 0") >= 5)
        hands = list(workers.values())
        pid = count(store, f"SELECT pid FROM {PORTIONS.name}")
        [killed] = [name for name, each in workers.items() if each.process.pid == pid]
        [living] = set(workers) - {killed}
        workers[killed].send(SIGKILL)
        age_worker_of(store, "dice")
        ended = spread.finish()
        seen = at[living].run("report", "--run", "last").out
        told = json.loads(at[living].run("report", "batches", "--json", "--run", "last").out)
        workers[living].send(SIGTERM)
        left = workers[living].finish()
        requests, violations = len(played.log()), played.violations()["total"]

    assert (ended.code, ended.err) == (0, "")
    assert outcomes(store) == [("dice", "collected", 30)]
    assert count(store, f"SELECT count(*) FROM {ATTEMPTS.name}") == 30
    assert 30 <= requests <= 40  # what was under way, or not stored yet, was asked again
    assert violations == 0
    # Each attempt is that of the machine which made it, though the portion changed hands.
    assert {batch["pid"] for batch in told["batches"]} == {each.process.pid for each in hands}
    assert all(f" pid {each.process.pid} (" in seen for each in hands)
    assert (left.code, left.out, left.err) == (0, "", "")


def run_out(store: Store, pid: int) -> None:
    """Let the places that a process has be over, as if so much time had passed."""
    its = LEASES.c.held_by.contains(f" pid {pid} ")
    with store.write() as session:
        over = update(LEASES).where(its).values(until=func.clock_timestamp())
        session.connection().execute(over)


def test_a_worker_that_is_stopped_beyond_its_lease_does_no_harm(
    tmp_path: Path, url: str, store: Store
) -> None:
    """The upstream would ban us: another has its only place by now, and what was stored stays."""
    with machines(tmp_path, ["m1", "m2"], "") as at, playing(at["m1"], "--latency", "0.05") as org:
        at["m1"].config.write_text(
            f"{head(url)}[sources.org]\nkind = 'random_org'\nemail = 'me@example.org'\n"
            f"url = '{org.url('random_org')}'\nmerge = false\nbatches = {{count = 12, size = 3}}\n"
        )
        workers = [at[name].start("worker") for name in at]
        wait_for_workers(store, 2)
        spread = at["m1"].start("collect", "--spread")
        wait_for(lambda: count(store, "SELECT count(*) FROM batches WHERE sum > 0") >= 3)
        pid = count(store, f"SELECT pid FROM {PORTIONS.name}")
        [stopped] = [each for each in workers if each.process.pid == pid]
        stopped.send(SIGSTOP)
        age_worker_of(store, "org")

        def is_done() -> bool:
            run_out(store, pid)
            return spread.process.poll() is not None

        wait_for(is_done)
        stopped.send(SIGCONT)
        for worker in workers:
            worker.send(SIGTERM)
        left = [worker.finish().code for worker in workers]
        requests, violations = len(org.log()), org.violations()["total"]

    assert spread.finish().code == 0
    assert outcomes(store) == [("org", "collected", 12)]
    assert left == [0, 0]
    assert 12 <= requests <= 15
    # A process that is stopped between its last look and the request may break the rule, once.
    assert violations <= 1


def test_workers_and_their_run_survive_a_crash_of_the_server(tmp_path: Path) -> None:
    """Nobody is told that it is back: what was fetched meanwhile is stored, and the rest asked."""
    with (
        running() as server,
        server.database(like=LIKE_NEW) as url,
        machines(tmp_path, ["m1", "m2"], "") as at,
        playing(at["m1"]) as played,
    ):
        at["m1"].config.write_text(
            f"{head(url)}[sources.dice]\n{DICE}url = '{played.url('randomnumberapi')}'\n"
            "batches = {count = 20, size = 3}\nin_flight = 2\nrate = '5/s'\n"
        )
        workers = [at[name].start("worker") for name in at]
        with open_store(url, busy_seconds=10, for_writing=False) as store:
            wait_for_workers(store, 2)
            spread = at["m1"].start("collect", "--spread")
            wait_for(lambda: count(store, "SELECT count(*) FROM batches WHERE sum > 0") >= 5)
        with server.crashed():
            pass
        ended = spread.finish()
        for worker in workers:
            worker.send(SIGTERM)
        left = [worker.finish().code for worker in workers]
        requests, violations = len(played.log()), played.violations()["total"]
        with open_store(url, busy_seconds=10, for_writing=False) as store:
            stored = outcomes(store)
        verified = at["m1"].run("audit", "verify").code

    assert (ended.code, ended.err) == (0, "")
    assert stored == [("dice", "collected", 20)]
    assert left == [0, 0]
    assert 20 <= requests <= 30  # what was under way was asked again, if it was given to another
    assert violations == 0
    assert verified == 0


def test_what_a_worker_cannot_store_the_next_one_does(tmp_path: Path) -> None:
    """The server is gone when it is told to go: what came of all portions lies in one file."""
    with (
        running() as server,
        server.database(like=LIKE_NEW) as url,
        machines(tmp_path, ["m1"], "") as at,
        serving("hold") as one,
        serving("hold") as other,
    ):
        upstreams, rest = (one, other), f"{DICE}batches = [3]\nrate = '9/s'\n"
        sources = (f"[sources.s{i}]\nurl = '{of.url}'\n{rest}" for i, of in enumerate(upstreams))
        at["m1"].config.write_text(head(url) + "".join(sources))
        first = at["m1"].start("worker", "--drain", "6")
        with open_store(url, busy_seconds=10, for_writing=False) as store:
            wait_for_workers(store, 1)
            spread = at["m1"].start("collect", "--spread")
            for upstream in upstreams:
                upstream.wait_until_held()
        with server.crashed():
            for upstream in upstreams:
                upstream.release.set()
            first.send(SIGTERM)
            said = first.finish().err
        second = at["m1"].start("worker")
        ended = spread.finish()
        second.send(SIGTERM)
        told = second.finish().err
        with open_store(url, busy_seconds=10, for_writing=False) as store:
            stored, attempts = outcomes(store), count(store, "SELECT count(*) FROM attempts")

    assert said.count("2 collected batches are set aside in") == 1
    assert told.count("are stored now") == 1
    assert (ended.code, ended.err) == (0, "")
    assert (stored, attempts) == ([("s0", "collected", 1), ("s1", "collected", 1)], 2)
    assert [len(upstream.requests) for upstream in upstreams] == [1, 1]
    assert "Traceback" not in said


def start_and_leave(home: Home, url: str) -> str:
    """Start a worker, tell it to go, and give what it said."""
    worker = home.start("worker")
    with open_store(url, busy_seconds=10, for_writing=False) as store:
        wait_for_workers(store, 1)
    worker.send(SIGTERM)
    return worker.finish().err


def find_late(home: Home) -> dict[str, Any]:
    """Ask an audit what came late."""
    findings = json.loads(home.run("audit", "--json").out)["findings"]
    [found] = [finding for finding in findings if finding["kind"] == "late"]
    return dict(found)


ONE_BATCH = f"{DICE}batches = [3]\nrate = '9/s'\n"


def test_what_comes_when_the_run_has_ended_is_kept_beside_it(tmp_path: Path) -> None:
    """It was paid for; the run and its seal stay as they were, and an audit names what came late.

    The server was away when the worker had to go, and others ended the run before the next one.
    """
    with (
        running() as server,
        server.database(like=LIKE_NEW) as url,
        machines(tmp_path, ["m1"], "") as at,
        serving("hold") as upstream,
    ):
        m1 = at["m1"]
        m1.config.write_text(f"{head(url)}[sources.dice]\n{ONE_BATCH}url = '{upstream.url}'\n")
        first = m1.start("worker", "--drain", "6")
        with open_store(url, busy_seconds=10, for_writing=False) as store:
            wait_for_workers(store, 1)
            spread = m1.start("collect", "--spread")
            upstream.wait_until_held()
        with server.crashed():
            upstream.release.set()
            first.send(SIGTERM)
            assert " are set aside in " in first.finish().err
        spread.send(SIGTERM)
        assert spread.finish().code == 128 + SIGTERM
        [file] = (m1.folder / "state" / "pipeline").glob("*spool-*")
        content = file.read_bytes()
        with open_store(url, busy_seconds=10, for_writing=True) as store, store.write() as session:
            session.connection().execute(update(MEMBERS).values(left_at=func.now()))
        told = [start_and_leave(m1, url)]
        assert not file.exists()
        file.write_bytes(content)  # as if it had been killed before it could remove the file
        told.append(start_and_leave(m1, url))
        found = find_late(m1)
        said = m1.run("report", "--run", "last").out
        verified = m1.run("audit", "verify").code
        with open_store(url, busy_seconds=10, for_writing=False) as store:
            stored = outcomes(store), count(store, f"SELECT count(*) FROM {ATTEMPTS.name}")

    assert "run 1 was ended by others before 1 attempt set aside in " in told[0]
    assert "was stored before" in told[1]
    figures = found["figures"]
    assert (figures["run_id"], figures["pid"], figures["file"]) == (1, first.process.pid, str(file))
    assert (figures["attempts"], figures["collected"]) == (1, 1)
    assert f"by {figures['host']} pid {first.process.pid}, set aside in {file}," in found["reason"]
    assert "Beside it: 1 attempt that came when it had ended" in " ".join(said.split())
    assert stored == ([("dice", "cancelled", 1)], 0)
    assert verified == 0


def test_a_worker_that_wakes_when_the_run_has_ended_loses_nothing(
    tmp_path: Path, url: str, store: Store
) -> None:
    """It brings its results itself; killed right after, they are on the books."""
    with machines(tmp_path, ["m1"], "") as at, serving("hold") as upstream:
        m1 = at["m1"]
        m1.config.write_text(f"{head(url)}[sources.dice]\n{ONE_BATCH}url = '{upstream.url}'\n")
        worker = m1.start("worker")
        wait_for_workers(store, 1)
        spread = m1.start("collect", "--spread")
        upstream.wait_until_held()
        worker.send(SIGSTOP)
        spread.send(SIGTERM)
        assert spread.finish().code == 128 + SIGTERM
        upstream.release.set()
        worker.send(SIGCONT)
        wait_for(lambda: count(store, f"SELECT count(*) FROM {LATE_ATTEMPTS.name}") == 1)
        worker.send(SIGKILL)
        worker.finish()
        found = find_late(m1)["figures"]

    assert (found["pid"], found["collected"], found["file"]) == (worker.process.pid, 1, None)
    assert outcomes(store) == [("dice", "cancelled", 1)]
    assert count(store, f"SELECT count(*) FROM {ATTEMPTS.name}") == 0


def test_who_is_told_to_go_finishes_what_is_under_way(
    tmp_path: Path, url: str, store: Store
) -> None:
    """A rolling restart repeats no request: the rest is another worker's, at once."""
    with (
        machines(tmp_path, ["m1", "m2"], "", is_measured=True) as at,
        serving("answer", "hold") as upstream,
    ):
        at["m1"].config.write_text(
            f"{head(url)}[sources.dice]\n{DICE}url = '{upstream.url}'\n"
            "batches = {count = 6, size = 3}\nin_flight = 1\nattempt_seconds = 60\n"
        )
        first = at["m1"].start("worker")
        wait_for_workers(store, 1)
        spread = at["m2"].start("collect", "--spread")
        upstream.wait_until_held()
        listed = at["m2"].run("report", "workers").out
        first.send(SIGTERM)
        second = at["m2"].start("worker")
        wait_for_workers(store, 2)
        upstream.release.set()
        drained = first.finish()
        ended = spread.finish()
        second.send(SIGTERM)

        assert (drained.code, drained.err) == (0, "")
        assert (ended.code, ended.err) == (0, "")
        assert second.finish().code == 0
    assert outcomes(store) == [("dice", "collected", 6)]
    assert len(upstream.requests) == 6
    assert "1 worker here." in listed
    assert "1 portion of 1 run to do: 1 in hand, 0 waiting." in listed


def test_many_slow_sources_cost_a_worker_little(tmp_path: Path, url: str, store: Store) -> None:
    """All are opened together and go on at once; no rule is broken, whoever asks."""
    command = [sys.executable, "-m", "tests.benchmarks.many_upstreams", "30"]
    with (
        machines(tmp_path, ["m1", "m2"], "") as at,
        Popen(command, stdin=PIPE, stdout=PIPE, text=True) as upstreams,
    ):
        assert upstreams.stdout is not None
        rest = "kind = 'randomnumberapi'\nmin = 0\nmax = 65535\nmerge = false\nrate = '1/5s'\n"
        at["m1"].config.write_text(
            head(url)
            + "".join(
                f"[sources.s{port}]\n{rest}url = 'http://127.0.0.1:{port}'\nbatches = [3, 3]\n"
                for port in upstreams.stdout.readline().split()
            )
        )
        workers = [home.start("worker", "--lanes", "40") for home in at.values()]
        wait_for_workers(store, 2)
        ended = at["m1"].start("collect", "--spread").finish()
        for worker in workers:
            worker.send(SIGTERM)
        assert {worker.finish().code for worker in workers} == {0}
        requests = upstreams.communicate()[0].split()[0]

    assert (ended.code, ended.err, requests) == (0, "", "60")
    assert count(store, "SELECT count(*) FROM batch_list WHERE verdict = 'collected'") == 60
    assert count(store, f"SELECT count(DISTINCT began_at) FROM {PORTIONS.name}") <= 15
    assert smallest_gap(url) >= 5


def test_a_worker_fetches_no_more_than_it_has_lanes(tmp_path: Path, url: str, store: Store) -> None:
    """The rest is for others, who may be idle."""
    doing = "SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE status = 'doing'"
    with machines(tmp_path, ["m1"], "") as at, ExitStack() as opened:
        upstreams = [opened.enter_context(serving("hold")) for _ in range(4)]
        rest = f"{DICE}batches = [3]\nrate = '9/s'\n"
        sources = (f"[sources.s{i}]\nurl = '{of.url}'\n{rest}" for i, of in enumerate(upstreams))
        at["m1"].config.write_text(head(url) + "".join(sources))
        worker = at["m1"].start("worker", "--lanes", "2")
        wait_for_workers(store, 1)
        spread = at["m1"].start("collect", "--spread")
        wait_for(lambda: sum(len(upstream.requests) for upstream in upstreams) == 2)
        at_once = count(store, doing)
        for upstream in upstreams:
            upstream.release.set()
        ended = spread.finish()
        worker.send(SIGTERM)
        left = worker.finish()

    assert at_once == 2
    assert (ended.code, left.code) == (0, 0)
    assert [len(upstream.requests) for upstream in upstreams] == [1] * 4


def test_workers_keep_the_schedule(tmp_path: Path, url: str, store: Store) -> None:
    """A slot gets one run, however many workers there are, and that is shared."""
    with machines(tmp_path, ["m1", "m2"], "", is_measured=True) as at, playing(at["m1"]) as played:
        at["m1"].config.write_text(
            head(url, "[schedule]\ncron = '0 * * * *'\nmissed = 'once'\n")
            + f"[sources.dice]\n{DICE}url = '{played.url('randomnumberapi')}'\nbatches = [2, 3]\n"
        )
        workers = [home.start("worker") for home in at.values()]
        wait_for(lambda: count(store, f"SELECT count(fate) FROM {SLOTS.name}") == 1)
        for worker in workers:
            worker.send(SIGTERM)
        assert {worker.finish().code for worker in workers} == {0}

    assert count(store, f"SELECT count(*) FROM {RUNS.name}") == 1
    assert count(store, f"SELECT count(*) FROM {PORTIONS.name}") == 1
    assert outcomes(store) == [("dice", "collected", 2)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give one user a home."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


def test_a_worker_tells_of_what_was_set_aside_and_cannot_be_stored(
    home: Home, url: str, store: Store
) -> None:
    """It is kept, and somebody has to know: nobody else starts where there are only workers."""
    home.config.write_text(f"{head(url)}[sources.dice]\n{DICE}batches = [2]\n")
    file = spool_path(StoreSettings(url=url), "0" * 32, home.folder / "state" / "pipeline")
    file.parent.mkdir(parents=True)
    file.write_text("half of it")
    worker = home.start("worker")
    wait_for_workers(store, 1)
    worker.send(SIGTERM)
    said = worker.finish().err

    assert f"{file} is kept, and nothing of it is stored: it is damaged" in said
    assert file.exists()


def test_what_cannot_be_shared_is_refused(home: Home, url: str) -> None:
    """In one line that says what to do: a store in a file, and a sandbox of one process."""
    home.config.write_text("[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2]\n")
    of_file = [home.run("worker"), home.run("collect", "--spread")]
    home.config.write_text(
        f"{head(url)}[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2]\n"
    )
    of_sandbox = home.run("collect", "--spread")

    assert [each.code for each in (*of_file, of_sandbox)] == [78] * 3
    assert all("PostgreSQL server" in each.err for each in of_file)
    assert "is played by the process that asks it" in of_sandbox.err


def test_a_worker_with_other_rules_leaves_the_work_to_others(
    tmp_path: Path, url: str, store: Store
) -> None:
    """It would ask too fast, or somebody else; a line says what differs."""
    ours = f"{head(url)}[sources.dice]\n{DICE}batches = [2, 3]\nurl = '{{}}'\nrate = '{{}}'\n"
    with machines(tmp_path, ["m1", "m2"], "", is_measured=True) as at, serving() as upstream:
        at["m1"].config.write_text(ours.format(upstream.url, "9/s"))
        at["m2"].config = tmp_path / "other.toml"
        at["m2"].config.write_text(ours.format("http://127.0.0.1:9", "8/s"))
        other = at["m2"].start("worker")
        wait_for_workers(store, 1)
        spread = at["m1"].start("collect", "--spread")
        assert other.process.stderr is not None
        said = other.process.stderr.readline().decode()
        listed = at["m1"].run("report", "workers").out
        [waiting] = json.loads(at["m1"].run("report", "workers", "--json").out)["portions"]
        right = at["m1"].start("worker")
        ended = spread.finish()
        for worker in (other, right):
            worker.send(SIGTERM)
        assert {worker.finish().code for worker in (other, right)} == {0}

    assert "source dice has another url, rate in " in said
    left = f" pid {other.process.pid}: source dice has another url, rate in "
    assert waiting["why"].startswith("a worker with the configuration of the run; ")
    assert left in waiting["why"]
    assert "0 in hand, 1 waiting." in listed
    assert left in " ".join(listed.split())
    assert ended.code == 0
    assert outcomes(store) == [("dice", "collected", 2)]


def test_a_run_that_is_stopped_ends_for_all(tmp_path: Path, url: str, store: Store) -> None:
    """Who ordered it changes his mind: it is interrupted, with the exit code of the signal."""
    with machines(tmp_path, ["m1"], "", is_measured=True) as at, serving() as upstream:
        at["m1"].config.write_text(
            f"{head(url)}[sources.dice]\n{DICE}url = '{upstream.url}'\nbatches = [2, 3]\n"
        )
        spread = at["m1"].start("collect", "--spread")
        wait_for(lambda: count(store, f"SELECT count(*) FROM {PORTIONS.name}") == 1)
        spread.send(SIGTERM)
        ended = spread.finish()

    assert ended.code == 128 + SIGTERM
    assert outcomes(store) == [("dice", "cancelled", 2)]
    assert not upstream.requests
