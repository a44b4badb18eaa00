"""``pipeline audit``: the failures, and the evidence of one."""

import os
from typing import TYPE_CHECKING

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.evidence import show
from pipeline.cli.options import (
    ConfigOption,
    Format,
    FormatOption,
    SinceOption,
    SourceOption,
)
from pipeline.cli.render import (
    json_lines,
    render_table,
    show_time,
    write,
)
from pipeline.cli.report import reading

if TYPE_CHECKING:
    from pipeline.models import FailureGroup

audit_app = typer.Typer(rich_markup_mode=None)
audit_app.command()(show)


@audit_app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    source: SourceOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """List the failures by source and error.

    How many, since when, whose fault, and where the evidence is.

    \b
    pipeline audit --since 7d      what failed in the last week
    pipeline audit show 17         the evidence of attempt 17
    """
    if context.invoked_subcommand is not None:
        if since or source or format_ is not Format.TEXT:
            raise typer.BadParameter("of the options before show only --config has a meaning")
        return
    with error_boundary():
        from pipeline import audit as core
        from pipeline.settings import load_settings

        store = load_settings(config, os.environ, will_ask=False).store
        with reading(store) as session:
            groups = core.failures(session, since=since, source=source)
        if format_ is Format.JSON:
            write("\n".join(json_lines({"schema": "pipeline.failures/1"}, failures=groups)))
        elif groups:
            write(_table_of_failures(groups))
            write("\n`pipeline audit show NUMBER` prints the evidence of an attempt.")
        else:
            write("No failures.")


def _table_of_failures(groups: list["FailureGroup"]) -> str:
    return render_table(
        ("source", "error", "phase", "whose", "attempts", "first", "last", "newest attempt"),
        (
            (
                group.source,
                group.error,
                group.phase,
                group.whose,
                group.n,
                show_time(group.first_at),
                show_time(group.last_at),
                group.last_attempt,
            )
            for group in groups
        ),
    )
