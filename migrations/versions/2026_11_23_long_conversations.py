"""An index of the conversations that took longer than a day."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NAME = "conversations_long_idx"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What a migration that was killed has left.
        op.drop_index(NAME, "conversations", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            NAME,
            "conversations",
            ["workspace_id", "last_message_at", "conversation_id", "first_message_at"],
            unique=False,
            postgresql_where=sa.text("last_message_at - first_message_at > interval '24 hours'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(NAME, "conversations")
