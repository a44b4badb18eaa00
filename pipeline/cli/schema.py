"""``pipeline schema``: what the JSON of each command looks like, as JSON Schema (2020-12)."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.render import write
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

SUFFIX = ".json"


def schema(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="As the answer has it: pipeline.run/1.")
    ] = None,
) -> None:
    """Show the schema of a JSON answer, or the names of all.

    An answer names its own under "schema". Within a version keys are added, never changed.

    \b
    pipeline schema                   all names
    pipeline schema pipeline.run/1    one as JSON Schema; `run` does as well
    """
    with error_boundary():
        if name is None:
            write("\n".join(names()))
        else:
            write(read_schema(name).rstrip("\n"))


def names() -> list[str]:
    """List the names of all schemas that are published."""
    return sorted(map(_name_of, _files()))


def read_schema(name: str) -> str:
    """Read the text of one schema; without a version it is the newest.

    Raises:
        UsageError: there is no such schema.
    """
    found = {_name_of(file): file for file in _files()}
    asked = [known for known in found if name in (known, _short(known))]
    if not asked:
        raise UsageError(f"schema {name!a}: there is none; `pipeline schema` lists them")
    return found[max(asked, key=_version)].read_text("utf-8")


def _files() -> "Iterator[Traversable]":
    from importlib.resources import files

    folder = files("pipeline").joinpath("schemas")
    return (file for file in folder.iterdir() if file.name.endswith(SUFFIX))


def _name_of(file: "Traversable") -> str:
    name, version = file.name.removesuffix(SUFFIX).rsplit(".", 1)
    return f"pipeline.{name}/{version}"


def _short(name: str) -> str:
    return name.removeprefix("pipeline.").partition("/")[0]


def _version(name: str) -> int:
    return int(name.partition("/")[2])
