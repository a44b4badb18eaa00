"""`pipeline audit dossier` in this process: what a provider gets, and what it never gets."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, ExitCode
from pipeline.models import Evidence, Request
from pipeline.pacing import Rate, Rules
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.store.makers import (
    at,
    begin,
    make_attempt,
    make_batch,
    make_collected,
    make_failed_attempt,
    make_lost,
)

WINDOW = ("--since", "2026-03-01", "--until", "2026-03-02")
RULES = {"dice": Rules(rate=Rate(requests=1, period_seconds=60))}

REQUEST = Request(
    method="POST",
    url="https://api.example.org/v1?n=3&contact=ada%40example.org",
    headers=(("User-Agent", "pipeline/1 (ada@example.org)"), ("X-Api-Key", "${DICE_KEY}")),
    body=b'{"mail": "ada@example.org"}',
)
EVIDENCE = Evidence(
    status=503,
    headers=(("CF-Ray", "8c1f-TXL"), ("Server", "\x1b[2J")),
    body=b"<script>alert(1)</script> ``` | \xff write to ada@example.org" + b"x" * 2000,
    body_bytes=5000,
)


def record(
    session: Session,
    *words: str,
    source: str = "dice",
    requests: Sequence[Request] = (REQUEST,),
    detail: str = "",
) -> None:
    """Record a run for each word, five minutes apart: ``ok``, or the name of an error.

    The runs send the *requests* one after the other, and then from the first on.
    """
    for number, word in enumerate(words):
        moment = at(5 * number)
        run_id = begin(session, host="my-secret-host", started_at=moment)
        batch = make_batch(0, source)
        order_batches(session, run_id=run_id, batches=[batch])
        if word == "ok":
            attempt, outcome = make_attempt(0, source=source), make_collected(batch)
        else:
            error = ErrorName(word)
            attempt = make_failed_attempt(0, source=source, error=error, evidence=EVIDENCE)
            attempt = replace(attempt, detail=detail or attempt.detail)
            outcome = replace(make_lost(batch), error=error)
        attempt = replace(attempt, began_at=moment, retry_after_us=None)
        attempt = replace(attempt, request=requests[number % len(requests)])
        save_results(
            session, run_id=run_id, attempts=[attempt], outcomes=[outcome], keep_numbers=True
        )
        finish_run(session, run_id=run_id, ended_at=moment, clock_us=1, rules=RULES)
    session.commit()


def section(text: str, title: str) -> list[str]:
    """Give the lines below a heading, without blank ones."""
    below = text.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    return [line for line in below.splitlines() if line]


def test_it_says_what_was_asked_and_how_often(invoke: Invoke, session: Session) -> None:
    """The request as it was sent, so that the provider can find it and repeat it."""
    record(session, "ok", "ok", "http_5xx")

    text = invoke("audit", "dossier", "dice", *WINDOW).stdout

    assert section(text, "What was asked")[2] == (
        "| POST | `https://api.example.org/v1?n=3&contact=[address]` | 3"
        " | 2026-03-01 12:00:00Z | 2026-03-01 12:10:00Z |"
    )
    assert section(text, "The most frequent request")[1:-1] == [
        "POST https://api.example.org/v1?n=3&contact=[address]",
        "User-Agent: pipeline/1 ([address])",
        "X-Api-Key: ${DICE_KEY}",
        '{"mail": "[address]"}',
    ]


@pytest.mark.parametrize("end", [" port 3128: Connection refused", ": Name or service not known"])
def test_it_names_no_proxy_of_ours(invoke: Invoke, session: Session, end: str) -> None:
    """How our network is built is nobody's business."""
    record(session, "dns", detail=f"proxy gw.corp.example{end}")

    text = invoke("audit", "dossier", "dice", *WINDOW).stdout

    assert f"proxy{end}" in text
    assert "corp" not in text


@pytest.mark.parametrize(
    ("runs", "said"),
    [(10, None), (11, "1 other request, asked 1 time"), (24, "2 other requests, asked 4 times")],
)
def test_it_says_how_many_requests_it_leaves_out(
    invoke: Invoke, session: Session, runs: int, said: str | None
) -> None:
    """A provider who adds them up must arrive at what it counts in all."""
    requests = [replace(REQUEST, url=f"https://api.example.org/?n={n}") for n in range(12)]
    record(session, *["ok"] * runs, requests=requests)

    text = invoke("audit", "dossier", "dice", *WINDOW).stdout

    assert (f"\nAnd {said}.\n" in text) if said else ("other request" not in text)


def test_it_adds_up(invoke: Invoke, session: Session) -> None:
    """What was wanted and what came."""
    record(session, "ok", "http_5xx", "ok")

    totals = section(invoke("audit", "dossier", "dice", *WINDOW).stdout, "In all")

    assert "| runs that wanted numbers | 3 |" in totals
    assert "| requests that failed | 1 |" in totals
    assert "| numbers collected | 6 |" in totals


def test_it_says_which_rules_were_kept(invoke: Invoke, session: Session) -> None:
    """That is the first question of any provider."""
    record(session, "ok", "ok")

    rules = section(invoke("audit", "dossier", "dice", *WINDOW).stdout, "The rules kept")

    assert rules[2] == "| 1/60s | 2 | 2 | 0 |"


def test_incidents_come_with_the_provider_s_own_ids(invoke: Invoke, session: Session) -> None:
    """By them an operator finds one request among all of the day; times are UTC."""
    record(session, "ok", "http_5xx", "read_timeout", "ok")

    text = invoke("audit", "dossier", "dice", *WINDOW).stdout

    [incident] = section(text, "Incidents and other findings")[2:]
    assert "2026-03-01 12:05:00Z | 2026-03-01 12:15:00Z" in incident
    assert section(text, "Requests to look up")[2] == (
        "| 2 | 2026-03-01 12:05:00Z | http_5xx | 503 | CF-Ray 8c1f-TXL | 503 Service Unavailable |"
    )


def test_timings_have_percentiles(invoke: Invoke, session: Session) -> None:
    """For every phase that was reached, with how often."""
    record(session, *["ok"] * 3)

    rows = section(invoke("audit", "dossier", "dice", *WINDOW).stdout, "How long it took")

    assert "| first byte | 3 | 2 ms | 2 ms | 2 ms | 2 ms |" in rows
    assert not any(row.startswith("| tls ") for row in rows)


def test_answers_are_quoted_once_and_cannot_break_out(invoke: Invoke, session: Session) -> None:
    """Bounded, and nothing in them is obeyed."""
    record(session, "ok", "http_5xx", "http_5xx")

    text = invoke("audit", "dossier", "dice", *WINDOW).stdout

    assert text.count("The answer to request") == 1
    assert "The answer to request 3 (http_5xx)" in text
    assert "\nBody: 5000 bytes, the first " in text
    quoted = text.split("The answer to request")[1].splitlines()
    assert quoted[2] == "````"  # longer than the fence that stands in the answer
    assert "Server: \\x1b[2J" in quoted
    assert r"<script>alert(1)</script> ``` | \xff write to [address]" in text
    assert max(map(len, quoted)) < 1_200


def test_as_html_it_is_one_page(invoke: Invoke, session: Session, home: Path) -> None:
    """The ending of the file says so; foreign markup is text in it."""
    record(session, "ok", "http_5xx")

    result = invoke("audit", "dossier", "dice", *WINDOW, "--output", "dice.html")

    assert (result.exit_code, result.output) == (ExitCode.OK, "")
    page = (home / "dice.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "<script>alert" not in page


@pytest.mark.parametrize("shape", ["markdown", "html"])
def test_it_says_nothing_of_who_we_are(
    invoke: Invoke, session: Session, home: Path, shape: str
) -> None:
    """No host, path, process, person or other source: it is sent to strangers."""
    record(session, "ok", "http_5xx", "dns")
    record(session, "ok", "http_5xx", "dns", source="coin")

    text = invoke("audit", "dossier", "dice", *WINDOW, "-f", shape).stdout

    for private in ("my-secret-host", "/etc/pipeline.toml", str(home), "4711", "ada", "coin"):
        assert not re.search(rf"\b{re.escape(private)}\b", text), private


def test_our_own_troubles_are_left_out(invoke: Invoke, session: Session) -> None:
    """Our side of the path and retries that we could spare do not concern the provider."""
    for source in ("dice", "coin"):
        record(session, "ok", "dns", "ok", source=source)

    text = invoke("audit", "dossier", "dice", *WINDOW).stdout

    assert "Incidents" not in text
    assert "Requests to look up" not in text


@pytest.mark.parametrize("name", ["dice.pdf", "dice"])
def test_an_ending_that_says_nothing_is_refused(
    invoke: Invoke, session: Session, home: Path, name: str
) -> None:
    """Markdown that is called a PDF opens nowhere; a format that is given wins."""
    record(session, "ok")
    command = ("audit", "dossier", "dice", *WINDOW, "-o", name)

    result = invoke(*command)

    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == f"pipeline: {name}: give --format markdown or html\n"
    assert not (home / name).exists()
    assert invoke(*command, "--format", "markdown").exit_code == ExitCode.OK


def test_a_file_is_replaced_only_by_force(invoke: Invoke, session: Session, home: Path) -> None:
    """As all files that commands write."""
    record(session, "ok")
    (home / "dice.md").write_text("mine")
    command = ("audit", "dossier", "dice", *WINDOW, "-o", "dice.md")

    result = invoke(*command)

    assert result.exit_code == ExitCode.USAGE
    assert "--force" in result.stderr
    assert invoke(*command, "--force").exit_code == ExitCode.OK
    assert (home / "dice.md").read_text().startswith("# ")


def test_a_source_that_was_never_asked_has_an_empty_dossier(
    invoke: Invoke, session: Session
) -> None:
    """It is configured, so it is no mistake; there is nothing to tell."""
    session.commit()

    result = invoke("audit", "dossier", "sandbox_anu", *WINDOW)

    assert result.exit_code == ExitCode.OK
    assert "No run wanted anything of it." in result.stdout


def test_an_unknown_source_is_a_wrong_command_line(invoke: Invoke, session: Session) -> None:
    """With the names that are known."""
    record(session, "ok")

    result = invoke("audit", "dossier", "dcie", *WINDOW)

    assert result.exit_code == ExitCode.USAGE
    assert "known are" in result.stderr
