"""`pipeline sources check`: one request within the rules, on the books, and what came of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playing import KEYS, Played, playing
from tests.processes import Home, check_invariants, homes

DICE = """
[sources.dice]
kind = "json_api"
url = "{url}?min={{min}}&max={{max+1}}&count={{n}}"
min = 1
max = 6
batches = [20, 12]
{more}
[sources.dice.api]
numbers = "{numbers}"
most = 100
[sources.off]
enabled = false
kind = "lfd"
url = "{url}"
batches = [2]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home to the processes that a test starts."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


@pytest.fixture
def played(home: Home) -> Iterator[Played]:
    """Serve the upstreams."""
    with playing(home) as served:
        yield served


def configure(home: Home, played: Played, *, more: str = "", numbers: str = "") -> None:
    """Configure an API that is known by its table only."""
    url = played.url("randomnumberapi") + "/api/v1.0/random"
    home.config.write_text(DICE.format(url=url, more=more, numbers=numbers))


def test_one_request_is_sent_and_its_numbers_are_shown(home: Home, played: Played) -> None:
    """The smallest batch that is ordered; then it is a run like any other."""
    configure(home, played)

    checked = home.run("sources", "check", "dice")

    assert (checked.code, checked.err) == (0, "")
    assert "Understood 12 numbers from 1 to 6: " in checked.out
    assert ", …; their sum is " in checked.out
    assert "/api/v1.0/random?min=1&max=7&count=12" in checked.out
    assert "On the books as run 1." in checked.out
    assert len(played.log()) == 1
    assert home.rows("SELECT status, ordered, collected, numbers FROM runs") == [("ok", 1, 1, 12)]
    check_invariants(home.database)


def test_numbers_that_are_not_kept_are_not_shown(home: Home, played: Played) -> None:
    """Their sum is."""
    configure(home, played)

    checked = home.run("sources", "check", "dice", env={"PIPELINE_STORE_KEEP_NUMBERS": "false"})

    assert "Understood 12 numbers from 1 to 6; their sum is " in checked.out


def test_a_wrong_pointer_is_shown_beside_the_answer(home: Home, played: Played) -> None:
    """So that the table can be put right; there is no second try."""
    configure(home, played, numbers="/data")

    checked = home.run("sources", "check", "dice")

    assert checked.code == 4
    assert "got none: schema (the body has another shape than agreed)" in checked.out
    assert "the answer has nothing at '/data'; responsible: contract" in checked.out
    assert checked.out.rstrip().splitlines()[-1].startswith("[")
    assert len(played.log()) == 1


def test_the_rules_hold_for_a_check(home: Home, played: Played) -> None:
    """What may not be asked before the deadline is put off, and the next moment is told."""
    configure(home, played, more='quotas = ["1 requests/day"]')

    first = home.run("sources", "check", "dice")
    second = home.run("sources", "check", "dice")

    assert (first.code, second.code) == (0, 0)
    assert "Not to be asked before " in first.out
    assert "Not asked: quota" in second.out
    assert len(played.log()) == 1


def test_a_failure_to_connect_shows_what_would_have_been_sent(home: Home, played: Played) -> None:
    """There is no answer then."""
    configure(home, played)
    text = home.config.read_text().replace(played.root, "http://127.0.0.1:1")
    home.config.write_text(text)

    checked = home.run("sources", "check", "dice")

    assert checked.code == 4
    assert "got none: connect_refused" in checked.out
    assert "GET http://127.0.0.1:1/" in checked.out


def test_a_secret_is_shown_by_its_name(home: Home, played: Played) -> None:
    """As everywhere."""
    url = played.url("quandela")
    home.config.write_text(
        f'[sources.q]\nkind = "quandela"\nurl = "{url}"\nbatches = [2]\napi_key_env = "KEY"\n'
    )

    checked = home.run("sources", "check", "q", env=KEYS)

    assert (checked.code, checked.err) == (0, "")
    assert "Authorization: Bearer ${KEY}" in checked.out


def test_programs_get_the_run(home: Home, played: Played) -> None:
    """It has a schema already."""
    configure(home, played)

    checked = json.loads(home.run("sources", "check", "dice", "--format", "json").out)

    assert checked["schema"] == "pipeline.run/1"
    assert [batch["n"] for batch in checked["batches"]] == [12]


@pytest.mark.parametrize("name", ["off", "nobody"])
def test_only_what_is_enabled_is_asked(home: Home, played: Played, name: str) -> None:
    """The key of another one is not even read."""
    configure(home, played)

    checked = home.run("sources", "check", name)

    assert checked.code == 2
    assert f"{name!r} is no enabled source" in checked.err


def test_a_source_can_be_tried_before_it_is_switched_on(home: Home, played: Played) -> None:
    """As the help says."""
    configure(home, played)
    env = {"PIPELINE_SOURCES_OFF_ENABLED": "true", "PIPELINE_SOURCES_OFF_URL": played.url("lfd")}

    checked = home.run("sources", "check", "off", env=env)

    assert (checked.code, checked.err) == (0, "")
    assert "Understood 2 numbers from 0 to 255" in checked.out


def test_batches_come_from_standard_input(home: Home, played: Played) -> None:
    """As another program orders them; a byte that is no text is a wrong command line."""
    configure(home, played)
    orders, odd = home.folder / "orders", home.folder / "odd"
    orders.write_text("dice 3 4\ndice 5..6\n")
    odd.write_bytes(b"dice \xff\n")

    with orders.open("rb") as stdin:
        ended = home.run("collect", "--batches", "-", stdin=stdin)
    with odd.open("rb") as stdin:
        refused = home.run("collect", "--batches", "-", stdin=stdin)
    nothing = home.run("collect", "--batches", "-")
    closed = home.run("collect", "--batches", "-", before="exec 0<&-")

    assert (ended.code, ended.err) == (0, "")
    assert home.rows("SELECT n, verdict FROM batch_list ORDER BY batch_number") == [
        (n, "collected") for n in (3, 4, 5, 6)
    ]
    assert "--batches -: standard input cannot be read: " in refused.err
    assert "--batches: orders no batch" in nothing.err
    assert {refused.code, nothing.code, closed.code} == {2}
