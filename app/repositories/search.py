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

_SNIPPETS = f"""
    SELECT ts_headline('pg_catalog.english', left(text, {SEARCHABLE_CHARACTERS}),
        websearch_to_tsquery('pg_catalog.english', $1), '{SNIPPET_OPTIONS}')
    FROM unnest($2::text[]) WITH ORDINALITY AS t (text, place) ORDER BY place
"""  # noqa: S608 — only constants


class Criteria(NamedTuple):
    """A filter in the workspace's own terms: its search key's pads and the hash of the keyword."""

    workspace_id: int
    filter: ConversationFilter
    pads: tuple[bytes, bytes]
    keyword_hash: str | None


class _Query:
    """A filter as SQL: what stands before SELECT, after FROM and after WHERE, and the values of its parameters."""

    def __init__(self, criteria: Criteria) -> None:
        wanted = criteria.filter
        self.values: list[object] = [criteria.workspace_id]
        self.with_, self.source = "", "conversations AS c"
        self.where = ["c.workspace_id = $1"]
        self.order = "c"
        if wanted.user_id is not None:
            self.source += " JOIN participants AS p ON p.workspace_id = $1 AND p.conversation_id = c.conversation_id"
            self.where.append(f"p.user_id = {self.value(wanted.user_id)}")
            self.order = "p"
        if wanted.since is not None:
            self.where.append(f"{self.order}.last_message_at >= {self.value(wanted.since)}")
        if wanted.until is not None:
            self.where.append(f"c.first_message_at < {self.value(wanted.until)}")
        if wanted.sentiment is not None:
            self.where.append(f"c.sentiment = {self.value(str(wanted.sentiment))}")
        if wanted.outcome is not None:
            self.where.append(f"c.outcome = {self.value(str(wanted.outcome))}")
        if criteria.keyword_hash is not None:
            self.where.append(f"c.keyword_hashes @> ARRAY[{self.value(criteria.keyword_hash)}::text]")
        if wanted.q is not None:
            inner, outer = map(self.value, criteria.pads)
            self.with_ = "WITH" + _HITS.format(inner=inner, outer=outer, q=self.value(wanted.q))
            self.source += " JOIN hits ON hits.conversation_id = c.conversation_id"

    def value(self, value: object) -> str:
        """Adds a parameter and returns its name."""
        self.values.append(value)
        return f"${len(self.values)}"

    def select(self, columns: str) -> str:
        """Returns the statement without order and limit."""
        return f"{self.with_} SELECT {columns} FROM {self.source} WHERE {' AND '.join(self.where)}"  # noqa: S608 — parts are constants

    def newest_first(self) -> str:
        """Returns the order of every list."""
        return f"ORDER BY {self.order}.last_message_at DESC, {self.order}.conversation_id DESC"


class SearchRepository:
    """Conversations by filter."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def page(self, criteria: Criteria, after: tuple[datetime, str] | None, limit: int) -> list[Conversation]:
        """Returns up to ``limit`` conversations, newest first, from behind a position."""
        query = _Query(criteria)
        if after:
            time, conversation_id = query.value(after[0]), query.value(after[1])
            query.where.append(
                f"({query.order}.last_message_at, {query.order}.conversation_id) < ({time}, {conversation_id})"
            )
        sql = f"{query.select(CONVERSATION_COLUMNS)} {query.newest_first()} LIMIT {query.value(limit)}"
        return [conversation_of(row) for row in await self._driver.fetch(sql, *query.values)]

    async def numbered_page(self, criteria: Criteria, offset: int, limit: int) -> list[Conversation]:
        """Returns up to ``limit`` conversations after the first ``offset``, found in the index before rows are read."""
        query = _Query(criteria)
        keys = (
            f"{query.select(f'c.workspace_id, {query.order}.conversation_id, {query.order}.last_message_at')}"
            f" {query.newest_first()} OFFSET {query.value(offset)} LIMIT {query.value(limit)}"
        )
        sql = f"""
            SELECT {CONVERSATION_COLUMNS} FROM ({keys}) AS keys JOIN conversations AS c
            ON c.workspace_id = $1 AND c.conversation_id = keys.conversation_id
            ORDER BY c.last_message_at DESC, c.conversation_id DESC
        """  # noqa: S608 — parts are constants
        return [conversation_of(row) for row in await self._driver.fetch(sql, *query.values)]

    async def count(self, criteria: Criteria) -> int:
        """Returns how many conversations there are."""
        query = _Query(criteria)
        total: int = await self._driver.fetchval(query.select("count(*)"), *query.values)
        return total

    async def ids(self, criteria: Criteria, limit: int) -> list[str]:
        """Returns the ids of up to ``limit`` conversations."""
        query = _Query(criteria)
        sql = f"{query.select('c.conversation_id')} LIMIT {query.value(limit)}"
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
