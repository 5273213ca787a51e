"""What live readers of a conversation are told, and the notices that wake them. Written for the driver."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

import asyncpg

from app.repositories.chats import CONVERSATION_COLUMNS, MESSAGE_COLUMNS, conversation_of, sealed_message
from app.schemas.chats import Conversation
from app.schemas.rows import LiveRow, LiveVersion

TOPIC_LENGTH = 16
TOPICS_A_NOTICE = 450
"""How many topics a payload has room for: it may have 7,999 bytes."""

_COMMON = f"""
    {CONVERSATION_COLUMNS}, c.created_at, (
        SELECT s.updated_at FROM summaries AS s
        WHERE s.workspace_id = c.workspace_id AND s.conversation_id = c.conversation_id
    ) AS summarised_at
"""  # noqa: S608 — only constants

# One statement is one snapshot: the count, the messages and the sequences fit together.
_NEWEST = f"""
    SELECT {_COMMON}, ARRAY(
        SELECT ROW({MESSAGE_COLUMNS}) FROM (
            SELECT m.*, sum(octet_length(content)) OVER (ORDER BY timestamp DESC, sequence DESC) AS behind FROM (
                SELECT * FROM messages WHERE workspace_id = $1 AND conversation_id = $2
                ORDER BY timestamp DESC, sequence DESC LIMIT $3
            ) AS m
        ) AS m WHERE behind - octet_length(content) < $4 ORDER BY m.timestamp, m.sequence
    ) AS messages, ARRAY(
        SELECT sequence FROM messages WHERE workspace_id = $1 AND conversation_id = $2
        ORDER BY sequence DESC LIMIT $5
    ) AS sequences
    FROM conversations AS c WHERE c.workspace_id = $1 AND c.conversation_id = $2
"""  # noqa: S608 — only constants

_NEW = f"""
    SELECT {_COMMON}, ARRAY(
        SELECT ROW({MESSAGE_COLUMNS}) FROM (
            SELECT m.*, sum(octet_length(content)) OVER (ORDER BY sequence) - octet_length(content) AS before FROM (
                SELECT * FROM messages WHERE workspace_id = $1 AND conversation_id = $2
                AND sequence > $5 AND sequence <> ALL ($6::bigint[]) ORDER BY sequence LIMIT $3
            ) AS m
        ) AS m WHERE before < $4 ORDER BY m.timestamp, m.sequence
    ) AS messages
    FROM conversations AS c WHERE c.workspace_id = $1 AND c.conversation_id = $2
"""  # noqa: S608 — only constants

_VERSIONS = """
    SELECT c.conversation_id, c.created_at, c.message_count, (
        SELECT s.updated_at FROM summaries AS s
        WHERE s.workspace_id = c.workspace_id AND s.conversation_id = c.conversation_id
    ) AS summarised_at
    FROM conversations AS c WHERE c.workspace_id = $1 AND c.conversation_id = ANY ($2::text[])
"""

NOTIFY = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"


class LiveRepository:
    """Messages and summaries as live readers follow them."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def newest(
        self, workspace_id: int, conversation_id: str, limit: int, max_bytes: int, sequences: int
    ) -> tuple[LiveRow, list[int]] | None:
        """Returns a conversation with its newest messages, and the ``sequences`` of those that arrived last."""
        row = await self._driver.fetchrow(_NEWEST, workspace_id, conversation_id, limit, max_bytes, sequences)
        return (_live(row), list(row["sequences"])) if row else None

    async def new(
        self, workspace_id: int, conversation_id: str, limit: int, max_bytes: int, after: int, known: Sequence[int]
    ) -> LiveRow | None:
        """Returns a conversation with the messages that arrived behind a sequence, but for the known ones."""
        row = await self._driver.fetchrow(_NEW, workspace_id, conversation_id, limit, max_bytes, after, known)
        return _live(row) if row else None

    async def versions(self, workspace_id: int, conversation_ids: Collection[str]) -> dict[str, LiveVersion]:
        """Returns what tells whether there is something new, of those of the conversations that exist."""
        rows = await self._driver.fetch(_VERSIONS, workspace_id, conversation_ids)
        return {row[0]: LiveVersion(*row[1:]) for row in rows}


def notices_of(topics: Sequence[str]) -> list[str]:
    """Returns notices that wake the readers of topics."""
    starts = range(0, len(topics), TOPICS_A_NOTICE)
    return ["".join(topics[start : start + TOPICS_A_NOTICE]) for start in starts]


def topics_of(notice: str) -> Iterator[str]:
    """Yields the topics of a notice."""
    return (notice[start : start + TOPIC_LENGTH] for start in range(0, len(notice), TOPIC_LENGTH))


def _live(row: asyncpg.Record) -> LiveRow:
    summarised_at: datetime | None = row["summarised_at"]
    messages = [sealed_message(message) for message in row["messages"]]
    return LiveRow(conversation_of(row, Conversation), row["created_at"], summarised_at, messages)
