"""Which commands there are. Each imports what it needs when it is called, so that help is quick."""

from typing import Annotated

import typer
from typer.models import CommandInfo

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


def make_app(only: str | None = None) -> typer.Typer:
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
    app.command()(init)
    app.command()(collect)
    app.command()(status)
    app.command()(top)
    app.command()(plan)
    app.command()(report)
    app.add_typer(audit_app, name="audit")
    app.command()(simulate)
    app.add_typer(schedule_app, name="schedule")
    app.command(short_help="Take part in the runs that machines share.")(worker)
    app.command()(export)
    app.command()(schema)
    app.command()(doctor)
    app.add_typer(sources_app, name="sources")
    app.add_typer(db_app, name="db")
    app.command(short_help="Serve imitations of the upstreams on this machine.")(sandbox)
    commands = [each for each in app.registered_commands if _name_of(each) == only]
    groups = [each for each in app.registered_groups if each.name == only]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups
    return app


def _name_of(command: CommandInfo) -> str | None:
    return command.name or (command.callback and command.callback.__name__)
