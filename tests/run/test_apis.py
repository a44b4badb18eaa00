"""Whole runs that ask JSON APIs which no program of ours knows, only a table."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.settings.presets import PRESETS
from tests.playing import KEYS, Played, playing
from tests.processes import Home, check_invariants, homes
from tests.store.histories import tamper

BY_HAND = """
[sources.by_hand]
kind = "json_api"
url = "{url}/api/v1.0/random?min={{min}}&max={{max+1}}&count={{n}}"
min = 1
max = 6
batches = [2, 3, 4]
rate = "none"
[sources.by_hand.api]
numbers = ""
most = 100
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home to the processes that a test starts."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


@pytest.fixture
def played(home: Home) -> Iterator[Played]:
    """Serve the upstreams, with their rules."""
    with playing(home) as served:
        yield served


def table(kind: str, url: str, more: str = "") -> str:
    """Configure a known API at *url*, with batches as large as it can serve."""
    batches = "[1, 1]" if kind == "csrng" else "[2, 3, 4]"
    key = 'api_key_env = "KEY"\n' if kind in ("outshift", "quandela") else ""
    return f'[sources.{kind}]\nkind = "{kind}"\nurl = "{url}"\nbatches = {batches}\n{key}{more}'


def test_every_api_is_asked_within_its_rules(home: Home, played: Played) -> None:
    """Six known ones and one by hand: all that was ordered comes, in few requests."""
    tables = [table(kind, played.url(kind)) for kind in PRESETS]
    home.config.write_text("\n".join([*tables, BY_HAND.format(url=played.url("randomnumberapi"))]))

    ended = home.run("collect", env=KEYS)

    assert (ended.code, ended.err) == (0, "")
    assert home.rows("SELECT verdict, count(*) FROM batch_list GROUP BY 1") == [("collected", 20)]
    assert len(played.log()) == 8  # csrng gives one number per request, all others merge
    assert played.violations()["total"] == 0
    check_invariants(home.database)


def test_a_refusal_has_its_name_and_its_wait(home: Home, played: Played) -> None:
    """In the upstreams' own words, whatever their status says."""
    kinds = ("lfd", "csrng", "outshift", "quandela")
    tables = [table(kind, played.url(kind, "refusal"), "retries = 0\n") for kind in kinds]
    home.config.write_text("\n".join(["[collect]\ndeadline_seconds = 20\n", *tables]))

    ended = home.run("collect", env=KEYS)

    assert ended.code in (3, 4)
    assert dict(home.rows("SELECT DISTINCT source, error FROM failed_attempts")) == {
        "lfd": "refused",
        "csrng": "rate_limited",
        "outshift": "quota_exhausted",
        "quandela": "rate_limited",
    }
    whys = dict(
        home.rows("SELECT substr(upstream, 1, instr(upstream, '@') - 1), why FROM embargoes")
    )
    assert whys["quandela"] == "api.errors: rate_limited"
    assert whys["outshift"] == "api.errors: quota_exhausted"


@pytest.mark.parametrize("kind", ["field", "header"])
def test_a_source_is_left_alone_when_nothing_is_left(home: Home, played: Played, kind: str) -> None:
    """It says so in its last good answer: nobody has to be refused to know."""
    where = {"field": 'field = "/QUOTA"', "header": 'header = "x-ratelimit-remaining"'}[kind]
    api = f"api = {{ allowances = [{{ {where}, wait_seconds = 3600 }}] }}\nmerge = false\n"
    url = played.url("lfd", "ratelimit_fields=2")
    home.config.write_text(table("lfd", url, f'{api}rate = "none"\n'))

    ended = home.run("collect")

    assert (ended.code, ended.err) == (0, "")
    assert home.rows("SELECT verdict, count(*) FROM batch_list GROUP BY 1 ORDER BY 1") == [
        ("collected", 2),
        ("deferred", 1),
    ]
    assert [entry["status"] for entry in played.log()] == [200, 200]


def test_a_key_in_the_path_is_nowhere_in_the_books(home: Home, played: Played) -> None:
    """Where an API wants it in its address, it is written down by the name of its variable."""
    text = BY_HAND.format(url=played.url("lfd") + "/{{key}}").replace(
        "[sources.by_hand.api]", 'api_key_env = "KEY"\n[sources.by_hand.api]'
    )
    home.config.write_text(text.replace("{{key}}", "{key}"))

    ended = home.run("collect", env=KEYS)
    shown = home.run("audit", "show", "1", "--curl")

    assert ended.code == 4
    assert KEYS["KEY"] not in ended.err + ended.out + shown.out
    assert "${KEY:?set it first}" in shown.out
    assert KEYS["KEY"].encode() not in home.database.read_bytes()


def test_a_bell_value_is_kept_and_held_to_what_is_wanted(home: Home, played: Played) -> None:
    """Each draw has its own; below the threshold it is a finding, and never a failed batch."""
    least = """
[[sources.quandela.api.measures]]
name = "chsh"
field = "/jobs/*/chsh"
at_least = {}
"""
    plain = table("quandela", played.url("quandela"))
    home.config.write_text(plain)
    checked = home.run("sources", "check", "quandela", env=KEYS)
    well = home.run("audit", "--strict", env=KEYS)
    home.config.write_text(plain + least.format("3.5"))

    collected = home.run("collect", env=KEYS)
    shown = home.run("audit", "show", "2", env=KEYS)
    found = home.run("audit", "--strict", env=KEYS)
    verified = home.run("audit", "verify", env=KEYS)

    assert "Its answer says of itself: chsh 2." in checked.out
    assert "(wanted: at least 2), min_entropy 0." in checked.out
    assert (well.code, collected.code, verified.code) == (0, 0, 0)
    kept = home.rows("SELECT run_id, name, at_least, value FROM measures ORDER BY 1, 2")
    assert [row[:3] for row in kept] == [
        (1, "chsh", 2.0),
        (1, "min_entropy", None),
        (2, "chsh", 3.5),
    ]
    assert "(wanted: at least 3.5)" in shown.out
    assert found.code == 3
    assert "warning: weak, quandela, since" in found.out
    assert "chsh was below 3.5 in 1 of 2 answers, down to 2." in found.out

    tamper(home.database, "UPDATE measures SET value = 9 WHERE run_id = 2")
    changed = home.run("audit", "verify", "--all", env=KEYS)

    assert changed.code == 74
    assert "run 2: its batches, its attempts or their answers were changed" in changed.err
