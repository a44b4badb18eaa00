"""Share runs among machines: their portions, and the workers that carry them out."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ZONED = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "members",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("lanes", sa.Integer(), nullable=False),
        sa.Column("since", ZONED, nullable=False),
        sa.Column("seen_at", ZONED, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
    )
    op.create_table(
        "portions",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("lock", sa.String()),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("host", sa.String()),
        sa.Column("pid", sa.Integer()),
        sa.Column("began_at", ZONED),
        sa.Column("ended_at", ZONED),
        sa.PrimaryKeyConstraint("run_id", "first", name=op.f("pk_portions")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_portions_run_id_runs")),
    )
    is_open = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_portions_open",
        "portions",
        ["run_id"],
        sqlite_where=is_open,
    )


def downgrade() -> None:
    op.drop_table("portions")
    op.drop_table("members")
