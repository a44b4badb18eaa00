"""``pipeline sources``: what is configured, and lifting what keeps a source from being asked."""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, config_before
from pipeline.cli.plan import reading_if_there
from pipeline.cli.render import json_lines, render_table, show_time, write
from pipeline.errors import UsageError
from pipeline.sanitize import printable

sources_app = typer.Typer(rich_markup_mode=None)


@sources_app.callback(invoke_without_command=True)
def sources(
    context: typer.Context,
    config: ConfigOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """List the sources, and what keeps them from being asked.

    What each is, what is ordered from it, and until when its rules or its upstream forbid to ask.

    \b
    pipeline sources                    what is configured
    pipeline sources release dice       lift the embargo on a source
    """
    if context.invoked_subcommand is not None:
        return
    with error_boundary():
        from pipeline import forecast
        from pipeline.settings import load_settings

        settings = load_settings(config, os.environ)
        upstreams = forecast.plan_upstreams(settings)
        with reading_if_there(settings.store) as session:
            paces = forecast.find_paces(session, upstreams)
        now = datetime.now(UTC)
        obstacles = forecast.obstacles(upstreams, paces, now=now)
        until = {name: moment.at for name, moment in obstacles.items() if moment.at > now}
        listed = [
            {
                "name": name,
                "kind": source.kind,
                "enabled": source.enabled,
                "batches": len(source.batch_sizes),
                "numbers": sum(source.batch_sizes),
                "not_before": until.get(name),
                "why": obstacles[name].why if name in obstacles else None,
            }
            for name, source in settings.sources.items()
        ]
        if format_ is Format.JSON:
            write("\n".join(json_lines({"schema": "pipeline.sources/1"}, sources=listed)))
            return
        write(
            render_table(
                ("source", "kind", "asked", "batches", "numbers", "not before", "why"),
                (
                    (
                        row["name"],
                        row["kind"],
                        "yes" if row["enabled"] else "no",
                        row["batches"],
                        row["numbers"],
                        show_time(until[name]) if name in until else None,
                        row["why"],
                    )
                    for name, row in zip(settings.sources, listed, strict=True)
                ),
            )
        )


@sources_app.command()
def release(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source.")],
    config: ConfigOption = None,
) -> None:
    """Lift the embargo on a source, and let it be asked at once.

    Do it only if you know better than the upstream that said "not before".
    """
    with error_boundary():
        from pipeline import forecast
        from pipeline.settings import load_settings
        from pipeline.store import permissions
        from pipeline.store.db import open_store

        settings = load_settings(config or config_before(context), os.environ)
        keys = {
            upstream.order.source: upstream.key for upstream in forecast.plan_upstreams(settings)
        }
        if name not in keys:
            raise UsageError(f"{name!a} is no enabled source; `pipeline sources` lists them")
        url, busy_seconds = settings.store.url, settings.store.busy_seconds
        with (
            open_store(url, busy_seconds=busy_seconds, for_writing=True) as store,
            store.write() as session,
        ):
            embargo = permissions.release(session, upstream=keys[name], now=datetime.now(UTC))
        if embargo is None:
            write(f"{name} was under no embargo; its pace and its failures are forgotten,")
            write("what is spent of its quotas is not.")
        else:
            write(f"{name} may be asked again; it was not to be before {show_time(embargo.until)}:")
            write(f"  {printable(embargo.why)}")
