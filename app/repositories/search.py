"""Finding conversations: every filter, alone and combined."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from app.repositories.chats import CONVERSATION_COLUMNS, MESSAGE_COLUMNS, conversation_of, sealed_message
from app.schemas.chats import Conversation
from app.schemas.rows import SealedMessage
from app.schemas.search import ConversationFilter

MATCHES_SHOWN = 3
SNIPPET_OPTIONS = 'StartSel="", StopSel="", MaxWords=30, MinWords=12, MaxFragments=1'
SEARCHABLE_CHARACTERS = 50_000

# Hits first: asked for the newest, the planner would walk back through time until it has met enough of them.
_HITS = """
    hits AS MATERIALIZED (
        SELECT DISTINCT conversation_id FROM messages
        WHERE workspace_id = $1 AND search_vector @@ keyed_tsquery({inner}, {outer}, {q})
    )
"""

_MATCHES = f"""
    SELECT page.conversation_id, m.* FROM unnest($2::text[]) AS page (conversation_id)
    CROSS JOIN LATERAL (
        SELECT {MESSAGE_COLUMNS} FROM messages AS m, keyed_tsquery($3, $4, $5) AS query
        WHERE m.workspace_id = $1 AND m.conversation_id = page.conversation_id COLLATE "C"
        AND m.search_vector @@ query
        ORDER BY ts_rank(m.search_vector, query) DESC, m.timestamp, m.sequence LIMIT {MATCHES_SHOWN}
    ) AS m
"""  # noqa: S608 — only constants

# Any of the words: looking for a phrase, ts_headline takes seconds for some texts, up to PostgreSQL 15 minutes.
_SNIPPETS = rf"""
    WITH words AS (
        SELECT coalesce(string_agg(
            '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''', ' | '
        ), '')::tsquery AS query
        FROM unnest(to_tsvector('pg_catalog.english', $1))
    )
    SELECT ts_headline('pg_catalog.english', left(text, {SEARCHABLE_CHARACTERS}), query, '{SNIPPET_OPTIONS}')
    FROM words, unnest($2::text[]) WITH ORDINALITY AS t (text, place) ORDER BY place
"""  # noqa: S608 — only constants


class Criteria(NamedTuple):
    """A filter in the workspace's own terms: its search key's pads and the hash of the keyword."""

    workspace_id: int
    filter: ConversationFilter
    pads: tuple[bytes, bytes]
    keyword_hash: str | None


class _Query:
    """A filter as SQL that finds the keys of conversations, and the values of its parameters.

    A sender's conversations are read from ``participants`` alone as long as nothing else is asked of them.
    """

    def __init__(self, criteria: Criteria) -> None:
        wanted = criteria.filter
        self.values: list[object] = [criteria.workspace_id]
        self._with, self._source = "", "conversations AS k"
        self._where = ["k.workspace_id = $1"]
        about = "k"
        if wanted.user_id is not None:
            self._source = "participants AS k"
            self._where.append(f"k.user_id = {self.value(wanted.user_id)}")
            if any((wanted.until, wanted.sentiment, wanted.outcome, criteria.keyword_hash)):
                about = "c"
                self._source += (
                    " JOIN conversations AS c ON c.workspace_id = $1 AND c.conversation_id = k.conversation_id"
                )
        if wanted.since is not None:
            self._where.append(f"k.last_message_at >= {self.time(wanted.since)}")
        if wanted.until is not None:
            self._where.append(f"{about}.first_message_at < {self.time(wanted.until)}")
        if wanted.sentiment is not None:
            self._where.append(f"{about}.sentiment = {self.value(str(wanted.sentiment))}")
        if wanted.outcome is not None:
            self._where.append(f"{about}.outcome = {self.value(str(wanted.outcome))}")
        if criteria.keyword_hash is not None:
            self._where.append(f"{about}.keyword_hashes @> ARRAY[{self.value(criteria.keyword_hash)}::text]")
        if wanted.q is not None:
            inner, outer = map(self.value, criteria.pads)
            self._with = "WITH" + _HITS.format(inner=inner, outer=outer, q=self.value(wanted.q))
            self._source += " JOIN hits ON hits.conversation_id = k.conversation_id"

    def value(self, value: object) -> str:
        """Adds a parameter and returns its name."""
        self.values.append(value)
        return f"${len(self.values)}"

    def time(self, value: datetime) -> str:
        """Adds a time: as text, since the driver takes the first and the last one of Python for infinities."""
        return f"{self.value(value.isoformat())}::text::timestamptz"

    def start_after(self, time: datetime, conversation_id: str) -> None:
        """Leaves out what comes before a position, and the position itself."""
        position = f"({self.time(time)}, {self.value(conversation_id)})"
        self._where.append(f"(k.last_message_at, k.conversation_id) < {position}")

    def select(self, columns: str) -> str:
        """Returns the statement without order and limit."""
        return f"{self._with} SELECT {columns} FROM {self._source} WHERE {' AND '.join(self._where)}"  # noqa: S608 — parts are constants

    def newest(self, limit: int, offset: int = 0) -> str:
        """Returns the statement for the newest conversations: keys from the index first, then their rows."""
        return f"""
            SELECT {CONVERSATION_COLUMNS} FROM (
                {self.select("k.conversation_id")} ORDER BY k.last_message_at DESC, k.conversation_id DESC
                OFFSET {self.value(offset)} LIMIT {self.value(limit)}
            ) AS keys
            JOIN conversations AS c ON c.workspace_id = $1 AND c.conversation_id = keys.conversation_id
            ORDER BY c.last_message_at DESC, c.conversation_id DESC
        """  # noqa: S608 — parts are constants


class SearchRepository:
    """Conversations by filter."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def page(self, criteria: Criteria, after: tuple[datetime, str] | None, limit: int) -> list[Conversation]:
        """Returns up to ``limit`` conversations, newest first, from behind a position."""
        query = _Query(criteria)
        if after:
            query.start_after(*after)
        return [conversation_of(row) for row in await self._driver.fetch(query.newest(limit), *query.values)]

    async def numbered_page(self, criteria: Criteria, offset: int, limit: int) -> list[Conversation]:
        """Returns up to ``limit`` conversations after the first ``offset``, newest first."""
        query = _Query(criteria)
        return [conversation_of(row) for row in await self._driver.fetch(query.newest(limit, offset), *query.values)]

    async def count(self, criteria: Criteria) -> int:
        """Returns how many conversations there are."""
        query = _Query(criteria)
        total: int = await self._driver.fetchval(query.select("count(*)"), *query.values)
        return total

    async def ids(self, criteria: Criteria, limit: int) -> list[str]:
        """Returns the ids of up to ``limit`` conversations."""
        query = _Query(criteria)
        sql = f"{query.select('k.conversation_id')} LIMIT {query.value(limit)}"
        return [row[0] for row in await self._driver.fetch(sql, *query.values)]

    async def matches(self, criteria: Criteria, conversation_ids: Sequence[str]) -> dict[str, list[SealedMessage]]:
        """Returns the best matches of the search in each of the conversations, by rank."""
        rows = await self._driver.fetch(
            _MATCHES, criteria.workspace_id, conversation_ids, *criteria.pads, criteria.filter.q
        )
        found: defaultdict[str, list[SealedMessage]] = defaultdict(list)
        for row in rows:
            found[row[0]].append(sealed_message(row[1:]))
        return found

    async def snippets(self, q: str, texts: Sequence[str]) -> list[str]:
        """Returns of each text the passage that holds the words; the texts are not stored."""
        return [row[0] for row in await self._driver.fetch(_SNIPPETS, q, texts)]
