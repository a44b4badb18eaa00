"""``pipeline db``: look after the database: migrate, check, back up, prune, measure."""

import os
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.asking import reading
from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, parse_age
from pipeline.cli.progress import progress
from pipeline.cli.render import json_lines, render_table, show_time, write
from pipeline.cli.verify import look, refuse, sum_up
from pipeline.cli.words import count_of
from pipeline.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pipeline.settings import StoreSettings
    from pipeline.store.pruning import Prunable
    from pipeline.store.stats import StoreStats

THOUSAND = 999.5  # from here on three digits of it would be 1e+03

db_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Look after the database: migrate, check, back up, prune.",
)


def _settings(config: Path | None) -> "StoreSettings":
    from pipeline.settings import load_settings

    return load_settings(config, os.environ, will_ask=False).store


def _database(settings: "StoreSettings", done: str) -> Path:
    from pipeline.lock import database_file

    file = database_file(settings.url)
    if file is None:
        raise ConfigError(f"store.url: only SQLite files are {done} here; use the server's tools")
    return file


@db_app.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring an older database to the newest schema.

    A copy of it is kept beside. `pipeline collect` does the same by itself.
    """
    with error_boundary():
        from pipeline.store import db

        settings = _settings(config)
        done = db.migrate(settings.url, busy_seconds=settings.busy_seconds)
        if done is None:
            write("The schema is the newest already.")
        else:
            write(f"Migrated from {done.before or 'nothing'} to {done.after}.")
            if done.backup is not None:
                write(f"The database as it was: {done.backup}")


@db_app.command()
def check(config: ConfigOption = None) -> None:
    """Check structure and references, and verify what is stored.

    Looks at all that `audit verify` looks at, too. SQLite has no checksums: a flipped bit in a
    number is found here and nowhere else. Exits with 74 if anything is wrong.
    """
    with error_boundary():
        found, problems = look(_settings(config), with_structure=True)
        refuse(problems)
        write(sum_up(found))


@db_app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; must not exist yet.")],
    config: ConfigOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the copy too, as `audit verify` does.")
    ] = False,
) -> None:
    """Copy the database, even while a run writes to it.

    The structure of the copy is checked. A plain `cp` may miss what still lies in the journal.
    To verify every number as well takes longer than to copy it: about 15 s for a million
    batches.
    """
    with error_boundary():
        from pipeline.store.db import back_up

        settings = _settings(config)
        _database(settings, "backed up")
        if os.path.lexists(target):
            raise UsageError(f"{target} exists already; choose another name")
        back_up(settings.url, target.absolute(), busy_seconds=settings.busy_seconds)
        if verify:
            copy = settings.model_copy(update={"url": f"sqlite:///{target.absolute()}"})
            found, problems = look(copy)
            refuse(problems)
            write(sum_up(found))
        write(f"Copied and checked: {target}")


@db_app.command()
def prune(
    keep: Annotated[
        timedelta,
        typer.Option(parser=parse_age, metavar="TIME", help="Keep runs so young: 90d, 12w."),
    ],
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a clock seems to be wrong.")
    ] = False,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Make the file smaller; meanwhile nobody can write to it."),
    ] = False,
) -> None:
    """Delete the batches and attempts of old runs, keep their totals.

    Their answers go as well. The runs themselves, their totals by source and error, their
    timings and their seals stay, so reports go on showing them and `audit verify` still holds.
    Runs that are going on are left alone, and so is the run with the newest attempt. It may be
    stopped, and goes on another time.

    \b
    pipeline db prune --keep 90d --dry-run     what would go
    pipeline db prune --keep 90d               all that is older than 90 days
    """
    with error_boundary():
        from pipeline.store import pruning
        from pipeline.store.db import open_store
        from pipeline.store.db import vacuum as compact

        settings = _settings(config)
        if vacuum:
            _database(settings, "made smaller")
        now = datetime.now(UTC)
        before = now - keep
        with reading(settings) as session:
            found = pruning.find_prunable(session, before=before)
        if not force and (reason := pruning.why_not(found, before=before, keep=keep)):
            raise UsageError(f"{reason}: is a clock wrong? If not, give --force")
        if dry_run:
            write(_foretell(found))
            return
        with (
            open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=True) as store,
            progress("pruning") as watch,
        ):
            done = pruning.prune(store, before=before, now=now, watch=watch)
        write(
            f"Pruned {count_of(done.runs, 'run')}: {count_of(done.batches, 'batch')},"
            f" {count_of(done.attempts, 'attempt')}, {count_of(done.evidence, 'answer')},"
            f" {count_of(done.requests, 'request')}."
        )
        if vacuum:
            compact(settings.url, busy_seconds=settings.busy_seconds)
        if room := _room(settings):
            write(room)


def _foretell(found: "Prunable") -> str:
    if not found.runs:
        return "Nothing to prune."
    return (
        f"Would prune {count_of(found.runs, 'run')}, the newest of {show_time(found.newest_at)}:"
        f" {count_of(found.batches, 'batch')} with {count_of(found.numbers, 'number')},"
        f" {count_of(found.attempts, 'attempt')}."
    )


def _room(settings: "StoreSettings") -> str | None:
    """Say how large an SQLite database is, and how to make it smaller if that is worth it."""
    from pipeline.store.stats import file_space

    with reading(settings) as session:
        space = file_space(session)
    if space is None:
        return None
    size, free = space
    hint = "; new runs fill it, or `pipeline db prune --vacuum` gives it back" if free else ""
    return f"The database has {show_bytes(size)}, {show_bytes(free)} of it free{hint}."


def show_bytes(n: int | None) -> str:
    """Write a size as a person would: ``512 B``, ``4.1 kB``, ``2.35 GB``."""
    if n is None:
        return "-"
    size, units = float(n), ["B", "kB", "MB", "GB", "TB"]
    while size >= THOUSAND and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


@db_app.command()
def stats(
    config: ConfigOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Count all rows and pages, which reads everything.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show how large the database is, and what fills it.

    And how fast it grows. Rows of large tables are taken from the totals of the runs; `-` is
    what only --exact can tell.
    """
    with error_boundary():
        from pipeline.store.stats import read_stats

        with reading(_settings(config)) as session:
            found = read_stats(session, is_exact=exact)
        write(_stats_as_json(found) if format_ is Format.JSON else _stats_as_text(found))


def _stats_as_json(found: "StoreStats") -> str:
    head = {field.name: getattr(found, field.name) for field in fields(found)}
    tables = head.pop("tables")
    return "\n".join(json_lines({"schema": "pipeline.stats/1", **head}, tables=tables))


def _stats_as_text(found: "StoreStats") -> str:
    lines = [f"{found.engine} {found.version}, schema {found.revision}"]
    if found.journal_mode is not None:
        lines[0] += f", journal {found.journal_mode}"
    if found.size_bytes is not None:
        lines.append(f"{show_bytes(found.size_bytes)}, {show_bytes(found.free_bytes)} of it free")
    if found.bytes_per_day is not None:
        lines.append(f"grows by about {show_bytes(found.bytes_per_day)} a day")
    lines.append(
        f"{count_of(found.runs, 'run')} from {show_time(found.oldest_at)} to"
        f" {show_time(found.newest_at)}, {found.pruned} of them pruned"
    )
    columns = ("table", "rows", "bytes") if found.is_exact else ("table", "rows")
    rows = ((t.name, t.rows, t.bytes)[: len(columns)] for t in found.tables)
    return "\n".join([*lines, "", render_table(columns, rows)])
