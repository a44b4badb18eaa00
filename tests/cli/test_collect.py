"""`pipeline collect` in this process: what it shows, says and leaves with."""

import json
import os
from io import StringIO
from pathlib import Path

import pytest

from pipeline.errors import ErrorName, ExitCode
from pipeline.lock import run_lock
from pipeline.models import RunStatus, RunSummary
from pipeline.rendering.progress import progress
from pipeline.run.collected import Collected
from pipeline.store.db import Store
from tests.cli.conftest import Invoke
from tests.processes import check_invariants, serving
from tests.store.makers import NOON

DICE = (
    "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2, 3]\n"
    "merge = false\nretries = 0\n"
)


def summary(status: RunStatus, collected: int = 0, deferred: int = 0) -> RunSummary:
    """Sum up a run that ordered ten batches and ended."""
    return RunSummary(
        id=7,
        uid="c0ffee",
        host="here",
        pid=1,
        version="1",
        config_digest="",
        config_path="",
        is_sandbox=False,
        started_at=NOON,
        ended_at=NOON,
        status=status,
        clock_us=1,
        ordered=10,
        collected=collected,
        failed=0,
        deferred=deferred,
        cancelled=0,
        numbers=0,
        attempts=0,
        waited_us=0,
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (RunStatus.OK, ExitCode.OK),
        (RunStatus.PARTIAL, ExitCode.PARTIAL),
        (RunStatus.FAILED, ExitCode.NOTHING_COLLECTED),
    ],
)
def test_the_code_tells_how_the_run_ended(status: RunStatus, code: ExitCode) -> None:
    """A script must not have to read."""
    assert Collected(summary=summary(status), stopped_by=None, losses=()).exit_status == code


def test_a_bug_comes_before_everything_else() -> None:
    """Somebody has to hear of it, also if the rest was collected."""
    ended = Collected(
        summary=summary(RunStatus.PARTIAL, 9),
        stopped_by=15,
        losses=(("dice", ErrorName.INTERNAL, 1),),
        has_bug=True,
    )

    assert ended.exit_status == ExitCode.BUG


def test_a_stopped_run_leaves_as_the_shell_expects() -> None:
    """128 and the signal's number."""
    ended = Collected(summary=summary(RunStatus.INTERRUPTED), stopped_by=15, losses=())

    assert ended.exit_status == 143


def test_the_verdict_accounts_for_every_batch() -> None:
    """Those that failed, those put off, and those that nobody came to ask for."""
    losses = (("dice", ErrorName.RESET, 3), ("coin", ErrorName.DEADLINE, 1))
    ended = Collected(summary=summary(RunStatus.PARTIAL, 2, 2), stopped_by=None, losses=losses)

    assert ended.verdict == (
        "run 7 partial: 2 of 10 batches collected; 2 deferred; lost: 3 reset (dice),"
        " 1 deadline (coin), 2 never asked; see `pipeline report --run 7`"
    )


def test_without_a_terminal_nothing_is_said(invoke: Invoke, database: Path) -> None:
    """Silent when well."""
    result = invoke("collect")

    assert (result.exit_code, result.output) == (0, "")
    check_invariants(database)


def test_quiet_wins_over_a_format(invoke: Invoke) -> None:
    """Who says both is a cron line with an alias in it."""
    assert invoke("collect", "--quiet", "--format", "text").output == ""


def test_json_is_the_whole_run(invoke: Invoke) -> None:
    """Documented names, all batches with their numbers, all attempts with their phases."""
    document = json.loads(invoke("collect", "--format", "json").stdout)

    assert document.keys() == {
        *("schema", "run", "pruned_at", "limits"),
        *("batches", "attempts", "tallies", "late"),
    }
    assert document["schema"] == "pipeline.run/1"
    assert (document["run"]["status"], document["run"]["numbers"]) == ("ok", 434)
    assert len(document["batches"]) == 28
    for batch in document["batches"]:
        assert batch["sum"] == sum(batch["values"])
        assert len(batch["values"]) == batch["n"]
        assert all(batch["min"] <= number <= batch["max"] for number in batch["values"])
    assert sum(attempt["attempt_number"] == 1 for attempt in document["attempts"]) == 6
    for attempt in document["attempts"]:
        phases = [attempt[f"{phase}_us"] for phase in ("wait", "connect", "send", "first_byte")]
        assert None not in [phases[0], *phases[2:]]


def test_only_the_chosen_sources_are_asked(invoke: Invoke) -> None:
    """To try one without touching the file."""
    result = invoke("collect", "-s", "sandbox_anu", "-s", "sandbox_aqn", "-f", "json")

    sources = {batch["source"] for batch in json.loads(result.stdout)["batches"]}
    assert sources == {"sandbox_anu", "sandbox_aqn"}


@pytest.mark.parametrize("source", ["sandbox_anv", "anu_legacy"])
def test_a_source_that_cannot_be_asked_is_a_complaint(invoke: Invoke, source: str) -> None:
    """Unknown, or switched off: a run of nothing would look like success."""
    result = invoke("collect", "--source", source)

    assert result.exit_code == ExitCode.USAGE
    assert source in result.stderr


def test_a_run_that_lost_something_says_so_in_one_line(
    invoke: Invoke, home: Path, database: Path
) -> None:
    """On stderr, beside the answer on stdout."""
    (home / "config.toml").write_text(f"[sandbox]\nfaults = ['server_error']\n{DICE}")

    result = invoke("collect", "-f", "text")

    assert result.exit_code == ExitCode.NOTHING_COLLECTED
    assert result.stderr == (
        "pipeline: run 1 failed: 0 of 2 batches collected; lost: 2 http_5xx (dice);"
        " see `pipeline report --run 1`\n"
    )
    assert "failed: http_5xx (" in result.stdout
    check_invariants(database)


def test_a_deadline_on_the_command_line_wins(invoke: Invoke, home: Path, database: Path) -> None:
    """To try a slow upstream without changing the file."""
    (home / "config.toml").write_text(f"[sandbox]\nfaults = ['stall']\n{DICE}")

    result = invoke("collect", "--deadline", "0.3")

    assert result.exit_code == ExitCode.NOTHING_COLLECTED
    assert "2 deadline (dice)" in result.stderr
    check_invariants(database)


def turn_of(home: Path, database: Path) -> Path:
    """Find the lock that a run of this home takes."""
    del home
    return next(database.parent.glob("*.turn-*"))


def test_a_second_run_leaves_or_joins_as_it_is_told(
    invoke: Invoke, home: Path, database: Path
) -> None:
    """By default it leaves; `allow` is for who knows that nothing collides."""
    (home / "config.toml").write_text(DICE)
    assert invoke("collect").exit_code == 0

    with run_lock(turn_of(home, database)):
        skipped = invoke("collect")
        joined = invoke("collect", "--overlap", "allow")

    assert skipped.exit_code == ExitCode.TRY_LATER
    assert (
        f"another run of this configuration is going on (pid {os.getpid()}, since "
        in skipped.stderr
    )
    assert joined.exit_code == 0
    assert invoke("report", "--format", "json").stdout.count('"skipped"') == 1


def test_the_store_is_opened_once(
    invoke: Invoke, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To claim, to run, to tell and to show: each opening costs a look at the whole schema."""
    (home / "config.toml").write_text(
        f"[sandbox]\nfaults = ['server_error']\n[schedule]\nevery = '1h'\n"
        f"[notify]\non_failure = ['true']\nmetrics_file = 'pipeline.prom'\n{DICE}"
    )
    opened: list[Store] = []
    close = Store.close

    def counted(store: Store) -> None:
        opened.append(store)
        close(store)

    monkeypatch.setattr(Store, "close", counted)

    result = invoke("collect", "--slot", "always", "--format", "json")

    assert result.exit_code == ExitCode.NOTHING_COLLECTED
    assert len(opened) == 1


def test_without_an_enabled_source_there_is_nothing_to_do(
    invoke: Invoke, home: Path, database: Path
) -> None:
    """And nobody is told that all is well."""
    (home / "config.toml").write_text(DICE + "enabled = false\n")

    result = invoke("collect")

    assert result.exit_code == ExitCode.CONFIGURATION
    assert "no source is enabled" in result.stderr
    assert not database.exists()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff\xfe",
        b"[sources",
        b"a = [" * 5000,
        b"[sources.a]\nkind = 'sandbox.anu_legacy'\n",
        b"[sources.a]\nkind = 'nonsense'\nbatches = [1]\n",
        b"[colect]\n[sources.a]\nkind = 'sandbox.anu_legacy'\nbatches = [1]\n",
        b"[sources.a]\nkind = 'anu_aqn'\nbatches = [1]\napi_key = 'x'\n",
    ],
)
def test_a_wrong_configuration_is_told_before_anything_is_done(
    invoke: Invoke, home: Path, document: bytes
) -> None:
    """Each complaint is a line that names the file; there is no database yet, and none after."""
    (home / "config.toml").write_bytes(document)

    result = invoke("collect", "--config", "config.toml")

    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    for line in result.stderr.splitlines():
        assert line.startswith(f"pipeline: {home}/config.toml (--config): ")
        assert line.isprintable()
    assert not (home / "data").exists()


def test_a_configuration_that_is_a_folder_is_told(invoke: Invoke, home: Path) -> None:
    """As every other file that cannot be read."""
    result = invoke("collect", "--config", str(home))

    assert result.exit_code == ExitCode.CONFIGURATION
    assert result.stderr == f"pipeline: {home} (--config): cannot be read: Is a directory\n"


@pytest.mark.parametrize("is_shown", [True, False])
def test_progress_is_for_terminals_only(capsys: pytest.CaptureFixture[str], is_shown: bool) -> None:
    """A log file full of bars helps nobody."""
    with progress("collecting", is_shown=is_shown) as show:
        show(1, 2)

    assert capsys.readouterr() == ("", "")


class _Terminal(StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def look_at_stderr(monkeypatch: pytest.MonkeyPatch, term: str = "xterm") -> StringIO:
    """Let stderr be a terminal from here on."""
    stderr = _Terminal()
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", stderr)
    return stderr


def test_progress_says_how_many_are_done_and_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it goes on; nothing of it stays."""
    terminal = look_at_stderr(monkeypatch)

    with progress("collecting", counts=True) as show:
        show(1, 4)
        show(4, 4, "3 lost")

    assert "4/4" in terminal.getvalue()
    assert "3 lost" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")


def test_the_cursor_is_left_alone_until_a_run_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that a signal kills at once, and nobody would bring the cursor back."""
    terminal = look_at_stderr(monkeypatch)

    with progress("collecting"):
        pass

    assert terminal.getvalue() == ""


def test_a_dumb_terminal_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not take it away again."""
    terminal = look_at_stderr(monkeypatch, "dumb")

    with progress("collecting") as show:
        show(1, 4)

    assert terminal.getvalue() == ""


REFUSAL = "HTTP/1.1 429 No\r\nContent-Length: 0\r\n{field}\r\n\r\n"


def test_a_source_that_is_shut_for_years_is_told_at_each_run(home: Path, invoke: Invoke) -> None:
    """Run after run is "ok, all deferred": somebody must hear of it, and how to end it."""
    refusal = REFUSAL.format(field="Retry-After: Sun, 29 Nov 2099 23:00:00 UTC").encode()
    with serving(refusal) as upstream:
        source = f"kind = 'randomnumberapi'\nurl = '{upstream.url}'\nbatches = [2]\n"
        (home / "config.toml").write_text(f"[sources.dice]\n{source}")
        runs = [invoke("collect"), invoke("collect")]
        asked = len(upstream.requests)
    audited = invoke("audit", "--strict")
    released = invoke("sources", "release", "dice")
    after = invoke("audit", "--format", "json")

    assert asked == 1
    assert [run.exit_code for run in runs] == [4, 0]
    for run in runs:
        told = run.stderr.splitlines()[-1]
        assert told.startswith("pipeline: dice: not to be asked before 2099-11-29 23:0")
        assert told.endswith("; `pipeline sources release dice` lifts it")
    assert audited.exit_code == 3
    assert "warning: shut, dice, since" in audited.stdout
    assert released.exit_code == 0
    assert "shut" not in {finding["kind"] for finding in json.loads(after.stdout)["findings"]}


def test_a_wall_is_not_a_wrong_key(home: Path, invoke: Invoke) -> None:
    """The service was not to be had, and nobody here can do anything about it."""
    wall = "HTTP/1.1 403 No\r\ncf-mitigated: challenge\r\nContent-Type: text/html\r\n"
    with serving(f"{wall}Content-Length: 6\r\n\r\n<html>".encode()) as upstream:
        source = f"kind = 'randomnumberapi'\nurl = '{upstream.url}'\nbatches = [2]\n"
        (home / "config.toml").write_text(f"[sources.dice]\n{source}")
        run = invoke("collect")
    audited = json.loads(invoke("audit", "--format", "json").stdout)

    assert "lost: 1 blocked (dice)" in run.stderr
    (finding,) = audited["findings"]
    assert finding["whose"] == "upstream"
    assert audited["availability"][0]["outages"] == 1
