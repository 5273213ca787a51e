"""Jobs, and the queue that brings them to a worker."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"
ALL = "SELECT, INSERT, UPDATE, DELETE"
PRIVILEGES = {
    "jobs": ALL,
    "job_items": "SELECT, INSERT, UPDATE",
    "pgqueuer.pgqueuer": ALL,
    "pgqueuer.pgqueuer_log": "INSERT",
    "pgqueuer.pgqueuer_statistics": "SELECT",  # a worker makes sure that it is there
}

# What pgqueuer 1.6 installs: a later one may need a migration of its own, and does not change this one.
QUEUE = Path(__file__).with_suffix(".sql").read_text()

# The library's log would grow for ever, and nobody reads it: the jobs' rows say what became of them.
KEEP_NO_LOG = """
CREATE FUNCTION pgqueuer.keep_no_log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER keep_no_log BEFORE INSERT ON pgqueuer.pgqueuer_log
FOR EACH ROW EXECUTE FUNCTION pgqueuer.keep_no_log();
"""


def upgrade() -> None:
    create_jobs()
    create_items()
    op.execute(QUEUE)
    op.execute(KEEP_NO_LOG)
    op.execute(f"GRANT USAGE ON SCHEMA pgqueuer TO {ROLE}")
    for table, privileges in PRIVILEGES.items():
        op.execute(f"GRANT {privileges} ON {table} TO {ROLE}")
    op.execute(f"GRANT USAGE ON SEQUENCE pgqueuer.pgqueuer_id_seq TO {ROLE}")


def create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("force", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("absent", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name=op.f("jobs_status_check")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.workspace_id"], name=op.f("jobs_workspace_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "job_id", name=op.f("jobs_pkey")),
    )
    op.create_index(op.f("jobs_workspace_id_finished_at_idx"), "jobs", ["workspace_id", "finished_at"])
    op.create_index(
        op.f("jobs_absent_idx"), "jobs", ["absent"], postgresql_using="gin", postgresql_where=sa.text("absent <> '{}'")
    )


def create_items() -> None:
    op.create_table(
        "job_items",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("job_items_state_check")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "job_id"],
            ["jobs.workspace_id", "jobs.job_id"],
            name=op.f("job_items_workspace_id_job_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.conversation_id"],
            name=op.f("job_items_workspace_id_conversation_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "job_id", "conversation_id", name=op.f("job_items_pkey")),
    )
    op.create_index(
        op.f("job_items_workspace_id_conversation_id_idx"), "job_items", ["workspace_id", "conversation_id"]
    )
    op.create_index(
        "job_items_open_idx",
        "job_items",
        ["workspace_id", "job_id", "attempts", "conversation_id"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA pgqueuer CASCADE")
    op.drop_table("job_items")
    op.drop_table("jobs")
