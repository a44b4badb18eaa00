"""``pipeline db``: look after the database: migrate, check, back up."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption
from pipeline.cli.render import write
from pipeline.cli.verify import look, refuse, sum_up
from pipeline.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pipeline.settings import StoreSettings

db_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Look after the database: migrate it, check it, back it up.",
)


def _settings(config: Path | None) -> "StoreSettings":
    from pipeline.settings import load_settings

    return load_settings(config, os.environ, will_ask=False).store


def _database(settings: "StoreSettings") -> Path:
    from pipeline.lock import database_file

    file = database_file(settings.url)
    if file is None:
        raise ConfigError("store.url: only SQLite files are backed up here; use the server's tools")
    return file


@db_app.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring an older database to the newest schema; a copy of it is kept beside.

    `pipeline collect` does the same by itself.
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
    """Check the whole database: structure, references, and all that `audit verify` looks at.

    SQLite has no checksums: a flipped bit in a number is found here and nowhere else. Exits with
    74 if anything is wrong.
    """
    with error_boundary():
        found, problems = look(_settings(config), with_structure=True)
        refuse(problems)
        write(sum_up(found))


@db_app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; must not exist yet.")],
    config: ConfigOption = None,
) -> None:
    """Copy the database, even while a run writes to it, and check the copy.

    A plain `cp` may miss what still lies in the journal.
    """
    with error_boundary():
        from pipeline.store.db import back_up

        settings = _settings(config)
        _database(settings)
        if target.exists() or target.is_symlink():
            raise UsageError(f"{target} exists already; choose another name")
        back_up(settings.url, target.absolute(), busy_seconds=settings.busy_seconds)
        write(f"Copied and checked: {target}")
