"""``pipeline collect``: one run, shown while it goes on where somebody looks, silent under cron."""

import gc
import os
import sys
from functools import partial
from typing import Annotated

import typer
from typer import Option

from pipeline.cli.boundary import complain, error_boundary, log_as
from pipeline.cli.configuration import is_by_hand, read_settings_to_run, with_options
from pipeline.cli.options import (
    BatchesOption,
    ConfigOption,
    DeadlineOption,
    LogFormatOption,
    SourcesOption,
)
from pipeline.models import Overlap, SlotChoice
from pipeline.rendering.shapes import Format


def collect(
    config: ConfigOption = None,
    source: SourcesOption = None,
    deadline: DeadlineOption = None,
    batches: BatchesOption = None,
    format_: Annotated[
        Format | None,
        Option(
            "--format",
            "-f",
            help="Show the run as a table or as JSON. Without it: a table on a terminal, "
            "nothing elsewhere.",
        ),
    ] = None,
    overlap: Annotated[
        Overlap,
        Option(
            help="While another run of this configuration is going on: skip (exit), wait (queue) or"
            " allow (run both)."
        ),
    ] = Overlap.SKIP,
    slot: Annotated[
        SlotChoice,
        Option(
            help="With a [schedule]: run what is due and free only (always), or at once and outside"
            " of it (never). auto: always if there is no terminal, else at once, and for the slots"
            " that are due and free.",
        ),
    ] = SlotChoice.AUTO,
    spread: Annotated[
        bool,
        Option("--spread", help="Let the workers of a PostgreSQL store carry it out, and wait."),
    ] = False,
    quiet: Annotated[
        bool, Option("--quiet", "-q", help="Say nothing unless something went wrong.")
    ] = False,
    verbose: Annotated[
        bool,
        Option("--verbose", "-v", help="Tell each run in a line on stderr, the good ones too."),
    ] = False,
    log_format: LogFormatOption = Format.TEXT,
) -> None:
    """Fetch, check, sum and keep batches of random numbers: one run.

    \b
    pipeline collect                         a run by the configuration found
    pipeline collect -s anu --format json    one source, for a program
    pipeline collect -s anu --batches 2..9   other batches than the file says
    make-orders | pipeline collect --batches -   lines such as `anu 2 3 5..8`
    pipeline collect --config builtin        the sandbox, to try it out
    */10 * * * * pipeline collect            in a crontab: mails what went wrong

    With a [schedule] each slot gets one run, whoever starts it; a start that finds none free
    leaves with 0. With --source or --batches a run is outside of the schedule.

    Where no configuration is found, the sandbox is asked at a terminal; elsewhere, as under cron,
    nothing is, so that numbers which are not real come into the books on demand only.

    Exit codes: 0 all well, 1 a bug of ours, 2 wrong command line, 3 some batches failed, 4 nothing
    collected, 74 the store or the output failed, 75 another run is going on or the store is busy
    (what was collected is set aside, and stored by the next run), 78 wrong configuration, 130, 143
    and 129 stopped by SIGINT, SIGTERM and SIGHUP.
    """
    log_as(log_format)
    with error_boundary():
        from pipeline.schedule.start import Start

        is_watched = sys.stdout is not None and sys.stdout.isatty()
        start = Start(
            settings=with_options(read_settings_to_run(config), deadline, source, batches),
            slot=slot,
            is_narrowed=bool(source) or batches is not None,
            is_by_hand=is_by_hand(),
            overlap=overlap,
            is_spread=spread,
            shown=None if quiet else format_ or (Format.TEXT if is_watched else None),
            environ=os.environ,
            say=complain,
            inform=partial(complain, level="info") if verbose else lambda _: None,
        )
        # The garbage collector gets its work back, but not the thousands of objects of our modules.
        gc.freeze()
        gc.enable()
        code = start.carry_out()
    raise typer.Exit(code)
