"""What long histories need: summaries, the hash chain, requests, contracts and slots."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

UTC = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql", "mysql", "mariadb")
FAILED = sa.text("error IS NOT NULL")
PHASES = ("wait", "dns", "connect", "tls", "send", "first_byte", "body", "check")

# Nothing in the program reads them: they are for people with Datasette or the sqlite3 shell.
VIEWS = {
    "run_list": """
CREATE VIEW run_list AS
SELECT
    id, started_at, status, round(clock_us / 1000000.0, 3) AS seconds,
    ordered, collected, failed, deferred, cancelled, numbers, attempts,
    round(waited_us / 1000000.0, 3) AS seconds_one_by_one, host, version, ended_at
FROM runs
""",
    "batch_list": """
CREATE VIEW batch_list AS
SELECT
    run_id, 'w' || number AS name, source, verdict AS outcome, n, sum, min, max,
    error, detail, not_before, "fetch", attempt
FROM batches
""",
    "failed_attempts": """
CREATE VIEW failed_attempts AS
SELECT
    id, run_id, source, began_at, error, phase,
    CASE
        WHEN error IN ('dns', 'connect_refused', 'connect_timeout', 'unreachable', 'write_timeout')
        THEN 'path'
        WHEN error IN ('rate_limited', 'quota_exhausted') THEN 'policy'
        WHEN error IN ('content_type', 'not_json', 'schema', 'count', 'range', 'stale')
        THEN 'contract'
        WHEN error IN ('unauthorized', 'http_4xx', 'deadline', 'cancelled', 'internal') THEN 'ours'
        ELSE 'upstream'
    END AS whose,
    status, detail, "fetch", number AS try, evidence
FROM attempts
WHERE error IS NOT NULL
""",
    "source_days": """
CREATE VIEW source_days AS
SELECT
    date(started_at) AS day, source, count(*) AS runs,
    sum(collected + failed + deferred + cancelled) AS ordered, sum(collected) AS collected,
    round(
        100.0 * sum(collected) / nullif(sum(collected + failed + deferred + cancelled), 0), 1
    ) AS collected_percent,
    sum(numbers) AS numbers, sum(attempts) AS attempts, sum(failed_attempts) AS failed_attempts
FROM tallies
GROUP BY date(started_at), source
""",
}


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target.partition('.')[0]}"
    return sa.ForeignKeyConstraint([column], [target], name=op.f(name))


def upgrade() -> None:
    """Make the tables, and give the attempts a column for what was sent."""
    _create_requests()
    _remake_attempts("request")
    # Without these, each answer and each request that is deleted costs a walk over all attempts.
    op.create_index(
        "ix_attempts_evidence",
        "attempts",
        ["evidence"],
        sqlite_where=sa.text("evidence IS NOT NULL"),
    )
    op.create_index("ix_attempts_request", "attempts", ["request"])
    op.create_index("ix_runs_started_at", "runs", ["started_at"])
    # The other way round, so that the newest batches of a source are found without its runs.
    op.drop_index("ix_batches_run_id_source", "batches")
    op.create_index("ix_batches_source_run_id", "batches", ["source", "run_id"])
    _create_contracts()
    _create_tallies()
    _create_losses()
    _create_timings()
    _create_seals()
    _create_slots()
    for statement in VIEWS.values():
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table in ("slots", "seals", "timings", "losses", "tallies", "contracts"):
        op.drop_table(table)
    op.drop_index("ix_batches_source_run_id", "batches")
    op.create_index("ix_batches_run_id_source", "batches", ["run_id", "source"])
    op.drop_index("ix_runs_started_at", "runs")
    op.drop_index("ix_attempts_request", "attempts")
    op.drop_index("ix_attempts_evidence", "attempts")
    _remake_attempts()
    op.drop_table("requests")


def _remake_attempts(*new: str) -> None:
    """Copy the attempts to a table that has the *new* columns: SQLite alters too little."""
    if op.get_bind().dialect.name != "sqlite":
        _alter_attempts(*new)
        return
    old = ["id", "run_id", "fetch", "number", "source", "began_at"]
    old += [*(f"{phase}_us" for phase in PHASES), "is_reused", "status", "body_bytes"]
    old += ["error", "phase", "detail", "retry_after_us", "evidence"]
    op.drop_index("ix_attempts_failures", "attempts")
    op.rename_table("attempts", "attempts_before")
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fetch", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("began_at", UTC, nullable=False),
        *(sa.Column(f"{phase}_us", sa.BigInteger()) for phase in PHASES),
        sa.Column("is_reused", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("body_bytes", sa.BigInteger()),
        sa.Column("error", sa.String()),
        sa.Column("phase", sa.String()),
        sa.Column("detail", sa.String()),
        sa.Column("retry_after_us", sa.BigInteger()),
        sa.Column("evidence", sa.String()),
        *(sa.Column(name, sa.Integer()) for name in new),
        _key("attempts", "id"),
        sa.UniqueConstraint(
            "run_id", "fetch", "number", name=op.f("uq_attempts_run_id_fetch_number")
        ),
        _reference("attempts", "run_id", "runs.id"),
        _reference("attempts", "evidence", "evidence.digest"),
        *(_reference("attempts", name, f"{name}s.id") for name in new),
        _check("attempts", "number", "number > 0"),
        _check("attempts", "failed", "(error IS NULL) = (phase IS NULL)"),
        _check("attempts", "phase", f"phase IN ({', '.join(map(repr, PHASES))})"),
        *(_check("attempts", f"{phase}_us", f"{phase}_us >= 0") for phase in PHASES),
        _check("attempts", "body_bytes", "body_bytes >= 0"),
        _check("attempts", "retry_after_us", "retry_after_us >= 0"),
    )
    columns = ", ".join(old)
    op.execute(f"INSERT INTO attempts ({columns}) SELECT {columns} FROM attempts_before")  # noqa: S608 - names of our own
    op.drop_table("attempts_before")
    op.create_index(
        "ix_attempts_failures",
        "attempts",
        ["source", "error", "phase", "began_at"],
        sqlite_where=FAILED,
    )


def _alter_attempts(*new: str) -> None:
    if not new:
        op.drop_column("attempts", "request")
    for name in new:
        op.add_column("attempts", sa.Column(name, sa.Integer()))
        op.create_foreign_key(
            op.f(f"fk_attempts_{name}_{name}s"), "attempts", f"{name}s", [name], ["id"]
        )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("headers", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _key("requests", "id"),
        sa.UniqueConstraint("digest", name=op.f("uq_requests_digest")),
    )


def _create_contracts() -> None:
    op.create_table(
        "contracts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("aspect", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("first_at", UTC, nullable=False),
        sa.Column("last_at", UTC, nullable=False),
        sa.Column("first_attempt", sa.Integer(), nullable=False),
        sa.Column("last_attempt", sa.Integer(), nullable=False),
        _key("contracts", "id"),
        _check(
            "contracts", "aspect", "aspect IN ('content_type', 'keys', 'refusal', 'tls_issuer')"
        ),
    )
    op.create_index("ix_contracts_source_aspect_id", "contracts", ["source", "aspect", "id"])


def _create_tallies() -> None:
    counts = ("collected", "failed", "deferred", "cancelled")
    tries = ("attempts", "failed_attempts", "retries", "retries_helped")
    op.create_table(
        "tallies",
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("min", sa.BigInteger(), nullable=False),
        sa.Column("max", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in counts),
        sa.Column("numbers", sa.BigInteger(), nullable=False),
        sa.Column("sum", sa.String(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in tries),
        sa.Column("wait_us", sa.BigInteger(), nullable=False),
        sa.Column("exchange_us", sa.BigInteger(), nullable=False),
        sa.Column("fastest_us", sa.BigInteger()),
        sa.Column("fastest_attempt", sa.Integer()),
        sa.Column("first_sent_at", UTC),
        sa.Column("last_sent_at", UTC),
        sa.Column("rule", sa.String()),
        sa.Column("violations", sa.Integer()),
        sa.Column("violating_attempt", sa.Integer()),
        _key("tallies", "started_at", "run_id", "source"),
        _reference("tallies", "run_id", "runs.id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tallies_source_started_at", "tallies", ["source", "started_at"])


def _create_losses() -> None:
    op.create_table(
        "losses",
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("batches", sa.Integer(), nullable=False),
        sa.Column("first_at", UTC, nullable=False),
        sa.Column("last_at", UTC, nullable=False),
        sa.Column("first_attempt", sa.Integer()),
        sa.Column("last_attempt", sa.Integer()),
        _key("losses", "started_at", "run_id", "source", "error", "phase"),
        _reference("losses", "run_id", "runs.id"),
        sqlite_with_rowid=False,
    )


def _create_timings() -> None:
    op.create_table(
        "timings",
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("began_at", UTC, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("phases", sa.String(), nullable=False),
        _key("timings", "step", "began_at", "source"),
        _check("timings", "step", "step IN ('hour', 'day')"),
    )


def _create_seals() -> None:
    op.create_table(
        "seals",
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("run_id", sa.Integer()),
        sa.Column("sealed_at", UTC, nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.Column("contents", sa.String(), nullable=False),
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("pruned_by", sa.Integer()),
        _key("seals", "position"),
        _check("seals", "kind", "kind IN ('run', 'pruning')"),
        _check("seals", "run", "(kind = 'run') = (run_id IS NOT NULL)"),
        _reference("seals", "run_id", "runs.id"),
        _reference("seals", "pruned_by", "seals.position"),
        sa.UniqueConstraint("run_id", name=op.f("uq_seals_run_id")),
        sqlite_autoincrement=True,
    )


def _create_slots() -> None:
    op.create_table(
        "slots",
        sa.Column("schedule", sa.String(), nullable=False),
        sa.Column("due_at", UTC, nullable=False),
        sa.Column("fate", sa.String()),
        sa.Column("run_id", sa.Integer()),
        sa.Column("host", sa.String()),
        sa.Column("claimed_at", UTC, nullable=False),
        sa.Column("late_us", sa.BigInteger()),
        _key("slots", "schedule", "due_at"),
        _check("slots", "fate", "fate IN ('ran', 'late', 'skipped', 'missed', 'interrupted')"),
        _check("slots", "late_us", "late_us >= 0"),
        _reference("slots", "run_id", "runs.id"),
    )
    op.create_index("ix_slots_claimed", "slots", ["schedule"], sqlite_where=sa.text("fate IS NULL"))
