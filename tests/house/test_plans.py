"""The plans of the statements that heavy use consists of: each finds its rows by an index made for it.

The statements are those that requests make the service send, from PostgreSQL's log, and their plans are the generic
ones, without values, over some thousand rows. So few are read sooner than an index, hence ``enable_seqscan = off``:
shown is that a statement can use its index, and that no other will do; not that the planner prefers it, nor what it
costs. The look-ups of foreign keys, by which a deletion takes everything with it, are in no plan.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from app.factory import Services
from app.repositories import search
from tests.conftest import LOG
from tests.support.api import Workspace, message
from tests.support.statements import ServerLog

CONVERSATIONS = 2_000
TABLES = {"messages", "conversations", "participants", "conversation_topics", "trend_counts", "trend_changes"}
WORDS, OPEN = "messages_search_vector_idx", "messages_order_idx"
CHAT, NEWEST, LONG = "conversations_pkey", "conversations_last_message_at_idx", "conversations_long_idx"
SENDERS, HISTORY = "participants_pkey", "participants_history_idx"
KEYWORD = "conversations_keyword_hashes_idx"
TOPIC, TOPICS, SAMPLED = "conversation_topics_pkey", "conversation_topics_weight_idx", "conversation_topics_sampled_idx"
WAITING = "conversations_topic_waiting_idx"
COUNTED, CHANGED, COMMONEST = "trend_counts_pkey", "trend_changes_pkey", "trend_counts_conversations_idx"
LABELS = {
    **dict.fromkeys(("positive", "neutral", "negative", "mixed"), "sentiment"),
    **dict.fromkeys(("yes", "no", "maybe", "curious"), "outcome"),
}
SHOWN = {CHAT, SENDERS}
UNTIL = {"to": "2026-11-01T12:00:00Z"}
COMMON, RARE = {"q": -1, "keyword": -1}, {"q": 10**9, "keyword": 10**9}

Heard = dict[str, tuple[list[str], set[str]]]


class Case(NamedTuple):
    """A request, and the indexes that its statements must use."""

    path: str
    params: dict[str, Any]
    indexes: set[str]
    few: dict[str, int] = RARE


HISTORY_OF_ANA = "/users/ana/chats"
TRENDS, NOVEMBER = "/analytics/trends", {"from": "2026-10-20T00:00:00Z", "to": "2026-12-03T00:00:00Z"}
WORDS_OF_TRENDS = {"metric": "keywords", **NOVEMBER}
READS = {
    "a conversation": Case("/chats/c7", {}, {*SHOWN, OPEN}),
    "the newest": Case("/chats", {}, {*SHOWN, NEWEST}),
    "since": Case("/chats", {"from": "2026-11-01T12:00:00Z"}, {*SHOWN, NEWEST}),
    "until": Case("/chats", UNTIL, {*SHOWN, NEWEST, LONG}),
    "a sentiment": Case("/chats", {"sentiment": "mixed"}, {*SHOWN, "conversations_sentiment_idx"}),
    "an outcome": Case("/chats", {"outcome": "yes"}, {*SHOWN, "conversations_outcome_idx"}),
    "a rare keyword": Case("/chats", {"keyword": "refund"}, {*SHOWN, KEYWORD}),
    "a common keyword": Case("/chats", {"keyword": "refund"}, {*SHOWN, NEWEST}, COMMON),
    "a rare word": Case("/chats", {"q": "parcel"}, {*SHOWN, WORDS, OPEN}),
    "a common word": Case("/chats", {"q": "parcel"}, {*SHOWN, NEWEST, OPEN}, COMMON),
    "a common word until": Case("/chats", {"q": "parcel", **UNTIL}, {*SHOWN, NEWEST, LONG, OPEN}, COMMON),
    "a word and a keyword": Case("/chats", {"q": "parcel", "keyword": "refund"}, {*SHOWN, WORDS}),
    "a sender": Case("/chats", {"user_id": "ana"}, {*SHOWN, HISTORY}),
    "a sender's until": Case("/chats", {"user_id": "ana", **UNTIL}, {*SHOWN, HISTORY, LONG}),
    "a sender's by label": Case("/chats", {"user_id": "ana", "sentiment": "mixed"}, {*SHOWN, HISTORY}),
    "a sender's rare word": Case("/chats", {"user_id": "ana", "q": "parcel"}, {*SHOWN, WORDS}),
    "a sender's common word": Case("/chats", {"user_id": "ana", "q": "parcel"}, {*SHOWN, HISTORY, OPEN}, COMMON),
    "history": Case(HISTORY_OF_ANA, {}, {*SHOWN, HISTORY}),
    "deep history": Case(HISTORY_OF_ANA, {"page": 70}, {*SHOWN, HISTORY}),
    "topics": Case("/analytics/topics", {}, {WAITING, TOPICS, OPEN}),
    "topics of a range": Case("/analytics/topics", {"from": "2026-11-01T12:00:00Z"}, {WAITING, TOPICS}),
    "a trend": Case(TRENDS, {"metric": "sentiment", **NOVEMBER}, {CHAT, COUNTED, CHANGED}),
    "a trend of the last month": Case(TRENDS, {}, {CHAT, COUNTED, CHANGED}),
    "a trend of keywords": Case(TRENDS, WORDS_OF_TRENDS, {CHAT, COUNTED, CHANGED, COMMONEST, KEYWORD}),
    **{
        f"a trend of keywords, {label}": Case(TRENDS, {kind: label, **WORDS_OF_TRENDS}, {f"trend_counts_{label}_idx"})
        for label, kind in LABELS.items()
    },
    "a trend of a keyword": Case(TRENDS, {"keyword": "refund", **NOVEMBER}, {CHAT, COUNTED, CHANGED}),
    "a trend of keywords with another": Case(TRENDS, {"keyword": "refund", **WORDS_OF_TRENDS}, {KEYWORD}),
    "a trend of a sender": Case(TRENDS, {"user_id": "ana", **NOVEMBER}, {HISTORY, LONG, SENDERS}),
    "a trend by two labels": Case(TRENDS, {"metric": "outcome", "sentiment": "mixed", **NOVEMBER}, {LONG}),
}


class Plan(NamedTuple):
    """Which indexes a statement's plan uses, and which of the tables it reads as a whole."""

    indexes: frozenset[str]
    whole: frozenset[str]


def plan_of(connection: psycopg.Connection, statement: str) -> Plan:
    """Returns the generic plan of a statement."""
    cursor = psycopg.ClientCursor(connection)
    [(found,)] = cursor.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}".encode()).fetchall()
    nodes = list(_nodes(found if isinstance(found, list) else json.loads(found)))
    return Plan(
        frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
        frozenset(node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan") & TABLES,
    )


def _nodes(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, list):
        for each in found:
            yield from _nodes(each)
    elif "Plan" in found:
        yield from _nodes(found["Plan"])
    else:
        yield found
        yield from _nodes(found.get("Plans", []))


class Ear:
    """Hears which statements on the tables the service sends, and knows their plans."""

    def __init__(self, file: Any, connection: psycopg.Connection) -> None:
        self._log = ServerLog(file)
        self._connection = connection
        self._log.new()

    def statements(self) -> list[str]:
        """Returns those since the last call."""
        found = [record.statement or "" for record in self._log.new()]
        return [each for each in dict.fromkeys(found) if TABLES.intersection(re.findall(r"\w+", each))]

    def complaints(self, statements: list[str], indexes: set[str]) -> list[str]:
        """Returns what is wrong with the plans of a request's statements."""
        plans = {statement: plan_of(self._connection, statement) for statement in statements}
        missing = indexes.difference(*(plan.indexes for plan in plans.values()))
        return [
            *(f"{name} is not used" for name in sorted(missing)),
            *(
                f"{', '.join(sorted(plan.whole))} read as a whole by\n{each}"
                for each, plan in plans.items()
                if plan.whole
            ),
        ]


@pytest.fixture
async def ear(request: pytest.FixtureRequest, workspace: Workspace, postgresql: psycopg.Connection) -> Ear:
    """Returns an ear in a workspace with ``CONVERSATIONS``, which the planner knows."""
    log = request.config.stash[LOG]
    if log.file is None or postgresql.info.server_version < 160_000:
        pytest.skip("needs the server's log, and generic plans: PostgreSQL 16")
    sent = [
        message(f"c{n}", f"m{place}", user_id=user, timestamp=f"2026-11-01T{n % 24:02}:{n // 24 % 60:02}:0{place}Z")
        for n in range(CONVERSATIONS)
        for place, user in enumerate(("ana" if n % 2 else f"u{n}", "bo"))
    ]
    for start in range(0, len(sent), 1_000):
        assert (await workspace.editor.post("/chats", json=sent[start : start + 1_000])).status_code == 201
    postgresql.execute("UPDATE conversations SET sentiment = 'mixed', outcome = 'yes', keyword_hashes = '{x}'")
    postgresql.execute("UPDATE conversations SET sentiment = NULL, outcome = NULL WHERE conversation_id LIKE '%7'")
    postgresql.execute("SELECT fold_trend_changes(workspace_id, 1000) FROM workspaces")
    postgresql.execute(f"ANALYZE {', '.join(TABLES)}".encode())
    postgresql.commit()
    postgresql.execute("SET enable_seqscan = off")
    return Ear(log.file, postgresql)


async def finding_topics(services: Services, ear: Ear, postgresql: psycopg.Connection) -> Heard:
    """Returns the statements of a worker that finds topics."""
    heard: Heard = {}
    for name, indexes in (("finding topics", {CHAT, OPEN, WAITING, SAMPLED}), ("assigning anew", {TOPIC, OPEN})):
        await services.topics.keep_up(asyncio.Event())
        services.topics._rests_until = 0.0
        # What names the key itself has no plan without it.
        heard[name] = [each for each in ear.statements() if "ON CONFLICT (" not in each], indexes
        postgresql.execute("UPDATE topic_models SET swept_through = ''")
        postgresql.commit()
    return heard


async def requests(workspace: Workspace, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Returns the statements of each request, and the indexes that they must use."""
    heard: Heard = {}
    for name, case in READS.items():
        monkeypatch.setattr(search, "FEW", case.few)
        monkeypatch.setattr(search, "SELDOM", COMMON)
        answer = await workspace.viewer.get(case.path, params=case.params)
        assert answer.status_code == 200, answer.text
        heard[name] = ear.statements(), case.indexes
    await workspace.editor.post("/chats", json=[message("c7", f"m{n}") for n in range(9, 20)])
    heard["storing"] = ear.statements(), {"messages_pkey", CHAT}
    await workspace.editor.post("/chats", json=message("c7", "m9"))
    heard["storing again"] = ear.statements(), {"messages_pkey"}
    await workspace.admin.delete("/chats/c7")
    heard["deleting"] = ear.statements(), SHOWN
    await workspace.admin.delete("/chats", params={"user_id": "u8", "max_delete_count": 1})
    heard["deleting a sender's"] = ear.statements(), {*SHOWN, HISTORY}
    await workspace.admin.delete("/chats", params={"q": "absent", "max_delete_count": 1})
    heard["deleting by a word"] = ear.statements(), {*SHOWN, WORDS}
    return heard


async def test_every_statement_has_its_index_and_misses_one_that_is_gone(
    workspace: Workspace,
    services: Services,
    ear: Ear,
    postgresql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = await finding_topics(services, ear, postgresql)
    heard |= await requests(workspace, ear, monkeypatch)
    assert all(statements for statements, _ in heard.values())
    wrong = {name: found for name, asked in heard.items() if (found := ear.complaints(*asked))}
    assert not wrong, "\n".join(f"{name}: {line}" for name, found in wrong.items() for line in found)
    rows = postgresql.execute("SELECT indexname, tablename FROM pg_indexes WHERE tablename = ANY (%s)", [[*TABLES]])
    postgresql.commit()
    for index, table in rows.fetchall():
        is_key = index.endswith("_pkey")
        drop = f"ALTER TABLE {table} DROP CONSTRAINT {index} CASCADE" if is_key else f"DROP INDEX {index}"
        # A statement that names the key itself has no plan without it.
        named = "ON CONFLICT (" if is_key and table != "messages" else "none"
        asked = [each for each in heard.values() if index in each[1] and named not in "".join(each[0])]
        assert asked, f"No request needs {index}."
        postgresql.execute(drop.encode())
        assert all(ear.complaints(*each) for each in asked), index
        postgresql.rollback()
        postgresql.execute("SET enable_seqscan = off")
