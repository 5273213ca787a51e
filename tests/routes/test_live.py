"""Live sockets: what is told, in which order, and what a client may send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import psycopg
import pytest

from app.schemas.enums import Role
from app.services import live
from app.settings import Settings
from tests.support.api import Workspace, message
from tests.support.live import Live, bearer, following
from tests.support.providers import grok_reply, open_providers, summary_answer
from tests.support.server import running_server

NEVER = 3600.0


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No summary is refreshed unless a test lets it."""
    monkeypatch.setattr(live, "QUIET_S", NEVER)


@pytest.fixture
async def reader(url: str, workspace: Workspace) -> AsyncIterator[Live]:
    """Yields a viewer's socket on a conversation of one message, behind its snapshot."""
    await workspace.editor.post("/chats", json=message())
    async with following(url, bearer(workspace.keys[Role.VIEWER])) as opened:
        assert (await opened.next())["type"] == "snapshot"
        yield opened


async def store(workspace: Workspace, *ids: str, conversation_id: str = "c1", **more: str) -> None:
    answer = await workspace.editor.post("/chats", json=[message(conversation_id, id, **more) for id in ids])
    assert answer.status_code == 201, answer.text


async def test_the_snapshot_is_what_reading_the_conversation_gives(url: str, workspace: Workspace) -> None:
    await store(workspace, *(f"m{n:03}" for n in range(150)))
    headers = bearer(workspace.keys[Role.VIEWER])
    async with following(url, headers) as opened:
        first = await opened.next()
    page = (await workspace.viewer.get("/chats/c1", params={"limit": 1_000})).json()
    assert (first["type"], first["summary"]) == ("snapshot", None)
    assert first["messages"] == page["messages"][-100:]
    assert first["conversation"] == {name: page[name] for name in first["conversation"]}
    await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})
    async with following(url, headers) as opened:
        assert (await opened.next())["summary"] == (await workspace.viewer.get("/chats/c1/summary")).json()


async def test_messages_come_from_every_instance_and_only_of_this_conversation(
    reader: Live, url: str, other_url: str, workspace: Workspace
) -> None:
    async with httpx.AsyncClient(headers=bearer(workspace.keys[Role.EDITOR])) as editor:
        for number, instance in enumerate((url, other_url, url)):
            batch = [message("c2", f"m{number}"), message("c1", f"n{number}", message_content=f"Text {number}.")]
            assert (await editor.post(f"{instance}/chats", json=batch)).status_code == 201
            event = await reader.next()
            assert (event["type"], event["message"]["message_content"]) == ("message", f"Text {number}.")
    found = (await workspace.viewer.get("/chats/c1")).json()["messages"]
    assert event["message"] == found[-1]


async def test_messages_of_a_batch_come_in_their_order_and_late_ones_come_late(
    reader: Live, workspace: Workspace
) -> None:
    times = {"b": "2026-11-01T12:00:01Z", "a": "2026-11-01T12:00:02Z", "c": "2026-11-01T12:00:00Z"}
    batch = [message(message_id=id, timestamp=time) for id, time in times.items()]
    await workspace.editor.post("/chats", json=batch)
    assert await reader.messages(3) == ["c", "b", "a"]
    await store(workspace, "early", timestamp="2020-01-01T00:00:00Z")
    assert await reader.messages(1) == ["early"]
    await store(workspace, "a", timestamp="2026-11-01T12:00:02Z")  # a duplicate is no news
    await store(workspace, "last")
    assert await reader.messages(1) == ["last"]


async def test_a_batch_of_thousands_comes_whole(reader: Live, workspace: Workspace) -> None:
    ids = [f"n{number:05}" for number in range(3_000)]
    await store(workspace, *ids)
    assert await reader.messages(len(ids)) == ids


async def test_ten_thousand_conversations_of_a_batch_cost_few_notices(
    reader: Live, workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    postgresql.autocommit = True
    postgresql.execute("LISTEN chat_insights")
    batch = [message(f"c{number}", "n") for number in range(10_000)]
    assert (await workspace.editor.post("/chats", json=batch)).status_code == 201
    assert await reader.messages(1) == ["n"]
    notices = list(postgresql.notifies(timeout=20, stop_after=23))
    assert not list(postgresql.notifies(timeout=0))
    assert len({each.payload[place : place + 16] for each in notices for place in range(0, 7_200, 16)} - {""}) == 10_000


async def test_writers_at_once_on_two_instances_lose_and_repeat_nothing(
    reader: Live, url: str, other_url: str, workspace: Workspace
) -> None:
    async with httpx.AsyncClient(headers=bearer(workspace.keys[Role.EDITOR]), timeout=30) as editor:

        async def write(instance: str, name: str) -> None:
            for number in range(25):
                sent = await editor.post(f"{instance}/chats", json=message(message_id=f"{name}-{number}"))
                assert sent.status_code == 201

        writers = [(instance, f"{place}{each}") for place, instance in enumerate((url, other_url)) for each in range(4)]
        writing = asyncio.gather(*(write(*writer) for writer in writers))
        told = await reader.messages(200)
        await writing
    assert sorted(told) == sorted(f"{name}-{number}" for _, name in writers for number in range(25))
    for _, name in writers:
        assert [id for id in told if id.startswith(f"{name}-")] == [f"{name}-{number}" for number in range(25)]


@pytest.mark.parametrize("remembered", [256, 2])
async def test_who_is_committed_later_than_numbered_is_told_or_the_snapshot_comes_anew(
    reader: Live, workspace: Workspace, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr(live, "REMEMBERED", remembered)
    await store(workspace, "m1", conversation_id="c0")
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with postgresql.transaction():
        postgresql.execute("SELECT FROM conversations WHERE conversation_id = 'c0' FOR UPDATE")
        batch = [message(id, "late") for id in ("c0", "c1")]
        late = asyncio.create_task(workspace.editor.post("/chats", json=batch))
        while not await asyncio.to_thread(lambda: postgresql.execute(waiting).fetchall()):
            pass  # it has its number, and waits for the other conversation
        for each in range(5):
            await store(workspace, f"n{each}")
            assert await reader.messages(1) == [f"n{each}"]
    assert (await late).status_code == 201
    event = await reader.next()
    if remembered == 256:
        assert event["message"]["message_id"] == "late"
    else:
        assert event["type"] == "snapshot"
        assert {each["message_id"] for each in event["messages"]} == {"m1", "late", *(f"n{each}" for each in range(5))}
    await store(workspace, "after")
    assert await reader.messages(1) == ["after"]


async def test_deletion_is_told_and_closes_the_socket(reader: Live, workspace: Workspace) -> None:
    assert (await workspace.admin.delete("/chats/c1")).status_code == 200
    assert await reader.next() == {"type": "conversation.deleted"}
    assert await reader.closed() == 1000


async def test_a_deletion_by_filter_is_told_too(reader: Live, workspace: Workspace) -> None:
    await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 5})
    assert await reader.next() == {"type": "conversation.deleted"}
    assert await reader.closed() == 1000


async def test_a_summary_that_anybody_makes_is_told(reader: Live, workspace: Workspace) -> None:
    made = (await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})).json()
    assert await reader.next() == {"type": "summary.updated", "summary": made}
    again = (await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1", "force": True})).json()
    assert await reader.next() == {"type": "summary.updated", "summary": again}


async def test_an_editor_sends_messages_and_asks_for_summaries(url: str, workspace: Workspace, reader: Live) -> None:
    fields = {name: value for name, value in message(message_id="sent").items() if name != "conversation_id"}
    async with following(url, bearer(workspace.keys[Role.EDITOR])) as editor:
        await editor.next()
        await editor.send("message", **fields)
        for each in (editor, reader):
            assert (await each.next())["message"] == fields
        for _ in range(2):  # the second time it is there already
            await editor.send("summarize")
            *_, told = await editor.until("summary.updated")
            assert told["summary"] == (await workspace.viewer.get("/chats/c1/summary")).json()
        assert (await reader.until("summary.updated"))[-1] == told
        await editor.send("summarize", force=True)
        *written, forced = await editor.until("summary.updated")
        assert written == [{"type": "summary.delta", "text": forced["summary"]["summary"]}]
        assert forced["summary"]["updated_at"] > told["summary"]["updated_at"]
        assert await reader.until("summary.updated") == [*written, forced]


WRONG: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("{", "malformed"),
    "a number": ("1", "invalid"),
    "an unknown type": ('{"type": "dance"}', "invalid"),
    "no type": ("{}", "invalid"),
    "no fields": ('{"type": "message"}', "invalid"),
    "an unknown field": ('{"type": "summarize", "x": 1}', "invalid"),
    "another conversation": ('{"type": "summarize", "conversation_id": "c2"}', "invalid"),
    "too much": ('{"type":' + "[" * 100, "invalid"),
    "NaN": ('{"type": NaN}', "invalid"),
    "a lone surrogate": ('{"type": "summarize", "force": "\\ud800"}', "malformed"),
    "a NUL": ('{"type": "message", "user_id": "\\u0000", "user_type": "customer", "message_content": "x"}', "invalid"),
    "bytes": (b"{}", "malformed"),
}


async def test_what_cannot_be_read_is_answered_and_the_socket_goes_on(url: str, workspace: Workspace) -> None:
    await store(workspace, "m1")
    async with following(url, bearer(workspace.keys[Role.EDITOR])) as editor:
        await editor.next()
        for name, (sent, code) in WRONG.items():
            await editor.socket.send(sent)
            assert await editor.refusal() == code, name
        other = {k: v for k, v in message(message_content="Other.").items() if k != "conversation_id"}
        await editor.send("message", **other)
        assert await editor.refusal() == "message_conflict"
        await editor.send("summarize")
        assert len(await editor.until("summary.updated")) == 2


async def test_an_oversized_frame_ends_the_socket(url: str, workspace: Workspace) -> None:
    await store(workspace, "m1")
    async with following(url, bearer(workspace.keys[Role.EDITOR])) as editor:
        await editor.next()
        fields = {"message_id": "big", "user_id": "ana", "user_type": "customer", "message_content": '"' * 2**20}
        await editor.send("message", **fields)
        assert (await editor.next())["message"]["message_content"] == fields["message_content"]
        await editor.send("message", **{**fields, "message_content": "x" * 3 * 2**20})
        assert await editor.closed() == 1009


async def test_a_quiet_after_new_messages_refreshes_the_summary_once(
    settings: Settings, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "QUIET_S", 0.1)
    await store(workspace, "m1")
    async with open_providers() as models, AsyncExitStack() as stack:
        models.grok.reply = grok_reply(summary_answer())
        url = stack.enter_context(running_server(settings.model_copy(update=models.settings)))
        roles = (Role.EDITOR, Role.EDITOR, Role.ADMIN, Role.VIEWER)
        readers = [await stack.enter_async_context(following(url, bearer(workspace.keys[role]))) for role in roles]
        for each in readers:
            await each.next()
        await store(workspace, "m2", "m3")
        for each in readers:
            *_, told = await each.until("summary.updated")
            assert told["summary"]["coverage"]["messages_total"] == 3
            assert (told["summary"]["provenance"]["provider"], told["summary"]["stale"]) == ("xai", False)
        assert len(models.requests) == 1


async def test_a_viewer_causes_no_summary_and_may_send_nothing(
    reader: Live, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "QUIET_S", 0.0)
    await store(workspace, "m2")
    assert await reader.messages(1) == ["m2"]
    for command in ("summarize", "message"):
        await reader.send(command)
        assert await reader.refusal() == "forbidden"
    assert (await workspace.viewer.get("/chats/c1/summary")).status_code == 404
    entries = (await workspace.admin.get("/audit", params={"action": "access.denied"})).json()["data"]
    assert [entry["details"]["operation"] for entry in entries] == ["followConversation"] * 2


async def test_notices_name_neither_conversation_nor_workspace(
    workspace: Workspace, other_workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    postgresql.autocommit = True
    postgresql.execute("LISTEN chat_insights")
    payloads = []
    for each in (workspace, other_workspace):
        for method, path, body in (
            ("POST", "/chats", message("ana@example.com")),
            ("POST", "/chats/summarize", {"conversation_id": "ana@example.com"}),
            ("DELETE", "/chats/ana%40example.com", None),
        ):
            assert (await each.admin.request(method, path, json=body)).is_success
            heard = await asyncio.to_thread(lambda: list(postgresql.notifies(timeout=20, stop_after=1)))
            payloads += [notice.payload for notice in heard]
        assert (await each.admin.delete("/chats/ana%40example.com")).status_code == 404
    assert [len(each) for each in payloads] == [16] * 6
    assert (len(set(payloads[:3])), len(set(payloads[3:])), len(set(payloads))) == (1, 1, 2)


@pytest.mark.parametrize("id", ["a/b", "ä %25?#", "..a", "."])
async def test_any_id_can_be_followed(url: str, workspace: Workspace, id: str) -> None:
    if id == ".":
        assert (await workspace.editor.post("/chats", json=message(id))).status_code == 422
        return
    await store(workspace, "m1", conversation_id=id)
    async with following(url, bearer(workspace.keys[Role.VIEWER]), id) as opened:
        assert (await opened.next())["conversation"]["conversation_id"] == id
