"""Rows of millions hold numbers for the names of sources and for verdicts, and one index less."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Connection

revision = "0015"
down_revision = "0014"

WORDS = ("collected", "failed", "deferred", "cancelled")  # numbered from 1
MOMENT = (
    "strftime('%Y-%m-%dT%H:%M:%S', {0} / 1000000, 'unixepoch')"
    " || printf('.%06dZ', {0} % 1000000) AS {0}"
)
BATCH_LIST = """
CREATE VIEW batch_list AS
SELECT
    batches.run_id, 'w' || batches.number AS batch, batches.number AS batch_number,
    {source}, is_sandbox, {verdict}, n, sum, min, max, batches.error, batches.detail,
    {not_before}, batches."fetch", attempts.id AS attempt_id, attempt AS attempt_number,
    host, pid
FROM batches
{join_batches}LEFT JOIN attempts
ON attempts.run_id = batches.run_id
AND attempts."fetch" = batches."fetch" AND attempts.number = batches.attempt
LEFT JOIN members ON members.id = attempts.member
"""
FAILED_ATTEMPTS = """
CREATE VIEW failed_attempts AS
SELECT
    attempts.id AS attempt_id, run_id, {name}, {began_at}, error, phase,
    CASE
        WHEN error IN (
            'dns', 'connect_refused', 'connect_timeout', 'unreachable', 'write_timeout',
            'intercepted'
        )
        THEN 'path'
        WHEN error IN ('rate_limited', 'quota_exhausted') THEN 'policy'
        WHEN error IN ('content_type', 'not_json', 'schema', 'count', 'range', 'stale')
        THEN 'contract'
        WHEN error IN ('unauthorized', 'http_4xx', 'deadline', 'cancelled', 'internal') THEN 'ours'
        ELSE 'upstream'
    END AS whose,
    status AS http_status, detail, "fetch", number AS attempt_number, evidence, host, pid
FROM attempts
{join_attempts}LEFT JOIN members ON members.id = attempts.member
WHERE error IS NOT NULL
"""
OLD_TERMS = {
    "source": "batches.source",
    "verdict": "verdict",
    "join_batches": "",
    "name": "source",
    "join_attempts": "",
}
NEW_TERMS = {
    "source": "sources.name AS source",
    "verdict": "CASE verdict WHEN 1 THEN 'collected' WHEN 2 THEN 'failed' WHEN 3 THEN 'deferred'"
    " WHEN 4 THEN 'cancelled' END AS verdict",
    "join_batches": "JOIN sources ON sources.id = batches.source\n",
    "name": "sources.name AS source",
    "join_attempts": "JOIN sources ON sources.id = attempts.source\n",
}
# What the tables say, before and now.
SOURCE = ("source VARCHAR NOT NULL", "source INTEGER NOT NULL")
VERDICT = ("verdict VARCHAR", "verdict INTEGER")
WHOLE = "(attempt IS NOT NULL AND sum IS NOT NULL AND digest IS NOT NULL AND error IS NULL)"
BARE = "(sum IS NULL AND digest IS NULL AND numbers IS NULL)"
RULES = {
    "verdict": (f"verdict IN {WORDS}", "verdict BETWEEN 1 AND 4"),
    "collected": (f"verdict <> 'collected' OR {WHOLE}", f"verdict <> 1 OR {WHOLE}"),
    "lost": (
        f"coalesce(verdict, '') = 'collected' OR {BARE}",
        f"coalesce(verdict, 0) = 1 OR {BARE}",
    ),
    "failed": ("verdict <> 'failed' OR error IS NOT NULL", "verdict <> 2 OR error IS NOT NULL"),
    "deferred": (
        "verdict <> 'deferred' OR not_before IS NOT NULL",
        "verdict <> 3 OR not_before IS NOT NULL",
    ),
}
AFTER_KEY = "CONSTRAINT ck_attempts_number "
REQUEST_KEY = (
    "CONSTRAINT fk_attempts_request_requests FOREIGN KEY(request) REFERENCES requests (id), \n\t"
)
WITH_ROWID = ("\n)", "\n)\n WITHOUT ROWID\n\n")
# A word or name that is damaged stays as it is, to be found as before.
NUMBER = "CASE verdict {} ELSE verdict END".format(
    " ".join(f"WHEN '{word}' THEN {code}" for code, word in enumerate(WORDS, 1))
)
WORD = "CASE verdict {} ELSE verdict END".format(
    " ".join(f"WHEN {code} THEN '{word}'" for code, word in enumerate(WORDS, 1))
)
NUMBER_ON_SERVER, WORD_ON_SERVER = (
    expression.replace(" ELSE verdict", "") for expression in (NUMBER, WORD)
)
SOURCE_ID = "coalesce((SELECT id FROM sources WHERE name = source), source)"
SOURCE_NAME = "coalesce((SELECT name FROM sources WHERE id = source), source)"


def upgrade() -> None:
    """Number the sources in the order in which they were first asked; seals stay true."""
    connection = op.get_bind()
    run = connection.exec_driver_sql
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sources"),
        sa.UniqueConstraint("name", name="uq_sources_name"),
    )
    run(
        "INSERT INTO sources (name) SELECT source FROM batches GROUP BY source"
        " ORDER BY min(run_id * 4294967296 + number)"
    )
    run(
        "INSERT INTO sources (name)"
        " SELECT DISTINCT source FROM attempts EXCEPT SELECT name FROM sources"
    )
    _drop_views(connection)
    if connection.dialect.name == "sqlite":
        op.drop_index("ix_attempts_request", "attempts")
        _write_anew(
            connection,
            "batches",
            [SOURCE, VERDICT, *RULES.values()],
            {"source": SOURCE_ID, "verdict": NUMBER},
        )
        _write_anew(connection, "attempts", [SOURCE, (REQUEST_KEY, "")], {"source": SOURCE_ID})
        _write_anew(connection, "slots", [WITH_ROWID], {})
    else:
        _change_server(connection, "integer", "id", "name", NUMBER_ON_SERVER, now=True)
    _create_views(connection, NEW_TERMS)


def downgrade() -> None:
    """Write names and words into each row again."""
    connection = op.get_bind()
    _drop_views(connection)
    if connection.dialect.name == "sqlite":
        back = [(after, before) for before, after in (SOURCE, VERDICT, *RULES.values())]
        _write_anew(connection, "batches", back, {"source": SOURCE_NAME, "verdict": WORD})
        key = (AFTER_KEY, REQUEST_KEY + AFTER_KEY)
        _write_anew(connection, "attempts", [SOURCE[::-1], key], {"source": SOURCE_NAME})
        op.create_index("ix_attempts_request", "attempts", ["request"])
        _write_anew(connection, "slots", [WITH_ROWID[::-1]], {})
    else:
        _change_server(connection, "varchar", "name", "id", WORD_ON_SERVER, now=False)
    _create_views(connection, OLD_TERMS)
    op.drop_table("sources")


def _drop_views(connection: Connection) -> None:
    for view in ("batch_list", "failed_attempts"):
        connection.exec_driver_sql(f"DROP VIEW {view}")


def _create_views(connection: Connection, terms: dict[str, str]) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    moments = {
        name: MOMENT.format(name) if is_sqlite else name for name in ("not_before", "began_at")
    }
    for view in (BATCH_LIST, FAILED_ATTEMPTS):
        connection.exec_driver_sql(view.format(**terms, **moments))


def _write_anew(
    connection: Connection, table: str, changes: list[tuple[str, str]], values: dict[str, str]
) -> None:
    """Make a table anew with other rules, and what somebody may have added to it."""
    run = connection.exec_driver_sql
    create, *more = run(
        "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
        " ORDER BY type <> 'table'",
        (table,),
    ).scalars()
    for before, after in changes:
        create = create.replace(before, after)
    create = create.replace(f"CREATE TABLE {table}", "CREATE TABLE new_table")
    create = create.replace(f'CREATE TABLE "{table}"', "CREATE TABLE new_table")
    run("PRAGMA legacy_alter_table = ON")  # else a view that reads it would be in the way
    run("PRAGMA ignore_check_constraints = ON")
    run(create)
    columns = [row.name for row in run(f"PRAGMA table_info({table})")]
    copied = ", ".join(values.get(name, f'"{name}"') for name in columns)
    run(f"INSERT INTO new_table SELECT {copied} FROM {table}")  # noqa: S608 - all ours
    run(f"DROP TABLE {table}")
    run(f"ALTER TABLE new_table RENAME TO {table}")
    for statement in more:
        run(statement)
    run("PRAGMA ignore_check_constraints = OFF")
    run("PRAGMA legacy_alter_table = OFF")


def _change_server(
    connection: Connection, kind: str, wanted: str, known: str, verdict: str, *, now: bool
) -> None:
    """Change the columns in place; what a function of this session looks up no subquery may."""
    run = connection.exec_driver_sql
    given = "varchar" if kind == "integer" else "integer"
    run(
        f"CREATE FUNCTION pg_temp.translated({given}) RETURNS {kind} LANGUAGE sql STABLE AS"  # noqa: S608 - ours
        f" 'SELECT {wanted} FROM sources WHERE {known} = $1'"
    )
    for rule in RULES:
        run(f"ALTER TABLE batches DROP CONSTRAINT ck_batches_{rule}")
    run(
        f"ALTER TABLE batches ALTER source TYPE {kind} USING pg_temp.translated(source),"
        f" ALTER verdict TYPE {kind} USING {verdict}"
    )
    run(f"ALTER TABLE attempts ALTER source TYPE {kind} USING pg_temp.translated(source)")
    run(f"DROP FUNCTION pg_temp.translated({given})")
    for rule, texts in RULES.items():
        run(f"ALTER TABLE batches ADD CONSTRAINT ck_batches_{rule} CHECK ({texts[now]})")
