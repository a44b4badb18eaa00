"""Several machines with one PostgreSQL store: what holds for one holds for all of them together."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from sqlalchemy import func, select, update

from pipeline.store import heartbeats
from pipeline.store.db import Store, open_store
from pipeline.store.tables import HEARTBEATS, LEASES, RUNS, SLOTS
from tests.machines import machines
from tests.playing import codes, playing
from tests.processes import serving, wait_for
from tests.servers import LIKE_NEW, Server

DICE = "[sources.dice]\nkind = 'randomnumberapi'\nmin = 1\nmax = 6\nmerge = false\n"


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


def statuses(store: Store) -> list[str]:
    """Tell how the runs ended, in their order."""
    with store.read() as session:
        return list(session.connection().scalars(select(RUNS.c.status).order_by(RUNS.c.id)))


def run_out(store: Store, pid: int) -> None:
    """Let what a process holds be over, as if so much time had passed."""
    with store.write() as session:
        its = LEASES.c.held_by.contains(f" pid {pid} ")
        over = update(LEASES).where(its).values(until=func.clock_timestamp())
        session.connection().execute(over)


def test_one_request_at_a_time_over_all_machines(tmp_path: Path, url: str, store: Store) -> None:
    """The upstream would ban us: three machines, one of them stopped beyond its lease."""
    config = (
        f"[store]\nurl = '{url}'\n[collect]\ndeadline_seconds = 120\n[sources.org]\n"
        "kind = 'random_org'\nemail = 'me@example.org'\nmerge = false\n"
        "batches = {{count = 8, size = 3}}\nurl = '{}'\n"
    )
    with (
        machines(tmp_path, ["m1", "m2", "m3"], "") as at,
        playing(at["m1"], "--latency", "0.05") as played,
    ):
        at["m1"].config.write_text(config.format(played.url("random_org")))
        stopped, *others = [each.start("collect", "--overlap", "allow") for each in at.values()]
        wait_for(lambda: len(played.log()) >= 4)
        stopped.send(SIGSTOP)

        def others_are_done() -> bool:
            run_out(store, stopped.process.pid)
            return all(each.process.poll() is not None for each in others)

        wait_for(others_are_done)
        stopped.send(SIGCONT)
        ended = [each.finish() for each in (stopped, *others)]
        requests, violations = len(played.log()), played.violations()

    assert codes(ended) == {0}
    assert requests >= 24  # what was under way when its process was stopped may be asked again
    # A process that is stopped between its last look and the request may break the rule, once.
    assert violations["total"] <= 1


def test_a_configuration_has_one_turn_over_all_machines(tmp_path: Path, url: str) -> None:
    """``--overlap skip``, as it is meant; the next one names the machine that has the turn."""
    with serving("hold") as upstream:
        config = f"[store]\nurl = '{url}'\n{DICE}batches = [2]\nurl = '{upstream.url}'\n"
        with machines(tmp_path, ["m1", "m2"], config) as at:
            first = at["m1"].start("collect")
            upstream.wait_until_held()
            second = at["m2"].run("collect")
            upstream.release.set()

            assert first.finish().code == 0
            assert second.code == 75
            assert "another run of this configuration is going on (on " in second.err
            assert at["m2"].run("collect").code == 0


def test_a_machine_that_lives_buries_one_that_died(tmp_path: Path, url: str, store: Store) -> None:
    """Within three signs of life, without any new start; and the dead run's slot has its fate."""
    stale = func.clock_timestamp() - heartbeats.SILENCE
    with serving("hold", "hold") as upstream:
        config = (
            f"[store]\nurl = '{url}'\n[schedule]\nevery = '1h'\n"
            f"{DICE}batches = [2]\nurl = '{upstream.url}'\n"
        )
        with machines(tmp_path, ["m1", "m2"], config) as at:
            killed = at["m1"].start("collect", "--slot", "always")
            upstream.wait_until_held()
            living = at["m2"].start("collect", "--slot", "never", "--overlap", "allow")
            upstream.wait_until_held()
            killed.send(SIGKILL)
            with store.write() as session:
                dead = HEARTBEATS.c.run_id == 1
                gone = {"seen_at": stale, "suspected_at": stale}
                session.connection().execute(update(HEARTBEATS).where(dead).values(gone))
            audited = at["m2"].run("audit", "--format", "json")
            was_buried = statuses(store)[0] == "interrupted"  # before the audit could look
            wait_for(lambda: statuses(store) == ["interrupted", "running"])
            with store.read() as session:
                fates = list(session.connection().scalars(select(SLOTS.c.fate)))
            upstream.release.set()

            assert living.finish().code == 0
    found = [each["reason"] for each in json.loads(audited.out)["findings"]]
    assert was_buried or any("has given no sign of life since" in reason for reason in found)
    assert fates == ["interrupted"]
    assert killed.process.wait() == -signal.SIGKILL
