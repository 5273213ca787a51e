"""Counts of conversations by when they began. Written for the driver: one statement a question."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg

from app.repositories.criteria import bind
from app.repositories.trend_statement import is_counted, statement
from app.schemas.enums import Interval, Metric

FOLDED = 1_000
"""How many changed conversations one statement adds to the counts."""

FORGOTTEN_AT_ONCE = 1_000
"""Of more deleted conversations, ``forget_trends`` leaves what was counted to be folded, under random ids."""

DEPTH, COMPARED = 64, 512
"""How many of a month's commonest keywords are listed, and of all months' together compared, at first."""

DEEPEST, LISTED = 5_000, 30_000
"""How many of a month at the most, and of all months, if these were too few to be sure: then some may be missing."""

LAST = datetime.max.replace(tzinfo=UTC)
"""The last time of all."""

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
        (SELECT max(c.first_message_at) FROM trend_changes AS t CROSS JOIN LATERAL (
            SELECT first_message_at FROM conversations AS c
            WHERE c.workspace_id = $1 AND c.conversation_id = t.conversation_id LIMIT 1
        ) AS c WHERE t.workspace_id = $1 AND c.first_message_at <= $2)
    )
"""

_FOLD = "SELECT fold_trend_changes($1, $2)"

# Across workspaces: the worker does this for all of them. One step of the key for each, however much changed there.
_TO_FOLD = "SELECT workspace_id FROM trend_changes WHERE workspace_id > $1 ORDER BY workspace_id LIMIT 1"


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


class IntervalRow(NamedTuple):
    """Conversations that began in an interval, those of them that are analysed, and those by ``LABELS`` of a metric."""

    starts_at: datetime
    conversations: int
    analysed: int
    by_label: list[int]


class KeywordRow(NamedTuple):
    """The intervals in which enough conversations with a keyword began, and how many did."""

    keyword_hash: str
    starts: list[datetime]
    conversations: list[int]


class TrendRows(NamedTuple):
    """Counts, and how many conversations were read one by one: beyond ``SCANNED``, the counts lack some.

    ``totals`` are of the commonest keywords, by hash, over the whole range. ``changed`` says that those that were read
    are those that had changed since the others were counted. ``complete`` unless a keyword that was not compared may be
    as common as the last one.
    """

    intervals: list[IntervalRow]
    totals: dict[str, int]
    keywords: list[KeywordRow]
    read: int
    changed: bool
    complete: bool = True


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
            **{name: _text(getattr(c, name)) for name in ("since", "until", "first_month", "last_month")},
            "min_count": c.min_count,
            "shown": c.shown,
        }
        filters = {"user": c.user_id, "sentiment": c.sentiment, "outcome": c.outcome, "keyword": c.keyword_hash}
        given = {name: value for name, value in filters.items() if value is not None}
        changed = is_counted(c.metric, c.interval, frozenset(given))
        sql = statement(c.metric, c.interval, c.sentiment or c.outcome, frozenset(given))
        found, months = await self._counts(sql, {**values, **given, "depth": DEPTH, "compared": COMPARED}, c)
        if not found.complete:
            depth = min(DEEPEST, max(DEPTH, LISTED // max(1, months)))
            found, _ = await self._counts(sql, {**values, **given, "depth": depth, "compared": depth}, c)
        return found._replace(changed=changed)

    async def _counts(self, sql: str, values: Mapping[str, object], c: TrendCriteria) -> tuple[TrendRows, int]:
        """Returns the counts, and how many months have any."""
        numbered, bound = bind(sql, values)
        found = TrendRows([], {}, [], 0, changed=False)
        beyond = months = 0
        for kind, starts, name, counts in await self._driver.fetch(numbered, *bound):
            if kind == "interval":
                found.intervals.append(IntervalRow(starts[0], counts[0], counts[1], counts[2:]))
            elif kind == "total":
                found.totals[name] = counts[0]
            elif kind == "keyword":
                found.keywords.append(KeywordRow(name, starts, counts))
            elif kind == "read":
                found = found._replace(read=counts[0])
            else:
                beyond, months = counts
        totals = found.totals.values()
        is_sure = beyond < c.min_count or (len(totals) == c.shown and beyond <= min(totals))
        return found._replace(complete=is_sure), months

    async def texts(self, workspace_id: int, keyword_hashes: Sequence[str]) -> dict[str, SealedKeywords]:
        """Returns for each keyword that some conversation has where to read it."""
        rows = await self._driver.fetch(_TEXTS, workspace_id, keyword_hashes)
        return {row[0]: SealedKeywords(*row[1:]) for row in rows}

    async def newest(self, workspace_id: int, now: datetime) -> datetime | None:
        """Returns about when the newest conversation began that began before now, to the hour."""
        found: datetime | None = await self._driver.fetchval(_NEWEST, workspace_id, now)
        return found

    async def fold(self, workspace_id: int) -> bool:
        """Adds conversations that changed to the counts, ``FOLDED`` at the most; returns whether it were so many."""
        folded: int = await self._driver.fetchval(_FOLD, workspace_id, FOLDED)
        return folded == FOLDED

    async def to_fold(self) -> list[int]:
        """Returns workspaces with conversations that changed."""
        found: list[int] = []
        last: int | None = -(2**63)
        while (last := await self._driver.fetchval(_TO_FOLD, last)) is not None:
            found.append(last)
        return found


def _text(time: datetime) -> str:
    """Returns a time as text, since the driver takes some for infinities; nothing is later than the last one."""
    return "infinity" if time == LAST else time.isoformat()
