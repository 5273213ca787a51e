"""Sign-in, sessions, members, the audit log, idempotency keys, and a role for the application."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ProgrammingError

from app.errors import ConfigurationError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"
"""Who the application works as: owns nothing, may create nothing. Roles belong to the whole server."""

CREATE_ROLE = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE}; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
GRANT_ROLE = f"""
DO $$ BEGIN
    GRANT {ROLE} TO CURRENT_USER;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""
ISSUER = "CASE auth_provider WHEN 'google' THEN 'https://accounts.google.com' ELSE 'https://github.com' END"
ON_DATABASE = "DO $$ BEGIN EXECUTE '{} ON DATABASE ' || quote_ident(current_database()) || ' {}'; END $$"
ALL = "SELECT, INSERT, UPDATE, DELETE"
PRIVILEGES = {
    "alembic_version": "SELECT",
    "workspaces": "SELECT, INSERT, UPDATE",
    "users": "SELECT, INSERT, UPDATE",
    "memberships": ALL,
    "api_keys": ALL,
    "sessions": ALL,
    "oauth_states": "SELECT, INSERT, DELETE, UPDATE (expires_at)",  # what locking a row takes
    "conversations": ALL,
    "participants": ALL,
    "messages": ALL,
    "summaries": ALL,
    "insights": ALL,
    "idempotency_keys": ALL,
    # Not when, nor which number: an entry cannot be given another time.
    "audit_log": "SELECT, INSERT (workspace_id, actor, action, target, details)",
}


def upgrade() -> None:
    create_role()
    op.add_column("users", sa.Column("issuer", sa.Text(), nullable=True))
    op.execute("UPDATE users SET issuer = " + ISSUER)
    op.alter_column("users", "issuer", nullable=False)
    op.drop_constraint("users_auth_provider_provider_id_key", "users", type_="unique")
    op.create_unique_constraint(op.f("users_issuer_provider_id_key"), "users", ["issuer", "provider_id"])
    upgrade_memberships()
    create_sessions()
    create_operations()
    op.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
    for table, privileges in PRIVILEGES.items():
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE message_batches TO {ROLE}")
    op.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    op.execute(ON_DATABASE.format("REVOKE TEMPORARY", "FROM PUBLIC"))


def create_role() -> None:
    try:
        op.execute(CREATE_ROLE)
    except ProgrammingError:
        raise ConfigurationError(
            f"The migration's user may not create roles. As a superuser, run: CREATE ROLE {ROLE};"
            f" GRANT {ROLE} TO <the user of DATABASE_URL>; then migrate again."
        ) from None
    op.execute(GRANT_ROLE)


def upgrade_memberships() -> None:
    op.drop_constraint("memberships_pkey", "memberships", type_="primary")
    op.alter_column("memberships", "user_id", nullable=True)
    op.add_column("memberships", sa.Column("member_id", sa.BigInteger(), nullable=True))
    op.add_column("memberships", sa.Column("invited_email", sa.Text(), nullable=True))
    op.add_column("memberships", sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE memberships SET member_id = user_id, joined_at = created_at")
    op.alter_column("memberships", "member_id", nullable=False)
    op.create_primary_key("memberships_pkey", "memberships", ["workspace_id", "member_id"])
    op.create_unique_constraint(
        op.f("memberships_workspace_id_user_id_key"), "memberships", ["workspace_id", "user_id"]
    )
    op.create_unique_constraint(
        op.f("memberships_workspace_id_invited_email_key"), "memberships", ["workspace_id", "invited_email"]
    )
    op.create_check_constraint(
        op.f("memberships_user_or_invitation_check"), "memberships", "(user_id IS NULL) <> (invited_email IS NULL)"
    )
    op.create_index(op.f("memberships_invited_email_idx"), "memberships", ["invited_email"])
    op.add_column("api_keys", sa.Column("member_id", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("lifetime", sa.Interval(), nullable=True))
    op.execute("UPDATE api_keys SET lifetime = expires_at - created_at")
    op.create_foreign_key(
        op.f("api_keys_workspace_id_member_id_fkey"),
        "api_keys",
        "memberships",
        ["workspace_id", "member_id"],
        ["workspace_id", "member_id"],
        ondelete="CASCADE",
    )
    op.create_index(op.f("api_keys_workspace_id_member_id_idx"), "api_keys", ["workspace_id", "member_id"])
    for table, id in (("api_keys", "key_id"), ("memberships", "member_id")):
        name = op.f(f"{table}_workspace_id_created_at_{id}_idx")
        op.create_index(name, table, ["workspace_id", "created_at", id])


def create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=True),
        sa.Column("key_id", sa.BigInteger(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(member_id IS NULL) <> (key_id IS NULL)", name=op.f("sessions_member_or_key_check")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "member_id"],
            ["memberships.workspace_id", "memberships.member_id"],
            name=op.f("sessions_workspace_id_member_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "key_id"],
            ["api_keys.workspace_id", "api_keys.key_id"],
            name=op.f("sessions_workspace_id_key_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "session_id", name=op.f("sessions_pkey")),
    )
    for column in ("member_id", "key_id", "expires_at"):
        op.create_index(op.f(f"sessions_workspace_id_{column}_idx"), "sessions", ["workspace_id", column])
    op.create_table(
        "oauth_states",
        sa.Column("state_digest", sa.LargeBinary(), nullable=False),
        sa.Column("browser_digest", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("next_path", sa.Text(), nullable=False),
        sa.Column("wanted_workspace", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("state_digest", name=op.f("oauth_states_pkey")),
    )
    op.create_index(op.f("oauth_states_expires_at_idx"), "oauth_states", ["expires_at"])


def create_operations() -> None:
    op.create_table(
        "audit_log",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("entry_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("audit_log_workspace_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "created_at", "entry_id", name=op.f("audit_log_pkey")),
    )
    for column in ("action", "actor"):
        op.create_index(
            op.f(f"audit_log_workspace_id_{column}_created_at_entry_id_idx"),
            "audit_log",
            ["workspace_id", column, "created_at", "entry_id"],
        )
    op.create_index(
        "audit_log_target_idx",
        "audit_log",
        ["workspace_id", "target", "created_at", "entry_id"],
        postgresql_where=sa.text("target IS NOT NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.workspace_id"],
            name=op.f("idempotency_keys_workspace_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("idempotency_keys_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "key_digest", name=op.f("idempotency_keys_pkey")),
    )
    op.create_index(
        op.f("idempotency_keys_workspace_id_expires_at_idx"), "idempotency_keys", ["workspace_id", "expires_at"]
    )
    op.create_index(
        "idempotency_keys_conversation_idx",
        "idempotency_keys",
        ["workspace_id", "conversation_id"],
        postgresql_where=sa.text("conversation_id IS NOT NULL"),
    )


def downgrade() -> None:
    for table in ("idempotency_keys", "audit_log", "oauth_states", "sessions"):
        op.drop_table(table)
    op.drop_index("api_keys_workspace_id_created_at_key_id_idx", "api_keys")
    op.drop_column("api_keys", "lifetime")
    op.drop_column("api_keys", "member_id")
    op.execute("DELETE FROM memberships WHERE user_id IS NULL")
    op.drop_constraint("memberships_pkey", "memberships", type_="primary")
    for column in ("member_id", "invited_email", "joined_at"):
        op.drop_column("memberships", column)
    op.drop_constraint("memberships_workspace_id_user_id_key", "memberships", type_="unique")
    op.create_primary_key("memberships_pkey", "memberships", ["workspace_id", "user_id"])
    op.drop_constraint("users_issuer_provider_id_key", "users", type_="unique")
    op.drop_column("users", "issuer")
    op.create_unique_constraint("users_auth_provider_provider_id_key", "users", ["auth_provider", "provider_id"])
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}")
    op.execute(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {ROLE}")
    op.execute(f"REVOKE USAGE ON SCHEMA public FROM {ROLE}")
    op.execute(ON_DATABASE.format("GRANT TEMPORARY", "TO PUBLIC"))
