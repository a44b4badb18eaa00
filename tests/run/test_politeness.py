"""A good guest: what the upstreams' own logs say of real processes that ask them.

The collectors and the sandbox are processes; nothing is imported from the program.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from time import monotonic, sleep
from typing import Any

import pytest

from pipeline.rendering.words import iso_time
from pipeline.store.columns import from_us
from tests.playing import EVERY_KIND, codes, playing, share_a_rate, visit
from tests.processes import PATIENCE_SECONDS, Home, check_invariants, homes, serving, wait_for

ON_THE_WAY = 0.1  # seconds that one request may lose, and the next may not, to a busy machine
LESSON = range(2, 30)
LAST_NOT_BEFORE = (
    "SELECT not_before FROM batches WHERE run_id = (SELECT max(id) FROM runs)"
    " AND verdict = 3 ORDER BY number"
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give one user a home."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


def configure(home: Home, kind: str, url: str, more: str = "batches = [2, 3, 4]") -> None:
    """Configure one source, ``dice``, by the rules of its kind."""
    email = "email = 'me@example.org'\n" if kind == "random_org" else ""
    home.config.write_text(f"[sources.dice]\nkind = '{kind}'\nurl = '{url}'\n{email}{more}\n")


def outcomes(home: Home) -> list[tuple[str, str | None]]:
    """List verdict and error of the newest run's batches."""
    return home.rows(
        "SELECT verdict, error FROM batch_list WHERE run_id = (SELECT max(id) FROM runs)"
        " ORDER BY batch_number"
    )


def json_of(home: Home, *command: str) -> dict[str, Any]:
    """Run a command that answers in JSON."""
    answer: dict[str, Any] = json.loads(home.run(*command, "--format", "json").out)
    return answer


def moment(text: str) -> datetime:
    """Read a time of the sandbox's log."""
    return datetime.fromisoformat(text)


# ---- Rates ----


def test_four_processes_keep_one_rate_and_use_it(tmp_path: Path) -> None:
    """No second sees more than the rule allows, though none of them knows of the others.

    How many come in one second, and how much of the rate is used, depends on who else uses this
    machine too: a request may lose time on its way. So one try of four must show both, and none
    what broken rules would (``tests.benchmarks.politeness`` tells more).
    """
    for nth in range(4):
        with homes(tmp_path, [str(nth)]) as at:
            shared = share_a_rate(at[str(nth)], 30, rate=20)
            check_invariants(at[str(nth)].database)

        assert codes(shared.ended) == {0}
        assert shared.requests == 120
        assert shared.most <= 25
        if shared.most <= 20 and shared.used >= 0.6:
            return
    pytest.fail(f"{shared.most} of 20 in a second, {shared.used:.0%} of the rate used")


def test_who_is_killed_takes_one_interval_along(home: Home) -> None:
    """Four workers, but only one at a time has its moment ahead: the next run waits for that."""
    with playing(home) as played:
        configure(
            home,
            "randomnumberapi",
            played.url("randomnumberapi"),
            "batches = [2, 3, 4, 5, 6, 7]\nmerge = false\nin_flight = 4\nrate = '1/s'",
        )
        killed = home.start("collect")
        wait_for(lambda: len(played.log()) == 2)
        killed.send(SIGKILL)
        killed.finish()
        next_at = from_us(home.rows("SELECT next_at FROM upstreams")[0][0])
        last = moment(played.log()[-1]["utc"])

        following = home.start("collect", "--deadline", "60")
        wait_for(lambda: len(played.log()) == 3)
        following.send(SIGKILL)
        following.finish()
        times = [entry["seconds"] for entry in played.log()]

    assert next_at - last <= timedelta(seconds=2 * 1.06)
    assert all(after - before >= 1 - ON_THE_WAY for before, after in pairwise(times))


def test_many_workers_of_a_fast_rate_take_no_more_along(home: Home) -> None:
    """Of eight one has taken its moment: three times, for this machine may be busy."""
    within = 0
    with playing(home) as played:
        configure(
            home,
            "randomnumberapi",
            played.url("randomnumberapi"),
            "batches = {count = 200, size = 3}\nmerge = false\nin_flight = 8\nrate = '20/s'",
        )
        for nth in range(1, 10):
            killed = home.start("collect")
            wait_for(lambda: len(played.log()) >= 9 * nth)  # noqa: B023 - called at once
            killed.send(SIGKILL)
            killed.finish()
            next_at = from_us(home.rows("SELECT next_at FROM upstreams")[0][0])
            ahead = next_at - moment(played.log()[-1]["utc"])
            within += ahead <= timedelta(seconds=3 * 1.06 / 20)
            if within == 3:
                break

    assert within == 3


def test_a_process_that_was_stopped_goes_on_at_once(home: Home) -> None:
    """A laptop that slept: what it costs is the pause and not twice as much again."""
    with playing(home) as played:
        configure(
            home,
            "randomnumberapi",
            played.url("randomnumberapi"),
            "batches = {count = 8, size = 3}\nmerge = false\nin_flight = 4\nrate = '4/s'",
        )
        stopped = home.start("collect")
        wait_for(lambda: len(played.log()) >= 2)
        stopped.send(SIGSTOP)
        sleep(4)
        stopped.send(SIGCONT)
        woken_at = monotonic()
        assert stopped.finish().code == 0
        seconds = monotonic() - woken_at
        times = [entry["seconds"] for entry in played.log()]

    assert seconds < 6 * 1.06 / 4 + 4
    assert all(
        last - first >= 1 - ON_THE_WAY for first, last in zip(times, times[4:], strict=False)
    )


def test_who_is_killed_gives_the_only_place_back(home: Home) -> None:
    """A lock that outlived its process would keep random.org from ever being asked again."""
    with playing(home) as played:
        configure(home, "random_org", played.url("random_org", "stall"))
        killed = home.start("collect")
        wait_for(lambda: len(played.log()) == 1)
        killed.send(SIGKILL)
        killed.finish()
        configure(home, "random_org", played.url("random_org"))

        assert home.run("collect", "--deadline", "60").code == 0

    check_invariants(home.database)


# ---- Embargoes ----


def test_a_restart_within_an_embargo_sends_nothing(home: Home) -> None:
    """The refusal lies in the store: told by plan and sources, lifted by hand, and then gone."""
    why = "Retry-After: 3600"
    with playing(home) as played:
        configure(home, "randomnumberapi", played.url("randomnumberapi", "rate_limited=3600"))
        assert home.run("collect").code == 4
        assert ("failed", "rate_limited") in outcomes(home)
        asked, refused_at = len(played.log()), moment(played.log()[-1]["utc"])

        restarted = home.run("collect")

        assert (restarted.code, restarted.out, restarted.err) == (0, "", "")
        assert outcomes(home) == [("deferred", None)] * 3
        assert len(played.log()) == asked
        planned = json_of(home, "plan")["fetches"]
        listed = json_of(home, "sources")["sources"]
        lifted = home.run("sources", "release", "dice")
        planned_anew = json_of(home, "plan")["fetches"]
        not_before = {at for (at,) in home.rows(LAST_NOT_BEFORE)}

        assert home.run("collect").code == 4
        assert len(played.log()) > asked

    (until_us,) = not_before
    wait = from_us(until_us) - refused_at
    until = iso_time(from_us(until_us))
    assert timedelta(seconds=3600) <= wait < timedelta(seconds=3601)
    assert {(fetch["planned_at"], fetch["why"], fetch["is_deferred"]) for fetch in planned} == {
        (until, why, True)
    }
    assert (listed[0]["not_before"], listed[0]["why"]) == (until, why)
    assert (lifted.code, lifted.out.splitlines()[-1]) == (0, f"  {why}")
    assert not any(fetch["is_deferred"] for fetch in planned_anew)
    check_invariants(home.database)


def test_anus_refusal_in_plain_words_is_an_embargo_too(home: Home) -> None:
    """It comes with 500 and without Retry-After: the adapter knows what it means."""
    with playing(home) as played:
        configure(home, "anu_legacy", played.url("anu_legacy", "refusal"))
        assert home.run("collect", "--deadline", "9").code == 4

        restarted = home.run("collect", "--deadline", "9")

        assert (restarted.code, restarted.err) == (0, "")
        assert outcomes(home) == [("deferred", None)] * 3
        assert len(played.log()) == 1


def test_an_absurd_wait_is_obeyed_and_shown(home: Home) -> None:
    """A year is not clipped to an hour, and what lasts for decades is told at each run."""
    waits = {"random_org": (31_536_000, 1), "randomnumberapi": (999_999_999, 31)}
    with playing(home) as played:
        home.config.write_text(
            "".join(
                f"[sources.{kind}]\nkind = '{kind}'\nbatches = [2]\n"
                f"url = '{played.url(kind, f'rate_limited={seconds}')}'\n"
                for kind, (seconds, _) in waits.items()
            ).replace("[2]", "[2]\nemail = 'me@example.org'", 1)
        )
        assert home.run("collect").code == 4
        asked = len(played.log())

        restarted = home.run("collect")

        assert restarted.code == 0
        assert restarted.err.count("`pipeline sources release ") == len(waits)
        assert len(played.log()) == asked
    shown = home.run("plan")
    reported = home.run("report", "--run", "last")
    assert (shown.code, shown.err) == (reported.code, reported.err) == (0, "")
    for (seconds, years), (not_before,) in zip(
        waits.values(), home.rows(LAST_NOT_BEFORE), strict=True
    ):
        at = from_us(not_before)
        assert at > datetime.now(UTC) + timedelta(days=years * 365 - 1)
        assert f"deferred: {at:%Y-%m-%d}" in shown.out
        assert f"Retry-After: {seconds}\n" in shown.out
    check_invariants(home.database)


# ---- All upstreams, all rules ----


def test_many_runs_at_random_moments_break_no_rule(home: Home) -> None:
    """Four at a time, each kind by its own rules: the strict sandbox finds nothing to say.

    Among them is random.org with a request for each batch, which bans who has two in flight.
    ``python -m tests.benchmarks.politeness`` does the same with a hundred runs.
    """
    with playing(home, "--latency", "0.02") as played:
        home.config.write_text(EVERY_KIND.format(url=played.root))

        ended = visit(home, 24)

        violations = played.violations()
        asked = {entry["kind"] for entry in played.log()}
        of_anu = len(played.log("anu_legacy"))

    assert codes(ended) == {0}
    assert violations == {"total": 0, "by_kind": {}}
    assert len(asked) == 5
    assert of_anu >= 1
    assert home.rows("SELECT DISTINCT verdict FROM batch_list WHERE source <> 'anu'") == [
        ("collected",)
    ]
    check_invariants(home.database)


def test_the_lessons_28_batches_are_one_request(home: Home) -> None:
    """434 numbers in one answer; each batch has a slice of its own, and they tile it."""
    with playing(home) as played:
        configure(home, "anu_legacy", played.url("anu_legacy"), "batches = '2..29'")

        assert home.run("collect").code == 0

        assert len(played.log()) == 1
        assert played.violations()["total"] == 0
    rows = home.rows("SELECT fetch, attempt, offset, n FROM batches ORDER BY number")
    assert [(fetch, attempt) for fetch, attempt, _, _ in rows] == [(0, 1)] * 28
    assert [n for *_, n in rows] == list(LESSON)
    assert [offset for _, _, offset, _ in rows] == [0, *accumulate(LESSON)][:-1]
    assert home.rows("SELECT fetch, number FROM attempts") == [(0, 1)]
    check_invariants(home.database)


# ---- An upstream that is down ----


@pytest.fixture
def dead_port() -> int:
    """Give a port where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_dead_source_is_left_alone_until_a_probe_finds_it_well(
    home: Home, dead_port: int
) -> None:
    """Fifty batches cost five requests, then one a run; and nothing has to be reset by hand."""
    configure(
        home,
        "randomnumberapi",
        f"http://127.0.0.1:{dead_port}/randomnumberapi",
        "batches = {count = 50, size = 3}\nmerge = false\nin_flight = 1\nbackoff_seconds = 0.0",
    )
    attempts = "SELECT count(*) FROM attempts WHERE run_id = {}"

    assert home.run("collect").code == 4
    assert home.rows(attempts.format(1)) == [(5,)]
    assert set(outcomes(home)) == {("failed", "connect_refused")}
    assert home.rows("SELECT count(*) FROM batches WHERE detail LIKE 'not asked: 5 %'") == [(48,)]

    assert home.run("collect").code == 4
    assert home.rows(attempts.format(2)) == [(1,)]
    assert set(outcomes(home)) == {("failed", "connect_refused")}

    with playing(home, "--port", str(dead_port)) as played:
        assert home.run("collect").code == 0
        assert len(played.log()) == 50
    assert outcomes(home) == [("collected", None)] * 50
    check_invariants(home.database)


def test_a_source_that_hangs_is_left_alone_too(home: Home) -> None:
    """It is our own limit that ends the attempts, but fifty of them would outlast any deadline."""
    with playing(home) as played:
        configure(
            home,
            "randomnumberapi",
            played.url("randomnumberapi", "stall"),
            "batches = {count = 50, size = 3}\nmerge = false\nin_flight = 1\n"
            "attempt_seconds = 0.1\nbreaker = 3",
        )
        assert home.run("collect").code == 4
        assert len(played.log()) == 3


def test_retries_end_with_their_budget(home: Home) -> None:
    """A source that fails all the time may not multiply its requests by the number of retries."""
    with playing(home) as played:
        configure(
            home,
            "randomnumberapi",
            played.url("randomnumberapi", "status=500"),
            "batches = {count = 10, size = 3}\nmerge = false\nretries = 5\nbackoff_seconds = 0.0\n"
            "breaker = 0\nretry_budget = 3",
        )
        assert home.run("collect").code == 4
        assert len(played.log()) == 10 + 3


# ---- Time ----

HUNG = """
import socket, sys, time
from pipeline.cli.app import main

socket.getaddrinfo = lambda *_, **__: time.sleep(300)
sys.argv = ["pipeline", "collect", "--deadline", "3"]
main()
"""


def test_a_hung_resolver_does_not_hold_the_process(home: Home) -> None:
    """The thread that resolves cannot be cancelled; the deadline is the process's all the same."""
    configure(home, "randomnumberapi", "http://upstream.test", "batches = [2]\nin_flight = 1")
    environment = home.environment | {"PIPELINE_CONFIG": str(home.config)}
    began = monotonic()

    ended = subprocess.run(
        [sys.executable, "-c", HUNG], env=environment, cwd=home.folder, check=False
    )

    assert monotonic() - began < PATIENCE_SECONDS
    assert ended.returncode == 4
    assert outcomes(home) == [("failed", "deadline")]
    assert home.rows("SELECT phase FROM attempts") == [("dns",)]
    check_invariants(home.database)


# ---- Overlap ----


def test_who_waits_runs_when_the_other_has_ended(home: Home) -> None:
    """`--overlap wait`: nothing is asked twice at once, and nothing is left out."""
    with serving("hold") as upstream:
        home.ask(upstream.url, batches="[2]")
        first = home.start("collect")
        upstream.wait_until_held()
        second = home.start("collect", "--overlap", "wait")
        turn = next(home.database.parent.glob("*.turn-*"))
        wait_for(lambda: is_open(second.process.pid, turn))
        assert len(upstream.requests) == 1
        upstream.release.set()

        assert codes([first.finish(), second.finish()]) == {0}

    (_, ended), (began, _) = home.rows("SELECT started_at, ended_at FROM runs ORDER BY id")
    assert began >= ended
    check_invariants(home.database)


def is_open(pid: int, path: Path) -> bool:
    """Tell whether a process has a file open."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(link.readlink() == path for link in folder.iterdir())
    except FileNotFoundError:  # a descriptor, or the process, that has just gone
        return False


def test_who_waits_in_vain_is_skipped(home: Home) -> None:
    """Its patience is as long as its deadline."""
    with serving("hold") as upstream:
        home.ask(upstream.url, batches="[2]")
        first = home.start("collect")
        upstream.wait_until_held()

        second = home.run("collect", "--overlap", "wait", "--deadline", "0.2")

        assert second.code == 75
        assert home.rows("SELECT status FROM runs ORDER BY id") == [("running",), ("skipped",)]
        upstream.release.set()
        assert first.finish().code == 0


def _another_configuration(home: Home) -> list[str]:
    other = home.folder / "other.toml"
    other.write_text(home.config.read_text())
    return ["--config", str(other)]


@pytest.mark.parametrize(
    "options", [lambda _: ["--overlap", "allow"], _another_configuration], ids=["allow", "other"]
)
def test_runs_that_may_overlap_do(home: Home, options: Callable[[Home], list[str]]) -> None:
    """Told so, or with another configuration on one store; and no report is kept waiting."""
    with serving("hold", "hold") as upstream:
        configure(home, "randomnumberapi", upstream.url, "batches = [2]\nin_flight = 2")
        first = home.start("collect")
        upstream.wait_until_held()
        second = home.start("collect", *options(home))
        upstream.wait_until_held()

        report = home.run("report")

        assert (report.code, report.err) == (0, "")
        assert home.rows("SELECT status FROM runs") == [("running",)] * 2
        upstream.release.set()
        assert codes([first.finish(), second.finish()]) == {0}

    assert home.rows("SELECT status, collected FROM runs") == [("ok", 1)] * 2
    check_invariants(home.database)
