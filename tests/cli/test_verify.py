"""``pipeline audit verify`` in this process."""

import io
import json
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from sqlmodel import Session

from pipeline.errors import ExitCode
from pipeline.rendering.progress import progress
from pipeline.store.db import open_store
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
        "run_id": 2,
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
        "verified_before": None,
        "proofs": None,
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


def record_more(database: Path, runs: int = 1) -> None:
    """Record runs of a batch each."""
    with open_store(f"sqlite:///{database}", busy_seconds=1, for_writing=True) as store:
        for _ in range(runs):
            with store.write() as session:
                record_run(session, [make_batch()], attempts=[make_attempt()], started_at=NOON)


def test_what_was_verified_is_not_read_again(invoke: Invoke, history: Path) -> None:
    """A store of ten million would take minutes each night."""
    invoke("audit", "verify")
    record_more(history)
    execute(history, "UPDATE runs SET host = 'elsewhere' WHERE id = 1")

    said = invoke("audit", "verify")
    answer = json.loads(invoke("audit", "verify", "-f", "json").stdout)

    assert said.exit_code == ExitCode.OK
    assert "1 run, 1 batch, 3 numbers verified, all that came since" in said.output
    assert "2 batches before were verified then and not read again" in " ".join(said.output.split())
    assert (answer["runs"], answer["verified_before"]["batches"]) == (0, 3)
    assert answer["verified_before"]["position"] == answer["head"]["position"] == 3


def test_all_is_read_with_all(invoke: Invoke, history: Path) -> None:
    """It finds what was changed since it was verified."""
    invoke("audit", "verify")
    execute(history, "UPDATE runs SET host = 'elsewhere' WHERE id = 1")

    result = invoke("audit", "verify", "--all")

    assert "run 1: its row" in result.stderr
    assert result.exit_code == ExitCode.STORE_FAILED


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batches SET sum = 17 WHERE run_id = 3",
        "UPDATE seals SET chain = x'ab' WHERE position = 3",
        "UPDATE health SET matches = matches + 1",
        "INSERT INTO losses VALUES (0, 3, 'dice', 'dns', 'dns', 1, 1, '', '', 0, 0)",
        "DELETE FROM seals WHERE position = 4",
    ],
)
def test_what_is_wrong_since_is_found_each_time(
    invoke: Invoke, history: Path, statement: str
) -> None:
    """What is not sound is never noted as verified."""
    invoke("audit", "verify")
    record_more(history, runs=2)
    execute(history, statement)

    codes = [invoke("audit", "verify").exit_code for _ in range(2)]

    assert codes == [ExitCode.STORE_FAILED] * 2


def note_of(history: Path) -> Path:
    """Name the note beside a database."""
    return history.with_name("pipeline.db.verified")


@pytest.mark.parametrize("text", ["", "ab", "ab\n{}\n", "\xff", None])
def test_a_note_that_is_lost_or_damaged_is_none(
    invoke: Invoke, history: Path, text: str | None
) -> None:
    """Then everything is read, and there is a good one again."""
    invoke("audit", "verify")
    note = note_of(history)
    if text is None:
        note.unlink()
    else:
        note.write_text(text, "latin-1")

    first, second = (invoke("audit", "verify") for _ in range(2))

    assert first.exit_code == second.exit_code == ExitCode.OK
    assert first.output.startswith("All is well: 2 runs, 2 batches, 6 numbers verified.")
    assert ("All was read: " in first.output) is (text is not None)
    assert "0 batches" in second.output


def test_a_note_that_was_changed_is_none(invoke: Invoke, history: Path) -> None:
    """Its first line proves the second."""
    invoke("audit", "verify")
    note = note_of(history)
    note.write_text(note.read_text().replace('"batches": 2', '"batches": 3'))

    assert f"All was read: {note} is damaged" in " ".join(invoke("audit", "verify").output.split())


def test_a_note_of_another_history_is_none(invoke: Invoke, database: Path) -> None:
    """Somebody began anew, with another file of the same name."""
    record_more(database, runs=3)
    invoke("audit", "verify")
    database.unlink()
    record_more(database)

    said = invoke("audit", "verify")

    assert said.output.startswith("All is well: 1 run, 1 batch, 3 numbers verified.")
    assert "what was verified of another history" in " ".join(said.output.split())
    assert said.exit_code == ExitCode.OK


@pytest.mark.parametrize("options", [(), ("--all",)])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_an_older_copy_that_was_put_back_is_found(
    invoke: Invoke, history: Path, more: int, options: tuple[str, ...]
) -> None:
    """History that was verified is gone, whatever came after; till somebody removes the note."""
    copy = history.read_bytes()
    record_more(history)
    invoke("audit", "verify")
    history.write_bytes(copy)
    record_more(history, runs=more)

    results = [invoke("audit", "verify", *options) for _ in range(2)]
    note_of(history).unlink()
    afterwards = invoke("audit", "verify", *options)

    for result in results:
        assert result.stderr.startswith("pipeline: position 3: was verified ")
        assert f"If that was you, remove {note_of(history)}" in result.stderr
        assert result.exit_code == ExitCode.STORE_FAILED
    assert afterwards.exit_code == ExitCode.OK


def test_a_note_that_cannot_be_written_is_said(invoke: Invoke, history: Path) -> None:
    """Who may only read verifies as well, and reads everything each time."""
    note_of(history).mkdir()

    results = [invoke("audit", "verify") for _ in range(2)]

    for result in results:
        assert result.output.startswith("All is well: 2 runs,")
        assert "This could not be noted" in result.output
        assert result.exit_code == ExitCode.OK


def test_a_head_before_the_note_is_still_held_to(invoke: Invoke, history: Path) -> None:
    """Whatever is read, the chain must have what somebody wrote down."""
    first = json.loads(invoke("audit", "verify", "-f", "json").stdout)["head"]
    record_more(history)
    invoke("audit", "verify")

    good = invoke("audit", "verify", "--expect", f"{first['position']}:{first['chain']}")
    bad = invoke("audit", "verify", "--expect", f"1:{first['chain']}")

    assert good.exit_code == ExitCode.OK
    assert "position 1: another chain was noted" in bad.stderr


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
