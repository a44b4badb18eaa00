"""``pipeline init``: write a first configuration."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import is_by_hand
from pipeline.cli.options import ForceOption
from pipeline.errors import UsageError


def init(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            "-s",
            metavar="NAME",
            help="Sources of the shipped file, or sandbox: several with commas, or repeatedly.",
        ),
    ] = None,
    email: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="For the upstreams that want one.")
    ] = None,
    key_env: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE=VARIABLE", help="The variable with a source's key."),
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="INTERVAL", help="How often to collect: 5m, 1h, 1d.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
    ] = Path("config.toml"),
    force: ForceOption = False,
) -> None:
    """Write a first config.toml, check it, and say what to type next.

    On a terminal it asks for what no option says.

    \b
    pipeline init                                        asks
    pipeline init -s random_org --email me@example.org   does not
    """
    keys = dict(map(_parse_key, key_env or ()))
    with error_boundary():
        from pipeline.init import Wishes, ask_wishes, write_first

        names = [name for given in source or () for name in given.split(",") if name]
        wishes = Wishes(sources=names, email=email, keys=keys, every=every)
        if not source and not is_by_hand():
            raise UsageError("--source: give one, or a terminal on which to ask")
        if not source:
            wishes = ask_wishes(wishes, lambda text, default: typer.prompt(text, default=default))
        write_first(wishes, output, environ=os.environ, force=force)


def _parse_key(text: str) -> tuple[str, str]:
    source, _, variable = text.partition("=")
    if not source or not variable:
        raise typer.BadParameter(f"--key-env {text!a}: give SOURCE=VARIABLE")
    return source, variable
