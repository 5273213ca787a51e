"""Feedback on summaries, and whether a workspace's texts are redacted for providers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("redact", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.create_table(
        "feedback",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("summary_updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rating", sa.Text(), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("rating IN ('up', 'down')", name=op.f("feedback_rating_check")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("feedback_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "workspace_id", "conversation_id", "actor", "summary_updated_at", name=op.f("feedback_pkey")
        ),
    )
    # Nothing but the conversation's own deletion removes a row.
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON feedback TO {ROLE}")


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_column("workspaces", "redact")
