"""The commands of ``pipeline report``: options in, one answer out.

What makes the answers is imported when it is asked for: help must be quick.
"""

from typing import Annotated

import typer

from pipeline.cli.asking import A_WEEK
from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import (
    ConfigOption,
    Shape,
    ShapeOption,
    SinceOption,
    SourceOption,
    UntilOption,
    config_before,
)
from pipeline.cli.report.question import Question

MOST = 1_000_000  # runs or batches in one listing

RunOption = Annotated[
    str | None, typer.Option("--run", "-r", metavar="ID|last", help="Only this run.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", "-n", metavar="N", min=1, max=MOST, help="At most so many runs. [20]"),
]

report_app = typer.Typer(rich_markup_mode=None)


def _answer(name: str, question: Question) -> None:
    """Answer with the ``lines`` of the module of this name."""
    with error_boundary():
        from importlib import import_module

        from pipeline.cli.report.answers import answer

        answer(question, import_module(f"pipeline.cli.report.{name}").lines)


@report_app.callback(invoke_without_command=True)
def report(
    context: typer.Context,
    config: ConfigOption = None,
    run: Annotated[
        str | None,
        typer.Option("--run", "-r", metavar="ID|last", help="One run with all its batches."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show the last runs, or one of them batch by batch.

    As Markdown or HTML it is an overview of the last 7 days, with charts.

    \b
    pipeline report                              the last 20 runs
    pipeline report --run last                   the newest run: batches, errors, timings
    pipeline report --format html > report.html  the last week at a glance
    pipeline report timings --since 30d -s anu   a month of one source
    """
    if context.invoked_subcommand is not None:
        if run or since or until or source or limit or format_ is not Shape.TEXT:
            name = context.invoked_subcommand
            raise typer.BadParameter(f"of the options before {name} only --config has a meaning")
        return
    is_overview = run is None and format_ in (Shape.MARKDOWN, Shape.HTML)
    question = Question(
        config=config,
        since=since,
        until=until,
        looks_back=A_WEEK if is_overview else None,
        source=source,
        run=run,
        limit=limit,
        shape=format_,
    )
    _answer("overview" if is_overview else "runs" if run is None else "run", question)


@report_app.command()
def runs(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    limit: LimitOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """List the last runs, newest first."""
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        source=source,
        limit=limit,
        shape=format_,
    )
    _answer("runs", question)


@report_app.command()
def batches(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            min=1,
            max=MOST,
            help="At most so many batches. [50; with --run: all]",
        ),
    ] = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """List the last batches, or those of one run.

    The last batch of the newest run comes first; those of one run are in order. JSON has their
    numbers.
    """
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        source=source,
        run=run,
        limit=limit,
        shape=format_,
    )
    _answer("batches", question)


@report_app.command()
def timings(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show how long each phase took, by source.

    An exchange is all of an attempt but its wait for permission. Without --since: the last 7 days.
    With --run: that run's attempts, one by one.
    """
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        looks_back=A_WEEK,
        source=source,
        run=run,
        shape=format_,
    )
    _answer("timings", question)


@report_app.command()
def errors(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show what was lost to which error, since when, whose fault.

    Without --since: the last 7 days.
    """
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        looks_back=A_WEEK,
        source=source,
        run=run,
        shape=format_,
    )
    _answer("errors", question)


@report_app.command()
def numbers(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show what the numbers add up to, and whether they look fair.

    They do if their mean is near that of a source whose numbers are equally likely.
    Without --since: the last 7 days.
    """
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        looks_back=A_WEEK,
        source=source,
        run=run,
        shape=format_,
    )
    _answer("numbers", question)


@report_app.command()
def sources(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show what each source was worth.

    What came of what was ordered, how reliably and how fast, and who must not be asked now.
    Without --since: the last 7 days.
    """
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        looks_back=A_WEEK,
        source=source,
        run=run,
        shape=format_,
    )
    _answer("sources", question)


@report_app.command()
def slots(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show what became of the slots that the schedule promised.

    Without --since: the last 7 days.
    """
    question = Question(
        config=config or config_before(context),
        since=since,
        until=until,
        looks_back=A_WEEK,
        shape=format_,
    )
    _answer("slots", question)
