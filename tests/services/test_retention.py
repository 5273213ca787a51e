"""RETENTION_DAYS: what is too old goes as if it were deleted by hand, and nothing else does."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from app import worker
from app.errors import ConfigurationError, Unavailable
from app.factory import Services
from app.services import search
from app.settings import Settings, load_settings
from tests.routes.test_chats_delete import names, rows_of
from tests.support.api import Workspace, message

DAYS = 30


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    days = None if request.node.get_closest_marker("usefixtures") else DAYS
    return settings.model_copy(update={"retention_days": days})


@pytest.fixture
def unlimited() -> None:
    """Says that nothing is too old."""


async def fill(workspace: Workspace) -> None:
    rows = [
        message("old", "m1", timestamp=ago(DAYS + 5)),
        message("old", "m2", timestamp=ago(DAYS + 0.01)),
        message("goes on", "m1", timestamp=ago(DAYS + 300)),
        message("goes on", "m2", timestamp=ago(DAYS - 0.01)),
        message("new", "m1", timestamp=ago(0)),
    ]
    assert (await workspace.editor.post("/chats", json=rows)).status_code == 201
    assert (await workspace.editor.post("/chats/summarize", json={"conversation_id": "old"})).status_code == 200


async def test_a_conversation_goes_when_its_last_message_is_too_old(
    workspace: Workspace, other_workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    for each in (workspace, other_workspace):
        await fill(each)
    await services.retention.run(asyncio.Event())
    for each in (workspace, other_workspace):
        assert await names(each) == {"goes on", "new"}
        assert (await each.viewer.get("/chats/old")).status_code == 404
        entries = (await each.admin.get("/audit", params={"actor": "retention"})).json()["data"]
        assert [entry["action"] for entry in entries] == ["conversation.deleted", "conversations.deleted"]
        counts = {"conversations": 1, "messages": 2, "summaries": 1}
        assert counts.items() <= entries[1]["details"].items()
        assert entries[1]["details"]["before"] < ago(DAYS - 0.01)
        found = await each.admin.get("/audit", params={"conversation_id": "old", "actor": "retention"})
        assert len(found.json()["data"]) == 1
    assert set(rows_of(postgresql, "old").values()) == {0}
    await services.retention.run(asyncio.Event())
    assert len((await workspace.admin.get("/audit", params={"actor": "retention"})).json()["data"]) == 2


@pytest.mark.usefixtures("unlimited")
async def test_without_the_setting_nothing_goes(workspace: Workspace, services: Services) -> None:
    await fill(workspace)
    await services.retention.run(asyncio.Event())
    assert await names(workspace) == {"old", "goes on", "new"}


async def test_several_workers_share_the_work_in_small_portions(
    workspace: Workspace, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EXPIRED_AT_ONCE", 7)
    monkeypatch.setattr(search, "EXPIRED_MESSAGES", 4)
    rows = [
        message(f"c{number}", f"m{each}", timestamp=ago(DAYS + 1))
        for number in range(40)
        for each in range(6 if number == 20 else 1)
    ]
    assert (await workspace.editor.post("/chats", json=[*rows, message("new", "m1", timestamp=ago(1))])).is_success
    await asyncio.gather(*(services.retention.run(asyncio.Event()) for _ in range(3)))
    assert await names(workspace) == {"new"}
    answer = await workspace.admin.get("/audit", params={"actor": "retention", "limit": 100})
    portions = [each["details"] for each in answer.json()["data"] if each["action"] == "conversations.deleted"]
    assert sum(each["conversations"] for each in portions) == 40
    assert sorted(each["messages"] for each in portions)[-2:] == [4, 6]
    assert max(each["conversations"] for each in portions) <= 4


async def test_who_writes_at_that_moment_loses_nothing(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    await fill(workspace)
    postgresql.execute("UPDATE conversations SET last_message_at = now() WHERE conversation_id = 'old'")
    await services.retention.run(asyncio.Event())  # does not wait for it either
    postgresql.commit()
    await services.retention.run(asyncio.Event())
    assert await names(workspace) == {"old", "goes on", "new"}


async def test_one_workspace_that_fails_does_not_keep_the_others(
    workspace: Workspace, other_workspace: Workspace, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (workspace, other_workspace):
        await fill(each)
    expire, ours = services.search.expire, await services.workspaces.named("ours")

    async def fail(workspace_id: int, before: datetime) -> int:
        if workspace_id == ours.workspace_id:
            raise Unavailable("x")
        return await expire(workspace_id, before)

    monkeypatch.setattr(services.search, "expire", fail)
    await services.retention.run(asyncio.Event())
    assert await names(workspace) == {"old", "goes on", "new"}
    assert await names(other_workspace) == {"goes on", "new"}


async def test_the_worker_sees_to_it(workspace: Workspace, services: Services) -> None:
    await fill(workspace)
    stopping = asyncio.Event()
    working = asyncio.create_task(worker.work(services, stopping))
    async with asyncio.timeout(20):
        while "old" in await names(workspace):
            pass
    stopping.set()
    await working


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "36501", "9" * 30, "never", "30d", "1e2", "nan"])
def test_a_retention_that_is_none_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RETENTION_DAYS", value)
    with pytest.raises(ConfigurationError, match="RETENTION_DAYS: ") as refused:
        load_settings(_env_file=None)
    assert value not in str(refused.value).replace("36500", "")


def test_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_DAYS", "")
    assert load_settings(_env_file=None).retention_days is None
