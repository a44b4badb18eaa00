"""``pipeline doctor``: what on this machine would keep a run from going well."""

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import ConfigOption, FormatOption
from pipeline.errors import ExitCode
from pipeline.rendering.shapes import Format


def doctor(config: ConfigOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Check configuration, store, clock, locks and libraries.

    Each line is ok, or says what to do. Nothing is sent and nothing is changed. Exits with 78 if
    there is something to mend.
    """
    with error_boundary():
        from pipeline.doctor import show_diagnosis

        is_well = show_diagnosis(lambda: read_settings(config), format_)
    if not is_well:
        raise typer.Exit(ExitCode.CONFIGURATION)
