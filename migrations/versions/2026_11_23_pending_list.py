"""Merge new entries into the index of words sooner, so that a search has few to read one by one."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # For an instant this locks the index; nothing is rewritten.
    op.execute("ALTER INDEX messages_search_vector_idx SET (gin_pending_list_limit = 1024)")


def downgrade() -> None:
    op.execute("ALTER INDEX messages_search_vector_idx RESET (gin_pending_list_limit)")
