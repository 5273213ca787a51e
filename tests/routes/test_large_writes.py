"""Large writes take turns, and leave room for small requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import psycopg
import pytest

from app.factory import Services
from app.routes import chats
from app.settings import Settings
from tests.support.api import Workspace, message

LARGE = [message("c1", f"m{n}", message_content="word " * 20) for n in range(chats.LARGE_BYTES // 100)]


@pytest.fixture
async def taken(services: Services, settings: Settings) -> AsyncIterator[AsyncExitStack]:
    """Holds every place, until it is closed."""
    async with AsyncExitStack() as stack:
        for _ in range(settings.database_pool_size // 3):
            await stack.enter_async_context(services.large_writes.turn(0))
        yield stack


async def large_writes(workspace: Workspace) -> list[httpx.Response]:
    filters: dict[str, Any] = {"user_id": "nobody", "max_delete_count": 1}
    return [
        await workspace.editor.post("/chats", json=LARGE),
        await workspace.admin.delete("/chats", params=filters),
    ]


async def test_a_large_write_waits_for_its_place_and_a_small_one_does_not(
    workspace: Workspace, taken: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats, "WAIT_S", 0.05)
    for answer in await large_writes(workspace):
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert (await workspace.editor.post("/chats", json=message("c2"))).status_code == 201
    assert (await workspace.viewer.get("/chats/c1")).status_code == 404
    await taken.aclose()
    assert [answer.status_code for answer in await large_writes(workspace)] == [201, 200]
    assert (await workspace.viewer.get("/chats/c1")).json()["message_count"] == len(LARGE)


async def test_places_that_nobody_waits_for_any_more_are_free_again(
    workspace: Workspace, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes that are refused or called off give their places back."""
    conflict = [{**each, "message_content": "another text" * 10} for each in LARGE]
    assert (await workspace.editor.post("/chats", json=LARGE)).status_code == 201
    for _ in range(settings.database_pool_size):
        assert (await workspace.editor.post("/chats", json=conflict)).status_code == 409
        leaving = asyncio.create_task(workspace.editor.post("/chats", json=LARGE))
        for _ in range(20):
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert (await workspace.editor.post("/chats", json=["x" * 2**17])).status_code == 422
    monkeypatch.setattr(chats, "WAIT_S", 0.05)
    assert (await workspace.editor.post("/chats", json=LARGE)).json()["duplicates"] == len(LARGE)


async def test_a_large_write_that_takes_too_long_is_undone(
    workspace: Workspace, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats, "ANSWER_S", 0.2)
    postgresql.execute("LOCK TABLE messages IN SHARE MODE")
    answer = await workspace.editor.post("/chats", json=LARGE)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    postgresql.rollback()
    monkeypatch.undo()
    assert (await workspace.editor.post("/chats", json=LARGE)).json()["stored"] == len(LARGE)
