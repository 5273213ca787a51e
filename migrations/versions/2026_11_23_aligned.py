"""A function that aligns participants in the statement that stores messages."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Each statement of a volatile function has a snapshot of its own. By then the conversations are locked by the statement
# that calls it, whose rows this one sees, and so does it those of participants that others added meanwhile.
ALIGN_PARTICIPANTS = """
CREATE FUNCTION align_participants(of_workspace bigint, grown text[], senders bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    id text COLLATE "C";
BEGIN
    FOREACH id IN ARRAY grown LOOP
        UPDATE participants AS p SET last_message_at = c.last_message_at
        FROM conversations AS c
        WHERE c.workspace_id = of_workspace AND c.conversation_id = id
        AND p.workspace_id = of_workspace AND p.conversation_id = id AND p.last_message_at <> c.last_message_at;
    END LOOP;
END
$$
"""


def upgrade() -> None:
    op.execute(ALIGN_PARTICIPANTS)


def downgrade() -> None:
    op.execute("DROP FUNCTION align_participants")
