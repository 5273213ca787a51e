"""PgBouncer in transaction mode, and what stands in for it where it is not installed."""

import asyncio
import os
import pwd
import socket
import struct
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg

SESSIONS = 2
SSL_REQUEST = 80877103
KEPT = {"user", "database", "application_name", "client_encoding"}
"""What PgBouncer takes of a startup message."""


def url_through(port: int, database: psycopg.Connection, user: str) -> str:
    """Returns the URL of a database behind a pooler."""
    return f"postgresql://{user}:{database.info.password}@127.0.0.1:{port}/{database.info.dbname}"


@contextmanager
def pgbouncer(program: str, database: psycopg.Connection, user: str, folder: Path) -> Iterator[str]:
    """Runs PgBouncer before a database, with fewer sessions than the service has connections; yields its URL."""
    info = database.info
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{info.dbname} = host={info.host} port={info.port} user={user} password={info.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\nserver_lifetime = 1\n"
    )
    command = [program, str(folder / "pgbouncer.ini")]
    if os.getuid() == 0:  # as root it refuses to run; the embedded server's socket is for its owner
        command[1:1] = ["-u", pwd.getpwuid(Path(info.host).stat().st_uid).pw_name]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            printed = []
            for line in process.stderr:
                printed.append(line)
                if "process up" in line:
                    break
            else:
                raise AssertionError("".join(printed))
            yield url_through(port, database, user)
        finally:
            process.kill()


class Pooler:
    """A door before PostgreSQL that passes on no startup parameters, as a pooler, and greets with a number of its own.

    ``silently`` it drops them, as PgBouncer told to ignore them; otherwise it refuses whoever has any.
    """

    def __init__(self, database: psycopg.Connection, *, silently: bool) -> None:
        self._socket = f"{database.info.host}/.s.PGSQL.{database.info.port}"
        self._silently = silently
        self._connections: list[asyncio.Task[None]] = []
        self.heard = b""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Yields the port."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*self._connections)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection
        self._connections.append(connection)
        try:
            await self._pass_on(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it was broken off
        finally:
            writer.close()

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        code, rest = await _first(reader)
        if code == SSL_REQUEST:
            writer.write(b"N")
            code, rest = await _first(reader)
        words = rest.decode().split("\0")
        given = {name: value for name, value in zip(words[::2], words[1::2], strict=False) if name}
        if given.keys() <= KEPT or self._silently:
            kept = "".join(f"{name}\0{value}\0" for name, value in given.items() if name in KEPT) + "\0"
            startup = struct.pack("!ii", len(kept) + 8, code) + kept.encode()
            away = await asyncio.open_unix_connection(self._socket)
            away[1].write(startup)
            try:
                await asyncio.gather(self._ask(reader, away[1]), _answer(away[0], writer))
            finally:
                away[1].close()
        else:
            told = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter\0\0"
            writer.write(b"E" + struct.pack("!i", len(told) + 4) + told)

    async def _ask(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(2**16):
            self.heard += data
            writer.write(data)
        writer.close()


async def _first(reader: StreamReader) -> tuple[int, bytes]:
    length, code = struct.unpack("!ii", await reader.readexactly(8))
    return code, await reader.readexactly(length - 8)


async def _answer(reader: StreamReader, writer: StreamWriter) -> None:
    kind = b""
    while kind != b"K":  # of the process that serves a cancellation
        if not (head := await reader.read(1)):
            return
        kind, length = head, await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(length) - 4)
        writer.write(kind + length + (b"\x81" + body[1:] if kind == b"K" else body))
    while data := await reader.read(2**16):
        writer.write(data)
    writer.close()
