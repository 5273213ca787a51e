"""What conversations are about. Written for the driver: one statement an operation, rows as they come."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import orjson

from app.schemas.topic_rows import AssignedRow, TextRow, TopicModelRow, TopicReportRow
from app.schemas.topics import Range

READ_MESSAGES = 60
"""How many messages of a conversation are read at the most: what it is about, it says at its beginning."""
READ_BYTES = 65_536
"""No further message is read after so much."""
MESSAGE_BYTES = 131_072
"""What is longer is left out."""
SNIPPET_MESSAGES = 8
SNIPPET_BYTES = 8_192

_NOT_READ = "c.topic_messages IS DISTINCT FROM c.message_count"
# While people write, not after each message: once there is twice as much, or nobody has written for a minute.
_WAITING = f"""
    c.workspace_id = $1 AND {_NOT_READ} AND (
        c.last_message_at NOT BETWEEN now() - interval '1 minute' AND now() + interval '1 minute'
        OR c.message_count >= 2 * coalesce(c.topic_messages, 2)
    )
"""
_COUNT_SOME = """
    (SELECT count(*) FROM (SELECT FROM conversations AS c WHERE c.workspace_id = $1 LIMIT $2) AS counted)
"""

_STATE = f"""
    SELECT {_COUNT_SOME} AS conversations,
        EXISTS (SELECT FROM conversations AS c WHERE {_WAITING}) AS is_waiting,
        (SELECT count(*) FROM conversation_topics AS t WHERE t.workspace_id = $1 AND t.sampled) AS sampled_left,
        m.fitted_at, coalesce(m.fitted_total, 0), coalesce(m.sampled, 0), coalesce(m.strays, 0),
        coalesce(m.new_total, 0), coalesce(m.new_strays, 0), m.swept_through,
        coalesce(m.label_at <= clock_timestamp(), false) AS wants_labels,
        coalesce(m.leased_until >= clock_timestamp(), false) AS is_claimed
    FROM workspaces AS w LEFT JOIN topic_models AS m ON m.workspace_id = w.workspace_id
    WHERE w.workspace_id = $1
"""  # noqa: S608 — only constants

_CLAIM = """
    INSERT INTO topic_models AS m (workspace_id, claim_id, leased_until)
    SELECT w.workspace_id, $2, clock_timestamp() + $3 FROM workspaces AS w WHERE w.workspace_id = $1
    ON CONFLICT (workspace_id) DO UPDATE SET claim_id = excluded.claim_id, leased_until = excluded.leased_until
    WHERE m.leased_until < clock_timestamp()
    RETURNING true
"""
_RELEASE = "UPDATE topic_models SET leased_until = clock_timestamp() + $3 WHERE workspace_id = $1 AND claim_id = $2"
_HOLD = "SELECT true FROM topic_models WHERE workspace_id = $1 AND claim_id = $2 FOR UPDATE"
_MODEL = "SELECT model, topics FROM topic_models WHERE workspace_id = $1 AND model IS NOT NULL"

_WAITING_IDS = f"""
    SELECT c.conversation_id FROM conversations AS c WHERE {_WAITING} ORDER BY c.first_message_at DESC LIMIT $2
"""  # noqa: S608 — only constants
_SWEPT_IDS = """
    SELECT conversation_id FROM conversation_topics WHERE workspace_id = $1 AND conversation_id > $3
    ORDER BY conversation_id LIMIT $2
"""
# The newest, and of all of them those that a hash has first: the same ones as long as they are there.
_SAMPLE_IDS = """
    (
        SELECT conversation_id FROM conversations WHERE workspace_id = $1
        ORDER BY last_message_at DESC, conversation_id DESC LIMIT $2
    ) UNION (
        SELECT conversation_id FROM conversations WHERE workspace_id = $1
        ORDER BY hashtextextended(conversation_id, 0), conversation_id LIMIT $2
    ) ORDER BY conversation_id
"""
_TOTALS = """
    SELECT (SELECT count(*) FROM conversations AS c WHERE c.workspace_id = $1),
        (SELECT count(*) FROM conversation_topics AS t WHERE t.workspace_id = $1)
"""

_TEXTS = f"""
    SELECT c.conversation_id, c.created_at, c.message_count, ARRAY(
        SELECT ROW(m.message_id, m.user_id, m.user_type, m.content) FROM (
            SELECT m.*, sum(octet_length(m.content)) OVER (ORDER BY m.timestamp, m.sequence)
                - octet_length(m.content) AS before
            FROM (
                SELECT * FROM messages WHERE workspace_id = $1 AND conversation_id = c.conversation_id
                ORDER BY timestamp, sequence LIMIT {READ_MESSAGES}
            ) AS m WHERE octet_length(m.content) <= {MESSAGE_BYTES}
        ) AS m WHERE m.before < {READ_BYTES} ORDER BY m.timestamp, m.sequence
    ) FROM conversations AS c WHERE c.workspace_id = $1 AND c.conversation_id = ANY ($2::text[])
    ORDER BY c.conversation_id
"""  # noqa: S608 — only constants

# In the order of their ids, as messages are stored. Of one that was deleted and made anew, nothing was read.
_ASSIGN = """
    WITH input AS (
        SELECT * FROM json_to_recordset(convert_from($2, 'UTF8')::json) AS i (
            conversation_id text, made_at timestamptz, read_count integer, topic_id integer, weight real
        )
    ), here AS (
        SELECT c.conversation_id, c.first_message_at, c.created_at, c.topic_messages FROM conversations AS c
        WHERE c.workspace_id = $1 AND c.conversation_id = ANY (ARRAY(SELECT conversation_id FROM input))
        ORDER BY c.conversation_id FOR NO KEY UPDATE
    ), known AS (
        SELECT here.conversation_id, here.first_message_at, i.topic_id, i.weight, i.read_count,
            here.topic_messages IS DISTINCT FROM i.read_count AS is_read_anew
        FROM here JOIN input AS i
        ON i.conversation_id COLLATE "C" = here.conversation_id AND i.made_at = here.created_at
    ), read AS (
        UPDATE conversations AS c SET topic_messages = known.read_count FROM known
        WHERE c.workspace_id = $1 AND c.conversation_id = known.conversation_id AND known.is_read_anew
    ), written AS (
        INSERT INTO conversation_topics AS t
            (workspace_id, conversation_id, topic_id, weight, first_message_at, sampled)
        SELECT $1, conversation_id, topic_id, weight, first_message_at, $3 FROM known
        ON CONFLICT (workspace_id, conversation_id) DO UPDATE SET topic_id = excluded.topic_id,
            weight = excluded.weight, first_message_at = excluded.first_message_at,
            sampled = t.sampled OR excluded.sampled
        WHERE (t.topic_id, t.weight, t.first_message_at, t.sampled)
            IS DISTINCT FROM (excluded.topic_id, excluded.weight, excluded.first_message_at, t.sampled OR $3)
        RETURNING t.topic_id, xmax = 0 AS is_new
    )
    SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE is_new AND topic_id IS NULL) FROM written
"""
_PROGRESS = """
    UPDATE topic_models SET leased_until = clock_timestamp() + $3, updated_at = clock_timestamp(),
        new_total = new_total + $4, new_strays = new_strays + CASE WHEN new_total < 0 THEN 0 ELSE $5::integer END,
        swept_through = CASE WHEN $6 THEN $7 ELSE swept_through END
    WHERE workspace_id = $1 AND claim_id = $2
"""
# Conversations first, in the order of their ids, as deletion does: it comes to their topics by them.
_LOCK_SAMPLES = """
    SELECT FROM conversations WHERE workspace_id = $1 AND conversation_id = ANY ($2::text[] || ARRAY(
        SELECT conversation_id FROM conversation_topics WHERE workspace_id = $1 AND sampled
    )) ORDER BY conversation_id FOR NO KEY UPDATE
"""
_UNSAMPLE = "UPDATE conversation_topics SET sampled = false WHERE workspace_id = $1 AND sampled"
_FITTED = """
    UPDATE topic_models SET leased_until = clock_timestamp() + $3, updated_at = clock_timestamp(),
        fitted_at = clock_timestamp(), model = $4, topics = $5, fitted_total = $6, sampled = $7, strays = $8,
        new_total = $9, new_strays = 0, label_at = CASE WHEN $10 THEN clock_timestamp() END,
        swept_through = CASE WHEN EXISTS (
            SELECT FROM conversation_topics AS t WHERE t.workspace_id = $1 AND NOT t.sampled
        ) THEN '' END
    WHERE workspace_id = $1 AND claim_id = $2
"""
_LABELLED = """
    UPDATE topic_models SET topics = $3, label_at = clock_timestamp() + $4
    WHERE workspace_id = $1 AND claim_id = $2
"""
_FORGET = (
    "SELECT FROM conversations WHERE workspace_id = $1 ORDER BY conversation_id FOR NO KEY UPDATE",
    "DELETE FROM conversation_topics WHERE workspace_id = $1",
    "UPDATE conversations SET topic_messages = NULL WHERE workspace_id = $1 AND topic_messages IS NOT NULL",
    "DELETE FROM topic_models WHERE workspace_id = $1",
)

_REPORT = f"""
    SELECT {_COUNT_SOME} AS conversations, (
        SELECT count(*) FROM conversations AS c WHERE c.workspace_id = $1 AND {_NOT_READ}
        AND c.topic_messages IS NULL AND c.first_message_at >= $3 AND c.first_message_at < $4
    ) AS not_read, m.topics, m.updated_at
    FROM workspaces AS w LEFT JOIN topic_models AS m ON m.workspace_id = w.workspace_id
    WHERE w.workspace_id = $1
"""  # noqa: S608 — only constants
_COUNTS = """
    SELECT topic_id, count(*) FROM conversation_topics
    WHERE workspace_id = $1 AND first_message_at >= $2 AND first_message_at < $3 GROUP BY topic_id
"""
_EXAMPLES = """
    SELECT wanted.topic_id, e.conversation_id FROM unnest($4::integer[]) AS wanted (topic_id) CROSS JOIN LATERAL (
        SELECT t.conversation_id FROM conversation_topics AS t
        WHERE t.workspace_id = $1 AND t.topic_id = wanted.topic_id
        AND t.first_message_at >= $2 AND t.first_message_at < $3
        ORDER BY t.weight DESC, t.first_message_at DESC, t.conversation_id DESC LIMIT $5
    ) AS e
"""
# The longest thing that the customer says at the beginning, or else somebody.
_SNIPPETS = f"""
    SELECT e.conversation_id, m.message_id, m.content FROM unnest($2::text[]) AS e (conversation_id)
    CROSS JOIN LATERAL (
        SELECT m.message_id, m.content FROM (
            SELECT message_id, user_type, content FROM messages
            WHERE workspace_id = $1 AND conversation_id = e.conversation_id COLLATE "C"
            ORDER BY timestamp, sequence LIMIT {SNIPPET_MESSAGES}
        ) AS m WHERE octet_length(m.content) <= {SNIPPET_BYTES}
        ORDER BY m.user_type = 'customer' DESC, octet_length(m.content) DESC, m.message_id LIMIT 1
    ) AS m
"""  # noqa: S608 — only constants


class TopicRepository:
    """The tables of topics, for the worker that keeps them up to date and for those who ask."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def state(self, workspace_id: int, fewest: int) -> TopicModelRow | None:
        """Returns how far a workspace's topics are; conversations are counted up to ``fewest``."""
        row = await self._driver.fetchrow(_STATE, workspace_id, fewest)
        return TopicModelRow(*row) if row else None

    async def claim(self, workspace_id: int, claim_id: int, lease: timedelta) -> bool:
        """Makes nobody else keep the topics up to date for a while; returns False if somebody does."""
        return bool(await self._driver.fetchval(_CLAIM, workspace_id, claim_id, lease))

    async def release(self, workspace_id: int, claim_id: int, wait: timedelta) -> None:
        """Lets others go on after a while."""
        await self._driver.execute(_RELEASE, workspace_id, claim_id, wait)

    async def hold(self, workspace_id: int, claim_id: int) -> bool:
        """Locks the model until the transaction ends; returns False if the claim is somebody else's by now."""
        return bool(await self._driver.fetchval(_HOLD, workspace_id, claim_id))

    async def model(self, workspace_id: int) -> tuple[bytes, bytes] | None:
        """Returns the model and its topics, sealed."""
        row = await self._driver.fetchrow(_MODEL, workspace_id)
        return (row[0], row[1]) if row else None

    async def waiting(self, workspace_id: int, limit: int) -> list[str]:
        """Returns ids of conversations that have to be read, the newest first."""
        return [row[0] for row in await self._driver.fetch(_WAITING_IDS, workspace_id, limit)]

    async def to_sweep(self, workspace_id: int, limit: int, after: str) -> list[str]:
        """Returns the next ids of conversations that have been read, in the order of their ids."""
        return [row[0] for row in await self._driver.fetch(_SWEPT_IDS, workspace_id, limit, after)]

    async def sample(self, workspace_id: int, half: int) -> list[str]:
        """Returns ids of conversations to make a model from: the newest, and some of all, up to ``half`` each."""
        return [row[0] for row in await self._driver.fetch(_SAMPLE_IDS, workspace_id, half)]

    async def totals(self, workspace_id: int) -> tuple[int, int]:
        """Returns how many conversations there are, and how many of them have been read."""
        total, read = await self._driver.fetchrow(_TOTALS, workspace_id)
        return total, read

    async def texts(self, workspace_id: int, conversation_ids: Sequence[str]) -> list[TextRow]:
        """Returns the beginnings of conversations."""
        return [TextRow(*row) for row in await self._driver.fetch(_TEXTS, workspace_id, conversation_ids)]

    async def assign(self, workspace_id: int, rows: Sequence[AssignedRow], *, sampled: bool) -> tuple[int, int]:
        """Stores topics; returns how many of the conversations had never been read, and how many of these have none."""
        given = orjson.dumps([row._asdict() for row in rows])
        new, strays = await self._driver.fetchrow(_ASSIGN, workspace_id, given, sampled)
        return new, strays

    async def progress(
        self,
        workspace_id: int,
        claim_id: int,
        lease: timedelta,
        counts: tuple[int, int] = (0, 0),
        swept: tuple[bool, str | None] = (False, None),
    ) -> None:
        """Counts what ``assign`` returned; ``swept`` says whether, and up to where, a sweep has come."""
        await self._driver.execute(_PROGRESS, workspace_id, claim_id, lease, *counts, *swept)

    async def forget_sample(self, workspace_id: int, conversation_ids: Sequence[str]) -> None:
        """Makes the model be of no conversation, before it is replaced by one of others."""
        await self._driver.execute(_LOCK_SAMPLES, workspace_id, conversation_ids)
        await self._driver.execute(_UNSAMPLE, workspace_id)

    async def fitted(
        self,
        workspace_id: int,
        claim_id: int,
        lease: timedelta,
        sealed: tuple[bytes, bytes],
        counts: tuple[int, int, int],
        *,
        waiting: int,
        wants_labels: bool,
    ) -> None:
        """Stores a new model and its topics.

        Counts are all conversations, the sampled, and those of them without a topic; ``waiting`` are those that nobody
        has read, which do not count as new when somebody does.
        """
        await self._driver.execute(_FITTED, workspace_id, claim_id, lease, *sealed, *counts, -waiting, wants_labels)

    async def labelled(self, workspace_id: int, claim_id: int, topics: bytes, again: timedelta | None) -> None:
        """Stores topics with their labels, and when to ask for those that are missing."""
        await self._driver.execute(_LABELLED, workspace_id, claim_id, topics, again)

    async def forget(self, workspace_id: int) -> None:
        """Removes a workspace's topics."""
        for statement in _FORGET:
            await self._driver.execute(statement, workspace_id)

    async def report(self, workspace_id: int, fewest: int, wanted: Range) -> TopicReportRow | None:
        """Returns the topics, sealed, with conversations counted up to ``fewest``, and those of a range nobody read."""
        row = await self._driver.fetchrow(_REPORT, workspace_id, fewest, *wanted)
        return TopicReportRow(*row) if row else None

    async def counts(self, workspace_id: int, wanted: Range) -> dict[int | None, int]:
        """Returns how many conversations of a range are about each topic, and about none."""
        return dict(map(tuple, await self._driver.fetch(_COUNTS, workspace_id, *wanted)))

    async def examples(
        self, workspace_id: int, wanted: Range, topic_ids: Sequence[int], limit: int
    ) -> list[tuple[int, str]]:
        """Returns topics with conversations of a range, the nearest ones first."""
        rows = await self._driver.fetch(_EXAMPLES, workspace_id, *wanted, topic_ids, limit)
        return [(row[0], row[1]) for row in rows]

    async def snippets(self, workspace_id: int, conversation_ids: Sequence[str]) -> list[tuple[str, str, bytes]]:
        """Returns conversations with the id and the text of a message of each."""
        return [(row[0], row[1], row[2]) for row in await self._driver.fetch(_SNIPPETS, workspace_id, conversation_ids)]
