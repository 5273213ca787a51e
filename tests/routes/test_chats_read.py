"""Reading a conversation: pages, tags, cursors."""

from typing import Any

import asyncpg
import httpx
import psycopg
import pytest

from app.repositories import chats
from app.services.chats import PAGE_BYTES
from tests.support.api import Workspace, message


async def fill(workspace: Workspace, count: int, conversation_id: str = "c1") -> None:
    messages = [
        message(conversation_id, f"m{n}", timestamp=f"2026-11-01T10:00:0{n // 4 % 5}Z", message_content=f"Text {n}.")
        for n in range(count)
    ]
    assert (await workspace.editor.post("/chats", json=messages)).status_code == 201


async def pages(client: httpx.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
    """Returns the pages of a list by its cursors."""
    found = [(await client.get(path, params=params)).json()]
    while found[-1]["has_more"]:
        found.append((await client.get(path, params={**params, "cursor": found[-1]["next_cursor"]})).json())
    assert found[-1]["next_cursor"] is None
    return found


async def test_pages_hold_every_message_once_in_order(workspace: Workspace) -> None:
    for limit in (1, 3, 20, 41, 1_000):
        await fill(workspace, 41)
        whole = (await workspace.viewer.get("/chats/c1")).json()["messages"]
        assert len(whole) == 41
        found = await pages(workspace.viewer, "/chats/c1", limit=limit)
        assert [m for page in found for m in page["messages"]] == whole
        assert {len(page["messages"]) for page in found[:-1]} <= {limit}
        assert len(found) == -(-41 // limit)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
async def test_the_first_and_the_last_time_there_is_are_times_like_others(workspace: Workspace, time: str) -> None:
    sent = [message(f"c{n % 5}", f"m{n}", timestamp=time) for n in range(25)]
    await workspace.editor.post("/chats", json=sent)
    found = (await workspace.viewer.get("/chats/c0", params={"limit": 2})).json()
    ids = [m["message_id"] for m in found["messages"]]
    while found["has_more"] and len(ids) < 25:
        params = {"limit": 2, "cursor": found["next_cursor"]}
        found = (await workspace.viewer.get("/chats/c0", params=params)).json()
        ids += [m["message_id"] for m in found["messages"]]
    assert ids == [f"m{n}" for n in range(0, 25, 5)]
    first = (await workspace.viewer.get("/chats", params={"limit": 2})).json()
    rest = (await workspace.viewer.get("/chats", params={"limit": 5, "cursor": first["next_cursor"]})).json()
    assert [c["conversation_id"] for c in first["data"] + rest["data"]] == ["c4", "c3", "c2", "c1", "c0"]
    assert len((await workspace.viewer.get("/chats", params={"from": time})).json()["data"]) == 5
    assert (await workspace.viewer.get("/chats", params={"to": time})).json()["data"] == []


async def test_a_message_that_comes_between_two_pages_moves_nothing(workspace: Workspace) -> None:
    await fill(workspace, 10)
    first = (await workspace.viewer.get("/chats/c1", params={"limit": 5})).json()
    early = message(message_id="early", timestamp="2026-10-01T00:00:00Z")
    late = message(message_id="late", timestamp="2026-12-01T00:00:00Z")
    await workspace.editor.post("/chats", json=[early, late])
    rest = (await workspace.viewer.get("/chats/c1", params={"cursor": first["next_cursor"]})).json()
    ids = [m["message_id"] for m in (*first["messages"], *rest["messages"])]
    assert ids == [f"m{n}" for n in range(10)] + ["late"]


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_page_ends_early_when_it_holds_much_text(workspace: Workspace, extra: int) -> None:
    mebibytes = PAGE_BYTES // 2**20
    big = [message(message_id=f"m{n}", message_content=f"{n}" * 2**20) for n in range(mebibytes)]
    more = [message(message_id="last", message_content="9" * 2**14)] * extra
    assert (await workspace.editor.post("/chats", json=big + more)).status_code == 201
    found = await pages(workspace.viewer, "/chats/c1")
    assert [len(page["messages"]) for page in found] == [mebibytes, *[1] * extra]


async def test_a_tag_holds_until_a_message_comes(workspace: Workspace) -> None:
    await fill(workspace, 3)
    first = await workspace.viewer.get("/chats/c1")
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = await workspace.viewer.get("/chats/c1", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert (await workspace.viewer.get("/chats/c1", headers={"If-None-Match": '"x"'})).status_code == 200
    assert (await workspace.viewer.get("/chats/c1", params={"limit": 2})).headers["ETag"] != tag
    await workspace.editor.post("/chats", json=message(message_id="m0", message_content="Text 0."))  # refused
    await workspace.editor.post("/chats", json=message(message_id="new"))
    changed = await workspace.viewer.get("/chats/c1", headers={"If-None-Match": tag})
    assert (changed.status_code, len(changed.json()["messages"])) == (200, 4)


async def test_a_conversation_made_anew_has_another_tag(workspace: Workspace) -> None:
    await fill(workspace, 3)
    tag = (await workspace.viewer.get("/chats/c1")).headers["ETag"]
    await workspace.admin.delete("/chats/c1")
    assert (await workspace.viewer.get("/chats/c1", headers={"If-None-Match": "*"})).status_code == 404
    await fill(workspace, 3)
    assert (await workspace.viewer.get("/chats/c1", headers={"If-None-Match": tag})).status_code == 200


async def test_a_cursor_serves_only_what_it_was_made_for(workspace: Workspace, other_workspace: Workspace) -> None:
    for each, name in ((workspace, "c1"), (workspace, "c2"), (other_workspace, "c1")):
        await fill(each, 5, name)
    cursor = (await workspace.viewer.get("/chats/c1", params={"limit": 2})).json()["next_cursor"]
    listed = (await workspace.viewer.get("/chats", params={"limit": 1})).json()["next_cursor"]
    changed = [
        cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :] for place in range(0, 60, 7)
    ]
    wrong = [
        (workspace, "/chats/c2", {"cursor": cursor}),
        (other_workspace, "/chats/c1", {"cursor": cursor}),
        (workspace, "/chats", {"cursor": cursor}),
        (workspace, "/chats/c1", {"cursor": listed}),
        (workspace, "/chats", {"cursor": listed, "user_id": "ana"}),
        (other_workspace, "/chats", {"cursor": listed}),
        *(
            (workspace, "/chats/c1", {"cursor": each})
            for each in (*changed, cursor[:-4], "", "é", "A" * 9_000, "!", cursor * 2)
        ),
    ]
    for asker, path, params in wrong:
        answer = await asker.viewer.get(path, params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), params
        assert [error["pointer"] for error in answer.json()["errors"]] == ["cursor"]
    assert (await workspace.viewer.get("/chats/c1", params={"cursor": cursor, "limit": 1})).status_code == 200


LIMITS = ["0", "-1", "1001", "9" * 30, "1e3", "x", "", "NaN", "1.5", "٣x"]


async def test_an_absurd_limit_is_refused(workspace: Workspace) -> None:
    for limit in LIMITS:
        await fill(workspace, 1)
        answer = await workspace.viewer.get("/chats/c1", params={"limit": limit})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "limit")


async def test_what_is_absent_is_told(workspace: Workspace) -> None:
    answer = await workspace.viewer.get("/chats/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_conversation_that_goes_while_it_is_read_is_gone(
    workspace: Workspace, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long messages are read by a second statement: between the two, somebody deletes."""
    fetch = asyncpg.Connection.fetch

    async def late(connection: asyncpg.Connection, statement: str, *values: object) -> Any:
        if statement == chats._LARGE:
            postgresql.execute("DELETE FROM conversations")
            postgresql.commit()
        return await fetch(connection, statement, *values)

    assert (await workspace.editor.post("/chats", json=message(message_content="x" * 2**16))).status_code == 201
    assert (await workspace.viewer.get("/chats/c1")).status_code == 200
    monkeypatch.setattr(asyncpg.Connection, "fetch", late)
    assert (await workspace.viewer.get("/chats/c1")).status_code == 404
