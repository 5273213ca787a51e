"""Deleting: receipts, filters, and nothing left behind."""

from typing import Any

import psycopg
import pytest

from tests.support.api import Workspace, message

NOTHING = {"conversations": 0, "messages": 0, "participants": 0, "summaries": 0, "insights": 0, "feedback": 0}


async def fill(workspace: Workspace, conversations: int) -> None:
    messages = [
        message(f"c{c}", f"m{n}", user_id=f"u{n % 2}-{c % 2}", timestamp=f"2026-11-0{c + 1}T10:00:00Z")
        for c in range(conversations)
        for n in range(3)
    ]
    assert (await workspace.editor.post("/chats", json=messages)).status_code == 201


async def names(workspace: Workspace) -> set[str]:
    found = (await workspace.viewer.get("/chats", params={"limit": 100})).json()["data"]
    return {each["conversation_id"] for each in found}


def rows_of(postgresql: psycopg.Connection, conversation_id: str) -> dict[str, int]:
    """Returns how many rows of each table speak of a conversation, or of those that a pattern of LIKE matches."""
    tables = postgresql.execute(
        "SELECT c.table_name FROM information_schema.columns AS c JOIN information_schema.tables AS t"
        " USING (table_schema, table_name) WHERE c.column_name = 'conversation_id' AND t.table_schema = 'public'"
        " AND t.table_type = 'BASE TABLE'"
    ).fetchall()
    query = psycopg.sql.SQL("SELECT count(*) FROM {} WHERE conversation_id LIKE %s")
    counts = {}
    for (table,) in tables:
        found = postgresql.execute(query.format(psycopg.sql.Identifier(table)), [conversation_id]).fetchone()
        counts[table] = found[0] if found else 0
    return counts


async def test_a_deletion_leaves_no_row_that_speaks_of_the_conversation(
    workspace: Workspace, other_workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    await fill(workspace, 2)
    wanted = {"url": "https://hooks.example.com/", "events": ["summary.created", "insights.created"]}
    assert (await workspace.admin.post("/webhooks", json=wanted)).status_code == 201
    for path in ("/chats/summarize", "/chats/insights"):
        headers = {"Idempotency-Key": path}
        answer = await workspace.editor.post(path, json={"conversation_id": "c0"}, headers=headers)
        assert answer.status_code == 200
    postgresql.execute(
        "INSERT INTO analysis_claims SELECT workspace_id, 'c0', 'summary', 1, now() FROM conversations"
        " WHERE conversation_id = 'c0'"
    )
    postgresql.execute(
        "INSERT INTO conversation_topics SELECT workspace_id, 'c0', 1, 1, now(), true FROM conversations"
        " WHERE conversation_id = 'c0'"
    )
    postgresql.commit()
    assert (await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c0"]})).status_code == 202
    given = await workspace.viewer.post("/chats/c0/summary/feedback", json={"rating": "up"})
    assert given.status_code == 201
    before = rows_of(postgresql, "c0")
    assert {"conversations", "messages", "participants", "summaries", "insights", "feedback"} <= before.keys()
    assert 0 not in before.values(), "make a row in every table that speaks of a conversation"
    answer = await workspace.admin.delete("/chats/c0")
    receipt = {"conversations": 1, "messages": 3, "participants": 2, "summaries": 1, "insights": 1, "feedback": 1}
    assert (answer.status_code, answer.json()) == (200, {"conversation_id": "c0", "deleted": receipt})
    assert set(rows_of(postgresql, "c0").values()) == {0}
    assert await names(workspace) == {"c1"}
    for path in ("/chats/c0", "/chats/c0/summary", "/chats/c0/insights"):
        assert (await workspace.viewer.get(path)).status_code == 404
    assert (await workspace.viewer.get("/chats", params={"q": "parcel"})).json()["data"][0]["conversation_id"] == "c1"
    again = await workspace.admin.delete("/chats/c0")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


async def test_a_deleted_conversation_can_be_stored_anew(workspace: Workspace) -> None:
    await fill(workspace, 1)
    await workspace.admin.delete("/chats/c0")
    assert (await workspace.editor.post("/chats", json=message("c0", "m1", user_id="new"))).status_code == 201
    found = (await workspace.viewer.get("/chats/c0")).json()
    assert (found["message_count"], [p["user_id"] for p in found["participants"]]) == (1, ["new"])


async def test_another_workspace_loses_nothing(workspace: Workspace, other_workspace: Workspace) -> None:
    await fill(other_workspace, 2)
    await fill(workspace, 1)
    assert (await workspace.admin.delete("/chats/c1")).status_code == 404
    assert (await workspace.admin.delete("/chats/c0")).status_code == 200
    for params in ({"q": "parcel"}, {"user_id": "u0-0"}, {"from": "2026-01-01T00:00:00Z"}):
        answer = await workspace.admin.delete("/chats", params={**params, "max_delete_count": 100})
        assert (answer.status_code, answer.json()) == (200, {"deleted": NOTHING})
    assert await names(other_workspace) == {"c0", "c1"}


@pytest.mark.parametrize(
    ("params", "left"),
    [
        ({"user_id": "u0-1"}, {"c0", "c2"}),
        ({"from": "2026-11-03T00:00:00Z"}, {"c0", "c1"}),
        ({"to": "2026-11-02T00:00:00Z"}, {"c1", "c2", "c3"}),
        ({"q": "parcel", "user_id": "u1-0", "from": "2026-11-02T00:00:00Z"}, {"c0", "c1", "c3"}),
        ({"q": "absent"}, {"c0", "c1", "c2", "c3"}),
        ({"q": "the"}, {"c0", "c1", "c2", "c3"}),
    ],
)
async def test_a_filter_deletes_what_it_finds(workspace: Workspace, params: dict[str, str], left: set[str]) -> None:
    await fill(workspace, 4)
    gone = 4 - len(left)
    answer = await workspace.admin.delete("/chats", params={**params, "max_delete_count": max(gone, 1)})
    assert answer.status_code == 200
    expected = {**NOTHING, "conversations": gone, "messages": 3 * gone, "participants": 2 * gone}
    assert answer.json() == {"deleted": expected}
    assert await names(workspace) == left


async def test_a_thousand_go_in_one_request(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    sent = [
        message(f"{customer}{n}", f"m{place}", user_id=sender)
        for customer, count in (("ana", 1_000), ("bea", 3))
        for n in range(count)
        for place, sender in enumerate((customer, "agent", customer))
    ]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    for path in ("/chats/summarize", "/chats/insights"):
        assert (await workspace.editor.post(path, json={"conversation_id": "ana0"})).status_code == 200
    assert (await workspace.viewer.post("/chats/ana0/summary/feedback", json={"rating": "up"})).status_code == 201
    for table in ("summaries", "insights", "feedback"):  # the same for all others
        postgresql.execute(
            psycopg.sql.SQL(
                "INSERT INTO {0} SELECT (jsonb_populate_record(t, jsonb_build_object('conversation_id',"
                " c.conversation_id))).* FROM {0} AS t, conversations AS c WHERE c.conversation_id <> 'ana0'"
            ).format(psycopg.sql.Identifier(table))
        )
    postgresql.commit()
    assert (await workspace.editor.post("/jobs/summarize", json={"filter": {}})).status_code == 202
    kept = rows_of(postgresql, "bea%")
    expected = {"conversations": 3, "messages": 9, "participants": 6, "job_items": 3}
    expected |= {"summaries": 3, "insights": 3, "feedback": 3, "trend_changes": 3}
    assert {name: count for name, count in kept.items() if count} == expected
    postgresql.commit()

    fewer = await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 999})
    assert (fewer.status_code, rows_of(postgresql, "ana%")["messages"]) == (422, 3_000)
    answer = await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 1_000})
    receipt = {"conversations": 1_000, "messages": 3_000, "participants": 2_000}
    receipt |= {"summaries": 1_000, "insights": 1_000, "feedback": 1_000}
    assert (answer.status_code, answer.json()) == (200, {"deleted": receipt})
    assert set(rows_of(postgresql, "ana%").values()) == {0}
    assert rows_of(postgresql, "bea%") == kept
    told = postgresql.execute(
        "SELECT action, count(DISTINCT target), min((details->>'messages')::int) FROM audit_log"
        " WHERE action LIKE 'conversation%' GROUP BY action ORDER BY action"
    )
    assert told.fetchall() == [("conversation.deleted", 1_000, None), ("conversations.deleted", 0, 3_000)]


TOO_WIDE: list[tuple[dict[str, Any], str]] = [
    ({"max_delete_count": 100}, "invalid"),
    ({}, "invalid"),
    ({"q": "parcel"}, "invalid"),
    ({"q": "parcel", "max_delete_count": 3}, "too_many_to_delete"),
    ({"q": "parcel", "max_delete_count": 0}, "invalid"),
    ({"q": "parcel", "max_delete_count": 10**30}, "invalid"),
    ({"q": "parcel", "max_delete_count": 100, "limit": 1}, "invalid"),
    ({"q": "", "max_delete_count": 100}, "invalid"),
    ({"user_id": "", "max_delete_count": 100}, "invalid"),
    ({"user": "u0-0", "max_delete_count": 100}, "invalid"),
]


async def test_a_deletion_that_is_too_wide_deletes_nothing(workspace: Workspace) -> None:
    for params, code in TOO_WIDE:
        await fill(workspace, 4)
        answer = await workspace.admin.delete("/chats", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert len(await names(workspace)) == 4
