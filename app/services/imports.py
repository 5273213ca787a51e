"""Storing a stream of any length in constant memory."""

import asyncio
from bisect import insort
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from itertools import islice

from app.schemas.chats import Imported, MessageIn, Rejection
from app.schemas.viewer import Viewer
from app.services.chats import CONFLICT, ChatService, Prepared, identified, rejected
from app.services.records import Reader, Row
from app.services.turns import Turns

CHUNK_ROWS = 1_000
CHUNK_CHARACTERS = 2**19
BLOCK_BYTES = 2**16
ERRORS_TOLD = 1_000


class ImportService:
    """Streams of messages, committed in chunks: what was stored before a cut stays, and may be sent again."""

    def __init__(self, chats: ChatService, turns: Turns) -> None:
        self._chats = chats
        self._turns = turns

    async def run(
        self,
        viewer: Viewer,
        reader: Reader,
        stream: AsyncIterable[bytes],
        progress: Callable[[int], None] = lambda _: None,
        seed: bytes | None = None,
    ) -> Imported:
        """Stores a stream's messages; ``progress`` is told how many bytes were read.

        From a ``seed`` the ids of messages without one follow, so that the same stream gets the same ids again.

        Raises:
            Invalid: if the stream cannot be understood as a whole.
        """
        report = _Report()
        chunk: list[tuple[int, MessageIn]] = []
        size = 0
        storing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        storing.set_result(None)

        async def store() -> None:
            # While the database stores a chunk, the next one is read and prepared.
            nonlocal chunk, size, storing
            lines, messages = zip(*chunk, strict=True)
            chunk, size = [], 0
            async with self._turns.turn(viewer.workspace_id):
                prepared = await self._chats.prepare_chunk(viewer, messages)
            await storing
            storing = asyncio.create_task(self._store(viewer, lines, prepared, report))

        async def take(data: bytes, *, end: bool = False) -> None:
            nonlocal size
            async for line, content in _in_thread(reader.feed(data, end=end)):
                if isinstance(content, Rejection):
                    report.reject(content)
                    continue
                chunk.append((line, identified(content, seed, line)))
                size += len(content.message_content)
                if len(chunk) >= CHUNK_ROWS or size >= CHUNK_CHARACTERS:
                    await store()

        try:
            async for data in stream:
                if storing.done():
                    storing.result()
                for start in range(0, len(data), BLOCK_BYTES):
                    await take(data[start : start + BLOCK_BYTES])
                progress(len(data))
            await take(b"", end=True)
            if chunk:
                await store()
            await storing
        finally:
            await asyncio.gather(storing, return_exceptions=True)
        return report.result()

    async def _store(self, viewer: Viewer, lines: Sequence[int], prepared: Prepared, report: "_Report") -> None:
        async with self._turns.turn(viewer.workspace_id):
            batch = await self._chats.store_chunk(viewer, prepared)
        report.duplicates += len(batch.duplicates)
        report.stored += len(lines) - len(batch.duplicates) - len(batch.conflicts)
        for place in batch.conflicts:
            report.reject(Rejection(line=lines[place], code="message_conflict", detail=CONFLICT))


async def _in_thread(rows: Iterator[Row]) -> AsyncIterator[Row]:
    # A hostile block takes a second to read; others are served meanwhile.
    while part := await asyncio.to_thread(lambda: list(islice(rows, CHUNK_ROWS))):
        for row in part:
            yield row
        if len(part) < CHUNK_ROWS:
            break


class _Report:
    def __init__(self) -> None:
        self.stored = self.duplicates = self.rejected = 0
        self.errors: list[Rejection] = []

    def reject(self, rejection: Rejection) -> None:
        self.rejected += 1
        rejected()
        insort(self.errors, rejection, key=lambda error: error.line)
        del self.errors[ERRORS_TOLD:]

    def result(self) -> Imported:
        return Imported(stored=self.stored, duplicates=self.duplicates, rejected=self.rejected, errors=self.errors)
