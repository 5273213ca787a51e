"""What wakes live readers: notices behind commits, and looks of their own where none is heard."""

import asyncio
import time
from collections.abc import Iterator

import psycopg
import pytest

from app import bus
from app.factory import build
from app.schemas.chats import MessageIn
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from app.services import live
from app.settings import Settings
from tests.conftest import url_of
from tests.support.api import Workspace, message
from tests.support.live import bearer, following
from tests.support.server import running_server

NEVER = 3600.0


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No summary is refreshed, and nobody looks unasked unless a test lets them."""
    monkeypatch.setattr(live, "QUIET_S", NEVER)
    monkeypatch.setattr(live, "WATCH_S", NEVER)


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with running_server(settings) as running:
        yield running


@pytest.fixture
def listener(postgresql: psycopg.Connection) -> psycopg.Connection:
    postgresql.autocommit = True
    postgresql.execute("LISTEN chat_insights")
    return postgresql


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notices are lost, as behind a pooler or with the process that was to send them."""
    monkeypatch.setattr(bus, "NOTIFY", "SELECT $1::text, $2::text[]")


async def heard(listener: psycopg.Connection, topic: str | None = None) -> list[str]:
    """Returns the topics of the notices up to the first one, or to a topic's, while the application goes on."""

    def listen() -> list[str]:
        topics: list[str] = []
        for notice in listener.notifies(timeout=20):
            topics += [notice.payload[place : place + 16] for place in range(0, len(notice.payload), 16)]
            if topic is None or topic in topics:
                break
        return topics

    return await asyncio.to_thread(listen)


async def store(workspace: Workspace, *ids: str, conversation_id: str = "c1") -> None:
    answer = await workspace.editor.post("/chats", json=[message(conversation_id, id) for id in ids])
    assert answer.status_code == 201, answer.text


@pytest.mark.usefixtures("unsent")
async def test_without_notices_everything_is_told_all_the_same(
    url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WATCH_S", 0.05)
    for conversation_id in ("c1", "c2"):
        await store(workspace, "m1", conversation_id=conversation_id)
    headers = bearer(workspace.keys[Role.VIEWER])
    async with following(url, headers) as reader, following(url, headers, "c2") as other:
        assert [(await each.next())["type"] for each in (reader, other)] == ["snapshot"] * 2
        for number in range(2, 5):
            await store(workspace, f"m{number}")
            assert await reader.messages(1) == [f"m{number}"]
        for force in (False, True):
            made = await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1", "force": force})
            assert await reader.next() == {"type": "summary.updated", "summary": made.json()}
        assert (await workspace.admin.delete("/chats/c1")).status_code == 200
        assert await reader.next() == {"type": "conversation.deleted"}
        await store(workspace, "last", conversation_id="c2")
        assert await other.messages(1) == ["last"]


@pytest.mark.usefixtures("unsent")
async def test_who_reads_where_it_was_written_needs_no_notice(url: str, workspace: Workspace) -> None:
    await store(workspace, "m1")
    async with following(url, bearer(workspace.keys[Role.EDITOR])) as editor:
        await editor.next()
        for number in range(2, 5):
            sent = message(message_id=f"m{number}")
            await editor.send("message", **{name: sent[name] for name in sent if name != "conversation_id"})
            assert await editor.messages(1) == [f"m{number}"]


async def test_who_leaves_once_it_is_committed_has_told(
    url: str, workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    postgresql.autocommit = True
    await store(workspace, "m1")
    async with following(url, bearer(workspace.keys[Role.VIEWER])) as reader:
        await reader.next()
        for number in range(2, 12):
            sent = message(message_id=f"m{number}")
            leaving = asyncio.create_task(workspace.editor.post("/chats", json=sent))
            # PostgreSQL is asked on this thread: the service has mostly not read its answer when the message is there.
            while postgresql.execute("SELECT count(*) FROM messages").fetchone() != (number,):
                await asyncio.wait({leaving}, timeout=0)
            leaving.cancel()
            await asyncio.wait({leaving})
            assert leaving.cancelled() or leaving.result().status_code in (201, 503)
            assert await reader.messages(1) == [f"m{number}"]


async def test_what_is_undone_is_not_told(workspace: Workspace, listener: psycopg.Connection) -> None:
    await store(workspace, "m1")
    [undone] = await heard(listener)
    batch = [message("c1", "m2"), message("c1", "m1", message_content="Another text.")]
    assert (await workspace.editor.post("/chats", json=batch)).status_code == 409
    assert (await workspace.admin.delete("/chats/absent")).status_code == 404
    await store(workspace, "m1")  # a duplicate changes nothing
    await store(workspace, "m1", conversation_id="c2")
    [told] = await heard(listener)
    assert told != undone


async def test_a_thousand_writes_share_few_notices(
    workspace: Workspace, listener: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "PAUSE_S", 0.2)
    await store(workspace, "m1", conversation_id="last")
    [last] = await heard(listener)
    began = time.monotonic()

    async def write(name: int) -> None:
        for number in range(125):
            await store(workspace, f"{name}-{number}")

    await asyncio.gather(*(write(name) for name in range(8)))
    seconds = time.monotonic() - began
    await store(workspace, "m2", conversation_id="last")
    topics = await heard(listener, last)
    assert 2 <= len(topics) <= seconds / 0.2 + 3
    assert len(set(topics)) == 2


async def test_a_process_tells_before_it_ends(
    settings: Settings, workspace: Workspace, listener: psycopg.Connection
) -> None:
    async with build(settings, url_of(listener)) as short:
        row = await short.workspaces.named("ours")
        await short.chats.store(Viewer(row.workspace_id, Role.EDITOR), [MessageIn.model_validate(message())])
    [told] = await heard(listener)
    await store(workspace, "m2")
    assert await heard(listener) == [told]
