"""Tests for pipeline/cli/sandbox.py: the command as a user and as a script meet it."""

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import RemoteDisconnected
from pathlib import Path
from urllib.request import urlopen

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.sandbox import sandbox
from pipeline.sandbox.faults import FAULTS
from pipeline.sandbox.imitations import KINDS

COMMAND = "import typer; from pipeline.cli.sandbox import sandbox; typer.run(sandbox)"
PATIENCE_SECONDS = 60

app = typer.Typer()
app.command()(sandbox)


@contextmanager
def _started(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command; give the process and the first URL that it prints."""
    command = [sys.executable, "-c", COMMAND, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_leaves_in_peace(signum: signal.Signals) -> None:
    """Being stopped is how it is meant to end."""
    with _started() as (process, url):
        with urlopen(url) as answer:
            body = json.load(answer)
        process.send_signal(signum)

        assert process.wait(PATIENCE_SECONDS) == 0

    assert body["success"] is True


def test_each_request_is_appended_to_the_log(tmp_path: Path) -> None:
    """While it runs, so that a script can follow."""
    log = tmp_path / "requests.jsonl"

    with _started("--log", str(log), "--no-rules") as (_, url):
        for _ in range(2):
            urlopen(url).close()
        lines = [json.loads(line) for line in log.read_text().splitlines()]

    assert [(line["kind"], line["status"]) for line in lines] == [("anu_legacy", 200)] * 2


def test_a_client_can_be_told_whom_to_trust(tmp_path: Path) -> None:
    """The file is there before the URLs are printed."""
    authority = tmp_path / "ca.pem"

    with _started("--tls", "valid", "--ca-file", str(authority)) as (_, url):
        context = ssl.create_default_context(cafile=authority)
        with urlopen(url, context=context) as answer:
            assert answer.status == 200


def test_it_can_stop_by_itself() -> None:
    """A script that forgets it leaves nothing behind."""
    result = CliRunner().invoke(app, ["--port", "0", "--seconds", "0.05"])

    assert result.exit_code == 0
    assert result.output.count("http://127.0.0.1:") == len(KINDS) + 2


def test_the_faults_are_listed() -> None:
    """One line each, with the value that stands if none is given."""
    result = CliRunner().invoke(app, ["--list-faults"])

    assert result.exit_code == 0
    assert [line.split()[0].partition("=")[0] for line in result.output.splitlines()] == [*FAULTS]
    assert "\nlatency=1 " in result.output


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--fault", "sleep"], "Invalid value for '--fault': no fault is named 'sleep'"),
        (["--fault", "csrn:stall"], "Invalid value for '--fault': no upstream is named 'csrn'"),
        (["--ca-file", "ca.pem"], "--ca-file: there is no authority to write without --tls"),
    ],
)
def test_what_an_option_cannot_be_is_a_wrong_command_line(
    options: list[str], complaint: str
) -> None:
    """Exit code 2, and the option is named."""
    result = CliRunner().invoke(app, ["--port", "0", *options])

    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--log", "/nowhere/log"], "/nowhere/log: No such file or directory"),
        (["--tls", "valid", "--ca-file", "/nowhere/ca"], "/nowhere/ca: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_a_matter_of_configuration(
    options: list[str], complaint: str
) -> None:
    """Exit code 78 and one line that names the option's value."""
    result = CliRunner().invoke(app, ["--port", "0", *options])

    assert result.exit_code == 78
    assert complaint in result.stderr


def test_a_log_that_cannot_be_written_ends_it() -> None:
    """A test that counts requests must not count too few."""
    with _started("--log", "/dev/full") as (process, url):
        with pytest.raises(RemoteDisconnected):
            urlopen(url)

        assert process.wait(PATIENCE_SECONDS) == 78


def test_a_taken_port_is_a_matter_of_configuration() -> None:
    """With the way out in the complaint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(app, ["--port", str(taken.getsockname()[1])])

    assert result.exit_code == 78
    assert "--port 0 takes a free one" in result.stderr


def test_a_status_that_nobody_saw_is_a_wrong_command_line() -> None:
    """Only two were seen with ANU's refusal."""
    assert CliRunner().invoke(app, ["--anu-refusal-status", "404"]).exit_code == 2


def test_help_begins_with_a_verb_and_has_an_example() -> None:
    """It is read more often than the README."""
    output = CliRunner().invoke(app, ["--help"]).output

    assert "Serve imitations" in output
    assert "Example: pipeline sandbox" in output
