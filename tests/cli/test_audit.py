"""`pipeline audit` in this process."""

import json
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.cli.boundary import ExitCode
from pipeline.models import Evidence
from tests.cli.conftest import Invoke
from tests.store.makers import at, make_attempt, make_batch, make_failed_attempt, record_run

HOSTILE = b"\x1b]0;owned\x07\r\n2026-01-01 ERROR forged\n[/x] \xe2\x80\xae \xff"


def record_failures(session: Session) -> None:
    """Record two failures with hostile evidence, and a success."""
    evidence = Evidence(
        status=503,
        headers=(("X-\x1b[2J", "a\r\nb"),),
        body=HOSTILE,
        body_bytes=5000,
    )
    made = [
        make_failed_attempt(0, 1, evidence=evidence),
        make_failed_attempt(0, 2, began_at=at(5), evidence=evidence),
        make_attempt(0, 3),
    ]
    record_run(session, [make_batch(0)], attempts=made)
    session.commit()


def test_without_a_store_it_says_what_to_do(invoke: Invoke) -> None:
    """As all readers do."""
    result = invoke("audit")

    assert result.exit_code == ExitCode.STORE_FAILED
    assert "no database yet" in result.stderr


def test_no_failures_are_good_news(invoke: Invoke, session: Session) -> None:
    """And are told as such."""
    session.commit()

    assert invoke("audit").output == "No failures.\n"
    assert json.loads(invoke("audit", "-f", "json").stdout) == {
        "schema": "pipeline.failures/1",
        "failures": [],
    }


def test_failures_are_listed_with_the_way_to_their_evidence(
    invoke: Invoke, session: Session
) -> None:
    """Who, what, where, whose fault, how often, since when."""
    record_failures(session)

    lines = invoke("audit").output.splitlines()

    assert lines[2].split() == [
        *("dice", "http_5xx", "check", "upstream", "2"),
        *("2026-03-01", "12:00:00Z", "2026-03-01", "12:05:00Z", "2"),
    ]
    assert lines[-1] == "`pipeline audit show NUMBER` prints the evidence of an attempt."


def test_failures_can_be_narrowed(invoke: Invoke, session: Session) -> None:
    """By time and by source."""
    record_failures(session)

    recent = json.loads(invoke("audit", "--since", "2026-03-01T12:01", "-f", "json").stdout)

    assert [group["n"] for group in recent["failures"]] == [1]
    assert recent["failures"][0]["first_at"] == "2026-03-01T12:05:00.000000Z"
    assert invoke("audit", "--source", "coin").output == "No failures.\n"


def test_the_evidence_is_shown_and_not_obeyed(invoke: Invoke, session: Session) -> None:
    """Line by line, every control character visible."""
    record_failures(session)

    shown = invoke("audit", "show", "1").output

    assert "Attempt 1: run 1, fetch 0, try 1" in shown
    assert "Failed in check: http_5xx (the server failed); whose: upstream" in shown
    assert "The upstream asked us to wait 30 s." in shown
    assert "\nStatus 503\nX-\\x1b[2J: a\\r\\nb\n" in shown
    assert (
        f"\nBody, 5000 bytes, the first {len(HOSTILE)} kept, secrets replaced:\n"
        "\\x1b]0;owned\\x07\n2026-01-01 ERROR forged\n[/x] \\u202e \\xff\n" in shown
    )
    assert all(line.isprintable() for line in shown.splitlines())


def test_the_evidence_as_json_is_ascii(invoke: Invoke, session: Session) -> None:
    """JSON has escapes of its own; the shapes are those of `report`."""
    record_failures(session)

    text = invoke("audit", "show", "1", "--format", "json").stdout
    document = json.loads(text)

    assert text.isascii()
    assert document["schema"] == "pipeline.attempt/1"
    assert (document["attempt"]["error"], document["attempt"]["dns_us"]) == ("http_5xx", 100)
    assert document["answer"]["body"].startswith("\x1b]0;owned")
    assert document["batches"][0]["name"] == "w0"
    assert len(document["batches"][0]["digest"]) == 64


def test_an_attempt_that_went_well_has_no_evidence(invoke: Invoke, session: Session) -> None:
    """Only failures are kept, and that is said."""
    record_failures(session)

    shown = invoke("audit", "show", "3").output

    assert "Decided no batch: it was tried again." in shown
    assert "It went well, so no answer was kept." in shown
    assert "Failed" not in shown


def test_a_failure_without_an_answer_says_so(invoke: Invoke, session: Session) -> None:
    """A refused connection leaves nothing to look at."""
    record_run(session, [make_batch(0)], attempts=[make_failed_attempt(0)])
    session.commit()

    assert invoke("audit", "show", "1").output.endswith("No answer was kept.\n")


@pytest.mark.parametrize("number", ["4", "0", "99999999999999999999"])
def test_an_attempt_that_is_not_there_is_a_wrong_command_line(
    invoke: Invoke, session: Session, number: str
) -> None:
    """With the way to one that is."""
    record_failures(session)

    result = invoke("audit", "show", number)

    assert result.exit_code == ExitCode.USAGE
    assert "`pipeline audit` lists failures" in result.stderr


def test_a_config_before_show_counts(invoke: Invoke, session: Session, home: Path) -> None:
    """To drop it without a word would show the evidence of another database."""
    record_failures(session)
    config = home / "elsewhere.toml"
    config.write_text(
        "[store]\nurl = 'none.db'\n[sources.a]\nkind = 'sandbox.anu_legacy'\nbatches = [1]\n"
    )

    result = invoke("audit", "--config", str(config), "show", "1")

    assert result.exit_code == ExitCode.STORE_FAILED
    assert "none.db" in result.stderr


@pytest.mark.parametrize("option", [("--since", "7d"), ("--source", "dice"), ("-f", "json")])
def test_other_options_before_show_are_refused(invoke: Invoke, option: tuple[str, str]) -> None:
    """They choose from a list that is not shown."""
    result = invoke("audit", *option, "show", "1")

    assert result.exit_code == ExitCode.USAGE
    assert "only --config has a meaning" in result.stderr
