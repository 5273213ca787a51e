"""Pay for model calls, let one instance at a time make an analysis, and know up to where it read."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"
PRIVILEGES = {
    "analysis_claims": "SELECT, INSERT, UPDATE, DELETE",
    "llm_calls": "SELECT, INSERT, UPDATE",
    "budgets": "SELECT, INSERT, UPDATE, DELETE",
    "spending": "SELECT, INSERT, UPDATE",
}
MONEY = sa.Numeric(18, 9)


def upgrade() -> None:
    op.create_table(
        "analysis_claims",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("analysis_claims_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", "kind", name=op.f("analysis_claims_pkey")),
    )
    op.create_table(
        "llm_calls",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("call_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", MONEY, nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        _of_workspace("llm_calls"),
        sa.PrimaryKeyConstraint("workspace_id", "call_id", name=op.f("llm_calls_pkey")),
    )
    op.create_index(op.f("llm_calls_workspace_id_created_at_idx"), "llm_calls", ["workspace_id", "created_at"])
    op.create_table(
        "budgets",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("limit_usd", MONEY, nullable=False),
        _period("budgets"),
        _of_workspace("budgets"),
        sa.PrimaryKeyConstraint("workspace_id", "scope", "period", name=op.f("budgets_pkey")),
    )
    op.create_table(
        "spending",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("spent_usd", MONEY, nullable=False),
        _period("spending"),
        _of_workspace("spending"),
        sa.PrimaryKeyConstraint("workspace_id", "scope", "period", "starts_on", name=op.f("spending_pkey")),
    )
    for table in ("summaries", "insights"):
        op.add_column(table, sa.Column("through_sequence", sa.BigInteger(), nullable=True))
    op.add_column("summaries", sa.Column("changes", sa.LargeBinary(), nullable=True))
    for table, privileges in PRIVILEGES.items():
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")


def _of_workspace(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"{table}_workspace_id_fkey")
    return sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.workspace_id"], name=name, ondelete="CASCADE")


def _period(table: str) -> sa.CheckConstraint:
    return sa.CheckConstraint("period IN ('day', 'month')", name=op.f(f"{table}_period_check"))


def downgrade() -> None:
    op.drop_column("summaries", "changes")
    for table in ("insights", "summaries"):
        op.drop_column(table, "through_sequence")
    for table in reversed(PRIVILEGES):
        op.drop_table(table)
