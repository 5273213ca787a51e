"""Finding conversations: every filter, alone and combined."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from app.repositories.chats import CONVERSATION_COLUMNS, MESSAGE_COLUMNS, conversation_of, sealed_message
from app.repositories.criteria import (
    NEWEST,
    SOUGHT,
    STEP,
    WALKED,
    Criteria,
    bind,
    by_hits,
    by_time,
    by_walk,
    planned_rows,
    position,
)
from app.schemas.chats import PAGE_SIZE, Conversation
from app.schemas.rows import SealedMessage

MATCHES_SHOWN = 3
SNIPPET_OPTIONS = 'StartSel="", StopSel="", MaxWords=30, MinWords=12, MaxFragments=1'
SEARCHABLE_CHARACTERS = 50_000

_MATCHES = f"""
    SELECT page.conversation_id, m.* FROM unnest($2::text[]) AS page (conversation_id)
    CROSS JOIN LATERAL (
        SELECT {MESSAGE_COLUMNS} FROM messages AS m, keyed_tsquery($3, $4, $5) AS query
        WHERE m.workspace_id = $1 AND m.conversation_id = page.conversation_id COLLATE "C"
        AND (m.search_vector @@ query) IS TRUE
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


FEW = {"q": 500, "keyword": 500}
"""How many hits are looked at one by one, by the planner's estimate, however many rows there are."""

SELDOM = {"q": 0.002, "keyword": 0.01}
"""Of which share of the rows all hits are looked at; what is more frequent is met soon on a walk through time. For what
it has not counted, the planner has one estimate, which grows with the table."""

_SIZE = "SELECT reltuples FROM pg_class WHERE oid = $1::text::regclass"
_TABLES = {"q": "messages", "keyword": "conversations"}

_PAGE = PAGE_SIZE + 1 + STEP  # a constant, so that the planner knows that the order of an index is worth it

_CONVERSATIONS = f"""
    SELECT {CONVERSATION_COLUMNS}, keys.beyond FROM (
        SELECT * FROM ({{keys}} {NEWEST} LIMIT {_PAGE}) AS page
        OFFSET (SELECT %(skip)s::bigint) LIMIT (SELECT %(limit)s::bigint)
    ) AS keys
    JOIN conversations AS c ON c.workspace_id = %(workspace)s AND c.conversation_id = keys.conversation_id
    ORDER BY c.last_message_at DESC, c.conversation_id DESC
"""  # noqa: S608 — only constants

_PLACES = f"""
    SELECT count(*), array_agg(last_message_at) FILTER (WHERE place %% %(step)s::int = 0),
        array_agg(conversation_id) FILTER (WHERE place %% %(step)s::int = 0),
        coalesce(bool_or(beyond), false) AS beyond
    FROM (SELECT k.*, row_number() OVER ({NEWEST}) AS place FROM ({{keys}}) AS k) AS k
"""  # noqa: S608 — only constants

_COUNT = "SELECT count(*), coalesce(bool_or(beyond), false) AS beyond FROM ({keys}) AS k"

# Who writes to a conversation just now makes it newer: it is passed over, as is what another worker has in hand.
_EXPIRED = """
    SELECT conversation_id, message_count FROM conversations
    WHERE workspace_id = $1 AND last_message_at < $2 ORDER BY last_message_at, conversation_id LIMIT $3
    FOR UPDATE SKIP LOCKED
"""

_IDS = "SELECT conversation_id FROM ({keys}) AS k LIMIT %(limit)s"


class Places(NamedTuple):
    """How many conversations there are, and the positions of the last one of each step."""

    total: int
    marks: list[tuple[datetime, str]]


class SearchRepository:
    """Conversations by filter."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def page(
        self, criteria: Criteria, after: tuple[datetime, str] | None, limit: int, skip: int = 0
    ) -> list[Conversation]:
        """Returns up to ``limit`` conversations, newest first, from behind a position and up to ``STEP`` more."""
        more = {"limit": limit, "skip": skip, **position(after)}
        return [conversation_of(row) for row in await self._fetch(criteria, _CONVERSATIONS, more)]

    async def count(self, criteria: Criteria) -> int:
        """Returns how many conversations there are."""
        [row] = await self._fetch(criteria, _COUNT, {})
        total: int = row[0]
        return total

    async def places(self, criteria: Criteria, step: int) -> Places:
        """Returns how many conversations there are, and where each ``step`` of them ends; reads all of them."""
        [row] = await self._fetch(criteria, _PLACES, {"step": step})
        return Places(row[0], list(zip(row[1] or (), row[2] or (), strict=True)))

    async def ids(self, criteria: Criteria, limit: int) -> list[str]:
        """Returns the ids of up to ``limit`` conversations."""
        named = {**criteria.values(), "limit": limit}
        given = frozenset(named)
        sought = next((name for name in SOUGHT if name in given), None)
        keys = by_hits(given, sought) if sought else by_time(given)
        sql, values = bind(_IDS.replace("{keys}", keys), named)
        return [row[0] for row in await self._driver.fetch(sql, *values)]

    async def expired(self, workspace_id: int, before: datetime, limit: int, max_messages: int) -> list[str]:
        """Locks conversations whose last message is older than a time, and returns their ids, the oldest first.

        They are up to ``limit``, and fewer if they have ``max_messages`` together.
        """
        ids: list[str] = []
        messages = 0
        for conversation_id, count in await self._driver.fetch(_EXPIRED, workspace_id, before, limit):
            messages += count
            if ids and messages > max_messages:
                break
            ids.append(conversation_id)
        return ids

    async def _fetch(self, criteria: Criteria, statement: str, more: dict[str, object]) -> list[asyncpg.Record]:
        """Returns the rows of a statement, whose keys are found in the way that reads the least.

        What is rare is found by its hits. What is common is met soon on a walk through time; where it is not, it is
        common in what is old.
        """
        named = {**criteria.values(), **more}
        given = frozenset(named)

        async def fetch(keys: str) -> list[asyncpg.Record]:
            sql, values = bind(statement.replace("{keys}", keys), named)
            rows: list[asyncpg.Record] = await self._driver.fetch(sql, *values)
            return rows

        estimates = {name: await self._estimate(name, named) for name in SOUGHT if name in given}
        if not estimates:
            return await fetch(by_time(given, _PAGE if "limit" in given else None))
        rarest = min(estimates, key=lambda name: estimates[name])
        if estimates[rarest] > FEW[rarest] and await self._is_common(rarest, estimates[rarest]):
            rows = await fetch(by_walk(given, WALKED))
            if not any(row["beyond"] for row in rows):
                return rows
        return await fetch(by_hits(given, rarest))

    async def _is_common(self, sought: str, hits: int) -> bool:
        size: float = await self._driver.fetchval(_SIZE, _TABLES[sought])
        return hits > size * SELDOM[sought]

    async def _estimate(self, sought: str, named: dict[str, object]) -> int:
        sql, values = bind(planned_rows(sought), named)
        plan: str = await self._driver.fetchval(sql, *values)
        return int(plan.partition("rows=")[2].partition(" ")[0])

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
