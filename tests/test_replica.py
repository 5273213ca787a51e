"""Reads that may be behind, on a streaming replica."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app import reads
from app.db import POOL_TIMEOUT_S
from app.errors import ConfigurationError
from app.factory import Services, build
from app.main import create_app
from app.settings import Settings, load_settings
from tests.conftest import MASTER_KEY, SECRET_KEY, migrate
from tests.faults.node import Node, node, replica
from tests.faults.proxy import Network
from tests.support.api import Workspace, message, open_workspace
from tests.support.process import working

PATIENCE_S, SLACK_S = 20.0, 3.0


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Node, Node]]:
    """A primary and its replica."""
    with tempfile.TemporaryDirectory(prefix="chat-") as place:
        Path(place).chmod(0o755)
        with node(Path(place) / "pg") as primary, replica(primary, Path(place) / "replica") as standby:
            migrate(conninfo=primary.url())
            yield primary, standby


def configured(primary: Node, folder: Path, replica_url: str | None = None) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=folder,
        database_url=SecretStr(primary.url()),
        database_replica_url=replica_url and SecretStr(replica_url),
        master_key=SecretStr(MASTER_KEY),
        secret_key=SecretStr(SECRET_KEY),
    )


@asynccontextmanager
async def opened(primary: Node, replica_url: str, folder: Path, name: str) -> AsyncIterator[tuple[Workspace, Services]]:
    """Yields a workspace of the service on a primary and a replica."""
    settings = configured(primary, folder, replica_url)
    async with build(settings, primary.url()) as services:
        app = create_app(lambda: nullcontext(services))
        async with app.router.lifespan_context(app), open_workspace(app, services, name) as workspace:
            yield workspace, services


@pytest.fixture
async def network(servers: tuple[Node, Node]) -> AsyncIterator[tuple[Network, int]]:
    """The network before the replica, and its port."""
    made = Network(servers[1].port)
    async with made.running() as port:
        yield made, port


@pytest.fixture
async def workspace(
    servers: tuple[Node, Node],
    network: tuple[Network, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Workspace]:
    monkeypatch.setattr(reads, "WATCH_S", 0.05)
    url = servers[1].url(port=network[1])
    async with opened(servers[0], url, tmp_path, request.node.name) as (made, _):
        yield made


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
    assert (await workspace.viewer.get("/readyz")).json()["checks"]["replica"] == "ok"
    servers[1].kill()
    assert (await workspace.editor.post("/chats", json=message("fresh"))).status_code == 201
    assert all("fresh" in each for each in await listed(workspace.viewer))
    servers[1].start()
    await until_asked(workspace.editor, servers[1])


async def test_a_silent_replica_is_not_waited_for_and_asked_again(
    workspace: Workspace,
    servers: tuple[Node, Node],
    network: tuple[Network, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, "LAG_S", 3_600.0)
    await until_asked(workspace.editor, servers[1])
    network[0].silence()
    began = time.monotonic()
    assert (await workspace.editor.post("/chats", json=message("fresh"))).status_code == 201
    assert all("fresh" in each for each in await listed(workspace.viewer))
    assert time.monotonic() - began < 3 * reads.ANSWER_S + SLACK_S
    network[0].speak()
    await until_asked(workspace.editor, servers[1])


async def test_what_fails_on_the_replica_alone_does_not_fail(
    workspace: Workspace, servers: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LAG_S", 3_600.0)
    primary, standby = servers
    assert (await workspace.editor.post("/chats", json=message("fresh"))).status_code == 201
    await until_asked(workspace.editor, standby)
    with (
        psycopg.connect(primary.url(), autocommit=True) as connection,
        psycopg.connect(standby.url(), autocommit=True) as copy,
    ):
        connection.execute("ALTER TABLE conversations RENAME TO others")
        while copy.execute("SELECT to_regclass('others')").fetchone() == (None,):
            pass
        replay(standby, "pause")
        connection.execute("ALTER TABLE others RENAME TO conversations")
    assert all("fresh" in each for each in await listed(workspace.editor))
    replay(standby, "resume")
    await until_asked(workspace.editor, standby)


async def test_the_replica_is_asked_while_the_primary_is_busy(
    workspace: Workspace, servers: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.auth.VIEWER_CACHE_S", 3_600.0)
    await until_asked(workspace.editor, servers[1])
    await listed(workspace.viewer)
    with psycopg.connect(servers[0].url()) as connection, psycopg.connect(servers[0].url(), autocommit=True) as other:
        connection.execute("LOCK TABLE messages IN EXCLUSIVE MODE")
        size = Settings.model_fields["database_pool_size"].default
        writes = asyncio.gather(
            *(workspace.editor.post("/chats", json=message(f"busy{number}")) for number in range(size))
        )
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while other.execute(waiting).fetchone() != (size,):  # noqa: ASYNC110 — that is all it tells
            await asyncio.sleep(0.01)
        began = time.monotonic()
        while time.monotonic() < began + POOL_TIMEOUT_S + 2:
            await listed(workspace.viewer)
        connection.rollback()
        assert {answer.status_code for answer in await writes} == {201}


async def test_a_replica_that_never_works_is_told_of(
    servers: tuple[Node, Node], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with capture_logs() as logs:
        async with opened(servers[0], "postgresql://nobody@127.0.0.1:1/x", tmp_path, request.node.name) as (_, made):
            async with asyncio.timeout(PATIENCE_S):
                while "replica_left_out" not in {each["event"] for each in logs}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            health = await made.health.ready()
            assert (health.status, health.checks["replica"]) == ("degraded", "degraded")


def test_a_worker_has_no_connection_to_the_replica(servers: tuple[Node, Node], tmp_path: Path) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chat-insights'"
    with psycopg.connect(servers[1].url(), autocommit=True) as connection:
        while connection.execute(query).fetchone() != (0,):
            pass  # those of other tests end
        with working(configured(servers[0], tmp_path), DATABASE_REPLICA_URL=servers[1].url()):
            assert connection.execute(query).fetchone() == (0,)


def test_a_replica_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URL", "http://canary-7f3a")
    with pytest.raises(ConfigurationError, match="DATABASE_REPLICA_URL: ") as refused:
        load_settings(_env_file=None)
    assert "canary-7f3a" not in str(refused.value)
