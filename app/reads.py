"""Reads on a streaming replica."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from app.db import Database, Unit
from app.errors import ConfigurationError, Unavailable

ANSWER_S = 1.5
"""How long a read may take on a replica before the primary is asked instead."""
LAG_S = 5.0
"""How far behind a replica may be that is asked."""
WATCH_S = 1.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Reads:
    """Reads that may be some seconds behind: a replica's, while there is one that keeps up, or else the primary's."""

    def __init__(self, primary: Database, replica: Database | None) -> None:
        self._primary = primary
        self._replica = replica
        self._written: deque[tuple[float, int]] = deque()
        self.keeps_up = False

    async def of(self, look: Callable[[Unit], Awaitable[T]]) -> T:
        """Returns what ``look`` finds, which may be called twice; raises ``Unavailable``."""
        if self._replica and self.keeps_up:
            try:
                async with asyncio.timeout(ANSWER_S), self._replica.read() as unit:
                    return await look(unit)
            except (ConfigurationError, TimeoutError, Unavailable) as error:
                self._note(keeps_up=False, why=type(error).__name__)
        async with self._primary.read() as unit:
            return await look(unit)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watches meanwhile how far the replica is behind."""
        watching = asyncio.create_task(self._watch(self._replica)) if self._replica else None
        try:
            yield
        finally:
            if watching:
                watching.cancel()
                await asyncio.wait({watching})

    async def _watch(self, replica: Database) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    self._note(keeps_up=await self._compare(replica), why="lag")
            except Exception as error:  # noqa: BLE001 — whatever it is, the primary is there
                self._note(keeps_up=False, why=type(error).__name__)
            await asyncio.sleep(WATCH_S)

    async def _compare(self, replica: Database) -> bool:
        """Says whether a replica has all that was written some seconds ago."""
        now = asyncio.get_running_loop().time()
        async with self._primary.read() as unit:
            self._written.append((now, await unit.health.written()))
        while len(self._written) > 1 and self._written[1][0] <= now - LAG_S:
            self._written.popleft()
        async with replica.read() as unit:
            place = await unit.health.replayed()
        return place is not None and place >= self._written[0][1]

    def _note(self, *, keeps_up: bool, why: str) -> None:
        if keeps_up != self.keeps_up:
            self.keeps_up = keeps_up
            _log.info("replica_asked") if keeps_up else _log.warning("replica_left_out", reason=why)
