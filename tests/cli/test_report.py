"""`pipeline report` in this process."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, ExitCode
from pipeline.lock import host_identity, presence, presence_at
from pipeline.models import Outcome, RunStatus, Verdict
from pipeline.report.run import MOST_LINES, total_line
from pipeline.store import heartbeats
from pipeline.store.writes import finish_run, order_batches, save_results, start_run
from tests.cli.conftest import Invoke
from tests.cli.test_collect import summary
from tests.store.makers import (
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
    record_run,
)


def record_two(session: Session) -> None:
    """Record a run of dice and, five minutes later, one of coins."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    coin = make_attempt(0, source="coin")
    record_run(session, [make_batch(0, "coin")], attempts=[coin], started_at=at(5))
    session.commit()


def runs_of(output: str) -> list[str]:
    """Read the numbers of the runs off a table."""
    return [line.split()[0] for line in output.splitlines()[2:]]


def test_without_a_store_it_says_what_to_do(invoke: Invoke) -> None:
    """The first thing that a curious user tries."""
    result = invoke("report")

    assert result.exit_code == ExitCode.STORE_FAILED
    assert result.stderr.endswith("run `pipeline collect` first\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "No run yet."),
        (("-s", "sandbox_anu"), "No such run."),
        (("runs", "--since", "7d"), "No such run."),
    ],
)
def test_an_empty_history_is_said(
    invoke: Invoke, session: Session, arguments: tuple[str, ...], says: str
) -> None:
    """An empty table looks like a mistake."""
    session.commit()

    assert invoke("report", *arguments).output == f"{says}\n"


def test_the_history_is_newest_first(invoke: Invoke, session: Session) -> None:
    """With what came, and how long it took."""
    record_two(session)

    shown = invoke("report").output

    assert runs_of(shown) == ["2", "1"]
    assert shown.splitlines()[-1].split() == [
        *("1", "2026-03-01", "12:00:00Z", "ok", "1/1", "0", "0", "3", "1", "0", "1", "s")
    ]


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (("--limit", "1"), ["2"]),
        (("--since", "2026-03-01T12:01"), ["2"]),
        (("--since", "2026-03-01"), ["2", "1"]),
        (("--until", "2026-03-01T12:05"), ["1"]),
        (("runs", "--limit", "1"), ["2"]),
        (("runs", "-s", "coin", "--since", "2026-03-01"), ["2"]),
        (("--source", "dice"), ["1"]),
        (("--since", "2026-03-01T13:00+01:00", "-s", "dice", "-n", "5"), ["1"]),
    ],
)
def test_the_history_can_be_narrowed(
    invoke: Invoke, session: Session, arguments: tuple[str, ...], runs: list[str]
) -> None:
    """By number, time and source."""
    record_two(session)

    assert runs_of(invoke("report", *arguments).output) == runs


@pytest.mark.parametrize(
    ("shape", "of_run", "of_source"),
    [
        ("text", "ok      yes", "dice (sandbox)"),
        ("csv", ",ok,true,", "dice,true,"),
        ("markdown", "| ok | yes |", "dice (sandbox)"),
        ("html", ">yes<", "dice (sandbox)"),
        ("json", '"is_sandbox": true', '"is_sandbox": true'),
    ],
)
def test_a_run_of_the_sandbox_is_called_so(
    invoke: Invoke, session: Session, shape: str, of_run: str, of_source: str
) -> None:
    """In every list and every shape: 434 numbers that nobody made look like any others."""
    record_run(session, [replace(make_batch(0), is_sandbox=True)], attempts=[make_attempt(0)])
    session.commit()

    assert of_run in invoke("report", "runs", "-f", shape).stdout
    for arguments in (("batches",), ("--run", "1"), ("numbers", "--since", "2026-01-01")):
        assert of_source in invoke("report", *arguments, "-f", shape).stdout


def test_the_history_as_json_has_what_the_table_has_not(invoke: Invoke, session: Session) -> None:
    """For programs: every fact that the store has of a run."""
    record_two(session)

    document = json.loads(invoke("report", "-f", "json").stdout)

    assert document["schema"] == "pipeline.runs/1"
    assert [run["run_id"] for run in document["runs"]] == [2, 1]
    assert document["runs"][1]["started_at"] == "2026-03-01T12:00:00.000000Z"
    assert document["runs"][1]["config_path"] == "/etc/pipeline.toml"


def test_one_run_is_shown_batch_by_batch_and_phase_by_phase(
    invoke: Invoke, session: Session
) -> None:
    """What came, and where the time went."""
    record_two(session)

    first, _, *lines = invoke("report", "--run", "1").output.splitlines()

    assert first.startswith("Run 1, 2026-03-01 12:00:00Z to ")
    assert lines[0].split() == ["batch", "source", "n", "sum", "took", "attempts", "verdict"]
    assert lines[2].split() == ["w0", "dice", "3", "18", "2.04", "ms", "1", "collected"]
    assert lines[4].split()[:4] == ["mean", "per", "attempt", "wait"]
    assert lines[6].split() == [
        *("dice", "0.005", "ms", "-", "-", "-", "0.01", "ms", "2", "ms", "0.02", "ms"),
        *("0.007", "ms"),
    ]
    assert lines[-1] == (
        "Run 1 ok: 1 of 1 batches, 3 numbers in 1 request. 1 s by the clock; its requests took"
        " 2.04 ms one by one."
    )


def test_one_run_as_json_can_be_narrowed_to_a_source(invoke: Invoke, session: Session) -> None:
    """The same document as `collect --format json` writes."""
    record_two(session)

    whole = json.loads(invoke("report", "--run", "last", "-f", "json").stdout)
    none = json.loads(invoke("report", "--run", "last", "-f", "json", "-s", "dice").stdout)

    assert [batch["values"] for batch in whole["batches"]] == [[6, 6, 6]]
    assert [attempt["source"] for attempt in whole["attempts"]] == ["coin"]
    assert (none["run"]["run_id"], none["batches"], none["attempts"]) == (2, [], [])


@pytest.mark.parametrize("wanted", ["7", "nonsense", "99999999999999999999999"])
def test_a_run_that_is_not_there_is_a_wrong_command_line(
    invoke: Invoke, session: Session, wanted: str
) -> None:
    """Not a bug, and not an empty table."""
    session.commit()

    assert invoke("report", "--run", wanted).exit_code == ExitCode.USAGE


def test_each_outcome_says_why(invoke: Invoke, session: Session) -> None:
    """Collected, failed, put off until when, and not decided while the run goes on."""
    batches = [make_batch(number) for number in range(4)]
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=batches)
    deferred = Outcome(
        batch=batches[2],
        verdict=Verdict.DEFERRED,
        fetch=2,
        detail="one request per minute",
        not_before=at(7),
    )
    save_results(
        session,
        run_id=run_id,
        attempts=[make_attempt(0), make_failed_attempt(1)],
        outcomes=[make_collected(batches[0]), make_lost(batches[1]), deferred],
        keep_numbers=True,
    )
    session.commit()

    shown = invoke("report", "--run", "last").output

    for outcome in (
        "collected",
        "failed: http_5xx (503 Service Unavailable); audit show 2",
        "deferred until 2026-03-01 12:07:00Z: one request per minute",
        "not decided yet",
    ):
        assert any(line.endswith(outcome) for line in shown.splitlines())
    assert shown.splitlines()[-1] == (
        "Run 1 running: 1 of 4 batches, 1 failed, 1 deferred, 3 numbers in 2 requests. Begun"
        " 2026-03-01 12:00:00Z by process 4711 on machine-1, not ended so far."
    )
    assert invoke("report").output.splitlines()[-1].split()[3:] == [
        "running",
        "1/4",
        "1",
        "1",
        "3",
        "2",
        "0",
        "-",
    ]


def test_a_long_run_shows_only_what_was_lost(invoke: Invoke, session: Session) -> None:
    """A hundred thousand lines are no answer; JSON has them all."""
    batches = [make_batch(number) for number in range(MOST_LINES + 1)]
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=batches)
    save_results(
        session,
        run_id=run_id,
        attempts=[make_attempt(number) for number in range(MOST_LINES + 1)],
        outcomes=[*map(make_collected, batches[1:]), make_lost(batches[0])],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=None)
    session.commit()

    shown = invoke("report", "--run", "last").output
    told = json.loads(invoke("report", "--run", "last", "-f", "json").stdout)

    assert "201 batches: only what was lost is listed, 200 at most" in shown
    assert [line.split()[0] for line in shown.splitlines() if re.match(r"w\d", line)] == ["w0"]
    assert len(told["batches"]) == 201


def test_a_long_run_that_lost_nothing_needs_no_table(invoke: Invoke, session: Session) -> None:
    """Column heads over nothing say nothing."""
    batches = [make_batch(number) for number in range(MOST_LINES + 1)]
    record_run(session, batches, attempts=[make_attempt(number) for number in range(201)])
    session.commit()

    assert "verdict" not in invoke("report", "--run", "last").output


def test_a_skipped_run_says_why_there_is_nothing() -> None:
    """Zeros and a speed would be nonsense."""
    assert total_line(summary(RunStatus.SKIPPED)) == (
        "Run 7 skipped: another run of the same configuration was going on."
    )


@pytest.mark.parametrize(
    ("status", "waited_us", "wait_us", "says"),
    [
        (RunStatus.OK, 390_000, 0, "; one by one its requests would have taken 390 ms: 3.9 times"),
        (RunStatus.PARTIAL, 390_000, 0, "; its requests took 390 ms one by one."),
        (RunStatus.OK, 59_000, 97_000, " took 59 ms one by one, the waits before them 97 ms."),
    ],
)
def test_only_a_run_that_lost_nothing_boasts(
    status: RunStatus, waited_us: int, wait_us: int, says: str
) -> None:
    """Lost batches make a run quick; and what waited for its turn was not asking."""
    run = replace(summary(status, 9), attempts=5, clock_us=100_000, waited_us=waited_us)

    assert says in total_line(run, wait_us=wait_us)


def test_what_was_lost_is_one_column_and_two_in_a_sheet(invoke: Invoke, session: Session) -> None:
    """A cancelled batch did not fail: JSON and the database keep the two apart."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0), make_batch(1)])
    save_results(
        session,
        run_id=run_id,
        attempts=[make_failed_attempt(0)],
        outcomes=[make_lost(make_batch(0))],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1, rest=ErrorName.CANCELLED)
    session.commit()

    head, row = csv.reader(invoke("report", "-f", "csv").stdout.splitlines())
    shown = invoke("report").output.splitlines()

    told = dict(zip(head, row, strict=True))
    assert (told["failed"], told["cancelled"]) == ("1", "1")
    assert shown[0].split()[:5] == ["run", "started", "status", "collected", "lost"]
    assert shown[-1].split()[4:6] == ["0/2", "2"]


def _record_running(session: Session, pid: int) -> None:
    """Record a run of this machine that goes on, and gives signs of life."""
    run_id = start_run(
        session,
        uid="c0ffee",
        host=host_identity(),
        pid=pid,
        version="1.0",
        config_digest="c0ffee",
        config_path="",
        started_at=NOON,
    )
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    heartbeats.begin(session, run_id=run_id, until=NOON)
    session.commit()


def test_a_run_whose_process_is_gone_is_not_going_on(invoke: Invoke, session: Session) -> None:
    """Killed with -9, it cannot say so itself, and the next run may be a day away."""
    _record_running(session, pid=2**22 + 1)  # more than Linux ever gives

    shown = invoke("report", "--run", "1").output
    told = json.loads(invoke("report", "--run", "1", "-f", "json").stdout)

    assert shown.rstrip().endswith("Its process is gone; the next run will mark it interrupted.")
    assert "interrupted?" in invoke("report").output
    assert ", interrupted?, " in invoke("status").output
    assert "interrupted?" not in invoke("report", "-f", "csv").output
    assert "Its process is gone" in invoke("report", "errors", "--run", "1").output
    assert (told["run"]["status"], told["run"]["is_alive"]) == ("running", False)


def test_a_run_that_goes_on_is_alive(invoke: Invoke, session: Session, database: Path) -> None:
    """So nobody starts another one for nothing."""
    with presence(presence_at(database), if_alone=lambda: None):
        _record_running(session, pid=2**22 + 1)  # that of another container means nothing here

        told = json.loads(invoke("report", "-f", "json").stdout)
        shown = invoke("report", "--run", "1").output

    assert told["runs"][0]["is_alive"] is True
    assert "not ended so far." in shown


def test_the_first_process_of_a_container_is_not_the_one_that_died(
    invoke: Invoke, session: Session
) -> None:
    """There is a process 1 in each of them."""
    _record_running(session, pid=1)

    assert json.loads(invoke("report", "-f", "json").stdout)["runs"][0]["is_alive"] is False


def test_what_failed_together_is_one_line(invoke: Invoke, session: Session) -> None:
    """Seven times the same sentence hides what else there is; a sheet has each batch."""
    batches = [make_batch(number) for number in range(5)]
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=batches)
    lost = [replace(make_lost(batch), fetch=0) for batch in batches[:3]]
    save_results(
        session,
        run_id=run_id,
        attempts=[make_failed_attempt(0), make_failed_attempt(3), make_attempt(4)],
        outcomes=[*lost, make_lost(batches[3]), make_collected(batches[4])],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)
    session.commit()

    shown = [line.split() for line in invoke("report", "--run", "1").output.splitlines()]
    sheet = list(csv.DictReader(invoke("report", "--run", "1", "-f", "csv").stdout.splitlines()))

    listed = [line for line in shown if line and re.match(r"w\d", line[0])]
    assert [line[0] for line in listed] == ["w0..w2", "w3", "w4"]
    assert listed[0][2] == "9"
    assert [row["batch"] for row in sheet] == ["w0", "w1", "w2", "w3", "w4"]
    assert [sheet[0][key] for key in ("verdict", "error", "detail", "attempt_id")] == [
        *("failed", "http_5xx", "503 Service Unavailable", "1")
    ]


def test_a_killed_run_has_no_duration(invoke: Invoke, session: Session) -> None:
    """Nobody saw its end, and a made-up time would be a lie."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    finish_run(
        session,
        run_id=run_id,
        ended_at=NOON,
        clock_us=None,
        status=RunStatus.INTERRUPTED,
        rest=ErrorName.CANCELLED,
    )
    session.commit()

    assert invoke("report", "--run", "1").output.splitlines()[-1] == (
        "Run 1 interrupted: 0 of 1 batches, 1 cancelled, 0 numbers in 0 requests. Its end was not"
        " seen, so nobody knows how long it took."
    )


@pytest.mark.parametrize("name", ["x' OR 1=1--", "%", "d_ce", "dice'; DROP TABLE runs; --", "*"])
@pytest.mark.parametrize(
    "command", ["report", "report timings", "report errors", "audit", "export numbers"]
)
def test_the_name_of_a_source_is_a_name_and_nothing_else(
    invoke: Invoke, session: Session, command: str, name: str
) -> None:
    """Neither SQL nor a pattern: it finds nothing that is not called so (U09)."""
    record_two(session)

    found = invoke(*command.split(), "--source", name)

    assert found.exit_code == ExitCode.USAGE
    known = invoke(*command.split(), "--source", "dice")
    assert known.exit_code == ExitCode.OK, known.stderr
