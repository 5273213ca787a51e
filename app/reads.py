"""Reads on a streaming replica."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TypeVar

import structlog

from app.db import Database, Unit
from app.errors import Problem, Unavailable

ANSWER_S = 1.5
"""How long a read may take on a replica before the primary is asked instead."""
LAG_S = 5.0
"""How far behind a replica may be that is asked."""
WATCH_S = 1.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Reads:
    """Reads that may be some seconds behind: a replica's, while there is one that keeps up, or else the primary's.

    Whether it ``keeps_up`` is None until it is known. ``beside`` is the primary by a connection that no request has.
    """

    def __init__(self, primary: Database, beside: Database, replica: Database | None) -> None:
        self._primary = primary
        self._beside = beside
        self._replica = replica
        self._written: deque[tuple[float, int]] = deque()
        self._has_until = -inf
        self.keeps_up: bool | None = None

    async def of(self, look: Callable[[Unit], Awaitable[T]]) -> T:
        """Returns what ``look`` finds, which may be called twice; raises ``Unavailable``."""
        if self._replica and self._is_fresh():
            try:
                async with asyncio.timeout(ANSWER_S), self._replica.read() as unit:
                    return await look(unit)
            except Exception as error:
                if isinstance(error, Problem) and not isinstance(error, Unavailable):
                    raise  # it is about the request
                self._leave_out(error)
        async with self._primary.read() as unit:
            return await look(unit)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watches meanwhile how far the replica is behind; it is asked only then."""
        watching = asyncio.create_task(self._watch(self._replica)) if self._replica else None
        try:
            yield
        finally:
            if watching:
                watching.cancel()
                await asyncio.wait({watching})

    async def _watch(self, replica: Database) -> None:
        while True:
            with suppress(Exception):  # it says nothing about the replica, for as long as what is known of it counts
                async with asyncio.timeout(ANSWER_S):
                    await self._mark()
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._compare(replica)
            except Exception as error:  # noqa: BLE001 — whatever it is, the primary is there
                self._leave_out(error)
            else:
                self._note(keeps_up=self._is_fresh(), why="lag")
            await asyncio.sleep(WATCH_S)

    async def _mark(self) -> None:
        """Notes how much is written by now."""
        now = asyncio.get_running_loop().time()
        async with self._beside.read() as unit:
            self._written.append((now, await unit.health.written()))
        while self._written[0][0] < now - LAG_S:
            self._written.popleft()

    async def _compare(self, replica: Database) -> None:
        """Notes until when a replica has all that was written."""
        async with replica.read() as unit:
            place = await unit.health.replayed()
        while place is not None and self._written and self._written[0][1] <= place:
            self._has_until, _ = self._written.popleft()

    def _is_fresh(self) -> bool:
        return asyncio.get_running_loop().time() - self._has_until <= LAG_S

    def _leave_out(self, error: Exception) -> None:
        self._has_until = -inf
        self._note(keeps_up=False, why=type(error).__name__)

    def _note(self, *, keeps_up: bool, why: str) -> None:
        if keeps_up != self.keeps_up:
            self.keeps_up = keeps_up
            _log.info("replica_asked") if keeps_up else _log.warning("replica_left_out", reason=why)
