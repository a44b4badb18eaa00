"""``pipeline schedule``: the slots, the scheduler in the foreground, lines for cron and systemd."""

import gc
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from pipeline.cli.boundary import complain, error_boundary, log_as
from pipeline.cli.configuration import read_settings, read_settings_to_run
from pipeline.cli.options import ConfigOption, FormatOption, LogFormatOption
from pipeline.models import Overlap
from pipeline.rendering.shapes import Format

MOST_SLOTS = 1_000
DRAIN_SECONDS = 5.0  # containers are killed after 10

schedule_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Show the slots; run them, or write lines for cron or systemd.",
)


@schedule_app.command()
def show(
    config: ConfigOption = None,
    number: Annotated[
        int,
        Option("--number", "-n", metavar="N", min=1, max=MOST_SLOTS, help="So many slots of each."),
    ] = 5,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show the next slots, and what became of the last ones.

    Also of a schedule that breaks the upstreams' rules; the reason is on stderr then.
    """
    with error_boundary():
        from pipeline.schedule.outlook import show_slots

        show_slots(read_settings(config, will_ask=False), number, format_, say=complain)


@schedule_app.command()
def run(
    config: ConfigOption = None,
    overlap: Annotated[
        Overlap,
        Option(help="While an earlier slot's run goes on: skip, wait (queue) or allow (both)."),
    ] = Overlap.SKIP,
    drain: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="After SIGTERM: let a run go on so long before it is told to end, too.",
        ),
    ] = DRAIN_SECONDS,
    log_format: LogFormatOption = Format.TEXT,
) -> None:
    """Start a run in each slot, in the foreground, until SIGTERM.

    For containers and systemd. Each run is told in a line on stderr. SIGHUP reads the configuration
    again; if it is wrong, the old one stays. SIGTERM and SIGINT end it with 0 as soon as the run
    that goes on has ended; a second one ends it at once.
    """
    log_as(log_format)
    with error_boundary():
        from pipeline.schedule.runner import keep_schedule

        gc.enable()  # the command line switched it off, and this may run for days
        keep_schedule(
            read_settings_to_run(config),
            overlap,
            log_format,
            read_again=read_settings_to_run,
            drain_seconds=drain,
            say=complain,
        )


@schedule_app.command()
def cron(config: ConfigOption = None) -> None:
    """Print crontab lines that start a run in each slot.

    Add them with `crontab -e`.
    """
    with error_boundary():
        from pipeline.schedule.install import put_crontab

        put_crontab(read_settings(config, will_ask=False), say=complain)


@schedule_app.command()
def systemd(
    config: ConfigOption = None,
    service: Annotated[
        bool,
        Option("--service", help="The scheduler as one service, instead of a timer."),
    ] = False,
    worker: Annotated[
        bool, Option("--worker", help="A worker as a service, on each machine that takes part.")
    ] = False,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FOLDER", help="Write the files there; else print them."),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Print or write systemd units that start a run in each slot.

    A timer and its service, or the scheduler as a service of its own.

    \b
    pipeline schedule systemd -o /etc/systemd/system
    systemctl enable --now pipeline.timer
    """
    with error_boundary():
        from pipeline.schedule.install import put_units

        settings = read_settings(config, will_ask=False)
        kind: Literal["timer", "service", "worker"] = (
            "worker" if worker else "service" if service else "timer"
        )
        put_units(settings, output, kind=kind, force=force, say=complain)
