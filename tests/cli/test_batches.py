"""`--batches`: other batches than the file says, also from standard input."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

TWO = """
[sources.dice]
kind = "sandbox.randomnumberapi"
min = 1
max = 6
batches = {more}
[sources.anu]
kind = "sandbox.anu_legacy"
batches = [2]
"""


@pytest.fixture(autouse=True)
def configured(home: Path) -> None:
    """Ask two sources."""
    (home / "config.toml").write_text(TWO.replace("{more}", "[7]"))


def ordered(database: Path) -> list[tuple[int, str, int, str]]:
    """List the batches of all runs."""
    query = "SELECT run_id, source, n, verdict FROM batch_list ORDER BY run_id, batch_number"
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_a_run_orders_what_it_is_told(invoke: Invoke, database: Path) -> None:
    """One source by its name; the other one is not asked."""
    done = invoke("collect", "--batches", "dice 2 3..4")

    assert (done.exit_code, done.stderr) == (0, "")
    assert ordered(database) == [
        (1, "dice", 2, "collected"),
        (1, "dice", 3, "collected"),
        (1, "dice", 4, "collected"),
    ]


def test_the_name_can_be_left_out_of_one_source(invoke: Invoke, database: Path) -> None:
    """`--source` leaves one."""
    invoke("collect", "-s", "dice", "--batches", "5")

    assert ordered(database) == [(1, "dice", 5, "collected")]


def test_a_plan_is_made_of_the_same(invoke: Invoke) -> None:
    """And nothing is sent."""
    shown = invoke("plan", "--batches", "dice 99 3\nanu 1")

    assert [line.split()[:3] for line in shown.stdout.splitlines()[2:5]] == [
        ["dice", "w0", "99"],
        ["dice", "w1", "3"],
        ["anu", "w2", "1"],
    ]


@pytest.mark.parametrize(
    ("batches", "complaint"),
    [
        ("5", "line 1: begin with a source that is asked: dice, anu"),
        ("dice 101", "sources.dice: a batch of 101 is more than the 100 numbers"),
        ("dice 1000000", "sources.dice: a batch of 1000000 is more than the 100 numbers"),
        ("dice 1000001", "line 1: a batch must have 1 to 1,000,000 numbers, not 1000001"),
        ("", "orders no batch"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "collect"])
def test_a_wrong_order_is_a_wrong_command_line(
    invoke: Invoke, command: str, batches: str, complaint: str
) -> None:
    """One line on stderr, which names the option."""
    refused = invoke(command, "--batches", batches)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"pipeline: --batches: {complaint}")
    assert refused.stderr.count("\n") == 1


def test_the_same_order_in_the_file_is_a_wrong_configuration(home: Path, invoke: Invoke) -> None:
    """There it is to be mended."""
    (home / "config.toml").write_text(TWO.replace("{more}", "[101]"))

    refused = invoke("plan")

    assert (refused.exit_code, refused.stdout) == (78, "")
    assert refused.stderr.startswith("pipeline: sources.dice: a batch of 101 is more than")


def test_a_deadline_that_is_too_long_is_told_of_by_its_option(invoke: Invoke) -> None:
    """The key of the file has another name."""
    refused = invoke("plan", "--deadline", "86401")

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "pipeline: --deadline: must be at most 86400, not 86401.0\n"


def test_a_sum_that_no_column_holds_is_refused(home: Path, invoke: Invoke) -> None:
    """The file's own batches are held to it as well."""
    high = "max = 9007199254740991"
    (home / "config.toml").write_text(TWO.replace("{more}", "[7]").replace("max = 6", high))

    refused = invoke("collect", "--batches", "dice 1025")

    assert refused.exit_code == 2
    assert "--batches: sources.dice.batches: a batch's sum could pass" in refused.stderr


def test_a_slot_is_for_what_is_configured(invoke: Invoke) -> None:
    """Other batches would not be what the slot promised."""
    refused = invoke("collect", "--slot", "always", "--batches", "dice 5")

    assert refused.exit_code == 2
    assert "leave out --source and --batches" in refused.stderr


def test_sizes_are_drawn_for_each_run_and_written_down(
    home: Path, invoke: Invoke, database: Path
) -> None:
    """What was drawn stands in the books like any order, and the books check."""
    (home / "config.toml").write_text(TWO.replace("{more}", '{ count = 20, sizes = "1..30" }'))

    ended = [invoke("collect", "-s", "dice").exit_code for _ in range(2)]

    sizes = [[n for run, _, n, _ in ordered(database) if run == each] for each in (1, 2)]
    assert ended == [0, 0]
    assert [len(drawn) for drawn in sizes] == [20, 20]
    assert sizes[0] != sizes[1]
    assert {verdict for *_, verdict in ordered(database)} == {"collected"}
    assert invoke("audit", "verify").exit_code == 0


def test_the_lessons_28_batches_are_five_requests(
    home: Path, invoke: Invoke, database: Path
) -> None:
    """434 numbers, and a request brings a hundred; the sums are as exact as one by one."""
    (home / "config.toml").write_text(TWO.replace("{more}", '"2..29"'))

    invoke("collect", "-s", "dice")

    with closing(sqlite3.connect(database)) as connection:
        requests, numbers = connection.execute("SELECT attempts, numbers FROM runs").fetchone()
    assert (requests, numbers) == (5, 434)
    assert [n for _, _, n, _ in ordered(database)] == list(range(2, 30))
    assert invoke("audit", "verify").exit_code == 0
