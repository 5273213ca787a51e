"""The service behind a pooler, which shares PostgreSQL's sessions among its connections, transaction by transaction."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from app.db import Database
from app.errors import ConfigurationError
from app.factory import build
from app.main import create_app
from app.repositories.sessions import APP_ROLE
from app.schemas.enums import Role
from app.settings import Settings
from tests.conftest import migrate
from tests.support.api import message, open_workspace
from tests.support.live import bearer, following
from tests.support.pooler import Pooler, pgbouncer, url_through
from tests.support.server import running_server

ROOMS = 12


@pytest.fixture
def database(postgresql: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Yields a database that was migrated itself, whose role may log in: a copy of a template lacks its settings."""
    info = postgresql.info
    postgresql.autocommit = True
    address = {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname}
    for revision in ("base", "head"):
        migrate(revision, **address, password=info.password)
    postgresql.execute(f"ALTER ROLE {APP_ROLE} LOGIN".encode())
    yield postgresql
    postgresql.execute(f"ALTER ROLE {APP_ROLE} NOLOGIN".encode())


async def refused(settings: Settings, url: str) -> str:
    """Returns why the service does not start."""
    with pytest.raises(ConfigurationError) as error:
        async with build(settings, url):
            pass
    return str(error.value)


@pytest.mark.parametrize("silently", [True, False])
async def test_what_a_session_needs_holds_behind_a_pooler(database: psycopg.Connection, *, silently: bool) -> None:
    door = Pooler(database, silently=silently)
    async with door.running() as port:
        db = Database(url_through(port, database, APP_ROLE))
        async with db.read() as unit:
            found = await unit.chats._driver.fetchrow(
                "SELECT current_user, current_setting('work_mem'), current_setting('jit')"
            )
            assert tuple(found) == (APP_ROLE, "64MB", "off")
        async with db.alone() as listener:
            await listener.add_listener("chat_insights", lambda *_: None)
            assert b"pg_backend_pid" in door.heard
            assert b"LISTEN" not in door.heard  # it would go on in somebody else's session
        await db.close()


@pytest.mark.parametrize("silently", [True, False])
async def test_an_owner_behind_a_pooler_is_refused(
    settings: Settings, database: psycopg.Connection, *, silently: bool
) -> None:
    async with Pooler(database, silently=silently).running() as port:
        told = await refused(settings, url_through(port, database, database.info.user))
        assert told.startswith(f"Through a pooler the service has to log in as {APP_ROLE}")
        assert told.endswith(": role.")


async def test_a_pooler_whose_sessions_lack_settings_is_refused(
    settings: Settings, database: psycopg.Connection
) -> None:
    name = database.info.dbname
    database.execute(f'ALTER DATABASE "{name}" RESET ALL'.encode())
    async with Pooler(database, silently=False).running() as port:
        assert (await refused(settings, url_through(port, database, APP_ROLE))).endswith(": work_mem, jit.")


async def test_no_migration_runs_through_a_pooler(database: psycopg.Connection) -> None:
    info = database.info
    async with Pooler(database, silently=True).running() as port:
        server = {"user": info.user, "dbname": info.dbname, "password": info.password}
        with pytest.raises(SystemExit, match="goes past it"):
            await asyncio.to_thread(migrate, host="127.0.0.1", port=port, **server)


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed")
async def test_connections_share_fewer_sessions(
    settings: Settings, database: psycopg.Connection, tmp_path: Path
) -> None:
    program = shutil.which("pgbouncer") or ""
    with pgbouncer(program, database, APP_ROLE, tmp_path) as url:
        settings = settings.model_copy(update={"database_url": SecretStr(url), "database_pool_size": ROOMS})
        async with build(settings, url) as services:
            app = create_app(lambda: nullcontext(services))
            async with app.router.lifespan_context(app), open_workspace(app, services, "ours") as workspace:

                async def converse(room: str) -> list[int]:
                    statuses = []
                    for number in range(5):
                        sent = [message(room, f"m{number}-{each}") for each in range(3)]
                        answers = [
                            await workspace.editor.post("/chats", json=sent),
                            await workspace.viewer.get(f"/chats/{room}"),
                            await workspace.viewer.get("/chats", params={"q": "parcel", "limit": 1}),
                        ]
                        statuses += [answer.status_code for answer in answers]
                    assert len(answers[1].json()["messages"]) == 15
                    return statuses

                rooms = await asyncio.gather(*(converse(f"room{number}") for number in range(ROOMS)))
                assert rooms == [[201, 200, 200] * 5] * ROOMS
                with running_server(settings) as other:
                    async with following(other, bearer(workspace.keys[Role.VIEWER]), "room1") as reader:
                        await reader.next()
                        await workspace.editor.post("/chats", json=message("room1", "last"))
                        assert await reader.messages(1) == ["last"]
