"""Reads that may be behind, on a streaming replica."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app import reads
from app.errors import ConfigurationError
from app.factory import build
from app.main import create_app
from app.settings import Settings, load_settings
from tests.conftest import MASTER_KEY, SECRET_KEY, migrate
from tests.faults.node import Node, node, replica
from tests.support.api import Workspace, message, open_workspace

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Node, Node]]:
    """A primary and its replica."""
    with tempfile.TemporaryDirectory(prefix="chat-") as place:
        Path(place).chmod(0o755)
        with node(Path(place) / "pg") as primary, replica(primary, Path(place) / "replica") as standby:
            migrate(conninfo=primary.url())
            yield primary, standby


@pytest.fixture
async def workspace(
    servers: tuple[Node, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Workspace]:
    monkeypatch.setattr(reads, "WATCH_S", 0.05)
    primary, standby = servers
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        database_url=SecretStr(primary.url()),
        database_replica_url=SecretStr(standby.url()),
        master_key=SecretStr(MASTER_KEY),
        secret_key=SecretStr(SECRET_KEY),
    )
    async with build(settings, primary.url()) as services:
        app = create_app(lambda: nullcontext(services))
        async with app.router.lifespan_context(app), open_workspace(app, services, request.node.name) as opened:
            yield opened


async def listed(client: httpx.AsyncClient) -> list[set[str]]:
    """Returns the ids in the list, in a search and in a history."""
    answers = [await client.get(path) for path in ("/chats", "/chats?q=parcel", "/users/ana/chats")]
    assert [answer.status_code for answer in answers] == [200] * 3
    return [{each["conversation_id"] for each in answer.json()["data"]} for answer in answers]


async def until_listed(client: httpx.AsyncClient, *names: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await listed(client) != [set(names)] * 3:
            pass


def replay(standby: Node, verb: str) -> None:
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        connection.execute(f"SELECT pg_wal_replay_{verb}()".encode())


async def until_asked(client: httpx.AsyncClient, standby: Node) -> None:
    """Waits until the replica answers, as its being behind shows."""
    async with asyncio.timeout(PATIENCE_S):
        for number in range(10_000):
            replay(standby, "pause")
            assert (await client.post("/chats", json=message(f"probe{number}"))).status_code == 201
            behind = f"probe{number}" not in (await listed(client))[0]
            replay(standby, "resume")
            if behind:
                return


async def test_lists_come_from_the_replica_and_all_else_does_not(
    workspace: Workspace, servers: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LAG_S", 3_600.0)
    await until_asked(workspace.editor, servers[1])
    replay(servers[1], "pause")
    assert (await workspace.editor.post("/chats", json=message("fresh"))).status_code == 201
    assert (await workspace.viewer.get("/chats/fresh")).status_code == 200
    assert not any("fresh" in each for each in await listed(workspace.viewer))
    refused = await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 1})
    assert refused.json()["code"] == "too_many_to_delete"
    everything = await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 100})
    assert everything.json()["deleted"]["conversations"] >= 2
    assert (await workspace.viewer.get("/chats/fresh")).status_code == 404
    replay(servers[1], "resume")
    await until_listed(workspace.viewer)


async def test_a_replica_that_lags_is_left_out_until_it_has_caught_up(
    workspace: Workspace, servers: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LAG_S", 0.5)
    await until_asked(workspace.editor, servers[1])
    replay(servers[1], "pause")
    await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 100})
    await workspace.editor.post("/chats", json=message("fresh"))
    await until_listed(workspace.viewer, "fresh")
    replay(servers[1], "resume")
    await until_asked(workspace.editor, servers[1])


async def test_nothing_fails_without_the_replica(
    workspace: Workspace, servers: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LAG_S", 3_600.0)
    await until_asked(workspace.editor, servers[1])
    servers[1].kill()
    assert (await workspace.editor.post("/chats", json=message("fresh"))).status_code == 201
    assert all("fresh" in each for each in await listed(workspace.viewer))
    servers[1].start()
    await until_asked(workspace.editor, servers[1])


def test_a_replica_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URL", "http://canary-7f3a")
    with pytest.raises(ConfigurationError, match="DATABASE_REPLICA_URL: ") as refused:
        load_settings(_env_file=None)
    assert "canary-7f3a" not in str(refused.value)
