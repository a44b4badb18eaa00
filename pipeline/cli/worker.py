"""``pipeline worker``: take part in the runs of a shared store."""

import gc
import os
from typing import Annotated

from typer import Option

from pipeline.cli.boundary import complain, error_boundary, log_as
from pipeline.cli.configuration import read_settings_to_run
from pipeline.cli.options import ConfigOption, LogFormatOption
from pipeline.errors import ConfigError
from pipeline.models import Overlap
from pipeline.rendering.shapes import Format


def worker(
    config: ConfigOption = None,
    lanes: Annotated[
        int, Option(min=1, max=10_000, metavar="N", help="Portions carried out at once.")
    ] = 100,
    drain: Annotated[
        float,
        Option(metavar="SECONDS", min=0, help="How long SIGTERM waits for what is under way."),
    ] = 60.0,
    log_format: LogFormatOption = Format.TEXT,
) -> None:
    """Take part in the runs of a PostgreSQL store, on any number of machines, until SIGTERM.

    Runs that `pipeline collect --spread` orders are cut into portions of about 30 s of a source's
    rate; each goes to one worker, and to another within 25 s if that dies. With a [schedule] each
    worker also starts the runs of the slots: of all of them one gets a slot. Needs
    pipeline[cluster].

    SIGTERM and SIGINT end it with 0 as soon as what is under way is stored; the rest is left to
    others. A second one ends it at once. While the server is not there it waits for it.
    """
    log_as(log_format)
    with error_boundary():
        from pipeline.extras import how_to_install
        from pipeline.settings.environment import find_state_folder

        try:
            from pipeline.cluster.worker import Worker
        except ImportError as exc:
            command = how_to_install("procrastinate", "psycopg[binary,pool]")
            raise ConfigError(f"pipeline worker needs {exc.name}: {command}") from exc

        from pipeline.schedule.install import run_command

        settings = read_settings_to_run(config)
        state_folder = find_state_folder(os.environ)
        gc.freeze()
        gc.enable()  # the command line switched it off, and this may run for days
        Worker(
            settings=settings,
            state_folder=state_folder,
            lanes=lanes,
            drain_seconds=drain,
            command=[*run_command(settings, Overlap.SKIP, log_format), "--spread"],
            say=complain,
        ).run()
