"""What holds for all commands: --config anywhere, --json, completion, and lines on stderr."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from tests.cli.conftest import Invoke
from tests.processes import COMMAND, Home, homes
from tests.store.makers import make_batch, record_run

TABLE = "[sources.{}]\nkind = 'sandbox.randomnumberapi'\nbatches = [2]\nmin = 1\nmax = 6\n"
DICE = TABLE.format("dice")
OTHER = f"[store]\nurl = 'other.db'\n{TABLE.format('dual')}"


@pytest.fixture
def other(home: Path) -> str:
    """Have two configurations, of which one is found by itself."""
    (home / "config.toml").write_text(DICE)
    (home / "other.toml").write_text(OTHER)
    return str(home / "other.toml")


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "{}", "sources"),
        ("sources", "-c", "{}"),
        ("--config", "{}", "plan"),
        ("-c", "{}", "status"),
        ("-c", "{}", "audit", "replay"),
        ("audit", "-c", "{}", "replay"),
        ("audit", "replay", "-c", "{}"),
        ("-c", "nowhere.toml", "audit", "replay", "-c", "{}"),
        ("-c", "nowhere.toml", "audit", "-c", "{}", "replay"),
    ],
    ids=" ".join,
)
def test_the_configuration_may_stand_anywhere(
    other: str, invoke: Invoke, command: tuple[str, ...]
) -> None:
    """Before the command, between, or after it; the last one counts. The other has no store."""
    invoke("-c", other, "collect")

    shown = invoke(*(word.format(other) for word in command))

    assert shown.exit_code == 0, shown.stderr
    assert ("dual" in shown.stdout) is ("replay" not in command)


def test_the_store_is_that_of_the_configuration_before(other: str, invoke: Invoke) -> None:
    """Not only read, but gone by."""
    invoke("-c", other, "collect")

    assert (Path(other).parent / "other.db").exists()
    assert invoke("-c", other, "report", "runs", "-f", "csv").stdout.count("\n") == 2
    assert invoke("report").exit_code == 74


@pytest.mark.parametrize("command", ["sources", "plan", "status", "doctor", "report runs", "audit"])
def test_json_is_short_for_its_format(invoke: Invoke, other: str, command: str) -> None:
    """As other programs have it."""
    del other
    invoke("collect")

    long, short = invoke(*command.split(), "--format", "json"), invoke(*command.split(), "--json")

    assert json.loads(short.stdout).keys() == json.loads(long.stdout).keys()
    assert short.exit_code == long.exit_code


def test_after_two_dashes_it_is_an_argument(invoke: Invoke) -> None:
    """As everywhere."""
    assert "'--json'" in invoke("report", "--", "--json").stderr


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Home]:
    """Have a home folder for real processes."""
    with homes(tmp_path, ["me"]) as made:
        yield made["me"]


def complete(home: Home, line: str) -> list[str]:
    """Let the program complete the last word of a line, as a shell asks it to."""
    words = line.split(" ")
    asked = {"_PIPELINE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    env = home.environment | asked | {"COMP_CWORD": str(len(words) - 1)}
    config = {"PIPELINE_CONFIG": str(home.config)}
    program = [COMMAND[0], "-c", "import sys; sys.argv[0] = 'pipeline'; import pipeline.__main__"]
    done = subprocess.run(
        program, env=env | config, cwd=home.folder, capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def test_a_shell_completes_sources_runs_and_reports(processes: Home) -> None:
    """What is configured, what is in the store, what can be asked."""
    processes.config.write_text(DICE + DICE.replace("dice", "coin"))
    processes.run("collect")

    assert complete(processes, "pipeline report --source di") == ["dice"]
    assert set(complete(processes, "pipeline collect -s ")) == {"dice", "coin"}
    assert complete(processes, "pipeline report --run l") == ["last"]
    assert set(complete(processes, "pipeline export numbers --run ")) == {"last", "1"}
    assert complete(processes, "pipeline report err") == ["errors"]
    assert complete(processes, "pipeline audit dossier di") == ["dice"]
    assert complete(processes, "pipeline schema pipeline.stat") == [
        "pipeline.stats/1",
        "pipeline.status/1",
    ]


def test_without_settings_nothing_is_completed_and_nothing_said(processes: Home) -> None:
    """A shell that waits for words must not get a complaint."""
    processes.config.write_text("this is wrong")

    assert complete(processes, "pipeline report --source di") == []
    assert complete(processes, "pipeline report --run l") == []


def test_a_run_is_told_in_a_line_on_demand(invoke: Invoke, other: str) -> None:
    """Also a good one, of which else nothing is said; on stderr, for stdout is the answer."""
    del other
    silent, told = invoke("collect"), invoke("collect", "-v")

    assert (silent.stdout, silent.stderr) == ("", "")
    assert told.stdout == ""
    assert told.stderr == (
        "pipeline: run 2 ok: 1 of 1 batches collected; see `pipeline report --run 2`\n"
    )


def test_lines_on_stderr_can_be_json(invoke: Invoke, home: Path, session: Session) -> None:
    """For what collects logs: a time, a level, the same words."""
    (home / "config.toml").write_text(DICE + "[sandbox]\nfaults = ['refuse']\n")
    record_run(session, [make_batch()])
    session.commit()

    good = invoke("collect", "-v", "--log-format", "json")
    wrong = invoke("collect", "-s", "dual", "--log-format", "json")
    plain = invoke("collect", "-s", "dual")

    lines = [json.loads(line) for line in good.stderr.splitlines() + wrong.stderr.splitlines()]
    assert all(line.keys() == {"at", "level", "message"} for line in lines)
    assert lines[-1]["level"] == "warning"
    assert "--source 'dual': there is none" in lines[-1]["message"]
    assert plain.stderr.startswith("pipeline: ")
    assert os.linesep in plain.stderr
