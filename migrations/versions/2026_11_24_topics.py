"""Topics: a model for each workspace, the topic of each conversation, and which conversations wait for theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"
WAITING = "conversations_topic_waiting_idx"


def upgrade() -> None:
    # What a migration that was killed has left: the index comes last, and concurrently.
    op.execute("ALTER TABLE conversations ADD COLUMN IF NOT EXISTS topic_messages integer")
    op.execute("DROP TABLE IF EXISTS conversation_topics, topic_models")
    op.create_table(
        "topic_models",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.LargeBinary(), nullable=True),
        sa.Column("topics", sa.LargeBinary(), nullable=True),
        sa.Column("fitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fitted_total", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sampled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("strays", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("new_total", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("new_strays", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("swept_through", sa.Text(collation="C"), nullable=True),
        sa.Column("label_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.workspace_id"],
            name=op.f("topic_models_workspace_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("topic_models_pkey")),
    )
    op.create_table(
        "conversation_topics",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("topic_id", sa.Integer(), nullable=True),
        sa.Column("weight", sa.REAL(), nullable=False),
        sa.Column("first_message_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sampled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("conversation_topics_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", name=op.f("conversation_topics_pkey")),
    )
    op.create_index(
        "conversation_topics_weight_idx",
        "conversation_topics",
        ["workspace_id", "topic_id", "weight", "first_message_at", "conversation_id"],
    )
    op.create_index(
        "conversation_topics_sampled_idx",
        "conversation_topics",
        ["workspace_id"],
        postgresql_where=sa.text("sampled"),
    )
    for table in ("topic_models", "conversation_topics"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
    with op.get_context().autocommit_block():
        op.drop_index(WAITING, "conversations", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            WAITING,
            "conversations",
            ["workspace_id", "first_message_at", "topic_messages", "conversation_id"],
            postgresql_where=sa.text("topic_messages IS DISTINCT FROM message_count"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(WAITING, "conversations")
    op.drop_table("conversation_topics")
    op.drop_table("topic_models")
    op.drop_column("conversations", "topic_messages")
