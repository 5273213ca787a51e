"""Live sockets when something ends: credentials, readers' patience, the server, PostgreSQL, connections."""

import asyncio
import json
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from app import bus
from app.embedded import embedded_server
from app.errors import Unavailable
from app.factory import Services, build
from app.routes import live as routes
from app.schemas.analyses import Summary
from app.schemas.enums import Role
from app.schemas.live import NewMessage, SummaryUpdated
from app.schemas.viewer import Viewer
from app.services import live
from app.settings import Settings
from tests.conftest import migrate
from tests.support.api import Workspace, create_key, message
from tests.support.live import bearer, following, refused
from tests.support.process import serving
from tests.support.server import running_server

NEVER = 3600.0


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No summary is refreshed unless a test lets it."""
    monkeypatch.setattr(live, "QUIET_S", NEVER)


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with running_server(settings.model_copy(update={"rate_limit_write": "8/day"})) as running:
        yield running


@pytest.fixture
async def conversation(workspace: Workspace) -> None:
    assert (await workspace.editor.post("/chats", json=message())).status_code == 201


async def made_key(workspace: Workspace, role: Role) -> dict[str, str]:
    answer = await workspace.admin.post("/auth/keys", json={"name": "x", "role": role})
    found: dict[str, str] = answer.json()
    return found


async def credentials(workspace: Workspace) -> AsyncIterator[tuple[str, str]]:
    """Yields keys' ids, and each key or a token of it."""
    for by_token in (False, True):
        made = await made_key(workspace, Role.EDITOR)
        shown = made["key"]
        if by_token:
            shown = (await workspace.admin.post("/auth/token", headers=bearer(shown))).json()["access_token"]
        yield made["id"], shown


@pytest.mark.usefixtures("conversation")
async def test_idle_sockets_end_with_their_credential(
    url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WATCH_S", 0.05)
    async for id, shown in credentials(workspace):
        async with following(url, bearer(shown)) as first, following(url, bearer(shown)) as second:
            assert (await first.next(), await second.next())[0]["type"] == "snapshot"
            assert (await workspace.admin.delete(f"/auth/keys/{id}")).status_code == 204
            assert [await each.closed() for each in (first, second)] == [1008, 1008]


@pytest.mark.usefixtures("conversation")
async def test_a_revocation_acts_within_five_seconds_by_the_real_clock(url: str, workspace: Workspace) -> None:
    made = await made_key(workspace, Role.VIEWER)
    async with following(url, bearer(made["key"])) as opened:
        await opened.next()
        assert (await workspace.admin.delete(f"/auth/keys/{made['id']}")).status_code == 204
        async with asyncio.timeout(5):
            assert await opened.closed() == 1008


@pytest.mark.usefixtures("conversation")
async def test_a_defect_closes_the_socket_and_says_nothing(
    url: str, workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    postgresql.autocommit = True
    async with following(url, bearer(workspace.keys[Role.VIEWER])) as reader:
        await reader.next()
        postgresql.execute(  # a text that does not open under its name
            "INSERT INTO messages SELECT workspace_id, conversation_id, 'moved', sequence + 1, user_id, user_type,"
            " timestamp, content, search_vector FROM messages"
        )
        assert (await workspace.editor.post("/chats", json=message(message_id="m2"))).status_code == 201
        assert await reader.closed() == 1011
        assert reader.socket.close_reason == ""
    status, document = await refused(url, bearer(workspace.keys[Role.VIEWER]))
    assert (status, document["code"]) == (500, "internal")


@pytest.mark.usefixtures("conversation")
async def test_who_sends_too_much_is_told_so_and_goes_on_reading(url: str, workspace: Workspace) -> None:
    async with following(url, bearer(workspace.keys[Role.EDITOR])) as editor:
        await editor.next()
        for _ in range(8):
            await editor.socket.send("{}")
            assert await editor.refusal() == "invalid"
        await editor.send("summarize")
        refused = await editor.next()
        assert (refused["problem"]["code"], refused["retry_after"] > 0) == ("rate_limited", True)
        await workspace.editor.post("/chats", json=message(message_id="m2"))
        assert await editor.messages(1) == ["m2"]


@pytest.mark.usefixtures("conversation")
async def test_who_does_not_read_is_closed_with_1013(
    url: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "SLOW_S", 0.1)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", int(url.rpartition(":")[2])))
    async with following(url, bearer(workspace.keys[Role.VIEWER]), sock=raw, max_queue=1) as reader:
        await reader.next()
        for number in range(12):
            sent = message(message_id=f"n{number}", message_content="x" * 2**20)
            assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
        async with httpx.AsyncClient(headers=bearer(workspace.keys[Role.VIEWER])) as other:
            assert (await other.get(f"{url}/chats/c1", params={"limit": 1})).status_code == 200
        assert await reader.closed() == 1013


async def test_the_servers_end_closes_sockets_with_1012_and_its_log_names_no_conversation(
    settings: Settings, workspace: Workspace
) -> None:
    await workspace.editor.post("/chats", json=message("ana@example.com"))
    headers = bearer(workspace.keys[Role.EDITOR])
    with serving(settings, LOG_LEVEL="debug", SHUTDOWN_DELAY_S="0") as server:
        assert (await refused(server.url, headers, "absent"))[0] == 404
        async with following(server.url, headers, "ana@example.com") as opened:
            await opened.next()
            await opened.socket.send("a text that is none of the log's business")
            assert await opened.refusal() == "malformed"
            server.process.send_signal(signal.SIGTERM)
            assert await opened.closed() == 1012
        assert server.process.wait(20) == 128 + signal.SIGTERM
        assert server.process.stderr
        log = server.process.stderr.read().decode()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    told = [(each["route"], each["status"]) for each in lines if each.get("method") == "WEBSOCKET"]
    assert told == [("/ws/chats/{conversation_id}", status) for status in (404, 101)]
    assert [word for word in ("ana", "absent", "business") if word in log] == []


@pytest.mark.usefixtures("conversation")
@pytest.mark.parametrize("broken", ["the listening connection", "every connection"])
async def test_a_broken_connection_is_told_and_nothing_is_lost(
    url: str, workspace: Workspace, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(bus, "RETRY_S", 0.05)
    postgresql.autocommit = True
    listening = " AND query LIKE 'LISTEN%'" if broken == "the listening connection" else ""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = current_database() AND pid <> pg_backend_pid(){listening}"
    )
    async with following(url, bearer(workspace.keys[Role.VIEWER])) as reader:
        await reader.next()
        await workspace.editor.post("/chats", json=message(message_id="m2"))
        assert await reader.messages(1) == ["m2"]  # by now it listens
        assert postgresql.execute(end.encode()).fetchall()
        assert await reader.refusal() == "unavailable"
        while (await workspace.editor.post("/chats", json=message(message_id="m3"))).status_code != 201:
            pass
        assert await reader.messages(1) == ["m3"]
        await workspace.editor.post("/chats", json=message(message_id="m4"))
        assert await reader.messages(1) == ["m4"]


async def test_sockets_outlive_a_restart_of_postgresql(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "RETRY_S", 0.05)
    with tempfile.TemporaryDirectory(prefix="chat-") as folder, ExitStack() as servers:
        stopping = servers.enter_context(ExitStack())
        dsn = stopping.enter_context(embedded_server(Path(folder) / "pg"))
        migrate("head", **conninfo_to_dict(dsn))
        settings = settings.model_copy(update={"database_url": SecretStr(dsn)})
        async with build(settings, dsn) as services:
            row, _ = await services.workspaces.get_or_create("ours")
            key = await create_key(services, row.workspace_id, Role.EDITOR)
        url = servers.enter_context(running_server(settings))
        async with httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=30) as client:
            assert (await client.post("/chats", json=message())).status_code == 201
            async with following(url, bearer(key)) as reader:
                await reader.next()
                assert (await client.post("/chats", json=message(message_id="m2"))).status_code == 201
                assert await reader.messages(1) == ["m2"]
                await asyncio.to_thread(stopping.close)
                assert await reader.refusal() == "unavailable"
                assert (await client.post("/chats", json=message(message_id="m3"))).status_code == 503
                await asyncio.to_thread(servers.enter_context, embedded_server(Path(folder) / "pg"))
                while (await client.post("/chats", json=message(message_id="m3"))).status_code != 201:
                    pass
                assert await reader.messages(1) == ["m3"]


@pytest.mark.usefixtures("conversation")
async def test_what_is_new_when_a_look_fails_is_told_at_the_next(
    workspace: Workspace, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = Viewer((await services.workspaces.all())[0].workspace_id, Role.VIEWER)
    monkeypatch.setattr(live, "RETRY_S", 0.0)
    get = services.summaries.get
    failures = [Unavailable("Not now.")]

    async def sometimes(*where: Any) -> Summary:
        if failures:
            raise failures.pop()
        return await get(*where)

    monkeypatch.setattr(services.summaries, "get", sometimes)
    async with services.live.open(viewer, "c1", lambda: None) as feed:
        await feed.snapshot()
        await workspace.editor.post("/chats", json=message(message_id="m2"))
        await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})
        failures[:] = [Unavailable("Not now.")]
        told: list[object] = []
        async with asyncio.timeout(20):
            while not any(isinstance(event, SummaryUpdated) for event in told):
                told += await feed.news()
    assert [event.message["message_id"] for event in told if isinstance(event, NewMessage)] == ["m2"]
