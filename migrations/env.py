"""How Alembic reaches the database.

At run time ``pipeline.store.schema`` hands over its own connection, inside a transaction that it
commits itself. A developer names a database: ``alembic -x url=sqlite:////tmp/dev.db upgrade head``.
"""

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from pipeline.store.migrating import connect_to_migrate
from pipeline.store.tables import Row

ON_SERVERS = {"ix_attempts_request", "fk_attempts_request_requests"}  # and in no file


def migrate(connection: Connection) -> None:
    """Run the migrations on *connection*."""
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        transactional_ddl=True,  # SQLite's DDL is transactional, once sqlite3 is told to begin
        include_object=lambda _object, name, *_: (
            name not in ON_SERVERS or connection.dialect.name != "sqlite"
        ),
        render_as_batch=True,  # SQLite cannot alter a table: it is made anew
    )
    with context.begin_transaction():
        context.run_migrations()


if connection := context.config.attributes.get("connection"):
    migrate(connection)
elif url := context.get_x_argument(as_dictionary=True).get("url"):
    with connect_to_migrate(url) as connection:
        migrate(connection)
else:
    raise CommandError("name a database: alembic -x url=sqlite:////tmp/dev.db …")
