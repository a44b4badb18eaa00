"""``pipeline audit``: what is wrong, since when, who is responsible, and the evidence."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import (
    ConfigOption,
    ForceOption,
    FormatOption,
    LastRunOption,
    ShapeOption,
    SinceOption,
    SourceOption,
    UntilOption,
    complete_sources,
    hand_down_config,
)
from pipeline.errors import ExitCode
from pipeline.rendering.output_file import STDOUT
from pipeline.rendering.shapes import Format, Shape


class DossierFormat(StrEnum):
    """What a dossier is written in."""

    MARKDOWN = "markdown"
    HTML = "html"


audit_app = typer.Typer(rich_markup_mode=None)


@audit_app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    format_: ShapeOption = Shape.TEXT,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if a finding is a warning or worse.")
    ] = False,
) -> None:
    """Show findings, availability, and the failures behind them.

    Without --since it looks at the last 7 days.

    \b
    pipeline audit -s anu --since 30d    a month of one source
    pipeline audit --strict              for cron: exit 3 when something is wrong
    pipeline audit show 17               the evidence of attempt 17
    """
    hand_down_config(context, config)
    if context.invoked_subcommand is not None:
        if since or until or source or strict or format_ is not Shape.TEXT:
            name = context.invoked_subcommand
            raise typer.BadParameter(f"of the options before {name} only --config has a meaning")
        return
    with error_boundary():
        from pipeline.audit.audit import audit as body

        settings = read_settings(config, will_ask=False)
        is_alarming = body(settings, since=since, until=until, source=source, shape=format_)
    if strict and is_alarming:
        raise typer.Exit(ExitCode.FINDINGS)


@audit_app.command()
def show(
    attempt: Annotated[int, typer.Argument(metavar="ATTEMPT", help="Its number.")],
    config: ConfigOption = None,
    as_curl: Annotated[
        bool, typer.Option("--curl", help="Print a command that repeats the request.")
    ] = False,
    har_file: Annotated[
        Path | None,
        typer.Option("--har", metavar="FILE", help="Write it as HAR 1.2 instead; - is stdout."),
    ] = None,
    force: ForceOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show one attempt: what was sent, how long it took, the answer.

    Only the first bytes of a long answer are kept. Secrets are replaced by their names.

    \b
    pipeline audit show 17                  all that is known of attempt 17
    pipeline audit show 17 --curl           a command that repeats it
    pipeline audit show 17 --har 17.har     for the network panel of a browser
    """
    if as_curl + (har_file is not None) + (format_ is Format.JSON) > 1:
        raise typer.BadParameter("of --curl, --har and --format json give one")
    with error_boundary():
        from pipeline.audit.attempt import show as body

        settings = read_settings(config, will_ask=False)
        body(settings, attempt, as_curl=as_curl, har_file=har_file, force=force, format_=format_)


@audit_app.command()
def verify(
    config: ConfigOption = None,
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect",
            metavar="POSITION:HASH",
            help="A head of the chain that was noted earlier: was history before it rewritten?",
        ),
    ] = None,
    is_all: Annotated[
        bool, typer.Option("--all", help="Read everything, not only what was never verified.")
    ] = False,
    with_proofs: Annotated[
        bool, typer.Option("--proofs", help="Also verify what sources signed; asks nobody.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Verify that what is stored is what was collected.

    Exits with 74 if anything is not. Recomputes every sum, digest and total, and follows the
    chain of seals, to which each run adds one when it ends: it names what was changed, removed
    or inserted since.

    When all is well the head of the chain is noted in a file beside the database, and the next
    time only what came since is read. What was changed before that head is found with --all
    alone, which reads everything on all cores; so have it run now and then. A noted head that
    is not in the chain any more is always found.

    Whoever can write to the database can write a new chain, too. So note the head of the chain
    somewhere else, and give it with --expect another time. Not in the chain: slots, contracts,
    the histograms of timings, and when upstreams may be asked. The sums of days and months that
    are over are made once more from what is in the chain; of the histograms it is seen that hours,
    days and months agree, and with the runs on how many attempts there were and how long.
    """
    with error_boundary():
        from pipeline.audit.verify import verify as body

        settings = read_settings(config, will_ask=False)
        body(settings, expect=expect, with_proofs=with_proofs, is_all=is_all, format_=format_)


@audit_app.command()
def har(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To be written; - is stdout.")],
    config: ConfigOption = None,
    run: LastRunOption = "last",
    force: ForceOption = False,
) -> None:
    """Write the attempts of a run as HAR 1.2, for a browser."""
    with error_boundary():
        from pipeline.audit.har import write_har

        store = read_settings(config, will_ask=False).store
        write_har(store, run, file=file, force=force)


@audit_app.command()
def replay(
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if any result is another one now.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Re-check stored answers with the current adapters.

    Lists what was refused and would be accepted now, the reverse, and what would fail with
    another error. Nothing is sent. Without --since it takes the last 7 days.
    """
    with error_boundary():
        from pipeline.audit.replay import replay as body

        settings = read_settings(config, will_ask=False)
        is_changed = body(settings, since=since, until=until, source=source, format_=format_)
    if strict and is_changed:
        raise typer.Exit(ExitCode.FINDINGS)


@audit_app.command()
def dossier(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Its name.", autocompletion=complete_sources),
    ],
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    format_: Annotated[
        DossierFormat | None,
        typer.Option("--format", "-f", help="Else by the ending of FILE; stdout gets Markdown."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - is stdout.")
    ] = STDOUT,
    force: ForceOption = False,
) -> None:
    """Write a report for a provider: all that passed between it and us.

    What was asked, the rules kept, availability, incidents with the provider's own request ids,
    timings, and what was answered; without secrets, and without a word of who you are. Without
    --since it looks at the last 7 days.

    \b
    pipeline audit dossier anu -o anu.html
    pipeline audit dossier anu --since 2026-11-20 --until 2026-11-22
    """
    with error_boundary():
        from pipeline.audit.dossier import write_dossier

        settings = read_settings(config, will_ask=False)
        shape = Shape(format_) if format_ else None
        write_dossier(
            settings, source, since=since, until=until, shape=shape, file=output, force=force
        )
