"""Counts of conversations by when they began. Written for the driver: one statement a question.

What was counted and what changed since are read by one statement, so that together they are exact.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple

import asyncpg

from app.repositories.criteria import SHORT, bind
from app.schemas.enums import Interval, Metric

SCANNED = 100_000
"""How many conversations are read one by one."""

FOLDED = 1_000
"""How many changed conversations one statement adds to the counts."""

LOOKED_AT = 10_000
"""In how many changed conversations workspaces are looked for."""

_COLUMNS = "c.first_message_at, c.sentiment, c.outcome, c.keyword_hashes"

# What is not counted yet, and what is counted and not so any more.
_CHANGED = f"""
    SELECT {_COLUMNS}, 1 AS n FROM trend_changes AS t
    JOIN conversations AS c ON c.workspace_id = %(workspace)s AND c.conversation_id = t.conversation_id
    WHERE t.workspace_id = %(workspace)s
    UNION ALL
    SELECT c.first_message_at, c.sentiment, c.outcome, c.keyword_hashes, -1 FROM trend_changes AS c
    WHERE c.workspace_id = %(workspace)s AND c.first_message_at IS NOT NULL
"""  # noqa: S608 — only constants

# When a conversation ended tells when it began but for a day; those that took longer have an index of their own.
_OF_USER = f"""
    SELECT * FROM (
        SELECT {_COLUMNS}, 1 AS n FROM participants AS p
        JOIN conversations AS c ON c.workspace_id = %(workspace)s AND c.conversation_id = p.conversation_id
        WHERE p.workspace_id = %(workspace)s AND p.user_id = %(user)s
        AND p.last_message_at >= %(since)s::text::timestamptz
        AND p.last_message_at < %(until)s::text::timestamptz + {SHORT}
        UNION ALL
        SELECT {_COLUMNS}, 1 FROM conversations AS c
        WHERE c.workspace_id = %(workspace)s AND c.last_message_at >= %(until)s::text::timestamptz + {SHORT}
        AND c.last_message_at - c.first_message_at > {SHORT} AND c.first_message_at < %(until)s::text::timestamptz
        AND EXISTS (
            SELECT FROM participants AS p WHERE p.workspace_id = %(workspace)s
            AND p.conversation_id = c.conversation_id AND p.user_id = %(user)s OFFSET 0
        )
    ) AS c LIMIT {SCANNED + 1}
"""  # noqa: S608 — only constants

_WITH_KEYWORD = f"""
    SELECT {_COLUMNS}, 1 AS n FROM conversations AS c
    WHERE c.workspace_id = %(workspace)s AND c.keyword_hashes @> ARRAY[%(keyword)s::text] LIMIT {SCANNED + 1}
"""  # noqa: S608 — only constants

_IN_RANGE = """first_message_at >= %(since)s::text::timestamptz AND first_message_at < %(until)s::text::timestamptz"""
_LABELS = {"sentiment": "sentiment = %(sentiment)s::text", "outcome": "outcome = %(outcome)s::text"}
_HAS_KEYWORD = "keyword_hashes @> ARRAY[%(keyword)s::text]"
_COUNTED = """
    SELECT {columns} FROM trend_counts
    WHERE workspace_id = %(workspace)s AND span = '{span}'
    AND starts_at >= %({since})s::text::timestamptz AND starts_at < %({until})s::text::timestamptz AND {conditions}
"""
_TYPES = dict.fromkeys(("keyword", "sentiment", "outcome"), "text") | {
    "starts_at": "timestamptz",
    "conversations": "int",
}

# A label is missing where no analysis is.
_STATEMENT = """
    WITH found AS MATERIALIZED ({found}), rows AS MATERIALIZED (SELECT * FROM found WHERE {conditions}), {top}
    SELECT 'read' AS kind, NULL::timestamptz AS starts_at, NULL::text AS name, count(*) AS n FROM found
    UNION ALL
    SELECT 'conversations', date_trunc('{interval}', starts_at, 'UTC'), name, sum(n) FROM (
        SELECT starts_at, name, sum(conversations) AS n FROM ({counted}) AS c (starts_at, name, conversations)
        GROUP BY 1, 2
        UNION ALL
        SELECT first_message_at, coalesce({label}, ''), n FROM rows
    ) AS c GROUP BY 2, 3 HAVING sum(n) <> 0
    {keywords}
"""
_TOP = """
    top AS MATERIALIZED (
        SELECT keyword, sum(n) AS n FROM (
            {counted}
            UNION ALL
            SELECT k.keyword, n FROM rows CROSS JOIN LATERAL unnest(keyword_hashes) AS k (keyword)
        ) AS c (keyword, n)
        GROUP BY keyword HAVING sum(n) >= %(min_count)s::bigint
        ORDER BY sum(n) DESC, keyword LIMIT %(shown)s::bigint
    )
"""
_COURSES = """
    UNION ALL SELECT 'keyword', NULL, keyword, n FROM top
    UNION ALL
    SELECT 'keyword', date_trunc('{interval}', starts_at, 'UTC'), keyword, sum(n) FROM (
        {counted}
        UNION ALL
        SELECT k.keyword, first_message_at, n FROM rows CROSS JOIN LATERAL unnest(keyword_hashes) AS k (keyword)
        WHERE k.keyword = ANY (ARRAY(SELECT keyword FROM top))
    ) AS c (keyword, starts_at, n) GROUP BY 2, 3 HAVING sum(n) >= %(min_count)s::bigint
"""

# The inverted index finds all that have a keyword, but only one of them is opened.
_TEXTS = """
    SELECT k.keyword, c.conversation_id, s.keywords, i.details
    FROM unnest($2::text[]) AS k (keyword)
    CROSS JOIN LATERAL (
        WITH hits AS MATERIALIZED (
            SELECT conversation_id FROM conversations
            WHERE workspace_id = $1 AND keyword_hashes @> ARRAY[k.keyword]
        )
        SELECT conversation_id FROM hits LIMIT 1
    ) AS c
    LEFT JOIN summaries AS s ON s.workspace_id = $1 AND s.conversation_id = c.conversation_id
    LEFT JOIN insights AS i ON i.workspace_id = $1 AND i.conversation_id = c.conversation_id
"""

_NEWEST = """
    SELECT greatest(
        (SELECT max(starts_at) FROM trend_counts
        WHERE workspace_id = $1 AND span = 'hour' AND keyword = '' AND starts_at <= $2),
        (SELECT max(c.first_message_at) FROM trend_changes AS t
        JOIN conversations AS c ON c.workspace_id = $1 AND c.conversation_id = t.conversation_id
        WHERE t.workspace_id = $1 AND c.first_message_at <= $2)
    )
"""

_FOLD = "SELECT fold_trend_changes($1, $2)"

# Across workspaces: the worker does this for all of them.
_TO_FOLD = f"SELECT DISTINCT workspace_id FROM (SELECT workspace_id FROM trend_changes LIMIT {LOOKED_AT}) AS t"  # noqa: S608


class TrendCriteria(NamedTuple):
    """What is counted: times are the beginnings of intervals.

    Whole months lie between ``first_month`` and ``last_month``; without any, both are ``until``.
    """

    workspace_id: int
    metric: Metric
    interval: Interval
    since: datetime
    until: datetime
    first_month: datetime
    last_month: datetime
    user_id: str | None
    sentiment: str | None
    outcome: str | None
    keyword_hash: str | None
    min_count: int
    shown: int


class Point(NamedTuple):
    """Conversations that began in an interval; without one, in the whole range."""

    starts_at: datetime | None
    name: str
    conversations: int


class TrendRows(NamedTuple):
    """Conversations by label, empty without an analysis; by the hash of a keyword; and how many were read one by one.

    If these are more than ``SCANNED``, some are missing.
    """

    by_label: list[Point]
    by_keyword: list[Point]
    read: int


class SealedKeywords(NamedTuple):
    """A conversation that has a keyword, and the sealed texts that name it."""

    conversation_id: str
    summary_keywords: bytes | None
    insights_details: bytes | None


class TrendRepository:
    """The counts that trends are made of."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def counts(self, criteria: TrendCriteria) -> TrendRows:
        """Returns the counts of a range."""
        c = criteria
        values: dict[str, object] = {
            "workspace": c.workspace_id,
            "since": c.since.isoformat(),  # as text, since the driver takes some times for infinities
            "until": c.until.isoformat(),
            "first_month": c.first_month.isoformat(),
            "last_month": c.last_month.isoformat(),
            "min_count": c.min_count,
            "shown": c.shown,
        }
        filters = {"user": c.user_id, "sentiment": c.sentiment, "outcome": c.outcome, "keyword": c.keyword_hash}
        given = {name: value for name, value in filters.items() if value is not None}
        sql, bound = bind(_statement(c.metric, c.interval, frozenset(given)), {**values, **given})
        found = TrendRows([], [], 0)
        for kind, starts_at, name, count in await self._driver.fetch(sql, *bound):
            if kind == "read":
                found = found._replace(read=count)
            else:
                points = found.by_label if kind == "conversations" else found.by_keyword
                points.append(Point(starts_at, name, int(count)))
        return found

    async def texts(self, workspace_id: int, keyword_hashes: Sequence[str]) -> dict[str, SealedKeywords]:
        """Returns for each keyword that some conversation has where to read it."""
        rows = await self._driver.fetch(_TEXTS, workspace_id, keyword_hashes)
        return {row[0]: SealedKeywords(*row[1:]) for row in rows}

    async def newest(self, workspace_id: int, now: datetime) -> datetime | None:
        """Returns about when the newest conversation began that began before now, to the hour."""
        found: datetime | None = await self._driver.fetchval(_NEWEST, workspace_id, now)
        return found

    async def fold(self, workspace_id: int) -> int:
        """Adds conversations that changed to the counts, ``FOLDED`` at the most; returns how many."""
        folded: int = await self._driver.fetchval(_FOLD, workspace_id, FOLDED)
        return folded

    async def to_fold(self) -> list[int]:
        """Returns workspaces with conversations that changed."""
        return [row[0] for row in await self._driver.fetch(_TO_FOLD)]


@cache
def _statement(metric: Metric, interval: Interval, given: frozenset[str]) -> str:
    """Returns the statement, whose rows are kind, start, label or keyword, and how many conversations."""
    labels = [condition for name, condition in _LABELS.items() if name in given]
    conditions = [_IN_RANGE, *labels, *([_HAS_KEYWORD] if "keyword" in given else [])]
    # Nothing is counted by sender, nor by two keywords.
    found = _CHANGED
    if "user" in given:
        found = _OF_USER
    elif "keyword" in given and metric is Metric.KEYWORDS:
        found = _WITH_KEYWORD
    label = "outcome" if metric is Metric.OUTCOME else "sentiment"

    def counted(columns: str, span: str, condition: str, since: str = "since", until: str = "until") -> str:
        if found is not _CHANGED:
            return (
                "SELECT "
                + ", ".join(f"NULL::{_TYPES.get(name, 'text')}" for name in columns.split(", "))
                + " WHERE false"
            )
        every = " AND ".join([condition, *labels])
        return _COUNTED.format(columns=columns, span=span, conditions=every, since=since, until=until)

    span = "month" if interval is Interval.MONTH else "hour"
    of = "keyword = %(keyword)s::text" if "keyword" in given else "keyword = ''"
    top, keywords = "none AS (SELECT)", ""
    if metric is Metric.KEYWORDS:
        arms = [
            counted("keyword, conversations", "month", "keyword <> ''", "first_month", "last_month"),
            counted("keyword, conversations", "hour", "keyword <> ''", "since", "first_month"),
            counted("keyword, conversations", "hour", "keyword <> ''", "last_month", "until"),
        ]
        top = _TOP.format(counted=" UNION ALL ".join(arms))
        course = counted("starts_at, conversations", span, "keyword = top.keyword")
        course = f"SELECT top.keyword, k.* FROM top CROSS JOIN LATERAL ({course}) AS k"  # noqa: S608 — only constants
        keywords = _COURSES.format(counted=course, interval=interval)
    return _STATEMENT.format(
        found=found,
        conditions=" AND ".join(conditions),
        top=top,
        counted=counted(f"starts_at, {label}, conversations", span, of),
        label=label,
        interval=interval,
        keywords=keywords,
    )
