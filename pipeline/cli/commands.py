"""Which commands there are. Each imports what it needs when it is called, so that help is quick."""

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

import pipeline
from pipeline.cli.audit import audit_app
from pipeline.cli.boundary import PlainGroup
from pipeline.cli.collect import collect
from pipeline.cli.db import db_app
from pipeline.cli.doctor import doctor
from pipeline.cli.export import export
from pipeline.cli.init import init
from pipeline.cli.options import ConfigOption, hand_down_config
from pipeline.cli.plan import plan
from pipeline.cli.report import report
from pipeline.cli.sandbox import sandbox
from pipeline.cli.schedule import schedule_app
from pipeline.cli.schema import schema
from pipeline.cli.simulate import simulate
from pipeline.cli.sources import sources_app
from pipeline.cli.status import status
from pipeline.cli.top import top
from pipeline.cli.worker import worker

HELP = """Collect random numbers from rate-limited, flaky HTTP APIs, and keep an exact account.

Begin with `pipeline collect --config builtin`: it asks upstreams that this program plays itself, on
this machine alone.
"""


# In the order of the help.
COMMANDS: Mapping[str, Callable[..., object] | typer.Typer] = {
    "init": init,
    "collect": collect,
    "status": status,
    "top": top,
    "plan": plan,
    "report": report,
    "audit": audit_app,
    "simulate": simulate,
    "schedule": schedule_app,
    "worker": worker,
    "export": export,
    "schema": schema,
    "doctor": doctor,
    "sources": sources_app,
    "db": db_app,
    "sandbox": sandbox,
}
SHORT = {  # of those whose first sentence is too long for a list
    "worker": "Take part in the runs that machines share.",
    "sandbox": "Serve imitations of the upstreams on this machine.",
}


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"pipeline {pipeline.__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    config: ConfigOption = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    del version  # has been printed by now
    hand_down_config(context, config)


def make_app(only: str = "") -> typer.Typer:
    """Put the commands together; of the name *only* that one, if there is such a command.

    Each takes half a millisecond, and who starts one does not need the others.
    """
    app = typer.Typer(
        cls=PlainGroup,
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    wanted = {only: COMMANDS[only]} if only in COMMANDS else COMMANDS
    for name, command in wanted.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, short_help=SHORT.get(name))(command)
    return app
