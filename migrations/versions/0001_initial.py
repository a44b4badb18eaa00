"""The first schema: runs, their batches and attempts, and evidence."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# A migration never changes once it is released, so it says everything itself and takes nothing
# from the package, whose tables go on changing. It repeats what they were at the time.
UTC = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql", "mysql", "mariadb")
RUNNING = sa.text("status = 'running'")
FAILED = sa.text("error IS NOT NULL")


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _none_below_zero(table: str, *columns: str) -> list[sa.CheckConstraint]:
    return [_check(table, column, f"{column} >= 0") for column in columns]


def upgrade() -> None:
    """Make the tables."""
    _create_runs()
    _create_batches()
    _create_evidence()
    _create_attempts()
    _create_upstreams()


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("config_digest", sa.String(), nullable=False),
        sa.Column("config_path", sa.String(), nullable=False),
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("ended_at", UTC),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("clock_us", sa.BigInteger()),
        sa.Column("ordered", sa.Integer(), nullable=False),
        sa.Column("collected", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("deferred", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("numbers", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("waited_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("uid", name=op.f("uq_runs_uid")),
        _check(
            "runs",
            "status",
            "status IN ('running', 'ok', 'partial', 'failed', 'skipped', 'interrupted')",
        ),
        _check("runs", "ended", "(status = 'running') = (ended_at IS NULL)"),
        _check(
            "runs",
            "ordered",
            "status = 'running' OR ordered = collected + failed + deferred + cancelled",
        ),
        *_none_below_zero("runs", "clock_us", "collected", "failed", "deferred", "cancelled"),
        *_none_below_zero("runs", "numbers", "attempts", "waited_us"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_running", "runs", ["host"], sqlite_where=RUNNING)


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("min", sa.BigInteger(), nullable=False),
        sa.Column("max", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String()),
        sa.Column("fetch", sa.Integer()),
        sa.Column("attempt", sa.Integer()),
        sa.Column("offset", sa.BigInteger()),
        sa.Column("sum", sa.BigInteger()),
        sa.Column("digest", sa.LargeBinary()),
        sa.Column("error", sa.String()),
        sa.Column("detail", sa.String()),
        sa.Column("not_before", UTC),
        sa.Column("numbers", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_batches")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_batches_run_id_runs")),
        _check("batches", "verdict", "verdict IN ('collected', 'failed', 'deferred', 'cancelled')"),
        _check("batches", "n", "n > 0"),
        _check("batches", "range", "min <= max"),
        _check("batches", "sum", "sum BETWEEN n * min AND n * max"),
        _check(
            "batches",
            "collected",
            "verdict <> 'collected' OR (attempt IS NOT NULL AND sum IS NOT NULL"
            " AND digest IS NOT NULL AND length(digest) = 32 AND error IS NULL)",
        ),
        _check(
            "batches",
            "lost",
            "coalesce(verdict, '') = 'collected'"
            " OR (sum IS NULL AND digest IS NULL AND numbers IS NULL)",
        ),
        _check("batches", "failed", "verdict <> 'failed' OR error IS NOT NULL"),
        _check("batches", "deferred", "verdict <> 'deferred' OR not_before IS NOT NULL"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_batches_run_id_source", "batches", ["run_id", "source"])


def _create_evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_evidence")),
        *_none_below_zero("evidence", "body_bytes"),
    )


def _create_attempts() -> None:
    phases = ("wait", "dns", "connect", "tls", "send", "first_byte", "body", "check")
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fetch", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("began_at", UTC, nullable=False),
        *(sa.Column(f"{phase}_us", sa.BigInteger()) for phase in phases),
        sa.Column("is_reused", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("body_bytes", sa.BigInteger()),
        sa.Column("error", sa.String()),
        sa.Column("phase", sa.String()),
        sa.Column("detail", sa.String()),
        sa.Column("retry_after_us", sa.BigInteger()),
        sa.Column("evidence", sa.String()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint(
            "run_id", "fetch", "number", name=op.f("uq_attempts_run_id_fetch_number")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_attempts_run_id_runs")),
        sa.ForeignKeyConstraint(
            ["evidence"], ["evidence.digest"], name=op.f("fk_attempts_evidence_evidence")
        ),
        _check("attempts", "number", "number > 0"),
        _check("attempts", "failed", "(error IS NULL) = (phase IS NULL)"),
        _check("attempts", "phase", f"phase IN ({', '.join(map(repr, phases))})"),
        *_none_below_zero("attempts", *(f"{phase}_us" for phase in phases)),
        *_none_below_zero("attempts", "body_bytes", "retry_after_us"),
    )
    op.create_index(
        "ix_attempts_failures",
        "attempts",
        ["source", "error", "phase", "began_at"],
        sqlite_where=FAILED,
    )


def _create_upstreams() -> None:
    op.create_table(
        "upstreams",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("next_at", UTC),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_upstreams")),
        *_none_below_zero("upstreams", "failures"),
    )
    op.create_table(
        "embargoes",
        sa.Column("upstream", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("until", UTC, nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("said_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("upstream", name=op.f("pk_embargoes")),
    )
    op.create_table(
        "quotas",
        sa.Column("upstream", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("upstream", "unit", name=op.f("pk_quotas")),
        *_none_below_zero("quotas", "spent"),
    )


def downgrade() -> None:
    """Drop everything: there was nothing before."""
    for table in ("quotas", "embargoes", "upstreams", "attempts", "evidence", "batches", "runs"):
        op.drop_table(table)
