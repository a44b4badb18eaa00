"""Every answer about attempts tells which machine asked, where workers shared the run."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlmodel import Session

from pipeline.store.tables import MEMBERS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.store.makers import (
    NOON,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
    record_run,
)

FIRST, SECOND = ("m1", 7), ("m2", 8)


@pytest.fixture
def shared(session: Session) -> None:
    """Record a run that two workers shared, m2 after m1 in one fetch, and one that nobody did."""
    one, two = (_join(session, *worker) for worker in (FIRST, SECOND))
    made = [
        replace(make_attempt(0), member=one),
        replace(make_failed_attempt(1), member=one),
        replace(make_attempt(1, 2), member=two),
        replace(make_failed_attempt(2), member=two),
    ]
    batches = [make_batch(number) for number in range(3)]
    outcomes = [make_collected(batches[0]), make_collected(batches[1], attempt=2)]
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=batches)
    save_results(
        session,
        run_id=run_id,
        attempts=made,
        outcomes=[*outcomes, make_lost(batches[2])],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1_000_000)
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    session.commit()


def _join(session: Session, host: str, pid: int) -> int:
    worker = {"host": host, "pid": pid, "version": "1", "lanes": 1, "since": NOON, "seen_at": NOON}
    joining = insert(MEMBERS).values(worker).returning(MEMBERS.c.id)
    return int(session.connection().execute(joining).scalar_one())


pytestmark = pytest.mark.usefixtures("shared")


def of_sheet(text: str) -> list[tuple[str, str]]:
    """Read the machines and processes off a sheet."""
    return [(row["host"], row["pid"]) for row in csv.DictReader(io.StringIO(text))]


def test_each_batch_has_the_machine_of_the_attempt_that_decided_it(invoke: Invoke) -> None:
    """A portion that was taken over has batches of two machines."""
    answer = ("report", "batches", "--run", "1", "--format")
    found = json.loads(invoke(*answer, "json").stdout)["batches"]
    alone = invoke("report", "batches", "--run", "2").stdout

    assert [(batch["host"], batch["pid"]) for batch in found] == [FIRST, SECOND, SECOND]
    assert of_sheet(invoke(*answer, "csv").stdout) == [("m1", "7"), ("m2", "8"), ("m2", "8")]
    assert invoke("report", "batches", "--run", "1").stdout.count(" m2 ") == 2
    assert "host" not in alone


def test_the_report_of_a_run_counts_the_attempts_of_each(invoke: Invoke) -> None:
    """Not only who had a portion last."""
    found = json.loads(invoke("report", "--run", "1", "--format", "json").stdout)
    said = invoke("report", "--run", "1").stdout

    assert "Carried out by m1 pid 7 (2 requests), m2 pid 8 (2 requests)." in said
    assert [each["host"] for each in found["attempts"]] == ["m1", "m1", "m2", "m2"]
    assert "Carried out" not in invoke("report", "--run", "2").stdout


def test_errors_of_a_run_name_the_machines_that_met_them(invoke: Invoke) -> None:
    """Whether one of them has a broken way to the upstream."""
    answer = ("report", "errors", "--run", "1", "--format")
    [found] = json.loads(invoke(*answer, "json").stdout)["errors"]
    [row] = csv.DictReader(io.StringIO(invoke(*answer, "csv").stdout))
    everything = ("report", "errors", "--since", f"{NOON:%Y-%m-%d}", "--format", "json")
    [of_all] = json.loads(invoke(*everything).stdout)["errors"]

    assert found["hosts"] == ["m1", "m2"]
    assert row["hosts"] == "m1, m2"
    assert "m1, m2" in invoke("report", "errors", "--run", "1").stdout
    assert of_all["hosts"] == []


def test_one_attempt_says_who_made_it(invoke: Invoke, tmp_path: Path) -> None:
    """As text, JSON and HAR."""
    found = json.loads(invoke("audit", "show", "3", "--format", "json").stdout)
    invoke("audit", "show", "3", "--har", str(tmp_path / "3.har"))
    [entry] = json.loads((tmp_path / "3.har").read_bytes())["log"]["entries"]

    assert ", asked by m2 pid 8" in invoke("audit", "show", "3").stdout
    assert (found["attempt"]["host"], found["attempt"]["pid"]) == SECOND
    assert [each["host"] for each in found["attempts"]] == ["m1", "m2"]
    assert entry["comment"].endswith(", asked by m2 pid 8")
    assert "asked by" not in invoke("audit", "show", "5").stdout


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("batches", [("m1", "7"), ("m2", "8"), ("m2", "8"), ("", "")]),
        ("attempts", [("m1", "7"), ("m1", "7"), ("m2", "8"), ("m2", "8"), ("", "")]),
    ],
)
def test_exports_have_it(invoke: Invoke, what: str, told: list[tuple[str, str]]) -> None:
    """For programs that ask more than a report answers."""
    assert of_sheet(invoke("export", what, "--format", "csv").stdout) == told


def test_the_views_have_it(database: Path) -> None:
    """For whoever asks in SQL."""
    with closing(sqlite3.connect(database)) as raw:
        batches = raw.execute("SELECT host, pid FROM batch_list ORDER BY run_id, batch_number")
        failed = raw.execute("SELECT host, pid FROM failed_attempts ORDER BY attempt_id")

        assert batches.fetchall() == [FIRST, SECOND, SECOND, (None, None)]
        assert failed.fetchall() == [FIRST, SECOND]


def test_all_of_it_is_sealed(invoke: Invoke, database: Path) -> None:
    """Who made an attempt is history like what came of it."""
    assert invoke("audit", "verify", "--all").exit_code == 0
    for change in ("members SET host = 'm3' WHERE id = 2", "attempts SET member = 9 WHERE id = 5"):
        with closing(sqlite3.connect(database)) as raw, raw:
            raw.execute(f"UPDATE {change}")

    said = invoke("audit", "verify", "--all").stderr

    assert said.count("its batches, its attempts or their answers were changed") == 2
