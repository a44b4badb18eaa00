"""`pipeline doctor`: each line is ok, or says what to do."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline import doctor
from pipeline.errors import ExitCode
from pipeline.store.spool import set_aside
from tests.cli.conftest import Invoke
from tests.store.makers import make_attempt, make_batch, record_run

DICE = "[sources.dice]\nkind = 'sandbox.anu_legacy'\nbatches = [2]\n"


def look(invoke: Invoke) -> tuple[int, Mapping[str, tuple[bool, str]]]:
    """Ask it, and give the exit code and the last that it says of each topic."""
    shown = invoke("doctor", "--format", "json")
    checks = json.loads(shown.stdout)["checks"]
    return shown.exit_code, {each["topic"]: (each["is_ok"], each["says"]) for each in checks}


def test_a_machine_that_is_well(home: Path, invoke: Invoke, session: Session) -> None:
    """Every topic has a line, and the exit code says that nothing is to be done."""
    (home / "config.toml").write_text(DICE)
    record_run(session, [make_batch()], started_at=datetime.now(UTC))
    session.commit()

    code, found = look(invoke)

    assert code == 0
    assert all(is_ok for is_ok, _ in found.values())
    assert found.keys() >= {"configuration", "rules", "store", "clock", "rights", "locks"}
    assert found["configuration"][1].endswith("config.toml (in the current folder): asks dice")
    assert found["store"][1].endswith("pipeline.db: 1 run, the last at " + found["store"][1][-20:])
    assert found["locks"][1] == "no run is going on"


def test_it_looks_and_changes_nothing(home: Path, invoke: Invoke) -> None:
    """A doctor does not make a database."""
    (home / "config.toml").write_text(DICE)

    code, found = look(invoke)

    assert code == 0
    assert "the first run makes it" in found["store"][1]
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_without_a_configuration_it_says_where_one_was_looked_for(
    home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox answers, but that is not what a user wants in the books."""
    monkeypatch.setenv("PIPELINE_CONFIG", "")

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    is_ok, says = found["configuration"]
    assert not is_ok
    assert str(home / "config.toml") in says
    assert "`pipeline init` makes one" in says


def test_a_configuration_that_is_wrong_is_named_and_the_rest_is_looked_at(
    home: Path, invoke: Invoke
) -> None:
    """One fault must not hide the others."""
    (home / "config.toml").write_text("[sources.dice]\nkind = 'dice'\nbatches = [2]\n")

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert "sources.dice.kind" in found["configuration"][1]
    assert found["time zones"][0]


def test_an_order_that_the_rules_never_allow(home: Path, invoke: Invoke) -> None:
    """As `plan` says it."""
    more = "merge = false\nrate = '1/60s'\n"
    (home / "config.toml").write_text(DICE.replace("[2]", "'2..29'") + more)

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert "28 requests at 1 per 60 s" in found["rules"][1]


def test_a_clock_that_does_not_fit_the_history(
    home: Path, invoke: Invoke, session: Session
) -> None:
    """It shows an earlier time than a run that was."""
    (home / "config.toml").write_text(DICE)
    record_run(session, [make_batch()], started_at=datetime.now(UTC) + timedelta(days=2))
    session.commit()

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert "a clock was 48" in found["clock"][1] or "a clock was 2" in found["clock"][1]
    assert found["clock"][1].endswith("set this machine's clock")


def test_a_database_of_somebody_else(home: Path, invoke: Invoke) -> None:
    """The store's own words, and what to do."""
    (home / "config.toml").write_text(f"[store]\nurl = 'other.db'\n{DICE}")
    (home / "other.db").write_bytes(b"not a database, but long enough to be looked at" * 30)

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert not found["store"][0]
    assert "other.db" in found["store"][1]


def test_a_folder_in_the_place_of_the_database(home: Path, invoke: Invoke) -> None:
    """One line says what to do; that the folder can be written is no comfort."""
    (home / "config.toml").write_text(f"[store]\nurl = 'x.db'\n{DICE}")
    (home / "x.db").mkdir()

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert "is no file but a folder" in found["store"][1]
    assert "rights" not in found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(home: Path, invoke: Invoke) -> None:
    """Found before the night in which the first run fails."""
    (home / "config.toml").write_text(f"[store]\nurl = 'closed/x.db'\n{DICE}")
    (home / "closed").mkdir(mode=0o500)

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert "cannot be written by this user" in found["rights"][1]


def test_what_a_run_set_aside_is_named(home: Path, invoke: Invoke, session: Session) -> None:
    """It is not lost: a person should know where it is, and whether it can still be stored."""
    (home / "config.toml").write_text(DICE)
    session.commit()
    whole = home / "data" / "pipeline" / "pipeline.db.spool-x"
    set_aside(whole, uid="x", attempts=[make_attempt(0)], outcomes=[], keep_numbers=True)

    _, found = look(invoke)

    assert found["set aside"] == (True, f"the next run stores what is in {whole}")


def test_what_is_damaged_of_it_is_named_too(home: Path, invoke: Invoke, session: Session) -> None:
    """Each run says so as well, and stores nothing of it."""
    (home / "config.toml").write_text(DICE)
    session.commit()
    damaged = home / "data" / "pipeline" / "pipeline.db.spool-x"
    damaged.write_bytes(b"")

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert found["set aside"] == (
        False,
        f"nothing of {damaged} is stored: it is damaged; move it away to hear no more of it",
    )


def test_a_key_that_others_can_read(home: Path, invoke: Invoke) -> None:
    """With the command that mends it."""
    key = home / "aqn.key"
    key.write_text("key")
    key.chmod(0o644)
    (home / "config.toml").write_text(
        "[sources.anu]\nkind = 'anu_aqn'\napi_key_file = 'aqn.key'\nbatches = [2]\n"
        "url = 'http://127.0.0.1:1'\nproxy = 'env'\n"
    )

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert found["keys"] == (
        False,
        f"sources.anu.api_key_file: others can read {key}; chmod 600 it",
    )
    assert found["proxy"] == (True, "anu is asked directly")


def test_certificates_that_cannot_be_read(home: Path, invoke: Invoke) -> None:
    """Of a source, by the key that names the file."""
    (home / "ca.pem").write_text("nothing")
    (home / "config.toml").write_text(
        "[sources.anu]\nkind = 'anu_legacy'\nca_file = 'ca.pem'\nbatches = [2]\n"
        "url = 'https://127.0.0.1:1'\n"
    )

    code, found = look(invoke)

    assert code == ExitCode.CONFIGURATION
    assert "ca.pem" in "".join(says for is_ok, says in found.values() if not is_ok)


def test_libraries_that_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against what our own installation asks for."""
    monkeypatch.setattr(doctor, "requires", lambda _: ["typer>=999.1", "none>=1", "rich>=1"])

    *found, last = doctor._libraries()

    assert [each.is_ok for each in found] == [False, False]
    assert "it must be 999.1 or newer; " in found[0].says
    assert found[1].says.startswith("none is missing: ")
    assert last.is_ok
    assert last.says.startswith("Python 3.")


def test_for_a_person_it_is_a_table(home: Path, invoke: Invoke) -> None:
    """What to mend stands out."""
    (home / "config.toml").write_text("[sources.dice]\nkind = 'dice'\nbatches = [2]\n")

    shown = invoke("doctor")

    rows = [line.split() for line in shown.stdout.splitlines()[2:]]
    assert rows[0][:2] == ["mend", "configuration"]
    assert {row[0] for row in rows} == {"mend", "ok"}
