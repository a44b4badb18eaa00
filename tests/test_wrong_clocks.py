"""Runs with a clock that is wrong, as processes: what they leave behind must not outlive them."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.processes import Finished, Home, Upstream, homes, serving

pytestmark = pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")

BATTERY = "@1970-01-02 00:00:30"  # a board without one, before it has reached a time server
AHEAD = ("+2h", "+3d", "+366d")
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Have a home folder."""
    with homes(tmp_path, ["me"]) as made:
        yield made["me"]


@pytest.fixture(scope="module")
def library() -> str:
    """Name the library that fakes the time."""
    asking = ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(asking, capture_output=True, text=True, check=True).stdout.strip()


class Machine:
    """One machine whose clock shows what it is told to."""

    def __init__(self, home: Home, library: str) -> None:
        self.home = home
        self._faked = {"LD_PRELOAD": library, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def run(self, *arguments: str, clock: str | None = None) -> Finished:
        """Run the command to its end by such a clock, or the right one."""
        env = self._faked | {"FAKETIME": clock, "TZ": "UTC"} if clock else {}
        return self.home.run(*arguments, env=env)

    def collect(self, clock: str | None = None) -> Finished:
        """Start a run as cron does."""
        return self.run("collect", clock=clock)


@pytest.fixture
def machine(home: Home, library: str) -> Machine:
    """Have such a machine."""
    return Machine(home, library)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Serve one that answers well."""
    with serving() as upstream:
        yield upstream


def ask(home: Home, upstream: Upstream, rules: str) -> None:
    """Ask *upstream* for one batch a run, by its *rules*."""
    home.ask(upstream.url, batches="[2]")
    with home.config.open("a") as config:
        config.write(f"{rules}\n")


@pytest.mark.parametrize(("every", "missed"), [("1h", "skip"), ("5m", "once"), ("10s", "all")])
def test_a_start_at_1970_costs_no_row_for_every_slot_since(
    machine: Machine, every: str, missed: str
) -> None:
    """It was 461 MB and no run, again at each start."""
    machine.home.config.write_text(
        f"[schedule]\nevery = '{every}'\nmissed = '{missed}'\n"
        "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nmin = 1\nmax = 6\nbatches = [2]\n"
    )
    machine.run("collect", "--slot", "always", clock=BATTERY)

    found = machine.run("collect", "--slot", "always")

    (gap,) = machine.home.rows("SELECT slots FROM slots WHERE slots IS NOT NULL")
    years = (datetime.now().year - 1970) * timedelta(days=365)  # noqa: DTZ005 - roughly
    seconds = {"1h": 3600, "5m": 300, "10s": 10}[every]
    assert gap[0] == pytest.approx(years.total_seconds() / seconds, rel=0.03)
    assert machine.home.rows("SELECT count(*) FROM slots") <= [(5,)]
    assert machine.home.rows("SELECT count(*) FROM runs") <= [(3,)]
    assert found.code == 0
    assert found.err.count("its clock was behind") == 1
    assert machine.home.database.stat().st_size < 1_000_000
    assert machine.run("collect", "--slot", "always").err == ""
    for told in (("schedule", "show"), ("report", "slots", "--since", "1970-01-01"), ("audit",)):
        assert f"{gap[0]:,}" in machine.run(*told).out


@pytest.mark.parametrize("clock", AHEAD)
def test_a_rate_does_not_reach_into_the_future(
    machine: Machine, upstream: Upstream, clock: str
) -> None:
    """One run with a clock that was ahead shut the source until then, and all was "ok"."""
    ask(machine.home, upstream, "rate = '1/2s'")
    machine.collect(clock)

    second, third = machine.collect(), machine.collect()

    assert len(upstream.requests) == 3
    assert (second.code, third.code, third.err) == (0, 0, "")
    first_line, other_line = second.err.splitlines()
    assert "a clock was" in first_line
    assert "had laid its rate" in other_line


@pytest.mark.parametrize("clock", AHEAD)
def test_an_embargo_holds_as_long_as_it_was_to_and_no_longer(
    machine: Machine, home: Home, clock: str
) -> None:
    """Ten minutes from the run that finds it: nobody knows how long ago it was laid."""
    with serving(REFUSED) as upstream:
        ask(home, upstream, "")
        machine.collect(clock)
        found = machine.collect()
        later = machine.run("collect", "-f", "json", clock="+11m")

    assert "had laid its embargo" in found.err
    assert len(upstream.requests) == 2
    assert later.code == 0


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_quota_of_a_period_that_has_not_begun_is_of_this_one(
    machine: Machine, upstream: Upstream, period: str
) -> None:
    """What was asked was asked now, whatever the clock showed, so it is counted here."""
    ask(machine.home, upstream, f"quotas = ['2 requests/{period}']")
    machine.collect("+366d")

    second, third = machine.collect(), machine.collect()

    assert "had laid its quota of requests" in second.err
    assert len(upstream.requests) == 2
    assert "deferred" in machine.run("report", "--run", str(3)).out
    assert third.code == 0


def test_a_clock_that_is_behind_takes_nothing_back(machine: Machine, home: Home) -> None:
    """At 1970 every embargo lies in the future: to lift it would get us banned."""
    with serving(REFUSED) as upstream:
        ask(home, upstream, "")
        machine.collect()
        before = home.rows("SELECT * FROM embargoes")
        found = machine.collect(BATTERY)
        after = home.rows("SELECT * FROM embargoes")

    assert "it seems to be behind" in found.err
    assert before == after
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("clock", ["+366d", BATTERY])
def test_audit_names_the_run_and_nothing_else_is_judged_by_it(
    machine: Machine, upstream: Upstream, clock: str
) -> None:
    """Which run, and how far; the history around it is as if it had not been."""
    ask(machine.home, upstream, "")
    for each in (None, clock, None):
        machine.collect(each)

    found = machine.run("audit", "--strict")

    assert found.code == 3
    assert "run 2 had a clock that was" in found.out
    assert found.out.count("warning:") == 1
    assert machine.run("audit", "verify").code == 0


@pytest.mark.parametrize("clock", ["+30d", "+366d", "-3h", BATTERY])
def test_nothing_is_pruned_by_a_clock_that_is_wrong(
    machine: Machine, upstream: Upstream, clock: str
) -> None:
    """Ahead, most of the store looks old; and what lies in the future vouches for nothing."""
    ask(machine.home, upstream, "")
    machine.collect("-20d")
    machine.collect()

    machine.run("db", "prune", "--keep", "2h", clock=clock)

    assert machine.home.rows("SELECT count(*) FROM batches WHERE run_id = 2") == [(1,)]


def test_a_run_that_only_looks_old_is_not_pruned(machine: Machine, upstream: Upstream) -> None:
    """It was today; its clock was at 1970."""
    ask(machine.home, upstream, "")
    for clock in ("-100d", "-80d", BATTERY, None):
        machine.collect(clock)

    done = machine.run("db", "prune", "--keep", "90d")

    assert done.code == 0
    assert machine.home.rows("SELECT run_id FROM batches ORDER BY 1") == [(2,), (3,), (4,)]


def test_slots_that_a_clock_ahead_has_taken_are_run_when_they_come(machine: Machine) -> None:
    """A run whose time had not come has not had the slot."""
    machine.home.config.write_text(
        "[schedule]\nevery = '1h'\n[sources.dice]\nkind = 'sandbox.anu_legacy'\nbatches = [2]\n"
    )
    start = ("collect", "--slot", "always")
    for clock in ("-1h", "+2h", None, "+2h"):  # 2: with 1, the last minutes of an hour fail
        machine.run(*start, clock=clock)

    assert machine.home.rows("SELECT count(*) FROM runs WHERE status = 'ok'") == [(4,)]
