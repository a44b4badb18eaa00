"""Keep what sources signed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

MOMENT = sa.BigInteger().with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "proofs",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("fetch", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("scheme", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("made_at", MOMENT, nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("word", sa.String(), nullable=False),
        sa.Column("is_expanded", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "fetch", "number", name=op.f("pk_proofs")),
        sa.CheckConstraint(
            "word IN ('verified', 'chained', 'signed, not verifiable', 'unsigned')",
            name=op.f("ck_proofs_word"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "fetch", "number"],
            ["attempts.run_id", "attempts.fetch", "attempts.number"],
            name=op.f("fk_proofs_run_id_fetch_number_attempts"),
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("proofs")
