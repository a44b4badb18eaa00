"""`pipeline audit show`, `har` and `replay` in this process."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, ExitCode, Phase
from pipeline.models import Aspect, Attempt, Evidence, Outcome, Request, Verdict
from pipeline.store.db import open_store
from pipeline.store.integrity.pruning import prune
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.store.makers import (
    NOON,
    at,
    begin,
    make_attempt,
    make_batch,
    make_failed_attempt,
)

ASKED = Request(
    method="POST",
    url="https://example.org/v1?n=3",
    headers=(("Accept", "*/*"), ("X-\x1b[2J", "a"), ("x-api-key", "${DICE_KEY}")),
    body=b'{"key": "${DICE_KEY}",\n"bell": "\x07"}',
)
CONFIG = """
[sources.dice]
kind = "randomnumberapi"
batches = [3]
min = 1
max = 6
"""


@pytest.fixture
def config(home: Path) -> Path:
    """Configure the source that the tests record attempts of."""
    file = home / "config.toml"
    file.write_text(CONFIG)
    return file


def answer(body: bytes = b"[6, 6, 6]", *, body_bytes: int | None = None) -> Evidence:
    """Keep an answer in JSON."""
    headers = (("Content-Type", "application/json"),)
    size = len(body) if body_bytes is None else body_bytes
    return Evidence(status=200, headers=headers, body=body, body_bytes=size)


def refused(fetch: int, evidence: Evidence, error: ErrorName = ErrorName.SCHEMA) -> Attempt:
    """Get an answer that was turned down."""
    failed = make_failed_attempt(fetch, error=error, evidence=evidence)
    return replace(failed, request=ASKED)


def record(session: Session, attempts: Sequence[Attempt], *, started_at: datetime = NOON) -> None:
    """Record a run in which each fetch serves one batch of three, and lost it."""
    run_id = begin(session, started_at=started_at)
    last = {attempt.fetch: attempt for attempt in attempts}
    batches = [make_batch(fetch, attempt.source) for fetch, attempt in last.items()]
    outcomes = [
        Outcome(
            batch=batch,
            verdict=Verdict.FAILED,
            fetch=batch.number,
            attempt=last[batch.number].number,
            error=ErrorName.SCHEMA,
        )
        for batch in batches
    ]
    order_batches(session, run_id=run_id, batches=batches)
    save_results(session, run_id=run_id, attempts=attempts, outcomes=outcomes, keep_numbers=True)
    finish_run(session, run_id=run_id, ended_at=at(1), clock_us=1)
    session.commit()


def test_the_request_is_shown_and_not_obeyed(invoke: Invoke, session: Session) -> None:
    """Method, URL, headers and body, every control character visible, secrets by name."""
    record(session, [refused(0, answer())])

    shown = invoke("audit", "show", "1").output

    assert (
        "POST https://example.org/v1?n=3\nAccept: */*\nX-\\x1b[2J: a\nx-api-key: ${DICE_KEY}\n"
        '\n{"key": "${DICE_KEY}",\n"bell": "\\x07"}\n' in shown
    )
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_request_without_a_body_is_shown_without_one(invoke: Invoke, session: Session) -> None:
    """As most are."""
    asked = Request(method="GET", url="http://h/", headers=(), body=b"")
    record(session, [replace(make_attempt(), request=asked)])

    assert "\nGET http://h/\n\nIt went well" in invoke("audit", "show", "1").output


def test_the_other_tries_are_named(invoke: Invoke, session: Session) -> None:
    """So that a batch that needed several can be followed."""
    record(session, [make_failed_attempt(0, 1), make_failed_attempt(0, 2), make_attempt(0, 3)])

    shown = invoke("audit", "show", "2").output

    assert "Try 1 was attempt 1; it failed: http_5xx.\nTry 3 was attempt 3; it went well." in shown
    assert "Try 2" not in shown


def test_what_answers_looked_like_is_shown(invoke: Invoke, session: Session) -> None:
    """What is to be expected of this source, and since when."""
    record(session, [replace(make_attempt(), contract=((Aspect.KEYS, "data,success"),))])

    lines = invoke("audit", "show", "1").output.splitlines()

    assert lines[-1].split() == [
        "keys",
        *("2026-03-01", "12:00:00Z", "2026-03-01", "12:00:00Z"),
        "data,success",
    ]


def test_json_has_the_request_the_tries_and_the_contracts(invoke: Invoke, session: Session) -> None:
    """One shape for all attempts: what is not known is null or empty."""
    told = replace(make_attempt(0, 2), contract=((Aspect.KEYS, "data"),))
    record(session, [refused(0, answer()), told])

    first, second = (
        json.loads(invoke("audit", "show", id_, "--format", "json").stdout) for id_ in "12"
    )

    assert first["request"]["method"] == "POST"
    assert first["request"]["headers"][2] == ["x-api-key", "${DICE_KEY}"]
    assert second["request"] is None
    assert [each["attempt_id"] for each in second["attempts"]] == [1, 2]
    assert second["contracts"][0]["value"] == "data"
    assert "request" not in second["attempt"]
    assert first.keys() == second.keys()


def test_a_command_repeats_the_request(invoke: Invoke, session: Session) -> None:
    """Its patience is that of the source; the built-in one where that is not known any more."""
    record(session, [refused(0, answer())])

    shown = invoke("audit", "show", "1", "--curl").output

    assert shown.startswith("curl ")
    assert "--max-time 30 " in shown
    assert "'x-api-key: '\"${DICE_KEY:?set it first}\"" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_command_is_as_patient_as_its_source(
    invoke: Invoke, session: Session, config: Path
) -> None:
    """An answer that takes a minute by design is not to be cut off."""
    config.write_text(f"{CONFIG}attempt_seconds = 77.5\n")
    record(session, [refused(0, answer())])

    assert "--max-time 77.5 " in invoke("audit", "show", "1", "--curl").output


def test_what_was_not_kept_cannot_be_repeated(invoke: Invoke, session: Session) -> None:
    """Attempts of older versions have no request."""
    record(session, [make_attempt()])

    result = invoke("audit", "show", "1", "--curl")

    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == "pipeline: attempt 1: what it sent was not kept\n"


@pytest.mark.parametrize(
    "options",
    [("--curl", "--har", "a.har"), ("--curl", "-f", "json"), ("--har", "-", "-f", "json")],
)
def test_one_shape_at_a_time(invoke: Invoke, session: Session, options: tuple[str, ...]) -> None:
    """Rather than to pick one without a word."""
    session.commit()

    result = invoke("audit", "show", "1", *options)

    assert result.exit_code == ExitCode.USAGE
    assert "give one" in result.stderr


def test_an_attempt_is_written_as_har(invoke: Invoke, session: Session, home: Path) -> None:
    """To a file, which is not replaced without a word, or to stdout."""
    record(session, [refused(0, answer())])

    written = invoke("audit", "show", "1", "--har", "1.har")
    again = invoke("audit", "show", "1", "--har", "1.har")
    forced = invoke("audit", "show", "1", "--har", "1.har", "--force")
    printed = invoke("audit", "show", "1", "--har", "-")

    assert (written.exit_code, written.output, forced.exit_code) == (0, "", 0)
    assert again.exit_code == ExitCode.USAGE
    assert "1.har: is there already; --force replaces it" in again.stderr
    (entry,) = json.loads((home / "1.har").read_text())["log"]["entries"]
    assert entry["response"]["content"]["text"] == "[6, 6, 6]"
    assert printed.output == (home / "1.har").read_text()


def test_a_run_is_written_as_har(invoke: Invoke, session: Session, home: Path) -> None:
    """A browser shows all its attempts as one waterfall; without a number it is the last run."""
    record(session, [refused(0, answer())])
    record(session, [make_attempt(0), make_attempt(1)])

    last = invoke("audit", "har", "last.har")
    first = invoke("audit", "har", "--run", "1", "-")

    assert (last.exit_code, last.output) == (0, "")
    entries = json.loads((home / "last.har").read_text())["log"]["entries"]
    assert [entry["comment"] for entry in entries] == [
        "dice: attempt 2, run 2, fetch 0, try 1",
        "dice: attempt 3, run 2, fetch 1, try 1",
    ]
    assert len(json.loads(first.output)["log"]["entries"]) == 1


@pytest.fixture
def pruned(session: Session, database: Path) -> None:
    """Record two runs, and prune the first of them with its attempts 1 and 2."""
    record(session, [refused(0, answer()), refused(1, answer())])
    record(session, [refused(0, answer())], started_at=at(60))
    with open_store(f"sqlite:///{database}", busy_seconds=0.1, for_writing=True) as store:
        prune(store, before=at(30), now=at(90))


@pytest.mark.usefixtures("pruned")
@pytest.mark.parametrize(
    ("number", "complaint"),
    [
        ("2", "it was pruned with its run; the tallies and losses of the run are kept"),
        ("9", "there is none, or it was pruned; `pipeline audit` lists failures"),
        ("0", "there is none, or it was pruned; `pipeline audit` lists failures"),
    ],
)
def test_an_attempt_that_was_pruned_is_told_from_one_that_never_was(
    invoke: Invoke, number: str, complaint: str
) -> None:
    """A report of the losses, which are kept, has just named it."""
    result = invoke("audit", "show", number)

    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == f"pipeline: attempt {number}: {complaint}\n"


@pytest.mark.usefixtures("pruned")
def test_a_run_that_was_pruned_leaves_no_file(invoke: Invoke, home: Path) -> None:
    """An empty document would say that it asked nobody."""
    result = invoke("audit", "har", "--run", "1", "a.har")

    assert result.exit_code == ExitCode.USAGE
    assert "run 1: its attempts were pruned at 2026-03-01 13:30:00Z" in result.stderr
    assert not (home / "a.har").exists()


def test_answers_that_cannot_be_judged_are_counted_by_reason(
    invoke: Invoke, session: Session
) -> None:
    """Else a source that was renamed fills the screen, a line for each error."""
    errors = (ErrorName.SCHEMA, ErrorName.COUNT, ErrorName.RANGE)
    bodies = (answer(b"%d" % number) for number in range(3))
    record(session, [refused(n, *of) for n, of in enumerate(zip(bodies, errors, strict=True))])

    lines = invoke("audit", "replay", "--since", "2026-01-01").output.splitlines()

    assert [line for line in lines if line.startswith("Not re-checked")] == [
        "Not re-checked: 3 answers of dice: its source is not configured."
    ]


def test_a_run_that_is_not_there_leaves_no_file(
    invoke: Invoke, session: Session, home: Path
) -> None:
    """Nor anything else beside it."""
    session.commit()

    result = invoke("audit", "har", "--run", "9", "a.har")

    assert result.exit_code == ExitCode.USAGE
    assert [path.name for path in home.iterdir()] == ["data"]


def replayed(invoke: Invoke, *options: str) -> dict[str, object]:
    """Replay all that the tests recorded, and read the document."""
    result = invoke("audit", "replay", "--since", "2026-01-01", "-f", "json", *options)
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def test_replay_says_what_would_be_accepted_now(
    invoke: Invoke, session: Session, config: Path
) -> None:
    """The answer was fine; the adapter has been mended since."""
    del config
    record(session, [refused(0, answer())])

    document = replayed(invoke)
    lines = invoke("audit", "replay", "--since", "2026-01-01").output.splitlines()

    assert document["schema"] == "pipeline.replay/1"
    assert document["since"] == "2026-01-01T00:00:00.000000Z"
    assert document["groups"] == [
        {
            "source": "dice",
            "change": "accepted_now",
            "then": "schema",
            "now": None,
            "not_judged": None,
            "answers": 1,
            "attempts": 1,
            "redacted": 0,
            "last_attempt_id": 1,
            "detail": None,
        }
    ]
    assert lines[2].split() == ["dice", "accepted_now", "schema", "accepted", "1", "1", "1", "-"]
    assert lines[-1] == (
        "Re-checked 1 answer to 1 attempt:"
        " 1 accepted now, 0 refused now, 0 failed differently, 0 unchanged."
    )


def test_replay_says_what_it_cannot_judge(invoke: Invoke, session: Session, config: Path) -> None:
    """And where something secret was cut out."""
    del config
    gone = replace(refused(0, answer(b"gone")), source="gone")
    cut = refused(1, answer(b"[", body_bytes=9000))
    hidden = refused(2, answer(b'{"error": "[REDACTED]"}'), ErrorName.REFUSED)
    record(session, [gone, cut, hidden])

    lines = invoke("audit", "replay", "--since", "2026-01-01").output.splitlines()

    assert lines[0].endswith(": 0 accepted now, 0 refused now, 0 failed differently, 1 unchanged.")
    assert lines[1:] == [
        "Not re-checked: 1 answer of dice: its body was not kept whole.",
        "Not re-checked: 1 answer of gone: its source is not configured.",
        "A secret was taken out of 1 of them; that may be the change.",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [(ErrorName.COUNT, ExitCode.FINDINGS), (ErrorName.RANGE, ExitCode.OK)],
)
def test_strict_tells_a_change_by_its_exit_code(
    invoke: Invoke, session: Session, config: Path, error: ErrorName, code: ExitCode
) -> None:
    """For a test suite that runs on yesterday's answers; without it the exit code is 0."""
    del config
    record(session, [refused(0, answer(b"[6, 6, 9]"), error)])

    strict = invoke("audit", "replay", "--since", "2026-01-01", "--strict")
    lenient = invoke("audit", "replay", "--since", "2026-01-01")

    assert (strict.exit_code, lenient.exit_code) == (code, ExitCode.OK)


def test_replay_can_be_narrowed(invoke: Invoke, session: Session, config: Path) -> None:
    """By time, the last 30 days unless told otherwise, and by source."""
    del config
    record(session, [refused(0, answer()), replace(refused(1, answer(b"[]")), source="coin")])

    of_coin = replayed(invoke, "--source", "coin")["groups"]

    assert isinstance(of_coin, list)
    assert [group["not_judged"] for group in of_coin] == ["not_configured"]
    assert replayed(invoke, "--until", "2026-02-01")["groups"] == []
    assert invoke("audit", "replay").output.endswith("Z: no answer was kept.\n")


def test_a_source_that_nobody_knows_is_a_wrong_command_line(
    invoke: Invoke, session: Session, config: Path
) -> None:
    """A typing error must not read like good news."""
    del config
    session.commit()

    result = invoke("audit", "replay", "--source", "dise")

    assert result.exit_code == ExitCode.USAGE
    assert "known are dice" in result.stderr


def test_an_attempt_that_never_connected_is_written_as_har(
    invoke: Invoke, session: Session
) -> None:
    """There is nothing of it but its error and its times."""
    failed = make_failed_attempt(error=ErrorName.DNS, phase=Phase.DNS)
    record(session, [replace(failed, status=None)])

    printed = json.loads(invoke("audit", "show", "1", "--har", "-").output)

    assert printed["log"]["entries"][0]["_error"] == "dns"
