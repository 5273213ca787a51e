"""Conversations and their messages. Written for the driver: one statement an operation, rows as they come."""

import asyncio
import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

import asyncpg
import orjson

from app.schemas.chats import Conversation, DeletedRows
from app.schemas.enums import UserType
from app.schemas.rows import ConversationRow, NewMessage, PageRow, SealedMessage

PARTICIPANTS_SHOWN = 100
SMALL_BYTES = 8_192

PLACE_BITS = 14
"""A message's sequence is its batch's number followed by these bits, its place in it."""

HASHED_IN_PLACE = 10
"""Of how many texts the insert itself hashes the words; for more, asking for the words first takes less time."""

CONVERSATION_COLUMNS = f"""
    c.conversation_id, c.message_count, c.first_message_at, c.last_message_at, c.sentiment, c.outcome,
    (SELECT json_agg(p)::text FROM (
        SELECT user_id, user_type, message_count FROM participants
        WHERE workspace_id = c.workspace_id AND conversation_id = c.conversation_id
        ORDER BY message_count DESC, user_id LIMIT {PARTICIPANTS_SHOWN}
    ) AS p) AS participants
"""  # noqa: S608 — only constants
MESSAGE_COLUMNS = "m.message_id, m.user_id, m.user_type, m.timestamp, m.content, m.sequence"

# The words of messages that are not known. In new conversations none is; in others, a subquery with a value is one
# look-up in the index, where EXISTS might read all messages.
_WORDS = """
    WITH input AS (
        SELECT * FROM json_to_recordset(convert_from($2, 'UTF8')::json)
            AS r (conversation_id text, message_id text, text text)
    )
    SELECT ARRAY(
        SELECT CASE WHEN i.conversation_id IN (
            SELECT conversation_id FROM conversations
            WHERE workspace_id = $1 AND conversation_id = ANY (ARRAY(SELECT conversation_id FROM input))
        ) AND (
            SELECT true FROM messages AS known WHERE known.workspace_id = $1
            AND known.conversation_id = i.conversation_id COLLATE "C" AND known.message_id = i.message_id COLLATE "C"
        ) THEN NULL ELSE to_tsvector('pg_catalog.english', left(i.text, 50000))::text END
        FROM input AS i ORDER BY i.conversation_id COLLATE "C", i.message_id COLLATE "C"
    )
"""

# Messages, conversations and participants are written in the order of their ids, so that no two statements wait for
# each other in a circle. (Two batches of several statements, the same sent twice at once, may: one answers 503.)
# Nothing joins what was just stored: the planner takes it for one row, and would compare every row with every other.
# The participants of conversations that existed are aligned once the senders are written.
_INSERT = f"""
    WITH stored AS (
        INSERT INTO messages AS m (workspace_id, conversation_id, message_id, sequence, user_id, user_type, timestamp,
            content, search_vector)
        SELECT $1, i.conversation_id, i.message_id,
            (coalesce($5::bigint, (SELECT nextval('message_batches'))) << {PLACE_BITS}) + i.place, i.user_id,
            i.user_type, i.timestamp, decode(i.content, 'base64'),
            coalesce(i.words::tsvector, keyed_tsvector($3, $4, i.text))
        FROM json_to_recordset(convert_from($2, 'UTF8')::json) AS i (conversation_id text, message_id text,
            place bigint, user_id text, user_type text, timestamp timestamptz, content text, words text, text text)
        ORDER BY i.conversation_id COLLATE "C", i.message_id COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING m.conversation_id, m.sequence, m.user_id, m.user_type, m.timestamp
    ), touched AS (
        INSERT INTO conversations AS c (workspace_id, conversation_id, message_count, first_message_at, last_message_at)
        SELECT $1, conversation_id, count(*), min(timestamp), max(timestamp) FROM stored
        GROUP BY conversation_id ORDER BY conversation_id
        ON CONFLICT (workspace_id, conversation_id) DO UPDATE SET
            message_count = c.message_count + excluded.message_count,
            first_message_at = least(c.first_message_at, excluded.first_message_at),
            last_message_at = greatest(c.last_message_at, excluded.last_message_at)
        RETURNING c.conversation_id, xmax <> 0 AS existed
    ), senders AS (
        INSERT INTO participants AS p (workspace_id, conversation_id, user_id, user_type, message_count,
            last_message_at)
        SELECT $1, conversation_id, user_id, max(user_type), count(*),
            max(max(timestamp)) OVER (PARTITION BY conversation_id)
        FROM stored GROUP BY conversation_id, user_id ORDER BY conversation_id, user_id
        ON CONFLICT (workspace_id, conversation_id, user_id) DO UPDATE SET
            user_type = excluded.user_type, message_count = p.message_count + excluded.message_count,
            last_message_at = excluded.last_message_at
        RETURNING p.user_id
    )
    SELECT ARRAY(SELECT sequence & {2**PLACE_BITS - 1} FROM stored), align_participants(
        $1, ARRAY(SELECT conversation_id FROM touched WHERE existed), (SELECT count(*) FROM senders)
    )
"""  # noqa: S608 — only constants

_STORED = f"""
    SELECT m.conversation_id, {MESSAGE_COLUMNS}
    FROM json_to_recordset(convert_from($2, 'UTF8')::json) AS i (conversation_id text, message_id text)
    JOIN messages AS m ON m.workspace_id = $1
    AND m.conversation_id = i.conversation_id COLLATE "C" AND m.message_id = i.message_id COLLATE "C"
"""  # noqa: S608 — only constants

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
    SELECT * FROM receipt
"""


_NEXT_BATCH = "SELECT nextval('message_batches')"

_USER_TYPES = {str(kind): kind for kind in UserType}  # ten times as fast as the enumeration itself
_COLUMNS = 7
"""How many ``CONVERSATION_COLUMNS`` are; in a page, ``created_at`` and the columns of messages follow."""

SLICE_CHARACTERS = 2**20
"""How much text one insert takes: what keeps it from running into the statement's time limit."""


class ChatRepository:
    """The tables of conversations, participants and messages."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def insert(
        self,
        workspace_id: int,
        messages: Sequence[NewMessage],
        pads: tuple[bytes, bytes],
        keyed: Callable[[str], str],
    ) -> set[int]:
        """Stores messages whose ids are distinct, unless they are known; returns the places of those it stored.

        ``pads`` and ``keyed``, which hashes the words of a tsvector, are of the same key.
        """
        slices = list(_slices(sorted(enumerate(messages), key=lambda each: each[1][:2])))
        batch = await self._driver.fetchval(_NEXT_BATCH) if len(slices) > 1 else None
        stored: set[int] = set()
        for part in slices:
            if rows := await self._rows(workspace_id, part, keyed):
                stored.update(await self._driver.fetchval(_INSERT, workspace_id, orjson.dumps(rows), *pads, batch))
        return stored

    async def _rows(
        self, workspace_id: int, part: list[tuple[int, NewMessage]], keyed: Callable[[str], str]
    ) -> list[dict[str, object]]:
        words: Sequence[str | None] = [None] * len(part)
        asked = len(part) > HASHED_IN_PLACE
        if asked:
            texts = [
                {"conversation_id": m.conversation_id, "message_id": m.message_id, "text": m.text} for _, m in part
            ]
            found = await self._driver.fetchval(_WORDS, workspace_id, orjson.dumps(texts))
            # Words that nobody has used before take a while; others are served meanwhile.
            words = await asyncio.to_thread(lambda: [each and keyed(each) for each in found])
        return [
            {
                "conversation_id": message.conversation_id,
                "message_id": message.message_id,
                "place": place,
                "user_id": message.user_id,
                "user_type": message.user_type,
                "timestamp": message.timestamp,
                "content": base64.b64encode(message.content).decode(),
                "words": each,
                "text": None if asked else message.text,
            }
            for (place, message), each in zip(part, words, strict=True)
            if each is not None or not asked
        ]

    async def stored(self, workspace_id: int, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SealedMessage]:
        """Returns those of the (conversation, message) ids that exist."""
        if not ids:
            return {}
        wanted = orjson.dumps([{"conversation_id": c, "message_id": m} for c, m in ids])
        rows = await self._driver.fetch(_STORED, workspace_id, wanted)
        return {(row[0], row[1]): sealed_message(row[1:]) for row in rows}

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
        return DeletedRows(**{name: int(count) for name, count in row.items()})


def _slices(messages: Sequence[tuple[int, NewMessage]]) -> Iterator[list[tuple[int, NewMessage]]]:
    part: list[tuple[int, NewMessage]] = []
    size = 0
    for each in messages:
        length = len(each[1].text)
        if part and size + length > SLICE_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(each)
        size += length
    yield part


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
