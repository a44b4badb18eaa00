"""`pipeline audit` in this process: what is wrong, and the way to the evidence."""

import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from sqlmodel import Session

from pipeline.errors import ExitCode
from pipeline.models import Evidence
from pipeline.store.tables import CONTRACTS
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.processes import serving
from tests.store.makers import (
    at,
    begin,
    make_attempt,
    make_batch,
    make_failed_attempt,
    make_lost,
    record_run,
)

HOSTILE = b"\x1b]0;owned\x07\r\n2026-01-01 ERROR forged\n[/x] \xe2\x80\xae \xff"
WINDOW = ("--since", "2026-03-01", "--until", "2026-03-02")


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


def record_outage(
    session: Session, *, runs: int = 3, is_over: bool = False, minute: int = 0
) -> None:
    """Lose a batch in each of so many runs, five minutes apart, after one that went well."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)], started_at=at(minute))
    for number in range(1, runs + 1):
        moment = at(minute + 5 * number)
        run_id = begin(session, started_at=moment)
        order_batches(session, run_id=run_id, batches=[make_batch(0)])
        save_results(
            session,
            run_id=run_id,
            attempts=[make_failed_attempt(0, began_at=moment)],
            outcomes=[make_lost(make_batch(0))],
            keep_numbers=True,
        )
        finish_run(session, run_id=run_id, ended_at=moment, clock_us=1)
    if is_over:
        later = at(minute + 5 * runs + 5)
        record_run(session, [make_batch(0)], attempts=[make_attempt(0)], started_at=later)
    session.commit()


def test_without_a_store_it_says_what_to_do(invoke: Invoke) -> None:
    """As all readers do."""
    result = invoke("audit")

    assert result.exit_code == ExitCode.STORE_FAILED
    assert "no database yet" in result.stderr


def test_nothing_to_complain_about_is_one_line(invoke: Invoke, session: Session) -> None:
    """Good news are short; the window is said even so, or nobody knows what was looked at."""
    session.commit()

    assert invoke("audit", *WINDOW).output == (
        "From 2026-03-01 00:00:00Z to 2026-03-02 00:00:00Z, 0 runs: nothing to complain about."
        " --since and --until choose another time.\n"
    )


def test_it_looks_back_a_week(invoke: Invoke, session: Session) -> None:
    """And says so, in text and in JSON."""
    session.commit()

    document = json.loads(invoke("audit", "-f", "json").stdout)

    since, until = (datetime.fromisoformat(document["window"][key]) for key in ("since", "until"))
    assert until - since == timedelta(days=7)
    assert abs(datetime.now(UTC) - until) < timedelta(minutes=1)


def test_an_outage_is_told_with_the_way_to_its_evidence(invoke: Invoke, session: Session) -> None:
    """How bad, what, who, since when, why, and where to look."""
    record_outage(session)

    lines = invoke("audit", *WINDOW).output.splitlines()

    lost = "3 runs in a row lost 3 batches to http_5xx (the server failed)"
    assert lines[2:6] == [
        "Findings",
        "critical: incident, dice, since 2026-03-01 12:05:00Z, still going on",
        f"    {lost} (responsible: upstream)",
        "    see: pipeline audit show 2 (the first), 4 (the last)",
    ]


def test_availability_comes_with_its_rule(invoke: Invoke, session: Session) -> None:
    """Five minutes up, fifteen down and ten that the last state is believed; the rest unknown."""
    record_outage(session)

    text = invoke("audit", *WINDOW).output

    row = next(line for line in text.splitlines() if line.startswith("dice  "))
    assert row.split()[:3] == ["dice", "20.00%", "98.26%"]
    assert "A state holds until the next run that tells, but no longer than 2 usual" in text


def test_failures_are_listed_with_the_way_to_their_evidence(
    invoke: Invoke, session: Session
) -> None:
    """Who, what, where, whose fault, how often, what it cost, since when."""
    record_outage(session)

    lines = invoke("audit", *WINDOW).output.splitlines()

    assert lines[-3].split() == [
        *("dice", "http_5xx", "check", "upstream", "3", "3"),
        *("2026-03-01", "12:05:00Z", "2026-03-01", "12:15:00Z", "4"),
    ]


@pytest.mark.parametrize("question", [("audit",), ("report", "errors")])
def test_a_batch_that_was_never_asked_for_is_explained(
    invoke: Invoke, session: Session, question: tuple[str, ...]
) -> None:
    """A loss without an attempt is a riddle to whoever does not know the breaker."""
    record_outage(session)
    untold = invoke(*question, *WINDOW).output
    run_id = begin(session, started_at=at(60))
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    save_results(
        session, run_id=run_id, attempts=[], outcomes=[make_lost(make_batch(0))], keep_numbers=True
    )
    finish_run(session, run_id=run_id, ended_at=at(61), clock_us=1)
    session.commit()

    told = invoke(*question, *WINDOW).output

    row = next(line for line in told.splitlines() if " not asked " in line)
    assert row.split()[:7] == ["dice", "http_5xx", "not", "asked", "upstream", "0", "1"]
    assert "Not asked: no request was made for these batches; the source was left alone" in told
    assert "sked: no request" not in untold


def test_what_a_retry_made_good_is_listed_and_no_finding(invoke: Invoke, session: Session) -> None:
    """It cost nothing but time."""
    record_failures(session)

    text = invoke("audit", *WINDOW).output

    assert "1 run: nothing to complain about" in text.splitlines()[0]
    assert text.splitlines()[-3].split()[:6] == ["dice", "http_5xx", "check", "upstream", *"20"]


def test_programs_get_the_records_whole(invoke: Invoke, session: Session) -> None:
    """One object, with the rule and all figures."""
    record_outage(session, is_over=True)

    document = json.loads(invoke("audit", *WINDOW, "--format", "json").stdout)

    assert (document["schema"], document["runs"]) == ("pipeline.audit/1", 5)
    assert document["is_alarming"] is True
    assert document["accounting_rule"].startswith("A run that asked the source")
    assert document["findings"] == [
        {
            "kind": "incident",
            "severity": "warning",
            "sources": ["dice"],
            "since": "2026-03-01T12:05:00.000000Z",
            "until": "2026-03-01T12:20:00.000000Z",
            "reason": "3 runs in a row lost 3 batches to http_5xx (the server failed)",
            "whose": "upstream",
            "batches": 3,
            "attempt_ids": [2, 3, 4],
            "figures": {
                "runs": 3,
                "collected": 0,
                "is_our_side": False,
                "errors": {"http_5xx": 3},
            },
        }
    ]
    assert document["availability"][0]["mean_recovery_us"] == 15 * 60 * 1_000_000
    assert document["failures"] == [
        {
            "source": "dice",
            "error": "http_5xx",
            "phase": "check",
            "whose": "upstream",
            "attempts": 3,
            "batches": 3,
            "first_at": "2026-03-01T12:05:00.000000Z",
            "last_at": "2026-03-01T12:15:00.000000Z",
            "last_attempt_id": 4,
        }
    ]


@pytest.mark.parametrize(
    ("shape", "begin_"),
    [
        ("csv", "severity,kind,sources,reason,since"),
        ("markdown", "# Audit"),
        ("html", "<!doctype"),
    ],
)
def test_it_fits_into_sheets_tickets_and_browsers(
    invoke: Invoke, session: Session, shape: str, begin_: str
) -> None:
    """As all that has tables does."""
    record_outage(session, is_over=True)

    text = invoke("audit", *WINDOW, "-f", shape).stdout

    assert text.lower().startswith(begin_.lower())
    assert "3 runs in a row lost 3 batches" in text


def test_a_finding_that_is_over_has_an_end(invoke: Invoke, session: Session) -> None:
    """And a single attempt is named once."""
    record_outage(session, runs=1, is_over=True)

    lines = invoke("audit", *WINDOW).output.splitlines()

    assert lines[3] == "info: incident, dice, 2026-03-01 12:05:00Z to 2026-03-01 12:10:00Z"
    assert lines[5] == "    see: pipeline audit show 2"


@pytest.mark.parametrize(
    ("runs", "options", "code"),
    [
        (3, ("--strict",), ExitCode.FINDINGS),
        (1, ("--strict",), ExitCode.OK),
        (3, (), ExitCode.OK),
        (3, ("--strict", "-f", "json"), ExitCode.FINDINGS),
    ],
)
def test_strict_is_for_cron(
    invoke: Invoke, session: Session, runs: int, options: tuple[str, ...], code: ExitCode
) -> None:
    """A glitch wakes nobody; what is worse is told as ever, and by the exit code."""
    record_outage(session, runs=runs, is_over=True)

    result = invoke("audit", *WINDOW, *options)

    assert result.exit_code == code
    assert "incident" in result.stdout
    assert result.stderr == ""


def test_a_bad_week_does_not_fill_the_screen(invoke: Invoke, session: Session) -> None:
    """What goes on comes first, then the newest; programs get all.

    The dice of these tests show sixes alone, which goes on and is a finding as well.
    """
    for number in range(35):
        record_outage(session, runs=1, minute=10 * number)
    record_outage(session, runs=0, minute=350)

    lines = invoke("audit", *WINDOW).output.splitlines()

    assert sum(line.startswith("critical: repetition") for line in lines) == 1
    assert sum(line.startswith("info: incident") for line in lines) == 29
    assert "and 6 more, less urgent or older; --format json gives all" in lines
    assert len(json.loads(invoke("audit", *WINDOW, "-f", "json").stdout)["findings"]) == 36


def test_the_answer_keeps_to_its_schema(invoke: Invoke, session: Session) -> None:
    """Programs were told what to expect."""
    record_outage(session, is_over=True)
    schema = json.loads((files("pipeline") / "schemas" / "audit.1.json").read_text())

    jsonschema.validate(json.loads(invoke("audit", *WINDOW, "-f", "json").stdout), schema)


def test_another_window_has_other_news(invoke: Invoke, session: Session) -> None:
    """A run counts where it started; dates are UTC."""
    record_outage(session)

    result = invoke("audit", "--since", "2026-03-02", "--until", "2026-03-03")

    assert "0 runs: nothing to complain about" in result.output


def test_a_window_must_begin_before_it_ends(invoke: Invoke, session: Session) -> None:
    """Else it holds nothing, and that would pass for good news."""
    session.commit()

    result = invoke("audit", "--since", "2026-03-02", "--until", "2026-03-01")

    assert result.exit_code == ExitCode.USAGE
    assert "is not after --since 2026-03-02" in result.stderr
    assert invoke("audit", "--until", "0001-01-02").exit_code == ExitCode.OK


def test_a_source_that_nobody_knows_is_a_wrong_command_line(
    invoke: Invoke, session: Session
) -> None:
    """With the names of those that are known, configured or stored."""
    record_outage(session)

    result = invoke("audit", *WINDOW, "--source", "x' OR 1=1--")

    assert result.exit_code == ExitCode.USAGE
    assert "there is none; known are anu_aqn, anu_legacy, csrng, dice, " in result.stderr
    assert invoke("audit", *WINDOW, "--source", "dice").exit_code == ExitCode.OK
    quiet = invoke("audit", *WINDOW, "--source", "sandbox_anu")
    assert "sandbox_anu alone, 0 runs: nothing to complain about" in quiet.output


def test_text_of_an_upstream_cannot_steer_a_terminal(invoke: Invoke, session: Session) -> None:
    """A content type is quoted when it changes."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    spans = [
        {
            "source": "dice",
            "aspect": "content_type",
            "value": value,
            "first_at": at(number),
            "last_at": at(number),
            "first_attempt": 1,
            "last_attempt": 1,
        }
        for number, value in enumerate(("text/plain", "\x1b]0;owned\x07\n<b>"))
    ]
    session.connection().execute(CONTRACTS.insert(), spans)
    session.commit()

    text = invoke("audit", *WINDOW).output

    assert "changed from text/plain to \\x1b]0;owned\\x07\\n<b>" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_the_evidence_is_shown_and_not_obeyed(invoke: Invoke, session: Session) -> None:
    """Line by line, every control character visible."""
    record_failures(session)

    shown = invoke("audit", "show", "1").output

    assert "Attempt 1: run 1, fetch 0, try 1" in shown
    assert "Failed in check: http_5xx (the server failed); responsible: upstream" in shown
    assert "The upstream asked us to wait 30 s." in shown
    assert "\nStatus 503\nX-\\x1b[2J: a\\r\\nb\n" in shown
    assert (
        f"\nBody: 5000 bytes, the first {len(HOSTILE)} kept\n\n"
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
    assert document["batches"][0]["batch"] == "w0"
    assert len(document["batches"][0]["digest"]) == 64


def test_an_attempt_that_went_well_has_no_evidence(invoke: Invoke, session: Session) -> None:
    """Only failures are kept, and that is said."""
    record_failures(session)

    shown = invoke("audit", "show", "3").output

    assert "Batches settled by this attempt: none, it was tried again\n" in shown
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


@pytest.mark.parametrize(
    "option",
    [
        ("--since", "7d"),
        ("--until", "1d"),
        ("--source", "dice"),
        ("-f", "json"),
        ("--strict",),
    ],
)
def test_other_options_before_show_are_refused(invoke: Invoke, option: tuple[str, ...]) -> None:
    """They choose from a list that is not shown."""
    result = invoke("audit", *option, "show", "1")

    assert result.exit_code == ExitCode.USAGE
    assert "only --config has a meaning" in result.stderr


def test_an_order_that_the_rules_never_let_through_is_a_finding(invoke: Invoke, home: Path) -> None:
    """Every run is fine, and some of its batches are always left; there is no schedule."""

    def collect(rate: str) -> None:
        # Far from the moments of both runs, a second and a bit apart: no request is cut off.
        (home / "config.toml").write_text(
            f"[collect]\ndeadline_seconds = 1.5\n[sources.dice]\nkind = 'randomnumberapi'\n"
            f"min = 1\nmax = 6\nurl = '{upstream.url}'\nbatches = [1, 1, 1, 1, 1, 1]\n"
            f"rate = '{rate}'\nmerge = false\n"
        )
        assert invoke("collect").exit_code == 0

    why = "6 requests at 1 per 1 s take 5 s, the deadline is 1.5 s; set merge = true, order less"
    with serving() as upstream:
        for _ in range(2):
            collect("1/s")
        assert why in invoke("plan").stderr
        found = invoke("audit", "--strict")
        of_another = invoke("audit", "--source", "dice", "--format", "json")
        collect("none")
        mended = invoke("audit", "--strict")

    assert found.exit_code == ExitCode.FINDINGS
    assert "warning: impossible, dice, since" in found.stdout
    assert why in found.stdout
    (finding,) = json.loads(of_another.stdout)["findings"]
    assert (finding["kind"], finding["whose"], finding["until"]) == ("impossible", "ours", None)
    assert (mended.exit_code, "impossible" in mended.stdout) == (0, False)
    _check_limits(invoke)


def _check_limits(invoke: Invoke) -> None:
    """Judge the first run by what was in force in it, though the file says something else now."""
    limits = json.loads(invoke("report", "--run", "1", "--format", "json").stdout)["limits"]
    assert limits["sources"]["dice"]["rate"] == "1/1s"
    assert json.loads(invoke("audit", "show", "1", "--format", "json").stdout)["limits"] == limits
    for command in (("report", "--run", "1"), ("audit", "show", "1")):
        shown = invoke(*command).stdout
        assert "Limits in force: deadline_seconds=1.5, retry_budget=100, max_bytes" in shown
        assert "  dice: rate=1/1s, quotas=none, in_flight=4, merge=false, max_n" in shown
    assert "rate=none" in invoke("report", "--run", "3").stdout
