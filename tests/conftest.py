"""Every test gets its own migrated database, and the application on it.

PostgreSQL is the embedded one, one for each process of pytest-xdist, unless ``--postgresql-host`` names a server (then
``-n 0``: its roles are all processes'). After every test its log is read: no statement may leave its workspace, and no
secret may be in it, nor in a table, an error or the test's output.
"""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

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
from tests.support import canaries, statements
from tests.support.api import Workspace, client, open_workspace
from tests.support.canaries import CANARIES
from tests.support.compiled import keep_compiled
from tests.support.server import running_server

MASTER_KEY = canaries.MASTER_KEY
SECRET_KEY = canaries.SECRET_KEY

MEMORY = 4 << 30
"""How many bytes a folder in memory must have free: the databases and their logs take a quarter of it."""

_server = pytest.StashKey[ExitStack]()
_output = pytest.StashKey[str]()
LOG = pytest.StashKey[statements.ServerLog]()
STATEMENTS, KINDS, SIZE = "statements", "kinds of canaries", "size"
"""What a test's report says of the walls."""


def pytest_xdist_auto_num_workers() -> int:
    """Returns how many processes run tests: some of the time each waits for deadlines and for the database."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_configure(config: pytest.Config) -> None:
    """Starts PostgreSQL for the session, if tests run in this process."""
    for name in [*Settings.model_fields, "env_file"]:
        os.environ.pop(name.upper(), None)
    # A hundred and fifty processes would compile the application anew, and each of pytest's every test.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    config.stash[LOG] = statements.ServerLog(None)
    stack = config.stash[_server] = ExitStack()
    canaries.listen(stack.enter_context(pytest.MonkeyPatch.context()))
    keep_compiled()
    if config.option.postgresql_host or config.option.collectonly or config.getoption("dist") != "no":
        return
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chat-", dir=_memory()))
    url = stack.enter_context(embedded_server(Path(folder) / "pg"))
    with psycopg.connect(url, autocommit=True) as connection:
        # A test's data need not survive a crash of the machine.
        for name, value in {"fsync": "off", **statements.SETTINGS}.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SHOW log_statement").fetchone() != ("all",):
            pass  # the server passes it on to its processes
        config.option.postgresql_host = connection.info.host
    config.option.postgresql_port = 5432
    config.option.postgresql_user = "postgres"
    config.option.postgresql_password = canaries.DATABASE_PASSWORD  # it trusts whoever may open its socket
    config.stash[LOG] = statements.ServerLog(Path(folder) / "pg" / "log")


def _memory() -> Path | None:
    """Returns a folder in memory with room for the databases, if there is one: making one is ten times as quick."""
    folder = Path("/dev/shm")
    return folder if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > MEMORY else None


def pytest_collection_finish() -> None:
    """Lets the garbage collector pass over all that was imported, and come less often, as the service has it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops what ``pytest_configure`` started."""
    if stack := config.stash.get(_server, None):
        stack.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps what a test put out, for the look at it afterwards."""
    report = yield
    item.stash[_output] = "".join(text for _, text in report.sections)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how much was looked at."""
    reports = [each for group in terminalreporter.stats.values() for each in group]
    found: list[tuple[str, Any]] = [
        each for report in reports if getattr(report, "when", "") == "teardown" for each in report.user_properties
    ]
    read = sum(value for name, value in found if name == STATEMENTS)
    kinds = {kind for name, value in found if name == KINDS for kind in value}
    terminalreporter.section("walls")
    terminalreporter.line(f"{read} statements were read" if read else "No statement was read: where is the log?")
    terminalreporter.line(f"{len(kinds)} of {len(canaries.Kind)} kinds of canaries were looked for")
    for line in sorted(value for name, value in found if name == SIZE):
        terminalreporter.line(line)


@pytest.fixture(autouse=True)
def walls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reads after the test what PostgreSQL was asked, and looks for secrets wherever they might have come out."""
    # Asked for here, it outlives this fixture, which outlives the application.
    database = request.getfixturevalue("postgresql") if "postgresql" in request.fixturenames else None
    CANARIES.begin()
    yield
    records = request.config.stash[LOG].new()
    heard = [record for record in records if record.statement]
    request.node.user_properties += [(STATEMENTS, len(heard)), (KINDS, sorted(map(str, CANARIES.kinds)))]
    found = [*request.config.stash[LOG].strays(records), *come_out(request.node, records, database)]
    assert not found, "\n".join(found)


def come_out(item: pytest.Item, records: list[statements.Record], database: psycopg.Connection | None) -> list[str]:
    """Returns which secrets have come out, and where."""
    places = [("the output", item.stash.get(_output, "").encode("utf-8", "surrogatepass")), *CANARIES.shown]
    places.append(("the database's log", "\n".join(record.text for record in records).encode()))
    if database:
        database.rollback()
        places += canaries.tables(database)
    return CANARIES.found(places)


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
        previous_master_keys=canaries.PREVIOUS_MASTER_KEY,
        secret_key=SECRET_KEY,
        previous_secret_keys=canaries.PREVIOUS_SECRET_KEY,
    )


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    assert settings.database_url
    async with build(settings, settings.database_url.get_secret_value()) as built:
        yield built


@cache
def _application(*_looked_at: object) -> FastAPI:
    """Returns the application for a configuration; the first request to one takes as long as many others."""

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        yield _services[-1]

    return create_app(open_services)


_services: list[Services] = []


@pytest.fixture
async def app(services: Services) -> AsyncIterator[FastAPI]:
    application = _application(services.base_url, services.cors_origins, services.trusted_proxies)
    _services.append(services)
    async with application.router.lifespan_context(application):
        yield application
    _services.pop()


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


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """Where the application is served on a real port."""
    with running_server(settings) as running:
        yield running


@pytest.fixture
def other_url(settings: Settings) -> Iterator[str]:
    """Where a second instance on the same database is served."""
    with running_server(settings) as running:
        yield running
