"""``pipeline report health`` as a user sees it, the sandbox's bad numbers, and other programs."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from sqlmodel import Session

from pipeline.errors import ExitCode
from pipeline.health.blocks import chi_square, correlation
from pipeline.models import Batch
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.health.numbers import fair_dice
from tests.schemas import FOLDER
from tests.store.makers import at, begin, make_attempt, make_collected

SANDBOX = """
[store]
url = "pipeline.db"
[sandbox]
rules = false
faults = ["{fault}"]
[sources.die]
kind = "sandbox.randomnumberapi"
min = 1
max = 6
merge = false
batches = [{sizes}]
"""


def record(
    session: Session, numbers: bytes | list[int], low: int, high: int, source: str = "dice"
) -> None:
    """Record a run that collected *numbers* in one batch, given as distances from *low*."""
    batch = Batch(number=0, source=source, n=len(numbers), min=low, max=high)
    outcome = make_collected(batch, [low + number for number in numbers])
    run_id = begin(session, started_at=at(0))
    order_batches(session, run_id=run_id, batches=[batch])
    attempts = [make_attempt(source=source)]
    save_results(session, run_id=run_id, attempts=attempts, outcomes=[outcome], keep_numbers=True)
    finish_run(session, run_id=run_id, ended_at=at(1), clock_us=1)
    session.commit()


@pytest.fixture
def _history(session: Session) -> None:
    """Record fair dice, a die of threes and fours, and too few bytes to tell."""
    chance = random.Random(1)
    record(session, fair_dice(seed=1, n=3000), 1, 6)
    record(session, [chance.choice((2, 3)) for _ in range(1100)], 1, 6, "loaded")
    record(session, chance.randbytes(434), 0, 255, "bytes")


@pytest.mark.usefixtures("_history")
def test_a_verdict_is_told_of_each_source(invoke: Invoke) -> None:
    """A die that shows only 3 and 4 has a fine mean, and is no good."""
    shown = invoke("report", "health").output

    rows = {
        line.split()[0]: " ".join(line.split()) for line in reversed(shown.splitlines()) if line
    }
    assert rows["dice"].startswith("dice 1 6 nothing found 3000 2 ")
    assert rows["loaded"].startswith("loaded 1 6 critical 1100 1 ")
    assert rows["bytes"].startswith("bytes 0 255 too few to tell (434 of 1,280) 434 0 -")
    assert "A test can fail a source, and never certify one" in shown
    assert "one false warning in" in shown
    assert not re.search(r"\bfair\b", rows["dice"])


@pytest.mark.usefixtures("_history")
def test_json_follows_its_schema_and_has_all(invoke: Invoke) -> None:
    """The p-values of each block included."""
    answer = json.loads(invoke("report", "health", "-f", "json").output)

    jsonschema.validate(answer, json.loads((FOLDER / "health.1.json").read_text()))
    assert [each["verdict"] for each in answer["ranges"]] == [
        "too few to tell (434 of 1,280)",
        "nothing found",
        "critical",
    ]
    assert [(each["source"], each["block"]) for each in answer["blocks"]] == [
        ("dice", 0),
        ("dice", 1),
        ("loaded", 0),
    ]
    assert {each["source"] for each in answer["alarms"]} == {"loaded"}
    assert {each["test"] for each in answer["tests"]} == {"chi_square", "serial"}


@pytest.mark.usefixtures("_history")
@pytest.mark.parametrize("shape", ["csv", "markdown", "html"])
def test_every_shape_has_the_verdicts(invoke: Invoke, shape: str) -> None:
    """One description makes them all."""
    shown = invoke("report", "health", "-s", "loaded", "-f", shape).output

    assert "critical" in shown
    assert "dice" not in shown


@pytest.mark.usefixtures("_history")
def test_the_overview_tells_it_too(invoke: Invoke) -> None:
    """Whoever looks at one page should see it there."""
    page = invoke("report", "-f", "html", "--since", "2026-03-01").output

    assert "Health of the numbers" in page
    assert "What the tests found when" in page
    assert "odd to chi_square" in page


def test_an_empty_store_says_that_nothing_was_tested(invoke: Invoke, session: Session) -> None:
    """And why that may be."""
    session.commit()

    shown = invoke("report", "health").output

    assert "No numbers were tested: none came yet, or they are not kept (keep_numbers)." in shown


def test_many_alarms_are_told_by_the_last_of_them(invoke: Invoke, session: Session) -> None:
    """Months of a stuck source are not a page per run."""
    for _ in range(25):
        record(session, [3] * 30, 1, 6)

    shown = invoke("report", "health").output

    assert re.search(r"The same number too often \(the last 20 of [2-5]\d\)", shown)


@pytest.mark.parametrize(("fault", "kind"), [("stuck", "repetition"), ("biased=.5", "proportion")])
def test_numbers_of_the_sandbox_that_are_no_good_are_found(
    invoke: Invoke, home: Path, fault: str, kind: str
) -> None:
    """And collected all the same: to refuse what is unlikely would bias what is kept."""
    sizes = "8, 8, 8" if fault == "stuck" else ", ".join(["9"] * 80)
    (home / "config.toml").write_text(SANDBOX.format(fault=fault, sizes=sizes))

    invoke("collect")
    shown = invoke("audit", "--format", "json").output

    found = {each["kind"]: each for each in json.loads(shown)["findings"]}
    assert found[kind]["sources"] == ["die"]
    assert invoke("audit", "--strict").exit_code == ExitCode.PARTIAL
    assert invoke("audit", "verify").exit_code == ExitCode.OK


# ---- For other programs ----


def test_bytes_are_the_bits_of_the_numbers_and_nothing_else(
    invoke: Invoke, session: Session, home: Path
) -> None:
    """Numbers of 3 bits, then of 8: no bit is lost between them but the last few."""
    record(session, [1, 2, 3, 4, 5], -1, 6)
    record(session, [0xAB, 0xCD], 0, 255)

    done = invoke("export", "numbers", "numbers.bin")

    bits = "001010011100101" + "10101011" + "11001101"
    content = (home / "numbers.bin").read_bytes()
    assert done.exit_code == ExitCode.OK
    assert content == int(bits[:24], 2).to_bytes(3, "big")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("numbers", "numbers from 1 to 6 do not stand for whole bits, as those from 0 to 255 do"),
        ("batches", "bytes are written of numbers alone: `pipeline export numbers`"),
    ],
)
def test_what_has_no_bits_is_refused(
    invoke: Invoke, session: Session, home: Path, what: str, said: str
) -> None:
    """A die's faces are not half a byte each; nothing is left behind."""
    record(session, [1, 2, 3], 1, 6)

    done = invoke("export", what, "numbers.bytes")

    assert done.exit_code == ExitCode.USAGE
    assert said in done.stderr
    assert not (home / "numbers.bytes").exists()


@pytest.mark.skipif(shutil.which("ent") is None, reason="ent is not installed")
def test_ent_finds_the_same(invoke: Invoke, session: Session, home: Path) -> None:
    """Chi-square with its probability, and the correlation, by Debian's program."""
    numbers = random.Random(7).randbytes(5000)
    record(session, numbers, 0, 255)
    invoke("export", "numbers", "numbers.bytes")

    told = subprocess.run(
        ["ent", "numbers.bytes"], capture_output=True, text=True, check=True, cwd=home
    ).stdout

    percent = re.search(r"would exceed this value ([0-9.]+) percent", told)
    serial = re.search(r"correlation coefficient is (-?[0-9.]+)", told)
    assert percent is not None
    assert serial is not None
    assert 100 * chi_square(numbers, 256) == pytest.approx(float(percent[1]), abs=0.006)
    assert correlation(numbers) == pytest.approx(float(serial[1]), abs=6e-7)
