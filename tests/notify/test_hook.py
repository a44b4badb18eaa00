"""Commands that are told: what they get, and what they cannot do."""

import json
import os
import signal
from pathlib import Path

import pytest

from pipeline.notify.hook import MOST_OUTPUT, run_hook, secret_variables
from pipeline.settings import NotifySettings, Settings, SourceSettings
from tests.notify.runs import make_loss, make_run
from tests.processes import wait_for

PATH = {"PATH": "/usr/bin:/bin"}


def shell(script: str, seconds: float = 5.0, **environ: str) -> str | None:
    """Run a command that happens to be a shell."""
    return run_hook(
        ["/bin/sh", "-c", script],
        {"event": "failure"},
        environ=PATH | environ,
        secrets={"KEY"},
        seconds=seconds,
    )


def test_a_command_reads_what_happened(tmp_path: Path) -> None:
    """One JSON object: records as objects, times in UTC."""
    payload = {"event": "failure", "run": make_run(), "losses": [make_loss()]}

    complaint = run_hook(
        ["/bin/sh", "-c", 'cat > "$1"', "sh", str(tmp_path / "heard")], payload, environ=PATH
    )

    heard = json.loads((tmp_path / "heard").read_text())
    assert complaint is None
    assert heard["event"] == "failure"
    assert heard["run"]["started_at"] == "2026-03-01T12:00:00.000000Z"
    assert heard["run"]["status"] == "ok"
    assert heard["losses"][0]["error"] == "http_5xx"


def test_what_is_no_json_harms_nobody() -> None:
    """A mistake of ours in what is told must not end the run that is told of."""
    complaint = run_hook(["/bin/cat"], {"path": Path("/")}, environ=PATH)

    assert complaint is not None
    assert complaint.startswith("the command /bin/cat failed: TypeError: no JSON for")


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    """What stands in it is an argument and nothing else."""
    target = tmp_path / "made"

    assert run_hook(["/bin/echo", f"; touch {target}"], {}, environ=PATH) is None
    assert not target.exists()


def test_a_command_that_reads_nothing_is_fine() -> None:
    """However much there is to read."""
    assert run_hook(["/bin/true"], {"detail": "x" * 200_000}, environ=PATH) is None


def test_a_command_has_the_environment_without_our_secrets(tmp_path: Path) -> None:
    """It is another program, and may print all that it knows."""
    assert shell(f"env > {tmp_path}/env", KEY="s3cret", LANG="C") is None

    known = (tmp_path / "env").read_text()
    assert "LANG=C\n" in known
    assert "s3cret" not in known


def test_secrets_are_known_by_the_variables_that_hold_them() -> None:
    """Those that the configuration names, enabled or not, and our own."""
    settings = Settings(
        sources={
            "a": SourceSettings(kind="anu_aqn", batches=[1], api_key_env="A", enabled=False),
            "b": SourceSettings(kind="anu_legacy", batches=[1]),
        },
        notify=NotifySettings(ping_url_env="HC"),
    )

    assert secret_variables(settings) == {
        "A",
        "HC",
        "PIPELINE_NOTIFY_PING_URL",
        "PIPELINE_STORE_URL",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    }
    assert "" not in secret_variables(Settings(sources={}))


def test_a_failure_is_told_with_the_last_line() -> None:
    """Which most programs mean as the reason."""
    complaint = shell("echo working; echo '\033[2Jno such user' >&2; exit 7")

    assert complaint == (r"the command /bin/sh failed (exit status 7): \x1b[2Jno such user")


def test_a_failure_without_a_word_is_told() -> None:
    """A signal is none of the exit statuses."""
    assert shell("exit 1") == "the command /bin/sh failed (exit status 1)"
    assert shell("kill -9 $$") == "the command /bin/sh failed (signal 9)"


def test_much_output_is_dropped_but_for_its_end() -> None:
    """The memory is ours."""
    complaint = shell(f"head -c {50 * MOST_OUTPUT} /dev/zero; echo; echo last; exit 1")

    assert complaint == "the command /bin/sh failed (exit status 1): last"


@pytest.mark.parametrize(
    "script", ["sleep 60", "exec >&- 2>&-; sleep 60", "while :; do echo y; done"]
)
def test_a_command_that_does_not_end_is_killed(script: str) -> None:
    """Silent, deaf or talkative."""
    assert shell(script, seconds=0.1) == "the command /bin/sh took longer than 0.1 s"


def test_what_it_started_is_killed_with_it(tmp_path: Path) -> None:
    """Else one is left behind every five minutes."""
    note = tmp_path / "pid"

    shell(f"sleep 60 & echo $! > {note}; wait", seconds=0.3)

    pid = int(note.read_text())
    wait_for(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process, other than a dead one that nobody has buried."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """It holds the output open, but the command has ended and well."""
    note = tmp_path / "pid"

    assert shell(f"sleep 60 & echo $! > {note}") is None

    os.kill(int(note.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/no/such", "No such file or directory"), ("/", "Permission denied")],
)
def test_a_command_that_cannot_be_run_is_a_complaint(program: str, reason: str) -> None:
    """With the reason that the system gives."""
    complaint = run_hook([program], {}, environ=PATH)

    assert complaint == f"the command {program} cannot be run: {reason}"


def test_what_no_system_takes_is_a_complaint() -> None:
    """Nothing is ever raised."""
    complaint = run_hook(["/bin/true", "\0"], {}, environ=PATH)

    assert complaint == "the command /bin/true failed: ValueError: embedded null byte"
