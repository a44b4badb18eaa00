"""Who is told of a run: real listeners, files and commands, and the real command line."""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from uuid import UUID

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import Session

from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.notify.listening import listening
from tests.store.makers import (
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
)

SOURCE = (
    "[sources.dice]\nkind = 'sandbox.randomnumberapi'\nbatches = [2, 3]\n"
    "merge = false\nretries = 0\n"
)
NUMBERS = (1, 5, 3)
BROKEN = "[sandbox]\nfaults = ['unavailable']\n"

Configure = Callable[[str], Path]


@pytest.fixture
def configure(home: Path) -> Configure:
    """Write the configuration, always to the same file."""

    def write(text: str) -> Path:
        file = home / "config.toml"
        file.write_text(f"{text}\n{SOURCE}")
        return file

    return write


@pytest.fixture
def notes(home: Path) -> Path:
    """Name the file to which the command writes what it is told, a line each."""
    return home / "notes"


@pytest.fixture
def hook(notes: Path) -> str:
    """Write the settings of a command that keeps what it is told."""
    script = notes.with_name("note.py")
    script.write_text(f"import sys; open({str(notes)!r}, 'a').write(sys.stdin.read())\n")
    command = json.dumps([sys.executable, str(script)])
    return f"[notify]\non_failure = {command}\non_recovery = {command}\n"


def test_a_monitor_hears_the_start_and_the_end_of_the_same_run(
    invoke: Invoke, configure: Configure, database: Path
) -> None:
    """It times the run by the id that both have, and we find the run by it."""
    with listening() as monitor:
        configure(f"[notify]\nping_url = '{monitor.url}/abc'\n")

        result = invoke("collect")

    with closing(sqlite3.connect(database)) as raw:
        (uid,) = raw.execute("SELECT uid FROM runs").fetchone()
    (_, start, _), (_, end, body) = monitor.heard
    assert result.exit_code == 0
    assert (start, end) == (f"/abc/start?rid={UUID(uid)}", f"/abc?rid={UUID(uid)}")
    assert b"run 1 ok: 2 of 2 batches collected" in body
    assert result.stderr == ""


def test_a_monitor_hears_the_exit_status_of_a_failure(invoke: Invoke, configure: Configure) -> None:
    """A failure is told at once; a silence is noticed only after its grace."""
    with listening() as monitor:
        configure(f"[notify]\nping_url = '{monitor.url}/abc'\n{BROKEN}")

        result = invoke("collect")

    assert result.exit_code == 4
    assert monitor.heard[-1][1].startswith("/abc/4?rid=")


def test_a_monitor_that_is_away_changes_nothing_but_a_line(
    invoke: Invoke, configure: Configure
) -> None:
    """Telling must not harm the run that is told of."""
    with listening() as monitor:
        address = monitor.url
    configure(f"[notify]\nping_url = '{address}/abc'\n")

    result = invoke("collect")

    assert result.exit_code == 0
    assert "the ping to 127.0.0.1 failed" in result.stderr


def test_no_run_at_all_is_told_as_well(
    invoke: Invoke, configure: Configure, database: Path, hook: str, notes: Path
) -> None:
    """A database that is damaged is what its owner must hear of first."""
    database.parent.mkdir(parents=True)
    database.write_bytes(b"this is no database" * 100)
    with listening() as monitor:
        configure(hook.replace("[notify]\n", f"[notify]\nping_url = '{monitor.url}/abc'\n"))

        result = invoke("collect")

    told = json.loads(notes.read_text())
    assert result.exit_code == 74
    assert [path.partition("?")[0] for _, path, _ in monitor.heard] == ["/abc/74"]
    assert (told["event"], told["exit_status"], told["run"]) == ("failure", 74, None)
    assert str(database) in told["message"]


def test_a_run_that_cannot_be_written_down_is_the_one_that_began(
    invoke: Invoke, configure: Configure, database: Path
) -> None:
    """A monitor that was told of its start by one id would else wait for its end for ever."""
    configure("")
    invoke("collect")
    with closing(sqlite3.connect(database)) as raw:
        raw.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON attempts BEGIN SELECT raise(FAIL, 'no'); END"
        )
    with listening() as monitor:
        configure(f"[notify]\nping_url = '{monitor.url}/abc'\n")

        result = invoke("collect")

    (_, start, _), (_, end, _) = monitor.heard
    assert result.exit_code == 74
    assert (start.partition("?")[0], end.partition("?")[0]) == ("/abc/start", "/abc/74")
    assert start.partition("?")[2] == end.partition("?")[2]


def test_a_command_is_told_of_failures_and_of_the_recovery_once(
    invoke: Invoke, configure: Configure, hook: str, notes: Path
) -> None:
    """Whoever is woken wants to know whether it is new, what it is, and when it is over."""
    for trouble in ("", BROKEN, BROKEN, "", ""):
        configure(hook + trouble)
        invoke("collect")

    told = [json.loads(line) for line in notes.read_text().splitlines()]
    assert [(each["event"], each["is_first"], each["run"]["run_id"]) for each in told] == [
        ("failure", True, 2),
        ("failure", False, 3),
        ("recovery", True, 4),
    ]
    assert {finding["kind"] for finding in told[0]["findings"]} == {"incident"}
    assert told[0]["schema"] == "pipeline.notification/1"


def record_glitches(session: Session, source: str, *, n: int, is_over: bool = True) -> None:
    """Lose every second of so many runs, one an hour, the last an hour ago; or the last, too."""
    runs = 2 * n if is_over else 2 * n - 1
    for number in range(runs):
        moment = datetime.now(UTC) - timedelta(hours=runs - number)
        batch = make_batch(0, source)
        run_id = begin(session, started_at=moment)
        order_batches(session, run_id=run_id, batches=[batch])
        is_lost = number % 2 == 0
        make = make_failed_attempt if is_lost else make_attempt
        save_results(
            session,
            run_id=run_id,
            attempts=[make(0, source=source, began_at=moment)],
            # Numbers that change, or the source would look stuck as well.
            outcomes=[make_lost(batch) if is_lost else make_collected(batch, NUMBERS)],
            keep_numbers=True,
        )
        finish_run(session, run_id=run_id, ended_at=moment, clock_us=1)
    session.commit()


def test_a_command_is_told_what_concerns_the_run_and_goes_on_first(
    invoke: Invoke, configure: Configure, hook: str, notes: Path, session: Session
) -> None:
    """It fits into a message; the rest of the week, and other sources, are for `audit`."""
    record_glitches(session, "dice", n=12)
    record_glitches(session, "coin", n=1, is_over=False)
    configure(hook + BROKEN)

    invoke("collect")

    told = json.loads(notes.read_text())
    assert {*map(str, (finding["sources"] for finding in told["findings"]))} == {"['dice']"}
    assert [finding["until"] is None for finding in told["findings"]] == [True, *[False] * 9]
    assert told["more_findings"] == 3
    schema = json.loads((files("pipeline") / "schemas" / "notification.1.json").read_text())
    jsonschema.validate(told, schema)


def test_metrics_keep_the_last_success_while_runs_fail(
    invoke: Invoke, configure: Configure, home: Path
) -> None:
    """An alert on the age of the last success must not be silenced by a run that failed."""

    def samples() -> dict[str, float]:
        families = text_string_to_metric_families((home / "pipeline.prom").read_text())
        return {s.name: s.value for family in families for s in family.samples}

    notify = "[notify]\nmetrics_file = 'pipeline.prom'\n"
    configure(notify)
    invoke("collect")
    well = samples()
    configure(notify + BROKEN)
    invoke("collect")
    bad = samples()

    success = "pipeline_last_success_timestamp_seconds"
    assert bad[success] == well[success]
    assert (well["pipeline_last_run_exit_code"], bad["pipeline_last_run_exit_code"]) == (0, 4)


def test_traces_that_nobody_takes_are_a_line(
    invoke: Invoke, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector of traces is down more often than we are."""
    with listening() as collector:
        address = collector.url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    configure("[notify]\notel = true\nseconds = 1.0\n")

    result = invoke("collect")

    assert result.exit_code == 0
    assert "sending traces" in result.stderr


def test_traces_are_sent_when_the_run_has_ended(
    invoke: Invoke, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A span for each attempt is what a trace view shows the phases of."""
    with listening() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        configure("[notify]\notel = true\n")

        result = invoke("collect")

    assert (result.exit_code, result.stderr) == (0, "")
    assert {path for _, path, _ in collector.heard} == {"/v1/traces"}


def test_a_damaged_history_does_not_harm_the_run(
    invoke: Invoke, configure: Configure, hook: str, database: Path
) -> None:
    """What is told of a run is read from the same open store, and that may hold anything."""
    configure(hook)
    invoke("collect")
    with closing(sqlite3.connect(database)) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute("UPDATE runs SET status = 'nonsense'")
        raw.commit()

    result = invoke("collect", "--format", "json")

    assert (result.exit_code, json.loads(result.stdout)["run"]["status"]) == (0, "ok")
    assert f"nobody was told of run 2: {database}: damaged (runs.status" in result.stderr


def test_a_page_is_written_anew_after_each_run(invoke: Invoke, configure: Configure) -> None:
    """For a web server, which is another user; always whole, and it loads itself again."""
    file = configure("[notify]\nhtml_file = 'pages/overview.html'\n").with_name("pages")
    file.mkdir()
    page = file / "overview.html"

    first = invoke("collect")
    once = page.read_text("utf-8")
    second = invoke("collect")

    assert (first.exit_code, first.stderr, second.stderr) == (0, "", "")
    assert '<meta http-equiv="refresh" content="60">' in once
    assert once != page.read_text("utf-8")
    assert "2 of 2 batches came" in once
    assert "4 of 4 batches came" in page.read_text("utf-8")
    assert page.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in file.iterdir()] == ["overview.html"]
    assert "refresh" not in invoke("report", "--format", "html").stdout.split("<body>")[0]


def test_a_page_that_cannot_be_written_is_one_line(invoke: Invoke, configure: Configure) -> None:
    """The run itself is done, and says so."""
    configure("[notify]\nhtml_file = 'nowhere/overview.html'\n")

    result = invoke("collect")

    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert "the page: " in line
    assert "overview.html cannot be written: No such file or directory" in line
