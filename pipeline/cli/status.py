"""``pipeline status``: is all well now?"""

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import ConfigOption, FormatOption
from pipeline.errors import ExitCode
from pipeline.rendering.shapes import Format


def status(config: ConfigOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Show whether all is well now; exit with 3 if not.

    The last run, each source, the slots of the schedule, and what an audit of the last week finds
    that still goes on.

    \b
    pipeline status             what to look at first in the morning
    pipeline status || mail     for a monitor
    """
    with error_boundary():
        from pipeline.status import show_status

        is_healthy = show_status(read_settings(config, will_ask=False), format_)
    if not is_healthy:
        raise typer.Exit(ExitCode.FINDINGS)
