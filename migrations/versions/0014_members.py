"""Name the worker that made an attempt, keep late ones, and say why a portion was left."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"

VIEWS = {
    "batch_list": """
CREATE VIEW batch_list AS
SELECT
    batches.run_id, 'w' || batches.number AS batch, batches.number AS batch_number,
    batches.source, is_sandbox, verdict, n, sum, min, max, batches.error, batches.detail,
    {not_before}, batches."fetch", attempts.id AS attempt_id, attempt AS attempt_number{comma}
    {member}
FROM batches
LEFT JOIN attempts
ON attempts.run_id = batches.run_id
AND attempts."fetch" = batches."fetch" AND attempts.number = batches.attempt
{join}
""",
    "failed_attempts": """
CREATE VIEW failed_attempts AS
SELECT
    attempts.id AS attempt_id, run_id, source, {began_at}, error, phase,
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
    status AS http_status, detail, "fetch", number AS attempt_number, evidence{comma} {member}
FROM attempts
{join}
WHERE error IS NOT NULL
""",
}
MOMENT = (
    "strftime('%Y-%m-%dT%H:%M:%S', {0} / 1000000, 'unixepoch')"
    " || printf('.%06dZ', {0} % 1000000) AS {0}"
)
UTC = sa.BigInteger().with_variant(sa.DateTime(timezone=True), "postgresql", "mysql", "mariadb")
JOIN = "LEFT JOIN members ON members.id = attempts.member"


def upgrade() -> None:
    """Know of no attempt so far who made it."""
    _drop_views()
    # Not made anew, however many there are.
    op.execute("ALTER TABLE attempts ADD COLUMN member INTEGER")
    is_file = op.get_bind().dialect.name == "sqlite"  # where a new column would stand last, alone
    recreate = "always" if is_file else "never"
    with op.batch_alter_table("members", recreate=recreate) as table:
        table.add_column(sa.Column("left_at", sa.DateTime(timezone=True)))
    with op.batch_alter_table("portions", recreate=recreate) as table:
        table.add_column(sa.Column("refusal", sa.String()))
    op.create_table(
        "late_attempts",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fetch", sa.Integer(), nullable=False),
        sa.Column("began_at", UTC, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("member", sa.Integer()),
        sa.Column("error", sa.String()),
        sa.Column("collected", sa.Integer(), nullable=False),
        sa.Column("came_at", UTC, nullable=False),
        sa.Column("file", sa.String()),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "fetch", "began_at", name=op.f("pk_late_attempts")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_late_attempts_run_id_runs")),
        sqlite_with_rowid=False,
    )
    _create_views(comma=",", member="host, pid", join=JOIN)


def downgrade() -> None:
    """Forget it."""
    _drop_views()
    op.drop_table("late_attempts")
    op.execute("ALTER TABLE attempts DROP COLUMN member")
    op.execute("DELETE FROM members WHERE left_at IS NOT NULL")
    with op.batch_alter_table("members") as table:
        table.drop_column("left_at")
    with op.batch_alter_table("portions") as table:
        table.drop_column("refusal")
    _create_views(comma="", member="", join="")


def _drop_views() -> None:
    for name in VIEWS:
        op.execute(f"DROP VIEW IF EXISTS {name}")


def _create_views(**parts: str) -> None:
    connection = op.get_bind()
    is_file = connection.dialect.name == "sqlite"
    names = ("began_at", "not_before")
    moments = {name: MOMENT.format(name) if is_file else name for name in names}
    for statement in VIEWS.values():
        connection.exec_driver_sql(statement.format(**moments, **parts))
