"""Several machines with one PostgreSQL store, at full size.

    python -m tests.benchmarks.cluster [CASE]…

It starts a server, a sandbox and the machines, as processes, and counts by the sandbox's own log.
The server is the tests' own: near, or held 2.5 ms away each way by a proxy.
"""

import os
import signal
import subprocess
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import func, make_url, select, text

from pipeline.store.db import Store, open_store
from pipeline.store.portions import find_members
from pipeline.store.queries import recent_runs
from pipeline.store.tables import ATTEMPTS, LEASES, RUNS, SLOTS
from tests.distance import far_away
from tests.machines import machines
from tests.playing import Played, playing
from tests.processes import Home, Running, wait_for
from tests.servers import LIKE_NEW, Server, running

say = sys.stdout.write
NAMES = ("m1", "m2", "m3")
LONG = 600.0
STALL_SECONDS = 20.0
CRASH_SECONDS = 8.0
SOURCES = 1000
MARGIN = 1.06  # what we keep below a rate


def table(name: str, kind: str, url: str, count: int, more: str) -> str:
    """Write the table of one source, a request for each batch."""
    email = "email = 'me@example.org'\n" if kind == "random_org" else ""
    return (
        f"[sources.{name}]\nkind = '{kind}'\nurl = '{url}'\nmerge = false\n{email}"
        f"batches = {{count = {count}, size = 3}}\n{more}\n"
    )


def head(url: str) -> str:
    """Write the tables that all configurations have."""
    return f"[store]\nurl = '{url}'\n[collect]\ndeadline_seconds = {LONG:.0f}\n"


def fullest_second(times: Sequence[float]) -> int:
    """Count the requests in the fullest second; *times* ascend."""
    return max(bisect_left(times, time + 1) - nth for nth, time in enumerate(times))


def seconds_of(log: Sequence[dict[str, Any]]) -> list[float]:
    """List when the requests came, in order."""
    return sorted(entry["seconds"] for entry in log)


def start_all(at: dict[str, Home]) -> list[Running]:
    """Start a run on each machine."""
    return [home.start("collect", "--overlap", "allow") for home in at.values()]


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Stop the server and all its processes, as if the machine hung."""
    pids = server.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def permissions_at_a_distance(folder: Path, server: Server) -> None:
    """Print how many requests a second go out by a rule of 400/s, near and 5 ms away."""
    for where, each_way in (("near", 0.0), ("5 ms away", 0.0025)):
        with (
            server.database(like=LIKE_NEW) as near,
            far_away("127.0.0.1", server.port, each_way) as port,
            machines(folder, NAMES[:1], "") as at,
            playing(at["m1"]) as played,
        ):
            url = make_url(near).set(port=port).render_as_string(hide_password=False)
            dice = played.url("randomnumberapi")
            at["m1"].config.write_text(
                head(url)
                + table("dice", "randomnumberapi", dice, 600, "rate = '400/s'\nin_flight = 40")
            )
            [run] = start_all(at)
            code = run.finish(LONG).code
            times = seconds_of(played.log())
        used = (len(times) - 1) / (times[-1] - times[0])
        say(f"store {where}: {len(times)} requests, {used:.0f} of {400 / MARGIN:.0f} a second,")
        say(f" {fullest_second(times)} in the fullest of 400, exit {code}\n")


def stall_of_the_server(folder: Path, server: Server) -> None:
    """Print what a server that hangs for a while costs beyond that while."""
    with (
        server.database(like=LIKE_NEW) as url,
        machines(folder, NAMES, "") as at,
        playing(at["m1"]) as played,
    ):
        dice = played.url("randomnumberapi")
        more = "rate = '10/s'\nin_flight = 20"
        at["m1"].config.write_text(head(url) + table("dice", "randomnumberapi", dice, 60, more))
        runs = start_all(at)
        wait_for(lambda: len(played.log()) >= 20)
        with stopped(server):
            sleep(STALL_SECONDS)
        ended = sorted({run.finish(LONG).code for run in runs})
        times = seconds_of(played.log())
    more_seconds = times[-1] - times[0] - (len(times) - 1) * MARGIN / 10 - STALL_SECONDS
    say(f"server stopped for {STALL_SECONDS:.0f} s, 3 machines at 10/s: {len(times)} requests,")
    say(f" {more_seconds:.1f} s on top of it, {fullest_second(times)} in the fullest second of 10,")
    say(f" exit {ended}\n")


def one_at_a_time(folder: Path, server: Server, *, is_stopped: bool) -> None:
    """Print how a strict upstream with one place fares under three machines."""
    with (
        server.database(like=LIKE_NEW) as url,
        machines(folder, NAMES, "") as at,
        playing(at["m1"], "--latency", "0.05") as played,
    ):
        org = played.url("random_org")
        at["m1"].config.write_text(
            head(url) + table("org", "random_org", org, 20, "rate = '5/s'\nattempt_seconds = 2")
        )
        began = monotonic()
        first, *others = start_all(at)
        wait_for(lambda: len(played.log()) >= 10)
        if is_stopped:
            with open_store(url, busy_seconds=10, for_writing=False) as store:
                wait_for(lambda: is_holding(store, first.process.pid), seconds=LONG)
            first.send(signal.SIGSTOP)
            for run in others:
                run.process.wait(LONG)
            first.send(signal.SIGCONT)
        ended = sorted({run.finish(LONG).code for run in (first, *others)})
        took, requests = monotonic() - began, len(played.log())
        violations = played.violations()
    case = "one stopped beyond its lease of 12 s" if is_stopped else "undisturbed"
    say(f"3 machines, one place at 5/s, {case}: {requests} requests for 60 batches in {took:.0f} s")
    say(f" (ideal {60 * MARGIN / 5:.0f} s), {violations['total']} violations, exit {ended}\n")


def is_holding(store: Any, pid: int) -> bool:  # noqa: ANN401 - a Store
    """Tell whether a process has a place now."""
    with store.read() as session:
        holders = session.connection().scalars(select(LEASES.c.held_by))
        return any(f" pid {pid} " in each for each in holders)


def death_of_a_machine(folder: Path, server: Server) -> None:
    """Print how long a dead run stays in the books while another machine lives."""
    with (
        server.database(like=LIKE_NEW) as url,
        machines(folder, NAMES[:2], "") as at,
        playing(at["m1"]) as played,
        open_store(url, busy_seconds=10, for_writing=False) as store,
    ):
        dice = played.url("randomnumberapi")
        at["m1"].config.write_text(
            f"{head(url)}[schedule]\nevery = '1h'\n"
            + table("dice", "randomnumberapi", dice, 90, "rate = '1/s'")
        )
        killed = at["m1"].start("collect", "--overlap", "allow", "--slot", "always")
        wait_for(lambda: len(played.log()) >= 2)
        living = at["m2"].start("collect", "--overlap", "allow", "--slot", "never")
        wait_for(lambda: len(played.log()) >= 15)
        killed.send(signal.SIGKILL)
        began = monotonic()

        def is_buried() -> bool:
            with store.read() as session:
                status = session.connection().scalar(select(RUNS.c.status).where(RUNS.c.id == 1))
                fate = session.connection().scalar(select(SLOTS.c.fate))
            return (status, fate) == ("interrupted", "interrupted")

        wait_for(is_buried, seconds=LONG)
        took = monotonic() - began
        living.send(signal.SIGTERM)
        living.finish(LONG)
    say(f"a run killed with -9 is ended, with its slot, by another machine after {took:.1f} s\n")


def table_of_four(first: Played, second: Played) -> str:
    """Write four sources of 50 batches at 5/s, each an upstream of its own, one of them strict."""
    localhost = first.url("randomnumberapi").replace("127.0.0.1", "localhost")
    more = "rate = '5/s'\nattempt_seconds = 2\n"
    return "".join(
        (
            table("d1", "randomnumberapi", first.url("randomnumberapi"), 50, more),
            table("d2", "randomnumberapi", localhost, 50, more),
            table("d3", "randomnumberapi", second.url("randomnumberapi"), 50, more),
            table("org", "random_org", first.url("random_org"), 50, more),
        )
    )


def shared_run(folder: Path, server: Server, fault: str) -> None:
    """Print how a run of 200 batches fares that three workers share, one of which has a *fault*."""
    with (
        server.database(like=LIKE_NEW) as url,
        machines(folder, NAMES, "") as at,
        playing(at["m1"]) as first,
        playing(at["m1"]) as second,
    ):
        at["m1"].config.write_text(head(url) + table_of_four(first, second))
        with working(at, url) as workers:
            spread = at["m1"].start("collect", "--spread")
            wait_for(lambda: len(first.log()) >= 55, seconds=LONG)
            if fault == "killed":
                workers[0].send(signal.SIGKILL)
            elif fault == "stopped":
                workers[0].send(signal.SIGSTOP)
                sleep(STALL_SECONDS + 10)
                workers[0].send(signal.SIGCONT)
            elif fault == "without a server":
                with server.crashed():
                    sleep(CRASH_SECONDS)
            code = spread.finish(LONG).code
            living = sum(worker.process.poll() is None for worker in workers)
        times = sorted(seconds_of(first.log()) + seconds_of(second.log()))
        violations = first.violations()["total"] + second.violations()["total"]
        stored, idle = count_stored(url)
        verified = at["m1"].run("audit", "verify").code
    say(f"3 workers, 200 batches, 4 sources at 5/s, one strict, one worker {fault}: exit {code},")
    say(f" {stored} stored, {idle} answers not needed, {len(times)} requests in")
    say(f" {times[-1] - times[0]:.1f} s (ideal {50 * MARGIN / 5:.1f}), {violations} violations,")
    say(f" {living} workers live, audit verify exits {verified}\n")


def seconds_of_asking(url: str) -> float:
    """Tell how long it was from the first request of a run to its last."""
    span = select(func.max(ATTEMPTS.c.began_at) - func.min(ATTEMPTS.c.began_at))
    with open_store(url, busy_seconds=10, for_writing=False) as store, store.read() as session:
        took: timedelta = session.connection().execute(span).scalar_one()
    return took.total_seconds()


def count_workers(store: Store) -> int:
    """Count the workers that are here."""
    with store.read() as session:
        return len(find_members(session))


def count_stored(url: str) -> tuple[int, int]:
    """Count the batches that were collected, and the attempts that no batch needed."""
    with open_store(url, busy_seconds=10, for_writing=False) as store, store.read() as session:
        (run,) = recent_runs(session, limit=1)
        asked = select(ATTEMPTS.c.run_id, ATTEMPTS.c.fetch).where(ATTEMPTS.c.error.is_(None))
        good = session.connection().execute(asked).all()
    return run.collected, len(good) - len(set(good))


SENT = text(
    """
    WITH sent AS (
        SELECT source, began_at + interval '1 microsecond' * (wait_us + coalesce(dns_us, 0)
            + coalesce(connect_us, 0) + coalesce(tls_us, 0)) AS at FROM attempts
    ), gaps AS (SELECT at - lag(at) OVER (PARTITION BY source ORDER BY at) AS gap FROM sent)
    SELECT min(gap) FROM gaps
    """
)


def smallest_gap(url: str) -> float:
    """Tell how long after each other two requests to one source went out at least, by the books.

    That is what the rule is about and what we answer for. How far apart they arrive is another
    thing: an upstream that shares its core with others reads them when it comes to it.
    """
    with open_store(url, busy_seconds=10, for_writing=False) as store, store.read() as session:
        gap: timedelta = session.connection().execute(SENT).scalar_one()
    return gap.total_seconds()


def processor_seconds(pids: Sequence[int]) -> float:
    """Count the seconds of processor that processes have used, and those that they waited for."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError):  # it has ended, and its parent has waited for it
            stat = Path(f"/proc/{pid}/stat").read_text()
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def processors(
    server: Server, workers: Sequence[Running], upstream: int, *, requests: int
) -> Iterator[list[str]]:
    """Tell, once the block has ended, what *requests* in it took of whose processors each."""

    def count() -> dict[str, float]:
        its = [worker.process.pid for worker in workers]
        of = {"workers": its, "server": server.pids, "upstream": [upstream]}
        return {who: 1000 * processor_seconds(pids) / requests for who, pids in of.items()}

    before = count()
    told: list[str] = []
    yield told
    used = {who: now - before[who] for who, now in count().items()}
    each = ", ".join(f"{who} {ms:.2f}" for who, ms in used.items())
    told.append(f"{sum(used.values()):.2f} ms of processor each ({each})")


def many_sources(folder: Path, server: Server) -> None:
    """Print how near to the ideal rate three workers come with 1,000 sources of 1 per 5 s."""
    command = [sys.executable, "-m", "tests.benchmarks.many_upstreams", f"{SOURCES}"]
    with (
        server.database(like=LIKE_NEW) as url,
        machines(folder, NAMES, "") as at,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as upstreams,
    ):
        assert upstreams.stdout is not None
        more = "rate = '1/5s'\nmin = 0\nmax = 65535"
        at["m1"].config.write_text(
            head(url)
            + "".join(
                table(f"s{port}", "randomnumberapi", f"http://127.0.0.1:{port}", 3, more)
                for port in upstreams.stdout.readline().split()
            )
        )
        with (
            working(at, url, "--lanes", f"{SOURCES}") as workers,
            processors(server, workers, upstreams.pid, requests=3 * SOURCES) as used,
        ):
            ended = at["m1"].start("collect", "--spread").finish(LONG)
        requests, seconds, gap = map(float, upstreams.communicate()[0].split())
        stored, idle = count_stored(url)
        sent = smallest_gap(url)
    ideal = 2 * 5 * MARGIN
    say(f"3 workers, {SOURCES} sources of 1 per 5 s: exit {ended.code}, {stored} of {3 * SOURCES}")
    say(f" stored, {idle} answers not needed, {requests:.0f} requests in {seconds:.1f} s")
    say(f" (ideal {ideal:.1f}: {ideal / seconds:.2f} of its rate), {used[0]},\n")
    say(f" smallest gap {sent:.2f} s, at the upstream {gap:.2f}\n")


@contextmanager
def working(at: dict[str, Home], url: str, *options: str) -> Iterator[list[Running]]:
    """Let a worker work on each machine, and see them go in the end."""
    workers = [home.start("worker", *options) for home in at.values()]
    with open_store(url, busy_seconds=10, for_writing=False) as store:
        wait_for(lambda: count_workers(store) == len(workers), seconds=LONG)
    yield workers
    for worker in workers:
        worker.send(signal.SIGTERM)
        worker.finish(LONG)


@contextmanager
def fast_server(latency_seconds: float) -> Iterator["tuple[str, subprocess.Popen[str]]"]:
    """Serve numbers from a process that is never the bottleneck."""
    command = [sys.executable, "-m", "tests.benchmarks.fast_server"]
    command += [f"{LONG:.0f}", f"{latency_seconds}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process
        finally:
            process.terminate()


def speed_of_workers(folder: Path, server: Server, latency_seconds: float) -> None:
    """Print how much sooner three workers have done 10,000 fetches without limits than one.

    Where the upstream answers at once, all of this has two cores between it: no more can come of it
    than one worker leaves idle. An upstream that takes its time is as good as one elsewhere.
    """
    took: dict[int, float] = {}
    used: dict[int, list[str]] = {}
    for n in (1, 3):
        with (
            server.database(like=LIKE_NEW) as url,
            machines(folder, NAMES[:n], "") as at,
            fast_server(latency_seconds) as (upstream, process),
        ):
            more = "in_flight = 20\nrate = 'none'\nmin = 0\nmax = 65535"
            source = table("dice", "anu_legacy", upstream, 10_000, more)
            at["m1"].config.write_text(head(url) + source.replace("size = 3", "size = 16"))
            with (
                working(at, url) as workers,
                processors(server, workers, process.pid, requests=10_000) as used[n],
            ):
                ended = at["m1"].start("collect", "--spread").finish(LONG)
            assert ended.code == 0, ended.err
            took[n] = seconds_of_asking(url)
    say(f"10,000 fetches without limits, answered after {1000 * latency_seconds:.0f} ms:")
    for n, seconds in took.items():
        say(f" {seconds:.1f} s by {n}, {used[n][0]};\n")
    say(f" {took[1] / took[3]:.2f} times as fast\n")


CASES: dict[str, Callable[[Path, Server], None]] = {
    "distance": permissions_at_a_distance,
    "stall": stall_of_the_server,
    "place": partial(one_at_a_time, is_stopped=False),
    "place-stopped": partial(one_at_a_time, is_stopped=True),
    "death": death_of_a_machine,
    "undisturbed": partial(shared_run, fault="undisturbed"),
    "killed": partial(shared_run, fault="killed"),
    "stopped": partial(shared_run, fault="stopped"),
    "crash": partial(shared_run, fault="without a server"),
    "many-sources": many_sources,
    "speed": partial(speed_of_workers, latency_seconds=0.0),
    "speed-far": partial(speed_of_workers, latency_seconds=0.03),
}


def main() -> None:
    """Print the figures of the cases that are named, or of all."""
    with tempfile.TemporaryDirectory() as name, running() as server:
        for case in sys.argv[1:] or CASES:
            say(f"{case} (load {os.getloadavg()[0]:.1f}): ")
            CASES[case](Path(name), server)


if __name__ == "__main__":
    main()
