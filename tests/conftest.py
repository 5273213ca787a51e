"""Every test gets its own migrated database, and the application on it.

PostgreSQL is the embedded one, unless ``--postgresql-host`` names a server.
"""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from pytest_postgresql import factories
from sqlalchemy import NullPool, create_engine

from app.embedded import embedded_server
from app.factory import Services, build
from app.main import create_app
from app.settings import ROOT, Settings
from tests.support.api import Workspace, client, open_workspace

MASTER_KEY = "11" * 32
SECRET_KEY = "22" * 32

_server = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts PostgreSQL for the session."""
    for name in [*Settings.model_fields, "env_file"]:
        os.environ.pop(name.upper(), None)
    if config.option.postgresql_host or config.option.collectonly:
        return
    stack = config.stash[_server] = ExitStack()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chat-"))
    url = stack.enter_context(embedded_server(Path(folder) / "pg"))
    with psycopg.connect(url, autocommit=True) as connection:
        # A test's data need not survive a crash of the machine.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        config.option.postgresql_host = connection.info.host
    config.option.postgresql_port = 5432
    config.option.postgresql_user = "postgres"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops what ``pytest_configure`` started."""
    if stack := config.stash.get(_server, None):
        stack.close()


def migrate(revision: str = "head", **server: object) -> None:
    """Brings a database to a revision."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**server),  # type: ignore[arg-type]
        poolclass=NullPool,
    )
    with engine.connect() as connection:
        config = Config(ROOT / "alembic.ini", attributes={"connection": connection})
        (command.upgrade if revision == "head" else command.downgrade)(config, revision)


def _migrate_template(**server: object) -> None:
    migrate("head", **{name: value for name, value in server.items() if value})


postgresql_proc = factories.postgresql_noproc(load=[_migrate_template])
postgresql = factories.postgresql("postgresql_proc")


def url_of(connection: psycopg.Connection) -> str:
    """Returns the URL of the database that a connection is to."""
    info = connection.info
    return f"postgresql://{info.user}:{info.password}@/{info.dbname}?host={info.host}&port={info.port}"


@pytest.fixture
def settings(postgresql: psycopg.Connection, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path,
        database_url=url_of(postgresql),
        master_key=MASTER_KEY,
        secret_key=SECRET_KEY,
    )


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    assert settings.database_url
    async with build(settings, settings.database_url.get_secret_value()) as built:
        yield built


@pytest.fixture
async def app(services: Services) -> AsyncIterator[FastAPI]:
    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        yield services

    application = create_app(open_services)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
async def workspace(app: FastAPI, services: Services) -> AsyncIterator[Workspace]:
    async with open_workspace(app, services, "ours") as opened:
        yield opened


@pytest.fixture
async def other_workspace(app: FastAPI, services: Services) -> AsyncIterator[Workspace]:
    async with open_workspace(app, services, "theirs") as opened:
        yield opened


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as opened:
        yield opened
