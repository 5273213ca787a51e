"""Reading and deleting conversations. Written for the driver: one statement an operation, rows as they come."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

import asyncpg
import orjson

from app.schemas.chats import Conversation, DeletedRows
from app.schemas.enums import UserType
from app.schemas.rows import ConversationRow, PageRow, SealedMessage

PARTICIPANTS_SHOWN = 100
SMALL_BYTES = 8_192

CONVERSATION_COLUMNS = f"""
    c.conversation_id, c.message_count, c.first_message_at, c.last_message_at, c.sentiment, c.outcome,
    (SELECT json_agg(p)::text FROM (
        SELECT user_id, user_type, message_count FROM participants
        WHERE workspace_id = c.workspace_id AND conversation_id = c.conversation_id
        ORDER BY message_count DESC, user_id LIMIT {PARTICIPANTS_SHOWN}
    ) AS p) AS participants
"""  # noqa: S608 — only constants
MESSAGE_COLUMNS = "m.message_id, m.user_id, m.user_type, m.timestamp, m.content, m.sequence"

_CONVERSATION = f"""
    SELECT {CONVERSATION_COLUMNS}, c.created_at FROM conversations AS c
    WHERE c.workspace_id = $1 AND c.conversation_id = $2
"""  # noqa: S608 — only constants

# Positions come as text: the driver takes the first and the last time that Python knows for infinities.
# Large contents are left for another statement, which sees to it that a page does not hold too many of them.
_PAGE = f"""
    SELECT {CONVERSATION_COLUMNS}, c.created_at, page.* FROM conversations AS c CROSS JOIN LATERAL (
        SELECT array_agg(message_id), array_agg(user_id), array_agg(user_type), array_agg(timestamp),
            array_agg(CASE WHEN octet_length(content) <= {SMALL_BYTES} THEN content ELSE '' END), array_agg(sequence)
        FROM (
            SELECT {MESSAGE_COLUMNS} FROM messages AS m WHERE m.workspace_id = $1 AND m.conversation_id = $2
            AND (m.timestamp, m.sequence) > ($3::text::timestamptz, $4) ORDER BY m.timestamp, m.sequence LIMIT $5
        ) AS m
    ) AS page WHERE c.workspace_id = $1 AND c.conversation_id = $2
"""  # noqa: S608 — only constants

_LARGE = """
    SELECT message_id, CASE WHEN before < $4 THEN content ELSE '' END FROM (
        SELECT message_id, content,
            sum(octet_length(content)) OVER (ORDER BY timestamp, sequence) - octet_length(content) AS before
        FROM messages WHERE workspace_id = $1 AND conversation_id = $2 AND message_id = ANY ($3::text[])
    ) AS m
"""

_BOTH_ENDS = f"""
    SELECT {MESSAGE_COLUMNS} FROM (
        SELECT m.*, sum(octet_length(content)) OVER (ORDER BY timestamp, sequence) AS before,
            sum(octet_length(content)) OVER (ORDER BY timestamp DESC, sequence DESC) AS behind
        FROM messages AS m WHERE workspace_id = $1 AND conversation_id = $2
    ) AS m WHERE before <= $3 OR behind <= $4 ORDER BY m.timestamp, m.sequence
"""  # noqa: S608 — only constants

# A job may have named a conversation before it existed. What was done is written down in the same statement; of many,
# once for all of them and once for each. Of the array of locked ids the planner expects a few, whatever it is given:
# each is looked up in an index, and a plan made for the values, which takes longer than deleting one, gains nothing.
# A function tells webhooks, and takes back what they were to be told of the conversations; it sees what was written
# while those were waited for.
_DELETE = """
    WITH doomed AS (
        SELECT conversation_id FROM conversations WHERE workspace_id = $1 AND conversation_id = ANY ($2::text[])
        ORDER BY conversation_id FOR UPDATE
    ), gone AS (
        DELETE FROM conversations AS c
        WHERE c.workspace_id = $1 AND c.conversation_id = ANY (ARRAY(SELECT conversation_id FROM doomed))
        RETURNING c.conversation_id, c.message_count
    ), named AS (
        SELECT job_id FROM jobs WHERE workspace_id = $1 AND absent && $2::text[] AND absent <> '{}'
        ORDER BY job_id FOR UPDATE
    ), forgotten AS (
        UPDATE jobs AS j SET absent = ARRAY(SELECT each FROM unnest(j.absent) AS each WHERE each <> ALL ($2::text[]))
        FROM named WHERE j.workspace_id = $1 AND j.job_id = named.job_id
    ), receipt AS (
        SELECT count(*) AS conversations, coalesce(sum(message_count), 0) AS messages,
            (SELECT count(*) FROM participants AS p JOIN gone USING (conversation_id) WHERE p.workspace_id = $1)
                AS participants,
            (SELECT count(*) FROM summaries AS s JOIN gone USING (conversation_id) WHERE s.workspace_id = $1)
                AS summaries,
            (SELECT count(*) FROM insights AS s JOIN gone USING (conversation_id) WHERE s.workspace_id = $1)
                AS insights,
            (SELECT count(*) FROM feedback AS f JOIN gone USING (conversation_id) WHERE f.workspace_id = $1)
                AS feedback
        FROM gone
    ), written AS (
        INSERT INTO audit_log (workspace_id, actor, action, target, details)
        SELECT $1, $4, entry.action, entry.target, entry.details FROM (
            SELECT 'conversations.deleted', NULL, to_jsonb(receipt) || $5::jsonb FROM receipt WHERE $5 IS NOT NULL
            UNION ALL
            SELECT 'conversation.deleted', known.target, CASE WHEN $5 IS NULL THEN to_jsonb(receipt) ELSE '{}' END
            FROM receipt, gone JOIN unnest($2::text[], $3::text[]) AS known (id, target) ON id = conversation_id
        ) AS entry (action, target, details)
    )
    SELECT receipt.*, note_deleted($1, ARRAY(SELECT conversation_id FROM gone)) FROM receipt
"""


_USER_TYPES = {str(kind): kind for kind in UserType}  # ten times as fast as the enumeration itself
_COLUMNS = 7
"""How many ``CONVERSATION_COLUMNS`` are; in a page, ``created_at`` and the columns of messages follow."""


class ChatRepository:
    """The tables of conversations, participants and messages, as they are read and deleted."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def conversation(self, workspace_id: int, conversation_id: str) -> ConversationRow | None:
        """Returns what is known of a conversation."""
        row = await self._driver.fetchrow(_CONVERSATION, workspace_id, conversation_id)
        return ConversationRow(conversation_of(row), row["created_at"]) if row else None

    async def page(
        self, workspace_id: int, conversation_id: str, after: tuple[datetime, int], limit: int, max_bytes: int
    ) -> PageRow | None:
        """Returns a conversation with up to ``limit`` messages after a position, fewer if they hold ``max_bytes``."""
        position = after[0].isoformat(), after[1]
        row = await self._driver.fetchrow(_PAGE, workspace_id, conversation_id, *position, limit + 1)
        if row is None:
            return None
        *conversation, created_at = row[: _COLUMNS + 1]
        message_ids, user_ids, user_types, *others = (each or () for each in row[_COLUMNS + 1 :])
        kinds = map(_USER_TYPES.__getitem__, user_types)
        found = list(map(SealedMessage._make, zip(message_ids, user_ids, kinds, *others, strict=True)))
        shown = found[:limit]
        if large := [message.message_id for message in shown if not message.content]:
            contents = dict(await self._driver.fetch(_LARGE, workspace_id, conversation_id, large, max_bytes))
            if len(contents) < len(large):  # deleted meanwhile
                return await self.page(workspace_id, conversation_id, after, limit, max_bytes)
            whole = (m if m.content else m._replace(content=contents[m.message_id]) for m in shown)
            shown = list(takewhile(lambda message: message.content, whole))
        return PageRow(conversation_of(conversation), created_at, shown, len(shown) < len(found))

    async def both_ends(
        self, workspace_id: int, conversation_id: str, head_bytes: int, tail_bytes: int
    ) -> list[SealedMessage]:
        """Returns a conversation's messages, leaving out the middle of one that is longer than both ends."""
        rows = await self._driver.fetch(_BOTH_ENDS, workspace_id, conversation_id, head_bytes, tail_bytes)
        return [sealed_message(row) for row in rows]

    async def delete(
        self, caller: tuple[int, str], targets: Mapping[str, str], details: Mapping[str, object] | None = None
    ) -> DeletedRows:
        """Removes conversations, everything that belongs to them, and their ids where jobs missed them.

        ``targets`` is what the audit log calls each of them. With ``details``, its entries are those of a deletion of
        many.
        """
        workspace_id, actor = caller
        about = None if details is None else orjson.dumps(details).decode()
        row = await self._driver.fetchrow(_DELETE, workspace_id, list(targets), list(targets.values()), actor, about)
        return DeletedRows(**{name: int(row[name]) for name in DeletedRows.model_fields})


def sealed_message(row: Iterable[Any]) -> SealedMessage:
    """Returns a row of ``MESSAGE_COLUMNS`` as a message."""
    message_id, user_id, user_type, timestamp, content, sequence = row
    return SealedMessage(message_id, user_id, _USER_TYPES[user_type], timestamp, content, sequence)


def conversation_of(row: Sequence[Any]) -> Conversation:
    """Returns a row that begins with ``CONVERSATION_COLUMNS`` as a conversation."""
    conversation_id, message_count, first_message_at, last_message_at, sentiment, outcome, participants = row[:_COLUMNS]
    return {
        "conversation_id": conversation_id,
        "message_count": message_count,
        "first_message_at": first_message_at,
        "last_message_at": last_message_at,
        "participants": orjson.loads(participants) if participants else [],
        "sentiment": sentiment,
        "outcome": outcome,
    }
