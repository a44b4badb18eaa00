"""INSERT with ON CONFLICT, which SQLite and PostgreSQL both know, each in a dialect of its own."""

from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlmodel import Session

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


def insert_into(session: Session, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """Begin a statement that says what to do if a row is there already, maybe by now.

    On a server nobody is kept out while we look, so to look first and insert then may fail.
    """
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    # Imported here: it costs a start as much as ten of its statements.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)
