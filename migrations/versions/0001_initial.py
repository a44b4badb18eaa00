"""The first schema: runs with all that they ask, get, lose and add up to, and the hash chain."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# A migration never changes once it is released, so it says everything itself and takes nothing
# from the package, whose tables go on changing. It repeats what they were at the time.
UTC = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql", "mysql", "mariadb")
PHASES = ("wait", "dns", "connect", "tls", "send", "first_byte", "body", "check")
TABLES = (
    "heartbeats",
    "configurations",
    *("quotas", "embargoes", "upstreams", "slots", "seals", "timings", "losses", "tallies"),
    *("contracts", "attempts", "requests", "evidence", "batches", "runs"),
)

# Nothing in the program reads them: they are for people with Datasette or the sqlite3 shell.
VIEWS = {
    "run_list": """
CREATE VIEW run_list AS
SELECT
    id AS run_id, started_at, status, clock_us,
    ordered, collected, failed, deferred, cancelled, numbers, attempts,
    waited_us AS exchange_us, host, version, ended_at, is_sandbox
FROM runs
""",
    "batch_list": """
CREATE VIEW batch_list AS
SELECT
    batches.run_id, 'w' || batches.number AS batch, batches.number AS batch_number,
    batches.source, is_sandbox, verdict, n, sum, min, max, batches.error, batches.detail,
    not_before, batches."fetch", attempts.id AS attempt_id, attempt AS attempt_number
FROM batches
LEFT JOIN attempts
ON attempts.run_id = batches.run_id
AND attempts."fetch" = batches."fetch" AND attempts.number = batches.attempt
""",
    "failed_attempts": """
CREATE VIEW failed_attempts AS
SELECT
    id AS attempt_id, run_id, source, began_at, error, phase,
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
    status AS http_status, detail, "fetch", number AS attempt_number, evidence
FROM attempts
WHERE error IS NOT NULL
""",
    "source_days": """
CREATE VIEW source_days AS
SELECT
    date(started_at) AS day, source, is_sandbox, count(*) AS runs,
    sum(collected + failed + deferred + cancelled) AS ordered, sum(collected) AS collected,
    round(
        1.0 * sum(collected) / nullif(sum(collected + failed + deferred + cancelled), 0), 4
    ) AS share,
    sum(numbers) AS numbers, sum(attempts) AS attempts, sum(failed_attempts) AS failed_attempts
FROM tallies
GROUP BY date(started_at), source, is_sandbox
""",
}


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target.partition('.')[0]}"
    return sa.ForeignKeyConstraint([column], [target], name=op.f(name))


def _none_below_zero(table: str, *columns: str) -> list[sa.CheckConstraint]:
    return [_check(table, column, f"{column} >= 0") for column in columns]


def upgrade() -> None:
    """Make the tables and the views."""
    _create_runs()
    _create_batches()
    _create_evidence()
    _create_requests()
    _create_attempts()
    _create_contracts()
    _create_tallies()
    _create_losses()
    _create_timings()
    _create_seals()
    _create_slots()
    _create_upstreams()
    _create_configurations()
    _create_heartbeats()
    for statement in VIEWS.values():
        op.execute(statement)


def downgrade() -> None:
    """Drop everything: there was nothing before."""
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table in TABLES:
        op.drop_table(table)


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
        sa.Column("is_sandbox", sa.Boolean(), nullable=False),
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
        sa.Column("clock_offset_us", sa.BigInteger()),
        _key("runs", "id"),
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
    op.create_index("ix_runs_running", "runs", ["host"], sqlite_where=sa.text("status = 'running'"))
    op.create_index("ix_runs_started_at", "runs", ["started_at"])


def _create_heartbeats() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("presence", sa.String()),
        sa.Column("until", UTC, nullable=False),
        sa.Column("seen_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_heartbeats")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_heartbeats_run_id_runs")),
    )


def _create_configurations() -> None:
    op.create_table(
        "configurations",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("limits", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "version", name=op.f("pk_configurations")),
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("is_sandbox", sa.Boolean(), nullable=False),
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
        _key("batches", "run_id", "number"),
        _reference("batches", "run_id", "runs.id"),
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
    op.create_index("ix_batches_source_run_id", "batches", ["source", "run_id"])


def _create_evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_at", UTC, nullable=False),
        _key("evidence", "digest"),
        *_none_below_zero("evidence", "body_bytes"),
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


def _create_attempts() -> None:
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
        sa.Column("request", sa.Integer()),
        _key("attempts", "id"),
        sa.UniqueConstraint(
            "run_id", "fetch", "number", name=op.f("uq_attempts_run_id_fetch_number")
        ),
        _reference("attempts", "run_id", "runs.id"),
        _reference("attempts", "evidence", "evidence.digest"),
        _reference("attempts", "request", "requests.id"),
        _check("attempts", "number", "number > 0"),
        _check("attempts", "failed", "(error IS NULL) = (phase IS NULL)"),
        _check("attempts", "phase", f"phase IN ({', '.join(map(repr, PHASES))})"),
        *_none_below_zero("attempts", *(f"{phase}_us" for phase in PHASES)),
        *_none_below_zero("attempts", "body_bytes", "retry_after_us"),
    )
    op.create_index(
        "ix_attempts_failures",
        "attempts",
        ["source", "error", "phase", "began_at"],
        sqlite_where=sa.text("error IS NOT NULL"),
    )
    op.create_index(
        "ix_attempts_evidence",
        "attempts",
        ["evidence"],
        sqlite_where=sa.text("evidence IS NOT NULL"),
    )
    op.create_index("ix_attempts_request", "attempts", ["request"])


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
        sa.Column("is_sandbox", sa.Boolean(), nullable=False),
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
        sa.Column("last_due_at", UTC),
        sa.Column("slots", sa.BigInteger()),
        _key("slots", "schedule", "due_at"),
        _check("slots", "fate", "fate IN ('ran', 'late', 'skipped', 'missed', 'interrupted')"),
        _check("slots", "late_us", "late_us >= 0"),
        _check("slots", "gap", "(last_due_at IS NULL) = (slots IS NULL)"),
        _reference("slots", "run_id", "runs.id"),
    )
    op.create_index("ix_slots_claimed", "slots", ["schedule"], sqlite_where=sa.text("fate IS NULL"))
    is_gap = sa.text("last_due_at IS NOT NULL")
    op.create_index("ix_slots_gaps", "slots", ["schedule"], sqlite_where=is_gap)


def _create_upstreams() -> None:
    op.create_table(
        "upstreams",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("next_at", UTC),
        sa.Column("taken_at", UTC),
        sa.Column("failures", sa.Integer(), nullable=False),
        _key("upstreams", "name"),
        *_none_below_zero("upstreams", "failures"),
    )
    op.create_table(
        "embargoes",
        sa.Column("upstream", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("until", UTC, nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("said_at", UTC, nullable=False),
        _key("embargoes", "upstream"),
    )
    op.create_table(
        "quotas",
        sa.Column("upstream", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        _key("quotas", "upstream", "unit"),
        *_none_below_zero("quotas", "spent"),
    )
