"""``pipeline audit verify`` in this process."""

import io
import json
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from sqlmodel import Session

from pipeline.cli.boundary import ExitCode
from pipeline.cli.progress import progress
from tests.cli.conftest import Invoke
from tests.cli.test_db import execute
from tests.store.makers import NOON, make_attempt, make_batch, record_run


@pytest.fixture
def history(session: Session, database: Path) -> Path:
    """Record two runs."""
    for _ in range(2):
        record_run(session, [make_batch()], attempts=[make_attempt()], started_at=NOON)
    session.commit()
    return database


def test_a_sound_history_gives_a_head_to_note(invoke: Invoke, history: Path) -> None:
    """And the very option that holds history to it another time."""
    del history

    said = invoke("audit", "verify").output.splitlines()

    assert said[0] == "All is well: 2 runs, 2 batches, 6 numbers verified."
    mark = said[1].removeprefix("Head of the chain: ")
    assert f"`pipeline audit verify --expect {mark}`" in said[2]
    assert invoke("audit", "verify", "--expect", mark).exit_code == ExitCode.OK


def test_what_is_wrong_goes_to_stderr_a_line_each(invoke: Invoke, history: Path) -> None:
    """Cron mails it, and a script sees 74."""
    execute(history, "UPDATE runs SET host = 'elsewhere' WHERE id = 1")

    result = invoke("audit", "verify")

    (line,) = result.stderr.splitlines()
    assert line.startswith("pipeline: run 1: its row, its tallies or its losses were changed")
    assert result.stdout == ""
    assert result.exit_code == ExitCode.STORE_FAILED


def test_a_program_gets_the_problems_one_by_one(invoke: Invoke, history: Path) -> None:
    """With the run, the batch and the seal that they concern."""
    execute(history, "UPDATE batches SET sum = 17 WHERE run_id = 2")

    result = invoke("audit", "verify", "--format", "json")

    answer = json.loads(result.stdout)
    assert result.exit_code == ExitCode.STORE_FAILED
    assert (answer["schema"], answer["is_sound"]) == ("pipeline.verify/1", False)
    assert answer["problems"][0] == {
        "text": "run 2 w0: its numbers are not those collected",
        "run": 2,
        "batch": "w0",
        "position": None,
    }


def test_a_program_gets_what_was_looked_at(invoke: Invoke, history: Path) -> None:
    """Each key of the published shape."""
    del history

    answer = json.loads(invoke("audit", "verify", "-f", "json").stdout)

    head = answer.pop("head")
    assert head["position"] == 2
    assert len(head["chain"]) == 64
    assert answer == {
        "schema": "pipeline.verify/1",
        "is_sound": True,
        "runs": 2,
        "pruned": 0,
        "batches": 2,
        "attempts": 2,
        "numbers": 6,
        "problems": [],
    }


@pytest.mark.parametrize("statement", [None, "DELETE FROM batches", "DELETE FROM seals"])
def test_the_answer_is_as_published(invoke: Invoke, history: Path, statement: str | None) -> None:
    """Whoever wrote a program for it finds every key, sound or not."""
    if statement is not None:
        execute(history, statement)
    schema = json.loads((files("pipeline") / "schemas" / "verify.1.json").read_text())

    jsonschema.validate(json.loads(invoke("audit", "verify", "-f", "json").stdout), schema)


def test_another_head_than_was_noted_is_refused(invoke: Invoke, history: Path) -> None:
    """Then somebody wrote history anew, seals and all."""
    del history

    result = invoke("audit", "verify", "--expect", f"2:{'ab' * 32}")

    assert "position 2: another chain was noted" in result.stderr
    assert result.exit_code == ExitCode.STORE_FAILED


@pytest.mark.parametrize("mark", ["2", "2:ab", f"0:{'ab' * 32}", f"x:{'ab' * 32}", "\x1b[2J"])
def test_what_is_no_head_is_a_wrong_command_line(invoke: Invoke, mark: str) -> None:
    """It says what one looks like."""
    result = invoke("audit", "verify", "--expect", mark)

    assert "give POSITION:HASH" in result.stderr
    assert "\x1b" not in result.stderr
    assert result.exit_code == ExitCode.USAGE


def test_before_the_first_run_there_is_no_head(invoke: Invoke, session: Session) -> None:
    """Nothing to note, and nothing wrong."""
    session.commit()

    assert (
        invoke("audit", "verify").output == "All is well: 0 runs, 0 batches, 0 numbers verified.\n"
    )


def test_without_a_database_it_says_so(invoke: Invoke) -> None:
    """In one line."""
    result = invoke("audit", "verify")

    assert "no database yet" in result.stderr
    assert result.exit_code == ExitCode.STORE_FAILED


class Terminal(io.StringIO):
    """A stderr that somebody looks at."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


def test_on_a_terminal_a_bar_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large store takes minutes, and nobody should think that it hangs."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())

    with progress("verifying") as watch:
        watch(1, 2)
        watch(2, 2)

    assert "verifying" in terminal.getvalue()


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_bar_that_has_nothing_to_say_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    """Nor where it could not be taken away again."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())

    with progress("verifying") as watch:
        watch(2 if term == "xterm" else 1, 2)

    assert terminal.getvalue() == ""
