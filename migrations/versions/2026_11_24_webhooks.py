"""Webhooks, and what is to be delivered to them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"

# Called by the statement that deletes conversations, once they are gone: each statement of a volatile function has a
# snapshot of its own, so this one also sees what was written about them while their locks were waited for. A webhook
# that is just being deleted is passed over. Deliveries are locked in the order in which a webhook's are given up.
NOTE_DELETED = """
CREATE FUNCTION note_deleted(of_workspace bigint, gone text[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhooks WHERE workspace_id = of_workspace) THEN
        RETURN;
    END IF;
    DELETE FROM webhook_deliveries AS d
    USING (
        SELECT webhook_id, delivery_id FROM webhook_deliveries
        WHERE workspace_id = of_workspace AND conversation_id = ANY (gone) AND event <> 'conversation.deleted'
        ORDER BY delivery_id FOR UPDATE
    ) AS told
    WHERE d.workspace_id = of_workspace AND d.webhook_id = told.webhook_id AND d.delivery_id = told.delivery_id;
    INSERT INTO webhook_deliveries (workspace_id, webhook_id, event, conversation_id)
    SELECT of_workspace, w.webhook_id, 'conversation.deleted', id
    FROM (
        SELECT webhook_id FROM webhooks
        WHERE workspace_id = of_workspace AND enabled AND 'conversation.deleted' = ANY (events)
        FOR KEY SHARE SKIP LOCKED
    ) AS w CROSS JOIN unnest(gone) AS id;
END
$$
"""


def upgrade() -> None:
    create_webhooks()
    create_deliveries()
    op.execute(NOTE_DELETED)
    for table in ("webhooks", "webhook_deliveries"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")


def create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("webhook_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("url", sa.LargeBinary(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("webhooks_workspace_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "webhook_id", name=op.f("webhooks_pkey")),
    )


def create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("webhook_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("delivery_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=True),
        sa.Column("data", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=True),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'delivered', 'failed')", name=op.f("webhook_deliveries_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "webhook_id"],
            ["webhooks.workspace_id", "webhooks.webhook_id"],
            name=op.f("webhook_deliveries_workspace_id_webhook_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "webhook_id", "delivery_id", name=op.f("webhook_deliveries_pkey")),
    )
    op.create_index(
        "webhook_deliveries_log_idx",
        "webhook_deliveries",
        ["workspace_id", "webhook_id", "created_at", "delivery_id"],
    )
    op.create_index(
        "webhook_deliveries_due_idx",
        "webhook_deliveries",
        ["workspace_id", "webhook_id", "due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "webhook_deliveries_conversation_idx",
        "webhook_deliveries",
        ["workspace_id", "conversation_id"],
        postgresql_where=sa.text("conversation_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION note_deleted")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
