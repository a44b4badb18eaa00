"""``pipeline audit``: what is wrong, with whom, since when, and where the evidence is."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.asking import A_WEEK, check_source, make_window, reading
from pipeline.cli.boundary import ExitCode, error_boundary
from pipeline.cli.evidence import har, replay, show
from pipeline.cli.files import STDOUT
from pipeline.cli.options import (
    ConfigOption,
    Shape,
    ShapeOption,
    SinceOption,
    SourceOption,
    UntilOption,
    config_before,
)
from pipeline.cli.render import write
from pipeline.cli.verify import verify
from pipeline.errors import UsageError


class DossierFormat(StrEnum):
    """What a dossier is written in."""

    MARKDOWN = "markdown"
    HTML = "html"


ENDINGS = {
    ".md": DossierFormat.MARKDOWN,
    ".markdown": DossierFormat.MARKDOWN,
    ".txt": DossierFormat.MARKDOWN,
    ".html": DossierFormat.HTML,
    ".htm": DossierFormat.HTML,
}

audit_app = typer.Typer(rich_markup_mode=None)
audit_app.command()(show)
audit_app.command()(verify)
audit_app.command()(har)
audit_app.command()(replay)


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
    if context.invoked_subcommand is not None:
        if since or until or source or strict or format_ is not Shape.TEXT:
            name = context.invoked_subcommand
            raise typer.BadParameter(f"of the options before {name} only --config has a meaning")
        return
    with error_boundary():
        from pipeline import audit as core
        from pipeline.cli.findings import lines_of
        from pipeline.settings import load_settings

        settings = load_settings(config, os.environ, will_ask=False)
        window = make_window(since, until, looks_back=A_WEEK)
        with reading(settings.store) as session:
            if source is not None:
                check_source(settings, session, source)
            found = core.examine(session, window, source=source, enabled=settings.enabled_sources)
        for line in lines_of(found, source, format_):
            write(line)
    if strict and found.is_alarming:
        raise typer.Exit(ExitCode.FINDINGS)


@audit_app.command()
def dossier(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Its name.")],
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    format_: Annotated[
        DossierFormat | None,
        typer.Option("--format", "-f", help="Else FILE's ending says it; stdout gets Markdown."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - is stdout.")
    ] = STDOUT,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write down for a provider what passed between us.

    What was asked, the rules kept, availability, incidents with the provider's own request ids,
    timings, and what was answered; without secrets, and without a word of who you are. Without
    --since it looks at the last 7 days.

    \b
    pipeline audit dossier anu -o anu.html
    pipeline audit dossier anu --since 2026-11-20 --until 2026-11-22
    """
    with error_boundary():
        from pipeline import audit as core
        from pipeline.cli.document import render
        from pipeline.cli.dossier import make_document
        from pipeline.cli.files import write_file
        from pipeline.settings import load_settings

        settings = load_settings(config or config_before(context), os.environ, will_ask=False)
        spelled = format_ or _format_of(output)
        window = make_window(since, until, looks_back=A_WEEK)
        with reading(settings.store) as session:
            check_source(settings, session, source)
            found = core.compile_dossier(session, window, source=source)
        lines = render(make_document(found), Shape(spelled))
        write_file(output, (f"{line}\n".encode() for line in lines), force=force)


def _format_of(file: Path) -> DossierFormat:
    if file == STDOUT:
        return DossierFormat.MARKDOWN
    if (found := ENDINGS.get(file.suffix.lower())) is None:
        raise UsageError(f"{file}: give --format markdown or html")
    return found
