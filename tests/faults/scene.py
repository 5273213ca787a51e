"""What is put to the test, as users run it: the service, its worker, PgBouncer and nginx."""

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.settings import ROOT
from tests.bench.load import Failed
from tests.bench.servers import LIMITS, app, free_port, started
from tests.support.process import SERVE, WORK

CONFIGURATION = ROOT / "deploy" / "nginx.conf"


@dataclass
class Instance:
    """A process of the API that can be ended and started again on its port."""

    environment: dict[str, str]
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        running = started(f"api-{self.port}", SERVE, self.environment, "/readyz", self.folder, self.port)
        _, self.process, _ = self._stack.enter_context(running)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self._stack.close()

    def stop(self) -> None:
        """Asks it to stop, and waits until it has."""
        self._stack.close()


@dataclass
class Service:
    """A configured service on a database: its key, and what its processes are given."""

    environment: dict[str, str]
    folder: Path
    key: str

    @contextmanager
    def instance(self, **more: str) -> Iterator[Instance]:
        """Runs a process of the API."""
        made = Instance({**self.environment, **more}, self.folder)
        made.start()
        try:
            yield made
        finally:
            made.kill()

    @contextmanager
    def worker(self) -> Iterator[psutil.Popen]:
        """Runs a worker."""
        with (self.folder / "worker.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            with psutil.Popen(WORK, cwd=ROOT, env=environment, stdout=log, stderr=log) as process:
                try:
                    yield process
                finally:
                    process.kill()


def service(direct: str, through: str, folder: Path, **more: str) -> Service:
    """Migrates a database and makes a workspace with an admin's key; processes are given the other URL of it."""
    environment = {
        "DATABASE_URL": direct,
        "DATA_DIR": str(folder / "service"),
        "MASTER_KEY": secrets.token_hex(32),
        "SECRET_KEY": secrets.token_hex(32),
        "SHUTDOWN_DELAY_S": "0",
        **LIMITS,
        **more,
    }
    app(["migrate"], environment)
    key = app(["keys", "create", "--workspace", "faults", "--role", "admin"], environment)
    return Service({**environment, "DATABASE_URL": through}, folder, key)


@contextmanager
def nginx(ports: list[int], folder: Path) -> Iterator[str]:
    """Runs nginx with the configuration that the README recommends before two instances; yields its URL."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Failed("nginx is missing: install the package nginx of Debian, Ubuntu or Homebrew")
    port = free_port()
    text = CONFIGURATION.read_text()
    for written, own in (("127.0.0.1:8000", f"127.0.0.1:{ports[0]}"), ("127.0.0.1:8001", f"127.0.0.1:{ports[1]}")):
        text = _replaced(text, rf"server {re.escape(written)} ", f"server {own} ")
    text = _replaced(text, r"listen 80;", f"listen 127.0.0.1:{port};")
    (folder / "chat.conf").write_text(text)
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy"))
    unused = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\nworker_processes 1;\n"
        "events { worker_connections 512; }\n"
        f"http {{\naccess_log off;\n{places}{unused}include {folder}/chat.conf;\n}}\n"
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with started("nginx", command, {}, "/livez", folder, port) as (url, _, _):
        yield url


def _replaced(text: str, pattern: str, by: str) -> str:
    found, count = re.subn(pattern, by, text)
    if count != 1:
        raise Failed(f"{CONFIGURATION.name} is not as expected: {pattern}")
    return found


async def alembic(url: str) -> asyncio.subprocess.Process:
    """Begins to migrate a database."""
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
