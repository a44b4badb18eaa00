"""``pipeline schedule``, and ``collect`` in its slots: what is said, and with which code."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import sleep

import pytest

from pipeline.lock import lock_path, run_lock
from pipeline.schedule.install import local_zone
from tests.cli.conftest import Invoke
from tests.processes import ROOT, Home, check_invariants, homes, serving, wait_for
from tests.schedule.scheduling import COIN, DICE

QUOTA = (
    "[sources.dice]\nkind = 'randomnumberapi'\nurl = 'http://127.0.0.1:1'\nbatches = [2]\n"
    "min = 1\nmax = 6\nquotas = ['100 requests/day']\n"
)


def hourly(minutes_ago: int = 20) -> str:
    """Be due every hour, last so many minutes ago: far from now, so that no test meets a slot."""
    return f"{(datetime.now(UTC) - timedelta(minutes=minutes_ago)).minute} * * * *"


def configure(folder: Path, schedule: str, *sources: str) -> Path:
    """Write a configuration with the lines of ``[schedule]``."""
    file = folder / "config.toml"
    file.write_text(f"[schedule]\n{schedule}\n{''.join(sources) or DICE}")
    return file


def slots(database: Path) -> list[tuple[object, ...]]:
    """List all slots on record past the program: schedule, fate and run."""
    query = "SELECT schedule, fate, run_id FROM slots ORDER BY due_at, schedule"
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


# ---- collect ----


def test_each_slot_is_collected_once(home: Path, invoke: Invoke, database: Path) -> None:
    """However often something starts it; a start without work leaves with 0 and no word."""
    configure(home, f"cron = '{hourly()}'")

    done = [invoke("collect") for _ in range(2)]

    assert [(each.exit_code, each.stdout, each.stderr) for each in done] == [(0, "", "")] * 2
    assert slots(database) == [("default", "late", 1)]


def test_a_program_gets_an_answer_when_nothing_is_due(home: Path, invoke: Invoke) -> None:
    """JSON is JSON, also of no run."""
    configure(home, f"cron = '{hourly()}'")
    invoke("collect")

    told = json.loads(invoke("collect", "--format", "json").stdout)

    assert (told["schema"], told["run"]) == ("pipeline.run/1", None)
    assert told["batches"] == told["attempts"] == told["tallies"] == []


def test_outside_of_the_schedule_every_start_is_a_run(
    home: Path, invoke: Invoke, database: Path
) -> None:
    """On request, and where only some sources are asked for."""
    configure(home, f"cron = '{hourly()}'")

    done = [invoke("collect", *options) for options in (["--slot", "never"], ["-s", "dice"])]

    assert [each.exit_code for each in done] == [0, 0]
    assert slots(database) == []


@pytest.mark.parametrize(
    ("schedule", "options", "complaint"),
    [
        ("", "--slot=always", (78, "there is no schedule; give cron or every in a [schedule]")),
        ("every = '1h'", "--slot=always -s dice", (2, "leave out --source")),
        ("every = '1h'", "--slot=often", (2, "often")),
    ],
)
def test_a_slot_that_cannot_be_had_is_a_complaint(
    home: Path, invoke: Invoke, schedule: str, options: str, complaint: tuple[int, str]
) -> None:
    """Before anything is asked of anybody."""
    configure(home, schedule)

    refused = invoke("collect", *options.split())

    assert refused.exit_code == complaint[0]
    assert complaint[1] in refused.stderr


def test_a_schedule_that_can_never_be_met_is_refused(
    home: Path, invoke: Invoke, database: Path
) -> None:
    """By all that would follow it; a run outside of it may still be had."""
    configure(home, "every = '5m'", QUOTA)
    commands = (["collect"], ["plan"], ["schedule", "systemd"], ["schedule", "cron"])

    refused = [invoke(*command) for command in commands]

    assert [each.exit_code for each in refused] == [78] * 4
    for each in refused:
        assert "cost 288 requests per day, the quota is 100" in each.stderr
    assert not database.exists()


def test_the_slots_of_a_schedule_that_cannot_be_met_can_be_seen(home: Path, invoke: Invoke) -> None:
    """What became of those that have passed is the first question then."""
    configure(home, "every = '5m'")
    invoke("collect", "--slot", "always")
    configure(home, "every = '5m'", QUOTA)

    shown = invoke("schedule", "show", "-n", "1")

    assert shown.exit_code == 0
    assert "\nlast" in shown.stdout
    assert "cost 288 requests per day, the quota is 100" in shown.stderr


def test_plan_goes_by_the_schedule(home: Path, invoke: Invoke) -> None:
    """Unless it is asked about another distance."""
    configure(home, "every = '1h'", QUOTA)

    assert 'A day of runs at "0 */1 * * *" fits the rules.' in invoke("plan").stdout
    assert invoke("plan", "--every", "5m").exit_code == 78


# ---- schedule show ----


def test_the_next_slots_in_both_zones(home: Path, invoke: Invoke) -> None:
    """A person thinks in local time, the books are in UTC."""
    configure(home, "cron = '30 14 * * *'\ntimezone = 'Asia/Kolkata'")

    shown = invoke("schedule", "show", "-n", "2").stdout

    assert 'default: "30 14 * * *", Asia/Kolkata;' in shown
    assert shown.count("09:00:00Z") == shown.count("14:30:00 IST") == 2
    assert "fate" not in shown


def test_the_last_slots_and_their_fates(home: Path, invoke: Invoke) -> None:
    """With the run, and how late it was."""
    own = f"schedule = {{ cron = '{hourly(10)}' }}\n"
    configure(home, f"cron = '{hourly(20)}'", DICE, COIN + own)
    invoke("collect")

    text = invoke("schedule", "show").stdout
    told = json.loads(invoke("schedule", "show", "--format", "json").stdout)

    assert "collects dice." in text
    assert "collects coin." in text
    assert told["schema"] == "pipeline.schedule/1"
    common, of_coin = told["schedules"]
    assert common.keys() == {"schedule", "expression", "timezone", "sources", "next", "last"}
    assert (common["schedule"], of_coin["schedule"]) == ("default", "default/coin")
    assert len(common["next"]) == 5
    (last,) = of_coin["last"]
    assert (last["fate"], last["run_id"]) == ("late", 1)
    assert 600_000_000 <= last["late_us"] < 720_000_000


@pytest.mark.parametrize("command", ["show", "run", "cron", "systemd"])
def test_without_a_schedule_there_is_nothing_to_show(
    home: Path, invoke: Invoke, command: str
) -> None:
    """The line says what to write, and where."""
    configure(home, "")

    refused = invoke("schedule", command)

    assert refused.exit_code == 78
    assert "give cron or every in a [schedule] table" in refused.stderr


# ---- schedule cron and systemd ----


def test_the_crontab_line_of_this_machine(home: Path, invoke: Invoke) -> None:
    """Nothing in it is relative, and what the shell says of folders is in it."""
    key = "api_key_env = 'ANU_KEY'\nkind = 'anu_aqn'\nurl = 'http://127.0.0.1:1'\nbatches = [2]\n"
    configure(home, "every = '8h'\ntimezone = 'UTC'", f"[sources.aqn]\n{key}")

    lines = invoke("schedule", "cron").stdout.splitlines()

    assert lines[0] == "# cron does not know ANU_KEY: set it above, or use api_key_file"
    program = Path(sys.executable).with_name("pipeline")
    folders = f"XDG_DATA_HOME={home}/data XDG_STATE_HOME={home}/state"
    assert lines[2] == (
        f"0 */8 * * * /usr/bin/env {folders} {program} collect --config {home}/config.toml"
        " --slot always"
    )
    assert program.exists()


@pytest.mark.parametrize(
    ("name", "options", "files"),
    [
        ("default", [], ["pipeline.service", "pipeline.timer"]),
        ("lab", ["--service"], ["pipeline-lab.service"]),
        ("default", ["--worker"], ["pipeline-worker.service"]),
    ],
)
def test_unit_files_are_printed_or_written(
    home: Path, invoke: Invoke, name: str, options: list[str], files: list[str]
) -> None:
    """And what is there is not overwritten by accident."""
    configure(home, f"every = '5m'\nname = '{name}'")
    folder = home / "units"
    folder.mkdir()

    printed = invoke("schedule", "systemd", *options)
    written = invoke("schedule", "systemd", *options, "-o", str(folder))
    again = invoke("schedule", "systemd", *options, "-o", str(folder))
    forced = invoke("schedule", "systemd", *options, "-o", str(folder), "--force")

    assert [each.exit_code for each in (printed, written, again, forced)] == [0, 0, 2, 0]
    assert sorted(file.name for file in folder.iterdir()) == files
    for file in files:
        assert f"# {file}\n{(folder / file).read_text()}" in printed.stdout
    assert f"--config {home}/config.toml" in (folder / files[0]).read_text()


def test_a_service_says_which_keys_it_needs(
    home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys themselves are in no file of ours, nor is the address that is pinged."""
    monkeypatch.setenv("ANU_KEY", "secret-canary")
    monkeypatch.setenv("PING", "https://127.0.0.1/secret-canary")
    monkeypatch.setenv("PIPELINE_SANDBOX_RULES", "true")
    key = "api_key_env = 'ANU_KEY'\nkind = 'anu_aqn'\nurl = 'http://127.0.0.1:1'\nbatches = [2]\n"
    ping = "[notify]\nping_url_env = 'PING'\n"
    configure(home, "every = '8h'", f"{ping}[sources.aqn]\n{key}")

    shown = invoke("schedule", "systemd")

    cron = invoke("schedule", "cron")

    assert "the service needs ANU_KEY, PING: add" in shown.stderr
    for each in (shown, cron):
        assert "PIPELINE_SANDBOX_RULES won over the file here, but will not there" in each.stderr
    assert "secret-canary" not in shown.output


@pytest.mark.parametrize(
    ("lay", "zone"),
    [
        (
            lambda etc: (etc / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Tokyo"),
            "Asia/Tokyo",
        ),
        (lambda etc: (etc / "timezone").write_text("Europe/Berlin\n"), "Europe/Berlin"),
        (lambda etc: (etc / "timezone").write_text("\n"), "UTC"),
        (lambda _: None, "UTC"),
    ],
)
def test_the_zone_of_a_machine(tmp_path: Path, lay: Callable[[Path], object], zone: str) -> None:
    """By which its cron goes."""
    lay(tmp_path)

    assert local_zone(tmp_path) == zone


# ---- Real processes ----


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Home]:
    """Give one user a home."""
    with homes(tmp_path, ["home"], is_measured=True) as made:
        yield made["home"]


def test_a_real_crontab_line_in_the_environment_of_cron(user: Home) -> None:
    """Hardly a variable, no terminal, sh and not bash: as cron runs it."""
    configure(user.folder, f"cron = '{hourly()}'")
    printed = user.run("schedule", "cron").out.splitlines()[-1]
    command = printed.split(maxsplit=5)[5]
    bare = {"HOME": str(user.folder), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "x"}

    done = [
        subprocess.run(
            ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in bare.items()), "/bin/sh"],
            input=f"umask 022; {command} </dev/null\n".encode(),
            cwd="/",
            capture_output=True,
            check=False,
        )
        for _ in range(2)
    ]

    assert [(each.returncode, each.stdout, each.stderr) for each in done] == [(0, b"", b"")] * 2
    assert slots(user.database) == [("default", "late", 1)]
    assert not (user.folder / ".local").exists()
    check_invariants(user.database)


def test_a_kill_between_claiming_and_running_is_accounted_for(user: Home) -> None:
    """Nobody else may run the slot, and nobody has: it was interrupted."""
    configure(user.folder, f"cron = '{hourly()}'")
    key = sha256(str(user.config).encode()).hexdigest()[:8]
    user.run("schedule", "show")
    user.database.parent.mkdir(parents=True)
    path = lock_path(f"sqlite:///{user.database}", f"turn-{key}", state_folder=user.folder)

    with run_lock(path):
        claimed = user.start("collect", "--slot", "always", "--overlap", "wait")
        wait_for(lambda: user.database.exists() and bool(_slots_if_any(user.database)))
        open_slots = slots(user.database)
        claimed.send(signal.SIGKILL)
        killed = claimed.finish()
    after = user.run("collect", "--slot", "always")

    assert (killed.code, after.code, after.err) == (137, 0, "")
    assert open_slots == [("default", None, None)]
    assert slots(user.database) == [("default", "interrupted", None)]


def _slots_if_any(database: Path) -> list[tuple[object, ...]]:
    try:
        return slots(database)
    except sqlite3.Error:  # the tables are being made
        return []


def test_a_person_at_a_terminal_gets_a_run_at_once(user: Home) -> None:
    """Also when nothing is due; cron has no terminal, and gets none."""
    configure(user.folder, f"cron = '{hourly()}'")
    user.run("collect")
    master, terminal = os.openpty()
    try:
        by_hand = user.start("collect", "--quiet", stderr=terminal).finish()
        told = user.start("collect", "--slot", "always", stderr=terminal).finish()
        said = os.read(master, 10_000).decode()
    finally:
        os.close(master)
        os.close(terminal)

    assert (by_hand.code, told.code) == (0, 0)
    assert "nothing to do: each slot that is due has its run" in said
    assert user.rows("SELECT count(*) FROM runs") == [(2,)]


def test_the_scheduler_starts_runs_reloads_and_drains(user: Home) -> None:
    """The real one, with a slot in the past to catch up on."""
    configure(user.folder, f"cron = '{hourly()}'\nmissed = 'once'")
    running = user.start("schedule", "run")
    wait_for(lambda: user.database.exists() and bool(_slots_if_any(user.database)))

    user.config.write_text("[schedule]\ncron = 'nonsense'\n")
    running.send(signal.SIGHUP)
    assert running.process.stderr
    said = [running.process.stderr.readline().decode() for _ in range(2)]
    while "so the old one stays" not in said[-1]:
        said.append(running.process.stderr.readline().decode())
    running.send(signal.SIGTERM)
    ended = running.finish()

    assert (ended.code, ended.out) == (0, "")
    assert said[0].startswith("pipeline: the next slot is due at")
    assert any("schedule.cron: must be minute" in line for line in said)
    assert slots(user.database) == [("default", "late", 1)]
    check_invariants(user.database)


def test_a_run_that_goes_on_is_told_to_end_by_the_second_signal(user: Home) -> None:
    """Somebody is in a hurry: the scheduler leaves at once, the run with what it has."""
    with serving("hold") as upstream:
        user.ask(upstream.url)
        table = f"[schedule]\ncron = '{hourly()}'\nmissed = 'once'\n"
        user.config.write_text(user.config.read_text() + table)
        running = user.start("schedule", "run", "--drain", "60")
        upstream.wait_until_held()
        running.send(signal.SIGTERM)
        sleep(0.2)
        is_waiting = running.process.poll() is None
        running.send(signal.SIGTERM)
        ended = running.finish()
        wait_for(lambda: slots(user.database) != [("default", None, 1)])

    assert is_waiting
    assert ended.code == 143
    assert slots(user.database) == [("default", "interrupted", 1)]
    check_invariants(user.database)


def test_the_commands_of_a_service_are_there(user: Home) -> None:
    """A unit file is worth nothing if what it starts does not start."""
    configure(user.folder, f"cron = '{hourly()}'")
    text = user.run("schedule", "systemd").out

    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    done = subprocess.run(
        line.removeprefix("ExecStart=").split(),
        env=user.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert slots(user.database) == [("default", "late", 1)]
