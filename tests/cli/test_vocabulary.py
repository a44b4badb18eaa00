"""One name, one thing: what we publish of a batch or an attempt joins with all else we publish."""

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from pipeline.cli.schema import names as names_of_schemas
from pipeline.cli.schema import read_schema
from pipeline.export.choices import Records
from pipeline.export.records import columns_of
from pipeline.rendering.vocabulary import meanings
from pipeline.report.choices import Report
from pipeline.store.views import VIEWS
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
    record_run,
)

Rows = Sequence[Mapping[str, Any]]
KEYS = (("run_id", "batch"), ("attempt_id",))
SHAPES = {
    "report batches -f csv": "",
    "report batches -f json": "batches",
    "report --run 2 -f csv": "",
    "report --run 2 -f json": "batches",
    "report --run 2 --format json": "attempts",
    "audit show 4 -f json": "batches",
    "audit show 4 --format json": "attempts",
    "export numbers": "",
    "export batches": "",
    "export batches -f jsonl": "",
    "export attempts": "",
    "export attempts -f jsonl": "",
    "SELECT * FROM batch_list": "",
    "SELECT * FROM failed_attempts": "",
}
BOUNDS = ("since", "until", "not_before")  # moments by their very name


@pytest.fixture
def history(session: Session) -> None:
    """Record two runs, in the second of which no id is the number of a try or of a fetch."""
    record_run(session, [make_batch(0)], attempts=[make_attempt(0)])
    batches = [make_batch(0), make_batch(1, "coin")]
    run_id = begin(session, started_at=at(5))
    order_batches(session, run_id=run_id, batches=batches)
    made = [
        make_failed_attempt(0, 1, began_at=at(5)),
        make_attempt(0, 2, began_at=at(5)),
        make_failed_attempt(1, 1, "coin", began_at=at(5)),
    ]
    outcomes = [make_collected(batches[0], attempt=2), make_lost(batches[1])]
    save_results(session, run_id=run_id, attempts=made, outcomes=outcomes, keep_numbers=True)
    finish_run(session, run_id=run_id, ended_at=at(5), clock_us=50_000)
    session.commit()


def _read(question: str, part: str, invoke: Invoke, database: Path) -> Rows:
    """Read the rows of one shape as a program does."""
    if question.startswith("SELECT"):
        with closing(sqlite3.connect(database)) as raw:
            raw.row_factory = sqlite3.Row
            return [dict(row) for row in raw.execute(question)]
    told = invoke(*question.split()).stdout
    if part:
        rows: Rows = json.loads(told)[part]
        return rows
    if question.endswith("jsonl"):
        return [json.loads(line) for line in told.splitlines()]
    return list(csv.DictReader(StringIO(told, newline="")))


def _plain(row: Mapping[str, Any], name: str) -> str:
    """Write a value as a sheet does, whatever shape it comes from."""
    value = row[name]
    if name.startswith("is_") and isinstance(value, int):
        return str(bool(value)).lower()
    return "" if value is None else str(value)


def _joined(
    left: Rows, right: Rows, key: tuple[str, ...]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for one in left:
        of = [_plain(one, name) for name in key]
        if "" not in of:
            yield from ((one, two) for two in right if [_plain(two, name) for name in key] == of)


@pytest.mark.usefixtures("history")
def test_every_shape_joins_with_every_other(invoke: Invoke, database: Path) -> None:
    """The number of a try below the name of an id joins with another attempt, silently."""
    found = {
        f"{question} {part}": _read(question, part, invoke, database)
        for question, part in SHAPES.items()
    }

    joins: Counter[str] = Counter()
    for (first, left), (second, right) in combinations(found.items(), 2):
        shared = left[0].keys() & right[0].keys()
        for key in KEYS:
            for one, two in _joined(left, right, key) if shared.issuperset(key) else ():
                joins.update((first, second))
                told = {name: (_plain(one, name), _plain(two, name)) for name in shared}
                assert {k: v for k, v in told.items() if v[0] != v[1]} == {}, (first, second)
    assert {shape for shape in found if joins[shape] < len(SHAPES) // 2} == set()


# Their fields have the names of the keys in config.toml, which explains them.
IN_THE_FILE = ("limits", "source_limits", "misfit")


def _published(invoke: Invoke, database: Path) -> Iterator[tuple[str, str]]:
    """Name every field of every record that we publish, and where."""
    for what in Records:
        yield from (("export " + what, name) for name in columns_of(what))
    with closing(sqlite3.connect(database)) as raw:
        for view in VIEWS:
            cursor = raw.execute(f"SELECT * FROM {view}")
            yield from ((view, column[0]) for column in cursor.description)
    for report in Report:
        head = invoke("report", report, "-f", "csv").stdout.splitlines()[0]
        yield from (("report " + report, name) for name in head.split(","))
    for schema in names_of_schemas():
        for record, of in json.loads(read_schema(schema))["$defs"].items():
            if record in IN_THE_FILE:
                continue
            yield from ((f"{schema} {record}", name) for name in of.get("properties", {}))


@pytest.mark.usefixtures("history")
def test_every_name_that_we_publish_is_explained(invoke: Invoke, database: Path) -> None:
    """In one table; and nothing is explained that nobody sees."""
    explained = {name for of in meanings().values() for name in of}
    published = set(_published(invoke, database))

    assert {(where, name) for where, name in published if name not in explained} == set()
    assert explained - {name for _, name in published} == set()


@pytest.mark.parametrize("schema", names_of_schemas())
def test_the_unit_is_in_the_name(schema: str) -> None:
    """So that a reader needs no manual to add two columns."""
    rules: Mapping[str, Callable[[str], bool]] = {
        "moment": lambda name: name.endswith(("_at", *BOUNDS)),
        "us": lambda name: name.endswith("_us"),
        "share": lambda name: name == "share" or name.endswith("_share"),
    }
    published = json.loads(read_schema(schema))
    for record in (published, *published["$defs"].values()):
        for name, of in record.get("properties", {}).items():
            for kind, is_named_so in rules.items():
                if f'#/$defs/{kind}"' in json.dumps(of) and "array" not in json.dumps(of):
                    assert is_named_so(name), (schema, name)
