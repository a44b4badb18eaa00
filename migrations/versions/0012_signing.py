"""How a source signs is part of what is agreed upon with it."""

from alembic import op

revision = "0012"
down_revision = "0011"

NAME = "ck_contracts_aspect"
BEFORE = "aspect IN ('content_type', 'keys', 'refusal', 'tls_issuer')"
AFTER = "aspect IN ('content_type', 'keys', 'refusal', 'tls_issuer', 'signing')"


def upgrade() -> None:
    _allow(AFTER)


def downgrade() -> None:
    """Forget how sources signed."""
    op.execute("DELETE FROM contracts WHERE aspect = 'signing'")
    _allow(BEFORE)


def _allow(rule: str) -> None:
    with op.batch_alter_table("contracts") as table:
        table.drop_constraint(op.f(NAME), type_="check")
        table.create_check_constraint(op.f(NAME), rule)
