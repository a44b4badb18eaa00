"""What `pipeline db datasette` writes, in a real Datasette."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from pipeline.export.datasette import QUERIES, TITLES
from tests.processes import Home, homes, serving

DOWN = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Collect large and small numbers, and lose a batch."""
    folder = tmp_path_factory.mktemp("datasette")
    with homes(folder, ["me"]) as made, serving("answer", DOWN) as upstream:
        me = made["me"]
        me.ask(upstream.url, batches="[2, 3, 4]", high=70_000)
        me.run("collect")
        yield me


@contextmanager
def opened(command: str) -> Iterator[str]:
    """Run the printed command on a port of its own; give the address."""
    program, *arguments = shlex.split(command)
    assert program == "datasette"
    words = [sys.executable, "-m", "datasette", *arguments, "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"running on (http://\S+)", line):
                    yield found[1]
                    break
        finally:
            process.kill()


def get(address: str) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON."""
    with urlopen(address, timeout=60) as answer:
        return json.loads(answer.read())


def test_each_query_and_view_opens_in_a_real_datasette(home: Home) -> None:
    """With titles, facets and units; and numbers are numbers."""
    done = home.run("db", "datasette")
    assert (done.code, done.err) == (0, "")

    with opened(done.out.strip()) as root:
        for name in QUERIES:
            found = get(f"{root}/pipeline/{name}.json?run_id=1&_shape=array")
            assert found, name
        numbers = get(f"{root}/pipeline/numbers_of_run.json?run_id=1&_shape=array")
        for view, (_, _, facets) in TITLES.items():
            page = get(f"{root}/pipeline/{view}.json?_extra=facet_results")
            assert page["rows"], view
            assert set(facets) <= set(page["facet_results"]), view
        with urlopen(f"{root}/pipeline/run_list", timeout=60) as answer:
            html = answer.read().decode()
        tables = get(f"{root}/pipeline.json")["views"]

    exported = home.run("export", "numbers", "--format", "jsonl").out.splitlines()
    rows = [json.loads(line) for line in exported]
    assert [(row["batch"], row["position"], row["value"]) for row in numbers] == [
        (row["batch"], row["position"], row["value"]) for row in rows
    ]
    assert "<h1" in html
    assert "Runs" in html
    assert {quote(view) for view in TITLES} <= {each["name"] for each in tables}


def test_every_width_of_number_is_read(tmp_path: Path) -> None:
    """One, two and four bytes, and below zero."""
    with homes(tmp_path, ["me"]) as made, serving() as upstream:
        me = made["me"]
        me.config.write_text(
            "".join(
                f"[sources.s{number}]\nkind = 'randomnumberapi'\nurl = '{upstream.url}'\n"
                f"min = {low}\nmax = {high}\nbatches = [2]\nmerge = false\n"
                for number, (low, high) in enumerate([(7, 9), (-300, 9), (-70_000, 9)])
            )
        )
        me.run("collect")
        found = me.rows(QUERIES["numbers_of_run"][1].replace(":run_id", "1"))

    assert [row[3] for row in found] == [7, 7, -300, -300, -70_000, -70_000]


def test_the_file_is_replaced_on_demand_only(home: Home) -> None:
    """Somebody may have added to it."""
    target = home.folder / "mine.json"
    first = home.run("db", "datasette", "--output", str(target))
    second = home.run("db", "datasette", "--output", str(target))
    third = home.run("db", "datasette", "--output", str(target), "--force")

    assert (first.code, second.code, third.code) == (0, 2, 0)
    assert "--force replaces it" in second.err
    assert json.loads(target.read_text("utf-8"))["title"] == "pipeline"


def test_a_server_is_refused_in_a_line(home: Home) -> None:
    """Datasette reads files."""
    env = {"PIPELINE_STORE_URL": "postgresql+psycopg://me@127.0.0.1:1/x"}
    refused = home.run("db", "datasette", env=env)

    assert refused.code == 78
    assert "Datasette reads SQLite files" in refused.err
