"""`pipeline report` and what it says beyond the last runs, in this process."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from pipeline.errors import ErrorName, ExitCode
from pipeline.models import Batch, Fate, RunStatus, SlotClaim, Verdict
from pipeline.pacing import Embargo
from pipeline.report.run import total_line
from pipeline.scope import find_run
from pipeline.store import slots
from pipeline.store.db import open_store
from pipeline.store.integrity.pruning import prune
from pipeline.store.permissions import lay_embargo
from pipeline.store.tables import TALLIES
from pipeline.store.writes import finish_run, order_batches, save_results
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

LONG_AGO = ("--since", "2026-01-01")
ONE_DAY = ("--since", "2026-03-01", "--until", "2026-03-02")  # without an end it is the clock's
FIGURES = ["timings", "errors", "numbers", "sources"]

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(invoke: Invoke) -> Ask:
    """Ask a report for JSON, since long ago."""
    return lambda name, *arguments: json.loads(
        invoke("report", name, "-f", "json", *(arguments or LONG_AGO)).stdout
    )


def record_mixed_run(session: Session, minute: int = 0) -> int:
    """Record a run: dice come with the second try, a coin is lost, another one put off."""
    batches = [make_batch(0), make_batch(1, "coin"), make_batch(2, "coin")]
    run_id = begin(session, started_at=at(minute))
    order_batches(session, run_id=run_id, batches=batches)
    deferred = replace(
        make_lost(batches[2], Verdict.DEFERRED), error=None, attempt=None, detail="a quota"
    )
    save_results(
        session,
        run_id=run_id,
        attempts=[
            make_failed_attempt(0, 1, began_at=at(minute)),
            make_attempt(0, 2, began_at=at(minute)),
            make_failed_attempt(1, 1, "coin", began_at=at(minute)),
        ],
        outcomes=[make_collected(batches[0], attempt=2), make_lost(batches[1]), deferred],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=at(minute), clock_us=50_000)
    return run_id


@pytest.fixture
def history(session: Session) -> Session:
    """Record two mixed runs, an hour apart."""
    record_mixed_run(session)
    record_mixed_run(session, minute=61)
    session.commit()
    return session


def rows_of(output: str, first: str) -> list[list[str]]:
    """Read the rows of a table on the terminal that begin with a word."""
    return [line.split() for line in output.splitlines() if line.startswith(first)]


# ---- What may be asked ----


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--run", "1", "--limit", "3"), "`pipeline report --run` takes no --limit"),
        (("timings", "--limit", "3"), "`pipeline report timings` takes no --limit"),
        (("runs", "--run", "1"), "`pipeline report runs` takes no --run"),
        (("slots", "-s", "dice"), "`pipeline report slots` takes no --source"),
        (("--run", "1", "--since", "7d"), "--since and --until have no meaning beside it"),
        (("timings", "--run", "1", "--until", "1d"), "have no meaning beside it"),
        (("timings", "--since", "2999-01-01"), "lies in the future"),
        (("errors", "--since", "1d", "--until", "2d"), "is not after"),
        (("numbers", "-s", "dcie"), "anu_legacy, coin, "),
        (("--run", "1", "-s", "dcie"), "there is none"),
        (("batches", "--run", "9"), "there is no such run"),
        (("sources", "--run", "newest"), "give a number or last"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    invoke: Invoke, arguments: tuple[str, ...], complaint: str
) -> None:
    """An option that is silently ignored gives a wrong answer."""
    result = invoke("report", *arguments)

    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "options", [("--run", "1"), ("-s", "dice", *ONE_DAY), ("-f", "json", "--run", "last")]
)
def test_options_may_stand_before_or_after(invoke: Invoke, options: tuple[str, ...]) -> None:
    """A person adds a word to the command that went before."""
    before, after = invoke("report", *options, "errors"), invoke("report", "errors", *options)

    assert before.exit_code == 0
    assert before.stdout == after.stdout != ""


def test_a_configuration_may_stand_before_or_after(
    invoke: Invoke, home: Path, history: Session
) -> None:
    """As with the other groups of commands."""
    del history
    (home / "other.toml").write_text("[store]\nurl = 'sqlite:///nowhere.db'\n")

    assert invoke("report", "-c", "other.toml", "runs").exit_code != 0
    assert invoke("report", "runs", "-c", "other.toml").exit_code != 0
    assert invoke("report", "runs").exit_code == 0


@pytest.mark.parametrize("name", FIGURES)
def test_without_since_it_is_the_last_week(invoke: Invoke, session: Session, name: str) -> None:
    """And the answer says so."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])  # long ago
    yesterday = datetime.now(UTC) - timedelta(days=1)
    coin = make_attempt(0, source="coin", began_at=yesterday)
    record_run(session, [make_batch(0, "coin")], attempts=[coin], started_at=yesterday)
    session.commit()

    shown = invoke("report", name).output
    window = json.loads(invoke("report", name, "-f", "json").stdout)["window"]

    assert "dice" not in shown
    assert shown.startswith("From ")
    ends = [datetime.fromisoformat(window[end]) for end in ("since", "until")]
    assert ends[1] - ends[0] == timedelta(days=7)


@pytest.mark.parametrize("name", [*FIGURES, "slots"])
@pytest.mark.parametrize("shape", ["text", "csv", "markdown"])
def test_an_empty_history_is_an_answer(
    invoke: Invoke, session: Session, name: str, shape: str
) -> None:
    """Nothing yet is no error, and no empty picture either."""
    session.commit()

    result = invoke("report", name, "-f", shape)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout != ""


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("name", ["", "runs", "batches", *FIGURES])
@pytest.mark.parametrize("shape", ["csv", "markdown", "html"])
def test_every_answer_comes_in_every_shape(invoke: Invoke, name: str, shape: str) -> None:
    """For a sheet, a ticket, a browser."""
    result = invoke("report", *([name] if name else []), *LONG_AGO, "-f", shape)

    assert (result.exit_code, result.stderr) == (0, "")
    if shape == "csv":
        head, *rows = csv.reader(result.stdout.splitlines())
        assert rows
        assert {len(row) for row in rows} == {len(head)}
    else:
        assert result.stdout.startswith("#" if shape == "markdown" else "<!doctype html>") or name


# ---- Runs and batches ----


@pytest.mark.usefixtures("history")
def test_retries_are_visible(invoke: Invoke, ask: Ask) -> None:
    """A run that needed many was near to losing something."""
    row = rows_of(invoke("report").output, "  1")[0]

    assert row[3:] == ["partial", "1/3", "1", "1", "3", "3", "1", "50", "ms"]
    assert [run["retries"] for run in ask("runs")["runs"]] == [1, 1]
    assert "3 numbers in 3 requests (1 retry)" in invoke("report", "--run", "1").output


@pytest.mark.usefixtures("history")
def test_a_sheet_has_no_fractions(invoke: Invoke) -> None:
    """A sheet makes a date of 1/3."""
    head, first, *_ = csv.reader(invoke("report", "-f", "csv").stdout.splitlines())

    row = dict(zip(head, first, strict=True))
    assert (row["collected"], row["ordered"], row["clock_us"]) == ("1", "3", "50000")


def test_the_retries_of_a_run_that_goes_on_are_counted(invoke: Invoke, session: Session) -> None:
    """As it stands now; the store adds up at the end."""
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=[make_batch(0)])
    save_results(
        session,
        run_id=run_id,
        attempts=[make_failed_attempt(0, 1), make_attempt(0, 2)],
        outcomes=[],
        keep_numbers=True,
    )
    session.commit()

    assert rows_of(invoke("report").output, "  1")[0][-2:] == ["1", "-"]
    assert "It still goes on" in invoke("report", "sources", "--run", "last").output


@pytest.mark.usefixtures("history")
def test_the_last_batches_come_first(invoke: Invoke) -> None:
    """With the run, the range, the tries, and why something did not come."""
    shown = invoke("report", "batches").output.splitlines()

    assert shown[0].split() == [
        *("run", "batch", "source", "n", "min", "max", "sum", "took", "attempts", "verdict")
    ]
    assert [line.split()[:2] for line in shown[2:]] == [
        ["2", "w2"],
        ["2", "w1"],
        ["2", "w0"],
        ["1", "w2"],
        ["1", "w1"],
        ["1", "w0"],
    ]
    assert shown[4].split()[2:] == [*("dice", "3", "1", "6", "18", "2.14", "ms", "2", "collected")]
    assert shown[3].endswith("failed: http_5xx (503 Service Unavailable); audit show 6")
    assert shown[2].split()[3:8] == ["3", "1", "6", "-", "-"]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--limit", "2"), ["2 w2", "2 w1"]),
        (("-s", "dice"), ["2 w0", "1 w0"]),
        (("--run", "1"), ["1 w0", "1 w1", "1 w2"]),
        (("--run", "1", "-n", "1"), ["1 w0"]),
        (("--run", "last", "-s", "coin"), ["2 w1", "2 w2"]),
        (("--until", "2026-03-01T13:00Z"), ["1 w2", "1 w1", "1 w0"]),
        (("--since", "2026-03-01T13:00Z", "-s", "coin"), ["2 w2", "2 w1"]),
        (("--since", "2026-03-02"), []),
    ],
)
def test_batches_can_be_narrowed(ask: Ask, arguments: tuple[str, ...], names: list[str]) -> None:
    """By number, source, run and time."""
    found = ask("batches", *arguments)["batches"]

    assert [f"{batch['run_id']} {batch['batch']}" for batch in found] == names


@pytest.mark.usefixtures("history")
def test_batches_as_json_have_their_numbers(ask: Ask) -> None:
    """What all this is about."""
    collected = ask("batches")["batches"][2]

    assert (collected["values"], collected["sum"]) == ([6, 6, 6], 18)
    assert (collected["attempts"], collected["took_us"]) == (2, 2142)


def test_a_run_without_batches_hides_none_of_the_others(ask: Ask, session: Session) -> None:
    """Skipped runs are many where runs are slow."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    skipped = begin(session, started_at=at(1))
    finish_run(session, run_id=skipped, status=RunStatus.SKIPPED, ended_at=at(1), clock_us=1)
    session.commit()

    assert [batch["run_id"] for batch in ask("batches", "-n", "1")["batches"]] == [1]


def test_a_limit_may_cut_a_run_in_two(ask: Ask, session: Session) -> None:
    """Tries and times are still those of the whole fetch."""
    batches = [make_batch(number) for number in range(3)]
    run_id = begin(session)
    order_batches(session, run_id=run_id, batches=batches)
    save_results(
        session,
        run_id=run_id,
        attempts=[make_failed_attempt(0, 1), make_attempt(0, 2)],
        outcomes=[make_collected(batch, fetch=0, attempt=2) for batch in batches],
        keep_numbers=True,
    )
    finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)
    session.commit()

    (last,) = ask("batches", "-n", "1")["batches"]

    assert (last["batch"], last["attempts"], last["attempt_id"]) == ("w2", 2, 2)


# ---- Figures ----


@pytest.mark.usefixtures("history")
def test_timings_are_told_by_source_and_phase(invoke: Invoke) -> None:
    """With how that is known."""
    shown = invoke("report", "timings", *LONG_AGO).output

    assert "Timings are exact: 6 attempts looked at one by one." in shown
    assert rows_of(shown, "dice    exchange")[0][2:] == [
        *("4", "0.1", "ms", "2.04", "ms", "2.04", "ms", "2.04", "ms", "99.77%")
    ]
    assert "Exchanges with coin" in shown


def test_timings_of_many_attempts_say_how_far_they_are_off(
    invoke: Invoke, ask: Ask, history: Session
) -> None:
    """And which hours or days were really read."""
    history.connection().execute(TALLIES.update().values(attempts=10**6))
    history.commit()

    shown = invoke("report", "timings", *LONG_AGO).output
    told = ask("timings")

    assert "Percentiles are those of buckets, off by 1.6% at most." in shown
    assert "read by whole days." in shown
    assert not told["is_exact"]
    assert told["read"]["since"] == "2026-01-01T00:00:00.000000Z"


@pytest.mark.usefixtures("history")
def test_a_run_has_a_waterfall(invoke: Invoke) -> None:
    """Each attempt a bar: what the run waited for."""
    shown = invoke("report", "timings", "--run", "1").output

    assert shown.startswith("Run 1 of 2026-03-01 12:00:00Z.\n")
    assert "What the run waited for" in shown
    for label in ("w0 try 1 dice", "w0 try 2 dice", "w1 try 1 coin"):
        assert rows_of(shown, label)
    assert "w1" not in invoke("report", "timings", "--run", "1", "-s", "dice").output


@pytest.mark.usefixtures("history")
def test_errors_are_told_with_their_trend(invoke: Invoke, ask: Ask) -> None:
    """How often, whose, since when, and where to look."""
    shown = invoke("report", "errors", *LONG_AGO).output

    assert rows_of(shown, "coin")[0] == [
        *("coin", "http_5xx", "check", "upstream", "2", "2", "100.00%"),
        *("2026-03-01", "12:00:00Z", "2026-03-01", "13:01:00Z", "6"),
    ]
    assert rows_of(shown, "dice")[0][4:7] == ["2", "0", "50.00%"]
    assert "Failed attempts" in shown
    assert "`pipeline audit show NUMBER`" in shown
    page = invoke("report", "errors", *LONG_AGO, "-f", "markdown").output
    assert page.endswith("\n`pipeline audit show NUMBER` prints the evidence of an attempt.\n")
    assert [point["attempts"] for point in ask("errors")["trend"]] == [2, 2]


@pytest.mark.usefixtures("history")
def test_numbers_are_held_to_a_fair_source(invoke: Invoke, ask: Ask) -> None:
    """How far off the mean is, and no verdict: one on the mean alone would be worth nothing."""
    shown = invoke("report", "numbers", *LONG_AGO).output

    assert rows_of(shown, "dice")[0] == [*("dice", "1", "6", "2", "6", "36", "6", "3.5", "3.586")]
    assert "`pipeline report health` tests more" in shown
    assert ask("numbers")["numbers"][0]["z"] == pytest.approx(3.586, abs=1e-3)


def test_a_range_of_one_number_has_no_error_to_count_in(invoke: Invoke, session: Session) -> None:
    """Its mean cannot be off."""
    batch = Batch(number=0, source="stuck", n=2, min=6, max=6)
    record_run(session, [batch], attempts=[make_attempt(0, source="stuck")])
    session.commit()

    shown = invoke("report", "numbers", *LONG_AGO).output

    assert rows_of(shown, "stuck")[0][-1] == "-"


def test_sources_are_told_with_their_embargoes(invoke: Invoke, ask: Ask, history: Session) -> None:
    """What they were worth, and why nothing comes now."""
    until = datetime(2999, 1, 1, tzinfo=UTC)
    embargo = Embargo(until=until, why="the answer asked for it")
    lay_embargo(history, upstream="coins", source="coin", embargo=embargo, said_at=NOON)
    history.commit()

    shown = invoke("report", "sources", *LONG_AGO).output
    coin, dice = ask("sources")["sources"]

    assert "coin must not be asked before 2999-01-01 00:00:00Z: the answer asked for it." in shown
    assert rows_of(shown, "dice")[0][1:6] == ["2", "2/2", "6", "4", "50.00%"]
    table = shown.partition("Attempts that succeeded")[0]
    assert max(map(len, table.splitlines())) <= 120
    assert (coin["ordered"], coin["collected"], coin["last_good_at"]) == (4, 0, None)
    assert dice["embargo_until"] is None


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("name", FIGURES)
def test_figures_can_be_of_one_run(ask: Ask, name: str) -> None:
    """Its own, without a course over time."""
    told = ask(name, "--run", "1")

    assert (told["run_id"], told["trend"]) == (1, [])
    assert told["window"] == {"since": None, "until": None}
    assert told[name]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("name", FIGURES)
def test_figures_can_be_of_one_source(ask: Ask, name: str) -> None:
    """One bad source is looked at alone."""
    told = ask(name, *LONG_AGO, "-s", "dice")

    assert {line["source"] for line in [*told[name], *told["trend"]]} == {"dice"}
    assert told["source"] == "dice"


# ---- Slots ----


def test_slots_are_counted_and_drawn(invoke: Invoke, session: Session) -> None:
    """Kept, late and missed ones, day by day and cell by cell."""
    run = find_run(session, str(record_run(session, [make_batch(0)])))
    for minute, late in ((0, 0), (5, 4)):
        claim = SlotClaim(schedule="main", due_at=at(minute), grace_us=1_000_000)
        slots.claim(session, slot=claim, host="machine-1", now=at(minute))
        started = replace(run, started_at=at(minute + late))
        slots.begin(session, slots=[claim], run=started)
        slots.settle(session, slots=[claim], run=started)
    slots.book_missed(session, schedule="main", due=[at(10)], host="machine-1", now=at(20))
    session.commit()

    shown = invoke("report", "slots", *LONG_AGO).output
    told = json.loads(invoke("report", "slots", *LONG_AGO, "-f", "json").stdout)

    assert "1 of 3 slots ran in time, 1 late, 1 missed." in shown
    assert rows_of(shown, "main")[0] == [
        *("main", "2026-03-01", "1", "1", "0", "1", "0", "0", "4", "min", "0", "s")
    ]
    assert "The last slots of main" in shown
    assert [slot["fate"] for slot in told["slots"]] == [Fate.MISSED, Fate.LATE, Fate.RAN]
    assert told["days"][0]["day"] == "2026-03-01"


def test_without_slots_it_says_so(invoke: Invoke, session: Session) -> None:
    """0 of 0 is no figure."""
    session.commit()

    assert invoke("report", "slots").output.endswith("No slot is on record.\n")


# ---- Pruned runs ----


def test_a_pruned_run_shows_what_was_kept(
    invoke: Invoke, ask: Ask, history: Session, database: Path
) -> None:
    """Its batches are gone, since when, and its totals instead."""
    history.close()
    url = f"sqlite:///{database}"
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        prune(store, before=at(30), now=at(100))

    shown = invoke("report", "--run", "1").output
    told = json.loads(invoke("report", "--run", "1", "-f", "json").stdout)

    said = "batches and attempts were pruned at 2026-03-01 13:40:00Z; its totals were kept."
    assert said in shown
    assert said in invoke("report", "batches", "--run", "1").output
    timings = invoke("report", "timings", "--run", "1").output
    assert said in timings
    assert "exact" not in timings
    assert rows_of(shown, "dice")[0][:9] == [*("dice", "1", "6", "1", "0", "0", "0", "3", "18")]
    assert told["pruned_at"] == "2026-03-01T13:40:00.000000Z"
    assert (told["batches"], told["attempts"]) == ([], [])
    assert [tally["source"] for tally in told["tallies"]] == ["coin", "dice"]
    assert [run["run_id"] for run in ask("runs", "-s", "coin")["runs"]] == [2, 1]


# ---- The overview ----


@pytest.mark.usefixtures("history")
def test_the_overview_says_it_all_on_one_page(invoke: Invoke) -> None:
    """Facts first, then the tables and the charts."""
    shown = invoke("report", *LONG_AGO, "-f", "markdown").output

    assert shown.startswith("# Overview\n")
    assert "first of all coin (incident); 2 of 6 batches came." in shown
    assert "6 numbers collected; 4 of 6 requests failed." in shown
    for title in (
        "Sources",
        "Attempts that succeeded",
        "Numbers collected",
        "Failed attempts",
        "Exchanges, p50",
        "Errors",
        "Timings",
        "Last runs",
    ):
        assert f"\n## {title}" in shown
    assert "\n## Exchanges with dice" not in shown


def test_the_overview_begins_with_what_is_wrong(invoke: Invoke, session: Session) -> None:
    """Who opens the page wants to know whether to worry, before any chart."""
    for minute in (0, 61, 122):
        record_mixed_run(session, minute)
    session.commit()

    shown = invoke("report", *LONG_AGO, "-f", "markdown").output

    titles = [line[3:] for line in shown.splitlines() if line.startswith("## ")]
    assert [title.partition(",")[0].partition(" per ")[0] for title in titles] == [
        "Needs attention now",
        "Batches of each source",
        "Numbers collected",
        "Exchanges",
        "Exchanges",
        "Failed attempts",
        "Attempts that succeeded",
        "Sources",
        "Health of the numbers",
        "Findings",
        "Errors",
        "Attempts named above",
        "Last runs",
        "Timings",
    ]


def test_an_overview_of_nothing_says_so(invoke: Invoke, session: Session) -> None:
    """0 of 0 is no figure, and a head without rows no table."""
    session.commit()

    shown = invoke("report", "-f", "markdown").output

    assert "\n**Nothing was ordered in this time.**\n" in shown
    assert "\n## Sources\n\nnone\n" in shown


@pytest.mark.usefixtures("history")
def test_a_run_as_markdown_has_its_waterfall(invoke: Invoke) -> None:
    """On a page there is room for it."""
    shown = invoke("report", "--run", "1", "-f", "markdown").output

    assert shown.startswith("# Run 1\n")
    assert "What the run waited for" in shown


def test_the_total_line_speaks_english() -> None:
    """One number in one request after one retry."""
    run = replace(summary(RunStatus.OK), numbers=1, attempts=1)

    assert "1 number in 1 request (1 retry)" in total_line(run, retries=1)
    assert ErrorName.DNS not in total_line(run)
