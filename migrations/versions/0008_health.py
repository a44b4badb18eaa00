"""How far the tests of health have come, and what they said."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

UTC = sa.BigInteger().with_variant(sa.DateTime(timezone=True), "postgresql", "mysql", "mariadb")
P_VALUES = ("chi_square", "monobit", "frequency", "runs", "serial")


def upgrade() -> None:
    """Make the tables; the program fills them from the numbers that are there."""
    op.create_table(
        "health",
        *_of_a_range(),
        sa.Column("is_pruned", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("first_at", UTC, nullable=False),
        sa.Column("last_at", UTC, nullable=False),
        *_filled(sa.BigInteger(), "numbers", "last", "repeats", "sample", "matches"),
        sa.Column("block", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "source", "is_sandbox", "min", "max", "is_pruned", name=op.f("pk_health")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "health_alarms",
        sa.Column("run_id", sa.Integer(), nullable=False),
        *_of_a_range(),
        *_filled(sa.String(), "test", "severity"),
        *_filled(sa.Integer(), "batch"),
        *_filled(sa.BigInteger(), "position", "alarms", "value", "times"),
        *_filled(sa.Integer(), "cut_off"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_health_alarms_run_id_runs")),
        sa.PrimaryKeyConstraint(
            *("run_id", "source", "is_sandbox", "min", "max", "test", "severity"),
            name=op.f("pk_health_alarms"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "health_blocks",
        *_of_a_range(),
        *_filled(sa.Integer(), "block", "run_id"),
        sa.Column("started_at", UTC, nullable=False),
        *_filled(sa.Integer(), "n", "most"),
        *(sa.Column(name, sa.Double(), nullable=True) for name in P_VALUES),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_health_blocks_run_id_runs")),
        sa.PrimaryKeyConstraint(
            "source", "is_sandbox", "min", "max", "block", name=op.f("pk_health_blocks")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_health_blocks_run_id"), "health_blocks", ["run_id"])


def downgrade() -> None:
    """Forget what the tests said."""
    for table in ("health_blocks", "health_alarms", "health"):
        op.drop_table(table)


def _of_a_range() -> list[sa.Column]:
    return [
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("is_sandbox", sa.Boolean(), nullable=False),
        sa.Column("min", sa.BigInteger(), nullable=False),
        sa.Column("max", sa.BigInteger(), nullable=False),
    ]


def _filled(kind: sa.types.TypeEngine, *names: str) -> list[sa.Column]:
    return [sa.Column(name, kind, nullable=False) for name in names]
