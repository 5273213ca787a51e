"""LISTEN/NOTIFY: what changed in the database wakes who waits for it, on every instance.

A notice says of a topic only that there is something new; who is woken looks. So whoever is slow has one thing to do,
not a queue, and a notice that may have been missed is made good by waking everybody.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import asyncpg
import structlog

from app.repositories import CHANNEL
from app.repositories.live import PROBE, topics_of

PROBE_S = 15.0
"""How often a silent connection is asked whether it is still there."""
RETRY_S = 0.5

_log = structlog.get_logger(__name__)


class Subscription:
    """One waiting for a topic."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Says that there may be something new."""
        self._news.set()

    async def wait(self) -> None:
        """Returns when there may be something new since the last call."""
        await self._news.wait()
        self._news.clear()


class Bus:
    """The process's listening connection, made when somebody first waits and again whenever it breaks.

    ``connect`` makes it. ``connected`` is False while notices go unheard: everybody is woken when that begins, and
    again when it is over.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._waiting: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._listening: asyncio.Task[None] | None = None
        self.connected = False

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        """Yields a subscription to a topic.

        It is woken by every notice that is sent from now on, also by those from before the connection is made.
        """
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        subscription = Subscription()
        self._waiting[topic].add(subscription)
        try:
            yield subscription
        finally:
            self._waiting[topic].discard(subscription)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def close(self) -> None:
        """Closes the connection."""
        if self._listening:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear_out(await self._connect())
            except Exception as error:  # noqa: BLE001 — whatever it was, it is tried again
                _log.warning("notices_interrupted", error=type(error).__name__)
            await asyncio.sleep(RETRY_S)

    async def _hear_out(self, connection: asyncpg.Connection) -> None:
        """Listens until the connection breaks."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._hear)
            self._turn(connected=True)
            while not lost.is_set():
                try:
                    async with asyncio.timeout(PROBE_S):
                        await lost.wait()
                except TimeoutError:
                    await connection.execute(PROBE)  # a peer that is gone without a word
            raise ConnectionResetError
        finally:
            connection.terminate()
            self._turn(connected=False)

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        for topic in topics_of(payload):
            for subscription in self._waiting.get(topic, ()):
                subscription.wake()

    def _turn(self, *, connected: bool) -> None:
        self.connected = connected
        for subscriptions in self._waiting.values():
            for subscription in subscriptions:
                subscription.wake()
