"""Keep the figures that answers hold beside their numbers, such as a Bell value."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "measures",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fetch", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("at_least", sa.Float()),
        sa.PrimaryKeyConstraint("run_id", "fetch", "number", "name", name=op.f("pk_measures")),
        sa.ForeignKeyConstraint(
            ["run_id", "fetch", "number"],
            ["attempts.run_id", "attempts.fetch", "attempts.number"],
            name=op.f("fk_measures_run_id_fetch_number_attempts"),
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("measures")
