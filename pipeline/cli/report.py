"""``pipeline report``: what the runs add up to."""

from typing import Annotated

from typer import Argument, Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import (
    ConfigOption,
    ShapeOption,
    SinceOption,
    SourceOption,
    UntilOption,
    WholeRunOption,
)
from pipeline.rendering.shapes import Shape
from pipeline.report.choices import Report

MOST = 1_000_000  # runs or batches in one listing


def report(
    what: Annotated[
        Report | None,
        Argument(metavar="WHAT", help="Without it: the last runs."),
    ] = None,
    config: ConfigOption = None,
    run: WholeRunOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    limit: Annotated[
        int | None,
        Option(
            "--limit",
            "-n",
            metavar="N",
            min=1,
            max=MOST,
            help="Show at most N runs [20] or batches [50; with --run: all].",
        ),
    ] = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show the last runs, one of them whole, or what all add up to.

    \b
    runs      the last runs, newest first
    batches   the last batches, newest first, or those of one run in order
    timings   how long each phase took; with --run: its attempts one by one
    errors    what was lost to which error, since when, whose fault
    numbers   what the numbers add up to, and how far off the mean is
    health    whether the numbers look as chance would have them
    sources   what came from each, how reliably, how fast; who must wait now
    slots     what became of the slots that the schedule promised
    workers   who takes part in runs that machines share, and what waits

    All but runs, batches, health and workers look back 7 days without --since. Without WHAT,
    Markdown and HTML give an overview of these days, with charts.

    \b
    pipeline report                              the last 20 runs
    pipeline report --run last                   the newest run, whole
    pipeline report --format html > report.html  the last week at a glance
    pipeline report timings --since 30d -s anu   a month of one source
    """
    with error_boundary():
        from pipeline.report.answer import Options, answer

        options = Options(
            since=since, until=until, source=source, run=run, limit=limit, shape=format_
        )
        answer(what, read_settings(config, will_ask=False), options)
