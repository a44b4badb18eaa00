"""The published schemas, held against what the commands really print."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import pipeline
from pipeline.cli.schema import names, read_schema
from pipeline.errors import ExitCode
from tests.cli.conftest import Invoke
from tests.schemas import make_schema

SOURCE_TREE = Path(pipeline.__file__).parent
NAMED = re.compile(r"\bpipeline\.[a-z_]+/[0-9]+")

# Some of its answers come, some fail, one source is told to wait.
CONFIG = """
[schedule]
every = "5m"
[notify]
on_failure = ["/bin/sh", "-c", "cat > told.json"]
[sandbox]
faults = ["anu_aqn:server_error", "anu_legacy:not_json"]
[collect]
retry_budget = 1
[sources.dice]
kind = "sandbox.randomnumberapi"
batches = [3, 4]
min = 1
max = 6
[sources.broken]
kind = "sandbox.anu_aqn"
batches = [5]
backoff_seconds = 0.01
[sources.mute]
kind = "sandbox.anu_legacy"
batches = [5]
"""

NOTIFICATION = "[notify]"  # no command of ours prints it, one of the user's gets it
COMMANDS = {
    NOTIFICATION: "notification",
    "collect": "run",
    "collect --overlap skip": "run",  # once more in the same slot, so nothing is due
    "plan": "plan",
    "sources": "sources",
    "schedule show": "schedule",
    "report": "runs",
    "report runs": "runs",
    "report --run last": "run",
    "report --run 1 -s dice": "run",
    "report batches": "batches",
    "report batches --run 1": "batches",
    "report timings": "timings",
    "report timings --run 1": "timings",
    "report errors": "errors",
    "report errors --run 1": "errors",
    "report numbers": "numbers",
    "report health": "health",
    "report sources": "source_totals",
    "report sources --run 1": "source_totals",
    "report slots": "slots",
    "report workers": "workers",
    "audit": "audit",
    "audit --since 2026-01-01": "audit",
    "audit show 1": "attempt",
    "audit show 2": "attempt",
    "audit show 3": "attempt",
    "audit replay": "replay",
    "status": "status",
    "doctor": "doctor",
    "simulate --retries 5": "simulation",
    "simulate --merge": "simulation",
    "top": "top",
    "audit verify": "verify",
    "db stats": "stats",
    "db stats --exact": "stats",
    "sources check dice": "run",
}


def validator(name: str) -> Draft202012Validator:
    """Make what holds an answer to the schema of this name."""
    return Draft202012Validator(json.loads(read_schema(name)))


def check(answer: str) -> str:
    """Hold an answer to the schema that it names, and give the name."""
    document = json.loads(answer)
    name: str = document["schema"]
    errors = [
        f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(document)
    ]
    assert errors == []
    return name


def test_every_answer_obeys_its_schema(invoke: Invoke, home: Path) -> None:
    """Whoever writes a program against them relies on it."""
    (home / "config.toml").write_text(CONFIG)
    told = {"collect": invoke("collect", "--format", "json").stdout}
    told[NOTIFICATION] = (home / "told.json").read_text("utf-8")

    for command in COMMANDS:
        if command not in told:
            told[command] = invoke(*command.split(), "--format", "json").stdout

    seen = {command: check(answer) for command, answer in told.items()}
    assert seen == {command: f"pipeline.{name}/1" for command, name in COMMANDS.items()}


def test_every_schema_is_obeyed_by_some_answer() -> None:
    """One that nothing is held to may say anything."""
    assert {f"pipeline.{name}/1" for name in COMMANDS.values()} == set(names())


def test_every_schema_that_is_named_is_published() -> None:
    """Wherever a command says what its answer is, there is something to hold it to."""
    named = {
        name
        for file in SOURCE_TREE.rglob("*.py")
        for name in NAMED.findall(file.read_text("utf-8"))
    }

    assert named == set(names())


@pytest.mark.parametrize("name", names())
def test_a_schema_follows_from_what_makes_the_answer(name: str) -> None:
    """A field that is added, or another type: `make schemas` writes it down."""
    short = name.removeprefix("pipeline.").removesuffix("/1")

    assert read_schema(name) == make_schema(short)


def objects_of(schema: object) -> Iterator[dict[str, Any]]:
    """Walk over the objects that a schema describes."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects_of(value)


@pytest.mark.parametrize("name", names())
def test_a_schema_is_one(name: str) -> None:
    """By the rules of its own language, and it says of what it is."""
    schema = json.loads(read_schema(name))

    Draft202012Validator.check_schema(schema)
    assert schema["title"] == name == schema["properties"]["schema"]["const"]
    assert schema["$id"] == f"urn:{name.replace('.', ':').replace('/', ':')}"


@pytest.mark.parametrize("name", names())
def test_no_key_is_left_to_chance(name: str) -> None:
    """A key that is misspelled, missing or new must not go by unseen."""
    for described in objects_of(json.loads(read_schema(name))):
        assert described["additionalProperties"] is False
        assert set(described["required"]) == set(described["properties"])


@pytest.mark.parametrize("name", names())
def test_nothing_is_defined_that_is_not_used(name: str) -> None:
    """A schema is read by people as well."""
    text = read_schema(name)

    defined = set(json.loads(text).get("$defs", {}))
    assert defined == set(re.findall(r'"#/\$defs/(\w+)"', text))


def test_a_schema_is_printed_as_it_is(invoke: Invoke) -> None:
    """By the name that an answer has, or by the short one."""
    whole = invoke("schema", "pipeline.run/1").stdout

    assert json.loads(whole)["title"] == "pipeline.run/1"
    assert invoke("schema", "run").stdout == whole == read_schema("run")


def test_the_names_are_listed(invoke: Invoke) -> None:
    """A line each, for the shell."""
    assert invoke("schema").stdout.splitlines() == names()


@pytest.mark.parametrize("name", ["ruin", "pipeline.run/9", "../run", ""])
def test_an_unknown_schema_is_a_wrong_command_line(invoke: Invoke, name: str) -> None:
    """And says where the names are."""
    result = invoke("schema", name)

    assert result.exit_code == ExitCode.USAGE
    assert "`pipeline schema` lists them" in result.stderr


def test_all_files_are_schemas() -> None:
    """What lies in the folder is published."""
    folder = files("pipeline").joinpath("schemas")

    assert len(list(folder.iterdir())) == len(names())
