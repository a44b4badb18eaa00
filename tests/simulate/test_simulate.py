"""What other limits would have done, held against runs with those limits on the same script."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import randint
from threading import Thread
from time import sleep
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.simulate.answer import NAMES, chance_to_end
from tests.processes import Home

OK, DOWN, GONE = 200, 500, 404
LIMITS = {
    "retries": 2,
    "attempt_seconds": 10.0,
    "breaker": 0,
    "rate": "none",
    "in_flight": 1,
    "deadline_seconds": 60.0,
    "merge": False,
    "backoff_seconds": 0.001,
    "retry_budget": 100,
}
Figures = Mapping[str, Mapping[str, Any]]


Script = Mapping[int, Sequence[float]]  # by size of a batch: statuses, and seconds to wait for


@contextmanager
def playing(script: Script) -> Iterator[str]:
    """Serve an upstream that plays to each batch its own script, and then answers well."""
    steps = {size: iter(of) for size, of in script.items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            size = int(parse_qs(urlsplit(self.path).query)["count"][0])
            step = next(steps.get(size, iter(())), OK)
            if step < 100:
                sleep(step)  # an upstream that is slow
                step = OK
            body = json.dumps([randint(1, 6) for _ in range(size)]).encode()
            with suppress(OSError):
                self.send_response(int(step))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs the same script again and again, each time in a home of its own."""

    folder: Path
    script: Script
    batches: str

    def run(self, name: str, **limits: object) -> Home:
        """Collect once with these limits."""
        of = LIMITS | limits
        deadline = of.pop("deadline_seconds")
        home = Home(self.folder / name, is_measured=False)
        with playing(self.script) as url:
            keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in of.items())
            home.config.write_text(
                f"[sources.dice]\nkind = 'randomnumberapi'\nurl = '{url}'\n"
                f"min = 1\nmax = 6\nbatches = {self.batches}\n{keys}\n"
            )
            done = home.run("collect", "--deadline", str(deadline))
            assert done.code in (0, 3, 4), done.err
        return home


def simulated(home: Home, *options: str) -> tuple[Figures, Mapping[str, Any]]:
    """Ask what one other limit would have done; give the figures by measure, and the answer."""
    done = home.run("simulate", *options, "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    return {each["measure"]: each for each in answer["figures"]}, answer


def measured(home: Home) -> Mapping[str, int]:
    """Count what a run did."""
    ((missing, requests, refusals),) = home.rows(
        "SELECT ordered - collected, attempts, (SELECT count(*) FROM attempts WHERE error ="
        " 'rate_limited') FROM runs"
    )
    counted = dict(zip(NAMES.values(), (missing, requests, refusals), strict=False))
    return {name: int(figure) for name, figure in counted.items()}


def options_of(name: str, value: object) -> tuple[str, ...]:
    """Write a limit as an option."""
    if name == "merge":
        return ("--merge",) if value else ("--no-merge",)
    return (f"--{name.replace('_', '-')}", str(value))


MIXED: Script = {3: [DOWN], 4: [DOWN, DOWN, DOWN, DOWN], 5: [GONE], 6: [DOWN, DOWN]}
DEAD: Script = {size: [DOWN] * 9 for size in (3, 4, 5, 6)}
SLOW: Script = {3: [1.5], 5: [DOWN, 1.5]}


@pytest.mark.parametrize(
    ("script", "name", "value", "is_certain"),
    [
        (MIXED, "retries", 0, True),
        (MIXED, "retries", 1, True),
        (MIXED, "retries", 4, False),
        (DEAD, "breaker", 2, True),
        (DEAD, "breaker", 4, True),
        (SLOW, "attempt_seconds", 0.7, False),
        (MIXED, "merge", True, False),
        (MIXED, "rate", "5/s", True),
        (SLOW, "deadline_seconds", 1.0, True),
    ],
)
def test_a_real_run_with_that_limit_lies_within_the_bounds(
    tmp_path: Path, script: Script, name: str, value: object, is_certain: bool
) -> None:
    """The upstream plays the same script both times; what is certain comes out exactly."""
    bench = Bench(tmp_path, script, "[2, 3, 4, 5, 6]")
    figures, _ = simulated(bench.run("before"), *options_of(name, value))

    found = measured(bench.run("after", **{name: value}))

    missing = figures[NAMES["missing"]]
    assert (missing["certain"] is not None) is is_certain
    assert all(each["at_best"] <= each["at_worst"] for each in figures.values())
    for measure, real in found.items():
        figure = figures[measure]
        assert figure["at_best"] <= real <= figure["at_worst"], measure


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Have a run with a bit of everything in its history."""
    bench = Bench(tmp_path_factory.mktemp("simulate"), MIXED, "[2, 3, 4, 5, 6]")
    return bench.run("history", breaker=9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retries", 2),
        ("attempt_seconds", 10.0),
        ("breaker", 9),
        ("rate", "none"),
        ("merge", False),
        ("deadline_seconds", 60.0),
    ],
)
def test_the_limits_in_force_give_history_itself(home: Home, name: str, value: object) -> None:
    """With bounds of no width, and nothing unknown."""
    figures, answer = simulated(home, *options_of(name, value))

    assert all(each["now"] == each["certain"] for each in figures.values())
    assert {name: figures[name]["now"] for name in measured(home)} == measured(home)
    assert answer["unknown"] == []


def test_nothing_is_written_and_nothing_sent(home: Home) -> None:
    """The upstream is gone by now, and the store is read only."""
    before = home.database.read_bytes()

    simulated(home, "--retries", "0")

    assert home.database.read_bytes() == before


def test_what_cannot_be_known_is_said_in_words(home: Home) -> None:
    """For a person, in a table of its own."""
    shown = home.run("simulate", "--retries", "5")

    assert shown.code == 0
    assert "What cannot be known" in shown.out
    assert "how one more retry would have ended" in shown.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "give one limit to change"),
        (("--retries", "0", "--breaker", "1"), "give one limit to change"),
        (("--rate", "often"), "must be such as"),
        (("--retries", "0", "--source", "none"), "there is none"),
    ],
)
def test_wrong_options(home: Home, options: tuple[str, ...], says: str) -> None:
    """One line, and code 2."""
    done = home.run("simulate", *options)

    assert done.code == 2
    assert says in " ".join(done.err.split())


def test_an_estimate_needs_thirty_attempts_and_names_its_method(tmp_path: Path) -> None:
    """The share of retries that helped; of few, nothing is said."""
    few = Bench(tmp_path / "few", MIXED, "[2, 3, 4, 5, 6]").run("before")
    script = {2: [DOWN, OK] * 20 + [DOWN, DOWN, DOWN] * 5}
    many = Bench(tmp_path / "many", script, json.dumps([2] * 25)).run("before")

    none, _ = simulated(few, "--retries", "4")
    some, _ = simulated(many, "--retries", "4")

    assert none[NAMES["missing"]]["estimate"] is None
    figure = some[NAMES["missing"]]
    assert (figure["n"], figure["method"]) == (30, "share of retries that helped")
    assert figure["estimate"] == pytest.approx(5 * (1 - 20 / 30) ** 2)
    assert figure["at_best"] <= figure["estimate"] <= figure["at_worst"]


def test_runs_whose_limits_are_not_known_are_counted(tmp_path: Path) -> None:
    """They were not kept before, or the batches were pruned."""
    bench = Bench(tmp_path, {}, "[2]")
    old = bench.run("old")
    assert simulated(old, "--retries", "0")[1]["left_out"] == 0
    with closing(sqlite3.connect(old.database)) as raw, raw:
        raw.execute("DELETE FROM configurations")

    figures, answer = simulated(old, "--retries", "0")

    assert (figures, answer["left_out"]) == ({}, 1)
    assert "1 run left out" in old.run("simulate", "--retries", "0").out


def test_the_product_limit_is_that_of_the_textbook() -> None:
    """Worked by hand: ten attempts, two of them cut at 5, two seen to end later."""
    times = [(1, True), (2, True), (3, True), (4, True), (5, False), (5, False)]
    times += [(6, True), (7, True), (8, False), (9, False)]

    # S(5) = 6/10; four at risk after the cuts: S(6) = 6/10 * 3/4, S(7) = 6/10 * 3/4 * 2/3.
    assert chance_to_end(times, 5, 6) == pytest.approx(1 / 4)
    assert chance_to_end(times, 5, 7) == pytest.approx(1 / 2)
    assert chance_to_end(times[:6], 5, 9) is None
