"""LISTEN/NOTIFY: what changed in the database wakes who waits for it, on every instance.

A notice says of a topic only that there is something new; who is woken looks. So whoever is slow has one thing to do,
not a queue. A notice is sent after the commit it is about: PostgreSQL lets transactions with notices commit only one
after another, each waiting for the disk. It may get lost, with its process or on the way: it saves waiting, and who
follows looks now and then unasked.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context

import asyncpg
import structlog

from app.repositories import CHANNEL
from app.repositories.live import NOTIFY, notices_of, topics_of

PROBE_S = 15.0
"""How often a silent connection is asked whether it is still there."""
PAUSE_S = 0.02
"""How long what is told after a notice waits for more that the next one can take along."""
RETRY_S = 0.5
CLOSE_S = 1.0
"""How long the last notices may take."""

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
    """The process's connection for notices, made when there is first one to hear or to tell, and whenever it breaks.

    ``connect`` makes it. While it is ``interrupted``, notices go unheard: everybody is woken when that begins, and
    again when it is over.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._waiting: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._untold: set[str] = set()
        self._stirred = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._closing = False
        self.interrupted = False

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        """Yields a subscription to a topic.

        It is woken by every notice that is sent from now on, also by those from before the connection is made.
        """
        self._run()
        subscription = Subscription()
        self._waiting[topic].add(subscription)
        try:
            yield subscription
        finally:
            self._waiting[topic].discard(subscription)
            if not self._waiting[topic]:
                del self._waiting[topic]

    def tell(self, topics: set[str]) -> None:
        """Wakes who waits for topics: here at once, elsewhere by a notice that all that is told meanwhile shares."""
        self._run()
        self._wake(topics)
        self._untold |= topics
        self._stirred.set()

    async def close(self) -> None:
        """Sends what is still to be told, and closes the connection."""
        self._closing = True
        self._stirred.set()
        if self._running:
            await asyncio.wait({self._running}, timeout=CLOSE_S)
            self._running.cancel()
            await asyncio.wait({self._running})

    def _run(self) -> None:
        if self._running is None:
            # In no request's context: the log would name the one that happened to be first.
            self._running = asyncio.create_task(self._reconnect(), context=Context())

    async def _reconnect(self) -> None:
        while True:
            try:
                return await self._talk(await self._connect())
            except Exception as error:  # noqa: BLE001 — whatever it was, it is tried again
                _log.warning("notices_interrupted", error=type(error).__name__)
                self._untold.clear()
                if not self.interrupted:
                    self._turn(interrupted=True)
            await asyncio.sleep(RETRY_S)

    async def _talk(self, connection: asyncpg.Connection) -> None:
        """Listens and tells until the bus is closed; raises when the connection breaks."""
        connection.add_termination_listener(lambda _: self._stirred.set())
        try:
            await connection.add_listener(CHANNEL, self._hear)
            self._turn(interrupted=False)
            while self._untold or not self._closing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S):
                        await self._stirred.wait()
                self._stirred.clear()
                topics, self._untold = self._untold, set()
                # Without topics it finds out about a peer that is gone without a word.
                await connection.execute(NOTIFY, CHANNEL, notices_of(list(topics)))
                await asyncio.sleep(PAUSE_S)
        finally:
            connection.terminate()

    def _hear(self, connection: asyncpg.Connection, pid: int, _channel: str, payload: str) -> None:
        if pid != connection.get_server_pid():  # who waits here was woken by ``tell``
            self._wake(topics_of(payload))

    def _wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for subscription in self._waiting.get(topic, ()):
                subscription.wake()

    def _turn(self, *, interrupted: bool) -> None:
        self.interrupted = interrupted
        self._wake(self._waiting)
