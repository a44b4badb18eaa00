"""``pipeline schema``: what the JSON of each command looks like, as JSON Schema (2020-12)."""

from pathlib import Path
from typing import Annotated

import typer

import pipeline
from pipeline.cli.boundary import error_boundary
from pipeline.errors import UsageError
from pipeline.rendering.output import write

FOLDER = Path(pipeline.__file__).parent / "schemas"


def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="As the answer has it: pipeline.run/1.",
            autocompletion=lambda incomplete: [n for n in names() if n.startswith(incomplete)],
        ),
    ] = None,
) -> None:
    """Show the schema of a JSON answer, or the names of all.

    An answer names its own under "schema". Within a version keys are added, never changed.

    \b
    pipeline schema                   all names
    pipeline schema pipeline.run/1    one as JSON Schema; `run` does as well
    """
    with error_boundary():
        write("\n".join(names()) if name is None else read_schema(name).rstrip("\n"))


def names() -> list[str]:
    """List the names of all schemas that are published."""
    return sorted(_files())


def read_schema(name: str) -> str:
    """Read the text of one schema; without a version it is the newest.

    Raises:
        UsageError: there is no such schema.
    """
    found = _files()
    asked = [known for known in found if name in (known, known[len("pipeline.") :].split("/")[0])]
    if not asked:
        raise UsageError(f"schema {name!a}: there is none; `pipeline schema` lists them")
    return found[max(asked, key=lambda known: int(known.split("/")[1]))].read_text("utf-8")


def _files() -> dict[str, Path]:
    """Find the files, such as ``run.1.json``, by the names of the schemas: ``pipeline.run/1``."""
    return {f"pipeline.{file.stem.replace('.', '/')}": file for file in FOLDER.glob("*.json")}
