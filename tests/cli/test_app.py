"""The command line as a whole: help, version, and what the process is set up for."""

import gc
import os
import re
import signal
import subprocess
import sys

import pytest
from typer.main import get_group

import pipeline
from pipeline.cli.commands import make_app
from tests.cli.conftest import Invoke

COMMANDS = [
    (),
    ("collect",),
    ("report",),
    ("audit",),
    ("audit", "show"),
    ("export",),
    ("sandbox",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_there_short_or_long(invoke: Invoke, command: tuple[str, ...]) -> None:
    """People try -h first; a description that is cut off helps nobody."""
    short, long = invoke(*command, "-h"), invoke(*command, "--help")

    assert short.exit_code == long.exit_code == 0
    assert short.output == long.output
    assert "..." not in long.output.split("Options:")[-1].replace("[OPTIONS] COMMAND [ARGS]...", "")


@pytest.mark.parametrize("group", [(), ("audit",), ("db",), ("schedule",), ("sources",)])
def test_lists_of_commands_cut_no_sentence(
    invoke: Invoke, group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a terminal has 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    listed = invoke(*group, "-h").output.partition("Commands:")[2].splitlines()

    assert len(listed) > 2
    assert [line for line in listed if line.endswith("...")] == []


@pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
def test_help_begins_with_an_order(invoke: Invoke, command: tuple[str, ...]) -> None:
    """What the command does, as a verb, before anything else."""
    described = invoke(*command, "-h").output.splitlines()[2].split()[0]

    assert described in {"Fetch,", "Show", "List", "Write", "Serve"}


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_the_packages(invoke: Invoke, option: str) -> None:
    """A bug report begins with it."""
    assert invoke(option).output == f"pipeline {pipeline.__version__}\n"


def test_without_a_command_there_is_help_and_code_2(invoke: Invoke) -> None:
    """Nothing was asked for, so a script should notice."""
    result = invoke()

    assert result.exit_code == 2
    assert "Commands:" in result.output


@pytest.mark.parametrize("arguments", [("--nonsense",), ("nonsense",), ("report", "surplus")])
def test_a_wrong_command_line_is_code_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    """Usage errors are told from all others."""
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert "pipeline" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["collect", "audit"])
def test_a_start_makes_only_the_command_that_it_is_for(name: str) -> None:
    """Cron pays for all the others at every tick; but a name that is wrong needs them."""
    assert list(get_group(make_app(name)).commands) == [name]
    assert len(get_group(make_app("colect")).commands) == len(get_group(make_app()).commands) > 1


def test_no_option_takes_a_secret(invoke: Invoke) -> None:
    """A command line can be read by every user of the machine."""
    offered = "".join(invoke(*command, "-h").output for command in COMMANDS)

    assert not re.findall(r"--\S*(?:key|secret|token|password)", offered)


def test_sigint_is_left_to_the_system_before_a_run() -> None:
    """Python's own handler would wait for SQLite's lock and end in a traceback."""
    probe = (
        "import os, signal\n"
        "from pipeline.cli import app, commands\n"
        "commands.make_app = lambda only: lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "app.main()"
    )

    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)

    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == b""


def test_an_ignored_sigint_stays_ignored() -> None:
    """A script's background jobs are started that way, lest Ctrl-C hits them."""
    probe = (
        "import os, signal\n"
        "from pipeline.cli import app, commands\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "commands.make_app = lambda only: lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "app.main()"
    )

    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)

    assert ended.returncode == 0


@pytest.mark.parametrize(("raised", "code"), [("SystemExit()", 0), ("SystemExit('no')", 1)])
def test_the_process_ends_with_what_was_raised(raised: str, code: int) -> None:
    """It leaves past Python's own way out, so the code has to be read here."""
    probe = (
        "from pipeline.cli import app, commands\n"
        f"def leave(): raise {raised}\n"
        "commands.make_app = lambda only: leave\n"
        "app.main()"
    )

    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)

    assert ended.returncode == code


def test_help_for_a_reader_that_has_gone_dies_of_sigpipe() -> None:
    """As every other filter does: `pipeline --help | head -1` is not a bug of ours."""
    reader, writer = os.pipe()
    os.close(reader)

    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("report", "-f", "pdf"), "'-f': 'pdf' is not one of 'text', 'json'"),
        (("report", "runs", "--limit", "0"), "must be at least 1"),
        (("report", "--limit", "x"), "must be a whole number"),
        (("plan", "--deadline", "x"), "must be a number"),
        (("sandbox", "--port", "65536"), "must be at most 65535"),
        (("plan", "--every", "soon"), "give 10m, 2h or 1d"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(
    invoke: Invoke, arguments: tuple[str, ...], says: str
) -> None:
    """Not in those of the library that checks it."""
    refused = invoke(*arguments)

    assert refused.exit_code == 2
    assert says in refused.stderr
    assert "Input should" not in refused.stderr


@pytest.mark.parametrize("command", [("worker",), ("schedule", "run"), ("top",)], ids=" ".join)
def test_what_runs_for_days_collects_its_garbage(invoke: Invoke, command: tuple[str, ...]) -> None:
    """The command line switches that off, and a worker leaves some 30 objects a fetch behind."""
    gc.disable()
    try:
        ended = invoke(*command)  # there is no server and no schedule, and no terminal
        collects = gc.isenabled()
    finally:
        gc.enable()

    assert collects, ended.stderr
