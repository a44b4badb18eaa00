"""``pipeline plan``: what a run would ask now, when it may, and whether the rules allow it."""

from datetime import timedelta
from typing import Annotated

from typer import Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings, with_options
from pipeline.cli.options import (
    BatchesOption,
    ConfigOption,
    DeadlineOption,
    FormatOption,
    SourcesOption,
    parse_interval,
)
from pipeline.rendering.shapes import Format


def plan(
    config: ConfigOption = None,
    source: SourcesOption = None,
    deadline: DeadlineOption = None,
    batches: BatchesOption = None,
    every: Annotated[
        timedelta | None,
        Option(
            parser=parse_interval,
            metavar="INTERVAL",
            help="Check a whole day of runs at this distance too: 10m, 2h, 1d. Without it: of those"
            " that [schedule] promises.",
        ),
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show what a run would ask now, and when it may; send nothing.

    \b
    pipeline plan                 each request, its earliest moment and why
    pipeline plan --every 10m     does a day of such runs fit the rules?

    Exits with 78 if the rules can never be met.
    """
    with error_boundary():
        from pipeline.schedule.outlook import show_plan

        settings = with_options(read_settings(config), deadline, source, batches)
        show_plan(settings, every, format_)
