"""``pipeline db``: look after the database: migrate, check, back up, prune, measure."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.boundary import complain, error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import ConfigOption, ForceOption, FormatOption, parse_age
from pipeline.rendering.output import write, write_prose
from pipeline.rendering.shapes import Format

db_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Look after the database: migrate, check, back up, prune.",
)


@db_app.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring an older database to the newest schema.

    A copy of it is kept beside. `pipeline collect` does the same by itself; but it adds up the
    days of a long history a month at a time, so that no run takes long, and this all of them.
    """
    with error_boundary():
        from pipeline.audit.closing import migrate as body

        body(read_settings(config, will_ask=False).store, say=complain)


@db_app.command()
def check(config: ConfigOption = None) -> None:
    """Check structure and references, and verify what is stored.

    Looks at all that `audit verify` looks at, too. SQLite has no checksums: a flipped bit in a
    number is found here and nowhere else. Exits with 74 if anything is wrong.
    """
    with error_boundary():
        from pipeline.audit.verify import check as body

        body(read_settings(config, will_ask=False).store, with_structure=True)


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
        from pipeline.audit.verify import back_up

        back_up(read_settings(config, will_ask=False).store, target, is_verified=verify)


@db_app.command()
def prune(
    keep: Annotated[
        timedelta,
        typer.Option(
            parser=parse_age, metavar="TIME", help="Delete runs older than this: 90d, 12w."
        ),
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
        from pipeline.store import upkeep

        settings = read_settings(config, will_ask=False).store
        for line in upkeep.prune(
            settings,
            keep=keep,
            is_dry=dry_run,
            is_forced=force,
            is_vacuum=vacuum,
            say=complain,
        ):
            write_prose(line)


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
        from pipeline.store import upkeep

        settings = read_settings(config, will_ask=False).store
        write(upkeep.stats(settings, is_exact=exact, format_=format_))


@db_app.command()
def datasette(
    config: ConfigOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Else `<database>.datasette.json` beside it."
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write metadata for Datasette, and print the command for it.

    Titles, meanings and units of the views, and queries to begin with. Install Datasette for
    yourself: `pipx install datasette`.
    """
    with error_boundary():
        from pipeline.export.datasette import write_metadata

        settings = read_settings(config, will_ask=False).store
        for line in write_metadata(settings, output, force=force):
            write(line)
