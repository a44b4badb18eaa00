"""Sums of days that are over, what an audit must know of them, and durations by month."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

UTC = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
OF_A_DAY = ("began_at", "source", "is_sandbox", "min", "max", "rule", "is_judged")
SUMS = ("collected", "failed", "deferred", "cancelled", "numbers")
MORE_SUMS = (
    *("attempts", "failed_attempts", "retries", "retries_helped"),
    *("wait_us", "exchange_us", "violations"),
)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def upgrade() -> None:
    """Create the tables empty: ``pipeline db migrate`` and later runs close the days."""
    _create_days()
    op.create_table(
        "day_losses",
        sa.Column("began_at", UTC, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("first_at", UTC, nullable=False),
        sa.Column("last_at", UTC, nullable=False),
        sa.Column("last_attempt", sa.Integer()),
        _key("day_losses", "began_at", "source", "error", "phase"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sheets",
        sa.Column("began_at", UTC, nullable=False, autoincrement=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        _key("sheets", "began_at"),
    )
    op.create_table(
        "months",
        sa.Column("began_at", UTC, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("phases", sa.LargeBinary(), nullable=False),
        _key("months", "began_at", "source"),
    )
    is_pruned = sa.text("pruned_by IS NOT NULL")
    op.create_index("ix_seals_pruned", "seals", ["pruned_by"], sqlite_where=is_pruned)


def _create_days() -> None:
    op.create_table(
        "days",
        sa.Column("began_at", UTC, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("is_sandbox", sa.Boolean(), nullable=False),
        sa.Column("min", sa.BigInteger(), nullable=False),
        sa.Column("max", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("is_judged", sa.Boolean(), nullable=False),
        *(sa.Column(n, sa.Integer(), nullable=False) for n in ("runs", "answered", "asked")),
        sa.Column("last_good_at", UTC),
        sa.Column("last_bad_at", UTC),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.Column("sum", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in MORE_SUMS),
        _key("days", *OF_A_DAY),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop the tables: all that is in them can be made anew."""
    op.drop_index("ix_seals_pruned", "seals")
    for table in ("months", "sheets", "day_losses", "days"):
        op.drop_table(table)
