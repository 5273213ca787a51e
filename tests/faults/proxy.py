"""A network between the service and PostgreSQL that is slow, silent or broken on demand."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

CHUNK = 2**16


class Network:
    """A TCP proxy before a port of loopback, or before a Unix socket.

    ``delay_s`` is added to whatever passes, in each direction. While it is ``silent``, nothing passes and nobody is
    told; what was held back comes through afterwards, as after a partition.
    """

    def __init__(self, to: int | str) -> None:
        self._to = to
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()
        self.delay_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Yields the port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for each in self._connections:
                each.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def silence(self) -> None:
        """Lets nothing pass any more."""
        self._speaks.clear()

    def speak(self) -> None:
        """Lets everything pass."""
        self._speaks.set()

    def reset(self) -> None:
        """Breaks every connection off."""
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError), closing(writer):
            await self._speaks.wait()
            away_reader, away = await self._open()
            both = {writer, away}
            self._writers |= both
            with closing(away):
                try:
                    await asyncio.gather(self._pass_on(reader, away), self._pass_on(away_reader, writer))
                finally:
                    self._writers -= both

    async def _open(self) -> tuple[StreamReader, StreamWriter]:
        if isinstance(self._to, str):
            return await asyncio.open_unix_connection(self._to)
        return await asyncio.open_connection("127.0.0.1", self._to)

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._speaks.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
