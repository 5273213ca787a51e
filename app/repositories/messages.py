"""Storing messages. Written for the driver: one statement an operation, rows as they come."""

import asyncio
import base64
from collections.abc import Callable, Iterator, Sequence

import asyncpg
import orjson

from app.repositories.chats import MESSAGE_COLUMNS, sealed_message
from app.schemas.rows import NewMessage, SealedMessage

PLACE_BITS = 14
"""A message's sequence is its batch's number followed by these bits, its place in it."""

HASHED_IN_PLACE = 10
"""Of how many texts the insert itself hashes the words; for more, asking for the words first takes less time."""

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

_NEXT_BATCH = "SELECT nextval('message_batches')"

SLICE_CHARACTERS = 2**20
"""How much text one insert takes: what keeps it from running into the statement's time limit."""


class MessageRepository:
    """The tables of conversations, participants and messages, as messages are stored."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def hashed(
        self, workspace_id: int, messages: Sequence[NewMessage], keyed: Callable[[str], str]
    ) -> list[NewMessage]:
        """Returns those of the messages that are not known, with their words, which the insert asks for otherwise.

        ``keyed`` hashes the words of a tsvector.
        """
        new = [each for part in _slices(messages) for each in await self._hashed(workspace_id, part, keyed)]
        return [message for _, message in sorted(new)]

    async def _hashed(
        self, workspace_id: int, part: Sequence[tuple[int, NewMessage]], keyed: Callable[[str], str]
    ) -> list[tuple[int, NewMessage]]:
        texts = [{"conversation_id": m.conversation_id, "message_id": m.message_id, "text": m.text} for _, m in part]
        found = await self._driver.fetchval(_WORDS, workspace_id, orjson.dumps(texts))
        # Words that nobody has used before take a while; others are served meanwhile.
        words = await asyncio.to_thread(lambda: [each and keyed(each) for each in found])
        return [
            (place, NewMessage(*message[:-1], words=each))
            for (place, message), each in zip(part, words, strict=True)
            if each is not None
        ]

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
        slices = list(_slices(messages))
        batch = await self._driver.fetchval(_NEXT_BATCH) if len(slices) > 1 else None
        stored: set[int] = set()
        for each in slices:
            is_hashed = len(each) <= HASHED_IN_PLACE or each[0][1].words is not None
            part = each if is_hashed else await self._hashed(workspace_id, each, keyed)
            rows = [
                {
                    "conversation_id": message.conversation_id,
                    "message_id": message.message_id,
                    "place": place,
                    "user_id": message.user_id,
                    "user_type": message.user_type,
                    "timestamp": message.timestamp,
                    "content": base64.b64encode(message.content).decode(),
                    "words": message.words,
                    "text": message.text if message.words is None else None,
                }
                for place, message in part
            ]
            if rows:
                stored.update(await self._driver.fetchval(_INSERT, workspace_id, orjson.dumps(rows), *pads, batch))
        return stored

    async def stored(self, workspace_id: int, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SealedMessage]:
        """Returns those of the (conversation, message) ids that exist."""
        if not ids:
            return {}
        wanted = orjson.dumps([{"conversation_id": c, "message_id": m} for c, m in ids])
        rows = await self._driver.fetch(_STORED, workspace_id, wanted)
        return {(row[0], row[1]): sealed_message(row[1:]) for row in rows}


def _slices(messages: Sequence[NewMessage]) -> Iterator[list[tuple[int, NewMessage]]]:
    """Gives the messages with their places, in the order of their ids, as many at a time as a statement takes."""
    part: list[tuple[int, NewMessage]] = []
    size = 0
    for place, message in sorted(enumerate(messages), key=lambda each: each[1][:2]):
        length = len(message.text)
        if part and size + length > SLICE_CHARACTERS:
            yield part
            part, size = [], 0
        part.append((place, message))
        size += length
    if part:
        yield part
