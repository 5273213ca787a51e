"""What is measured, as users run it: PostgreSQL, the service and the yardstick, each in processes of their own."""

import contextlib
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx
import psutil
import psycopg

from app.embedded import embedded_server
from app.repositories.sessions import APP_ROLE
from app.settings import ROOT, Settings
from tests.bench.load import Failed
from tests.bench.yardstick import WORKSPACE

POOL_SIZE: int = Settings.model_fields["database_pool_size"].default
LIMITS = {f"RATE_LIMIT_{kind}": "60000000/minute" for kind in ("READ", "WRITE", "SEARCH")}
"""They stay on: a count and headers with each answer. Only how many requests they let through is raised."""
START_S = 30.0


@dataclass
class Side:
    """A server under load, with its database; ``start_s`` is how long it took to be ready."""

    name: str
    url: str
    key: str
    database: psycopg.Connection
    workspace_id: int
    process: subprocess.Popen[bytes]
    start_s: float

    def get(self, path: str) -> dict[str, object]:
        """Returns the answer to a path."""
        answer = httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)
        if answer.status_code != 200:
            raise Failed(f"{self.name}: GET {path}: {answer.status_code} {answer.text}")
        found: dict[str, object] = answer.json()
        return found

    def store(self, messages: list[dict[str, str]]) -> None:
        """Stores messages."""
        answer = httpx.post(
            f"{self.url}/chats", json=messages, headers={"Authorization": f"Bearer {self.key}"}, timeout=30
        )
        if answer.status_code != 201:
            raise Failed(f"{self.name}: POST /chats: {answer.status_code} {answer.text}")


@contextmanager
def postgres(url: str | None, folder: Path) -> Iterator[str]:
    """Yields the URL of a PostgreSQL: the given one, or one of its own, as durable as the service runs it."""
    with contextlib.nullcontext(url) if url else embedded_server(folder / "pg") as found:
        yield found


@contextmanager
def database(server: str, purpose: str) -> Iterator[str]:
    """Makes a migrated database, and drops it in the end."""
    name = f"bench_{purpose}_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
            app(["migrate"], {"DATABASE_URL": url})
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def app(arguments: list[str], environment: dict[str, str]) -> str:
    """Returns what a command of the service's command line prints."""
    command = [sys.executable, "-m", "app", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def postmaster(connection: psycopg.Connection) -> int | None:
    """Returns the process of PostgreSQL that started all others, if it runs on this machine."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(connection.info.backend_pid).parent()
        if found and found.name() == "postgres":
            return int(found.pid)
    return None


@contextmanager
def service(url: str, through: str, folder: Path, workers: int) -> Iterator[Side]:
    """Runs the service on a database, with a workspace and an admin's key; ``through`` is the URL that it is given."""
    environment = {
        "DATABASE_URL": url,
        "DATA_DIR": str(folder / "service"),
        "MASTER_KEY": secrets.token_hex(32),
        "SECRET_KEY": secrets.token_hex(32),
        "LOG_LEVEL": "info",
        "SHUTDOWN_DELAY_S": "0",
        "DATABASE_POOL_SIZE": str(POOL_SIZE),
        **LIMITS,
    }
    key = app(["keys", "create", "--workspace", "bench", "--role", "admin"], environment)
    environment |= {"DATABASE_URL": through, "WEB_CONCURRENCY": str(workers)}
    command = [sys.executable, "-m", "app", "serve"]
    with psycopg.connect(url, autocommit=True) as connection:
        workspace_id = _fetch(connection, "SELECT workspace_id FROM workspaces")
        with started("service", command, environment, "/readyz", folder) as (address, process, start_s):
            yield Side("service", address, key, connection, workspace_id, process, start_s)


@contextmanager
def yardstick(url: str, through: str, folder: Path, workers: int) -> Iterator[Side]:
    """Runs the yardstick on a database."""
    cache = "100" if through == url or keeps_statements() else "0"
    environment = {
        "DATABASE_URL": through,
        "POOL_SIZE": str(POOL_SIZE),
        "STATEMENT_CACHE_SIZE": cache,
        "POOLED": "" if through == url else "1",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.bench.yardstick:create", "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--no-server-header", "--no-date-header"]
    command += ["--log-level", "warning", "--lifespan", "on", "--workers", str(workers)]
    with psycopg.connect(url, autocommit=True) as connection:
        names = "workspace_id, name, master_key_id, wrapped_key"
        connection.execute(f"INSERT INTO workspaces ({names}) VALUES (%s, 'bench', '-', '')".encode(), [WORKSPACE])
        with started("yardstick", command, environment, "/", folder) as (address, process, start_s):
            yield Side("yardstick", address, "-", connection, WORKSPACE, process, start_s)


@contextmanager
def pgbouncer(server: str, folder: Path, port: int = 5432) -> Iterator[tuple[str, int]]:
    """Runs PgBouncer in transaction mode before a PostgreSQL whose socket is in the URL, all as the service's role.

    Yields the server's URL through it, and its process.
    """
    if shutil.which("pgbouncer") is None:
        raise Failed("pgbouncer is missing: install the package pgbouncer of Debian, Ubuntu or Homebrew.")
    host = parse_qs(urlsplit(server).query)["host"][0]
    listening = free_port()
    settings = {
        "pool_mode": "transaction",
        "listen_addr": "127.0.0.1",
        "listen_port": listening,
        "unix_socket_dir": "",
        "auth_type": "any",
        "logfile": folder / "pgbouncer.log",
        "default_pool_size": 2 * POOL_SIZE,
        "max_client_conn": 1_000,
        **({"max_prepared_statements": 200} if keeps_statements() else {}),
    }
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    file = folder / "pgbouncer.ini"
    file.write_text(f"[databases]\n* = host={host} port={port} user={APP_ROLE}\n[pgbouncer]\n{lines}\n")
    command = ["pgbouncer", "-q", str(file)]
    if os.getuid() == 0:  # which it refuses to be
        name = pwd.getpwuid(Path(host).stat().st_uid).pw_name
        command += ["-u", name]
        (folder / "pgbouncer.log").touch()
        for each in (folder / "pgbouncer.log", file):
            os.chown(each, pwd.getpwnam(name).pw_uid, -1)
        folder.chmod(0o755)
    with _stopped(subprocess.Popen(command, stderr=subprocess.DEVNULL)) as process:
        yield f"postgresql://{APP_ROLE}@127.0.0.1:{listening}", process.pid


@cache
def keeps_statements() -> bool:
    """Says whether PgBouncer can keep prepared statements for its clients, as it does since 1.21."""
    said = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    return found is not None and tuple(map(int, found.groups())) >= (1, 21)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def started(
    name: str, command: list[str], environment: dict[str, str], path: str, folder: Path, port: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Runs a server until the end, once it answers a path; yields its URL, its process and how long that took."""
    port, log = port or free_port(), folder / f"{name}.log"
    command = [*command, "--port", str(port)] if name == "yardstick" else command
    everything = {**os.environ, **environment, "HOST": "127.0.0.1", "PORT": str(port)}
    began = time.perf_counter()
    with (
        log.open("ab") as stream,
        _stopped(subprocess.Popen(command, cwd=ROOT, env=everything, stdout=stream, stderr=stream)) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        while not _answers(url + path):
            if process.poll() is not None or time.perf_counter() - began > START_S:
                raise Failed(f"The {name} does not start. Its log ends with:\n{log.read_text()[-2_000:]}")
            time.sleep(0.01)
        yield url, process, time.perf_counter() - began


@contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    with process:
        try:
            yield process
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _fetch(connection: psycopg.Connection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    assert row
    value: int = row[0]
    return value


def path_of(url: str) -> str:
    """Returns the path of a URL."""
    return urlsplit(url).path
