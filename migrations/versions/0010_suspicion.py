"""Give who seems to be dead the time for one more sign."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

UTC = sa.BigInteger().with_variant(sa.DateTime(timezone=True), "postgresql", "mysql", "mariadb")


def upgrade() -> None:
    """Suspect nobody yet."""
    is_file = op.get_bind().dialect.name == "sqlite"  # where a new column would stand last, alone
    with op.batch_alter_table("heartbeats", recreate="always" if is_file else "never") as table:
        table.add_column(sa.Column("suspected_at", UTC))


def downgrade() -> None:
    """Forget who was suspected."""
    with op.batch_alter_table("heartbeats") as table:
        table.drop_column("suspected_at")
