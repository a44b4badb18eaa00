"""``pipeline top``: what the sources are doing now."""

import gc
from typing import Annotated

from typer import Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import ConfigOption, FormatOption
from pipeline.rendering.shapes import Format


def top(
    config: ConfigOption = None,
    every: Annotated[
        float, Option("--every", metavar="SECONDS", min=0.2, help="How often to look again.")
    ] = 2.0,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show what each source is doing now, again and again; q quits.

    Who is asked, who has to wait and how long, what is left of quotas, the last 60 attempts of
    each (. good, x not), how long the exchanges of the last hour took, and the next slot. It only
    reads the store. Where stdout is no terminal it answers once.
    """
    with error_boundary():
        from pipeline.top import show_top

        gc.enable()  # the command line switched it off, and this may run for days
        show_top(read_settings(config), format_, every_seconds=every)
