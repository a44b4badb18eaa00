"""``pipeline sources``: what is configured; asking one; lifting what keeps one from it."""

import os
from typing import Annotated

import typer

from pipeline.cli.boundary import complain, error_boundary
from pipeline.cli.configuration import read_settings, read_settings_to_run
from pipeline.cli.options import ConfigOption, FormatOption, complete_sources, hand_down_config
from pipeline.rendering.shapes import Format

sources_app = typer.Typer(rich_markup_mode=None)


@sources_app.callback(invoke_without_command=True)
def sources(
    context: typer.Context,
    config: ConfigOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """List the sources, and what keeps them from being asked.

    What each is, what is ordered from it, and until when its rules or its upstream forbid to ask.

    \b
    pipeline sources                    what is configured
    pipeline sources check dice         send one request, show what came
    pipeline sources release dice       lift the embargo on a source
    """
    hand_down_config(context, config)
    if context.invoked_subcommand is not None:
        return
    with error_boundary():
        from pipeline.run.forecast import show_sources

        show_sources(read_settings(config), format_)


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The source.", autocompletion=complete_sources)
]


@sources_app.command()
def check(
    name: NameArgument, config: ConfigOption = None, format_: FormatOption = Format.TEXT
) -> None:
    """Send one request to a source, and show what was understood.

    It is a run of one batch, the smallest that is ordered, without retries: it keeps the rules (and
    waits for them, up to the deadline), and is on the books as every other run. Exit codes are
    those of `pipeline collect`.

    \b
    pipeline sources check dice
    PIPELINE_SOURCES_LFD_ENABLED=true pipeline sources check lfd   while it is off
    """
    with error_boundary():
        from pipeline.check import check_source

        settings = read_settings_to_run(config)
        code = check_source(settings, name, format_, environ=os.environ, say=complain)
    raise typer.Exit(code)


@sources_app.command()
def release(
    name: NameArgument,
    config: ConfigOption = None,
) -> None:
    """Lift the embargo on a source, and let it be asked at once.

    Do it only if you know better than the upstream that said "not before".
    """
    with error_boundary():
        from pipeline.run import forecast

        forecast.release(read_settings(config), name, say=complain)
