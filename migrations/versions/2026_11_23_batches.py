"""Jobs that let one call read several conversations, and the tokens that a provider knew already."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("batch", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("llm_calls", sa.Column("cached_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    op.drop_column("llm_calls", "cached_tokens")
    op.drop_column("jobs", "batch")
