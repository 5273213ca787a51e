"""Workspaces, accounts, conversations, summaries and insights."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# HMAC-SHA-256 of a lexeme, truncated to 96 bits, from the two padded keys: 16 characters of base64 in quotes.
KEYED_LEXEME = """
CREATE FUNCTION keyed_lexeme(inner_pad bytea, outer_pad bytea, lexeme text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN '''' || encode(substr(
    sha256(outer_pad || sha256(inner_pad || convert_to(lexeme, 'UTF8'))), 1, 12
), 'base64') || ''''
"""

# The lexemes of a text's first 50,000 characters, hashed, with their positions. That many characters stay below the
# 1 MiB that a tsvector can hold, whatever they are.
KEYED_TSVECTOR = """
CREATE FUNCTION keyed_tsvector(inner_pad bytea, outer_pad bytea, content text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(
        string_agg(keyed_lexeme(inner_pad, outer_pad, lexeme) || ':' || array_to_string(positions, ','), ' '), ''
    )::tsvector
    FROM unnest(to_tsvector('pg_catalog.english', left(content, 50000)));
END
"""

# A search in web-search syntax, its lexemes hashed: between quotes stand lexemes, elsewhere operators.
KEYED_TSQUERY = r"""
CREATE FUNCTION keyed_tsquery(inner_pad bytea, outer_pad bytea, search text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(string_agg(
        CASE WHEN part[1] IS NULL THEN part[2]
        ELSE keyed_lexeme(inner_pad, outer_pad, replace(replace(part[1], '''''', ''''), '\\', '\')) END,
        '' ORDER BY place
    ), '')::tsquery
    FROM regexp_matches(
        websearch_to_tsquery('pg_catalog.english', search)::text, '''((?:[^'']|'''')*)''|([^'']+)', 'g'
    ) WITH ORDINALITY AS parts (part, place);
END
"""


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("message_batches", data_type=sa.BigInteger())))
    for function in (KEYED_LEXEME, KEYED_TSVECTOR, KEYED_TSQUERY):
        op.execute(function)
    op.create_table(
        "users",
        sa.Column("user_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("auth_provider", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("last_login", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name=op.f("users_pkey")),
        sa.UniqueConstraint("auth_provider", "provider_id", name=op.f("users_auth_provider_provider_id_key")),
    )
    op.create_table(
        "workspaces",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("master_key_id", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("workspaces_pkey")),
        sa.UniqueConstraint("name", name=op.f("workspaces_name_key")),
    )
    op.create_table(
        "api_keys",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'editor', 'admin')", name=op.f("api_keys_role_check")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("api_keys_workspace_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "key_id", name=op.f("api_keys_pkey")),
    )
    op.create_table(
        "conversations",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("message_count", sa.Integer(), nullable=False),
        sa.Column("first_message_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("sentiment", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("keyword_hashes", sa.ARRAY(sa.Text()), nullable=True),
        sa.CheckConstraint("outcome IN ('yes', 'no', 'maybe', 'curious')", name=op.f("conversations_outcome_check")),
        sa.CheckConstraint(
            "sentiment IN ('positive', 'neutral', 'negative', 'mixed')", name=op.f("conversations_sentiment_check")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.workspace_id"],
            name=op.f("conversations_workspace_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", name=op.f("conversations_pkey")),
    )
    op.create_index(
        "conversations_keyword_hashes_idx", "conversations", ["keyword_hashes"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        "conversations_last_message_at_idx",
        "conversations",
        ["workspace_id", "last_message_at", "conversation_id"],
        unique=False,
    )
    op.create_index(
        "conversations_outcome_idx",
        "conversations",
        ["workspace_id", "outcome", "last_message_at", "conversation_id"],
        unique=False,
        postgresql_where=sa.text("outcome IS NOT NULL"),
    )
    op.create_index(
        "conversations_sentiment_idx",
        "conversations",
        ["workspace_id", "sentiment", "last_message_at", "conversation_id"],
        unique=False,
        postgresql_where=sa.text("sentiment IS NOT NULL"),
    )
    op.create_table(
        "memberships",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("role IN ('viewer', 'editor', 'admin')", name=op.f("memberships_role_check")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("memberships_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.workspace_id"],
            name=op.f("memberships_workspace_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", name=op.f("memberships_pkey")),
    )
    op.create_index(op.f("memberships_user_id_idx"), "memberships", ["user_id"], unique=False)
    op.create_table(
        "insights",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("sentiment", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=False),
        sa.Column("messages_read", sa.Integer(), nullable=False),
        sa.Column("messages_total", sa.Integer(), nullable=False),
        sa.Column("provenance", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("outcome IN ('yes', 'no', 'maybe', 'curious')", name=op.f("insights_outcome_check")),
        sa.CheckConstraint(
            "sentiment IN ('positive', 'neutral', 'negative', 'mixed')", name=op.f("insights_sentiment_check")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("insights_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", name=op.f("insights_pkey")),
    )
    op.create_table(
        "messages",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_type", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("search_vector", postgresql.TSVECTOR(), nullable=False),
        sa.CheckConstraint("user_type IN ('customer', 'support_agent')", name=op.f("messages_user_type_check")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("messages_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", "message_id", name=op.f("messages_pkey")),
    )
    # Ciphertext does not compress; trying costs time.
    op.execute("ALTER TABLE messages ALTER COLUMN content SET STORAGE EXTERNAL")
    op.create_index(
        "messages_order_idx", "messages", ["workspace_id", "conversation_id", "timestamp", "sequence"], unique=False
    )
    op.create_index("messages_search_vector_idx", "messages", ["search_vector"], unique=False, postgresql_using="gin")
    op.create_table(
        "participants",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_type", sa.Text(), nullable=False),
        sa.Column("message_count", sa.Integer(), nullable=False),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("user_type IN ('customer', 'support_agent')", name=op.f("participants_user_type_check")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("participants_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", "user_id", name=op.f("participants_pkey")),
    )
    op.create_index(
        "participants_history_idx",
        "participants",
        ["workspace_id", "user_id", "last_message_at", "conversation_id"],
        unique=False,
    )
    op.create_table(
        "summaries",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("summary", sa.LargeBinary(), nullable=False),
        sa.Column("action_items", sa.LargeBinary(), nullable=False),
        sa.Column("decisions", sa.LargeBinary(), nullable=False),
        sa.Column("questions", sa.LargeBinary(), nullable=False),
        sa.Column("sentiment", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("keywords", sa.LargeBinary(), nullable=False),
        sa.Column("messages_read", sa.Integer(), nullable=False),
        sa.Column("messages_total", sa.Integer(), nullable=False),
        sa.Column("provenance", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("outcome IN ('yes', 'no', 'maybe', 'curious')", name=op.f("summaries_outcome_check")),
        sa.CheckConstraint(
            "sentiment IN ('positive', 'neutral', 'negative', 'mixed')", name=op.f("summaries_sentiment_check")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("summaries_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", name=op.f("summaries_pkey")),
    )


def downgrade() -> None:
    for table in (
        *("summaries", "insights", "messages", "participants", "conversations"),
        *("api_keys", "memberships", "workspaces", "users"),
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION keyed_tsquery, keyed_tsvector, keyed_lexeme")
    op.execute("DROP SEQUENCE message_batches")
