"""Of the digest of a batch 8 bytes are kept beside its numbers: the whole follows from them."""

import hashlib
import struct
from typing import Any

from alembic import op
from sqlalchemy import Connection, text

revision = "0011"
down_revision = "0010"

COLLECTED = (
    "verdict <> 'collected' OR (attempt IS NOT NULL AND sum IS NOT NULL"
    " AND digest IS NOT NULL{} AND error IS NULL)"
)
WHOLE = " AND length(digest) = 32"  # was asked of every digest
LENGTH = "length(digest) = CASE WHEN numbers IS NULL THEN 32 ELSE 8 END"


def upgrade() -> None:
    """Cut the digests; what is hashed for a seal is whole, so the seals stay true."""
    connection = op.get_bind()
    run = connection.exec_driver_sql
    if connection.dialect.name == "sqlite":
        digest = "iif(numbers IS NULL, digest, CAST(substr(digest, 1, 8) AS BLOB))"
        with_length = f"CONSTRAINT ck_batches_digest CHECK ({LENGTH}), \n\tCONSTRAINT ck_batches_n "
        changes = [(WHOLE, ""), ("CONSTRAINT ck_batches_n ", with_length)]
        _write_anew(connection, changes, digest)
    else:
        run("ALTER TABLE batches DROP CONSTRAINT ck_batches_collected")
        run("UPDATE batches SET digest = substr(digest, 1, 8) WHERE numbers IS NOT NULL")
        run(f"ALTER TABLE batches ADD CONSTRAINT ck_batches_digest CHECK ({LENGTH})")
        rule = COLLECTED.format("")
        run(f"ALTER TABLE batches ADD CONSTRAINT ck_batches_collected CHECK ({rule})")


def downgrade() -> None:
    """Work the digests out again."""
    connection = op.get_bind()
    run = connection.exec_driver_sql
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection
        raw.create_function("whole_digest", 5, whole_digest)
        digest = "whole_digest(digest, numbers, n, min, max)"
        with_length = f"CONSTRAINT ck_batches_digest CHECK ({LENGTH}), \n\t"
        is_there = " AND digest IS NOT NULL"
        _write_anew(connection, [(with_length, ""), (is_there, is_there + WHOLE)], digest)
    else:
        run("ALTER TABLE batches DROP CONSTRAINT ck_batches_collected")
        run("ALTER TABLE batches DROP CONSTRAINT ck_batches_digest")
        _complete_on_server(connection)
        rule = COLLECTED.format(WHOLE)
        run(f"ALTER TABLE batches ADD CONSTRAINT ck_batches_collected CHECK ({rule})")


def _write_anew(connection: Connection, changes: list[tuple[str, str]], digest: str) -> None:
    """Make the table anew with other rules, and what somebody may have added to it."""
    run = connection.exec_driver_sql
    create, *more = run(
        "SELECT sql FROM sqlite_master WHERE tbl_name = 'batches' AND sql IS NOT NULL"
        " ORDER BY type <> 'table'"
    ).scalars()
    create = create.replace("CREATE TABLE batches", "CREATE TABLE new_batches")
    create = create.replace('CREATE TABLE "batches"', "CREATE TABLE new_batches")
    for before, after in changes:
        create = create.replace(before, after)
    run("PRAGMA legacy_alter_table = ON")  # else a view that reads it would be in the way
    # What is damaged stays as it is, to be found as before.
    run("PRAGMA ignore_check_constraints = ON")
    run(create)
    columns = [f'"{row.name}"' for row in run("PRAGMA table_info(batches)")]
    copied = ", ".join(digest if name == '"digest"' else name for name in columns)
    run(f"INSERT INTO new_batches SELECT {copied} FROM batches")  # noqa: S608 - all ours
    run("DROP TABLE batches")
    run("ALTER TABLE new_batches RENAME TO batches")
    for statement in more:
        run(statement)
    run("PRAGMA ignore_check_constraints = OFF")
    run("PRAGMA legacy_alter_table = OFF")


def whole_digest(digest: bytes, packed: bytes, n: int, low: int, high: int) -> bytes:
    """Give all bytes of a digest, if there are the numbers that it is over."""
    if digest is None or packed is None:
        return digest
    try:
        whole = hashlib.sha256(struct.pack("<3q", n, low, high) + packed).digest()
    except (TypeError, struct.error):
        return digest
    return whole if whole.startswith(digest) else digest


def _complete_on_server(connection: Connection) -> None:
    some = text("SELECT * FROM batches WHERE length(digest) = 8 LIMIT 500")
    put = text("UPDATE batches SET digest = :digest WHERE run_id = :run_id AND number = :number")
    while rows := connection.execute(some).all():
        connection.execute(
            put,
            [
                {
                    "digest": whole_digest(row.digest, row.numbers, row.n, row.min, row.max),
                    "run_id": row.run_id,
                    "number": row.number,
                }
                for row in rows
            ],
        )
