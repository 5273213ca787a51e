"""How many requests a caller may send: counted in this process, or for all instances in Valkey or Redis.

Windows have a fixed length and begin at its multiples since 1970 (UTC), so one count is all the state there is, and the
clock says when it ends. Instances whose clocks differ begin a window that much apart, and count alike all the same.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import structlog
from cachetools import LRUCache
from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from valkey.asyncio import ConnectionPool

KEY_PREFIX = "chat-insights"
MAX_CALLERS = 100_000
"""How many callers of a class one process counts, about 25 MB; then the one not seen for longest starts anew."""
STORAGE_TIMEOUT_S = 0.2
STORAGE_RETRY_S = 5.0
STORAGE_CONNECTIONS = 16
CLOCK_SKEW_S = 10
"""How much longer than its window a shared count lives, for instances whose clocks are late."""

_log = structlog.get_logger(__name__)


class RateClass(StrEnum):
    """What is limited apart from the rest; ``address`` is for requests without a valid credential."""

    READ = "read"
    WRITE = "write"
    SEARCH = "search"
    LLM = "llm"
    ADDRESS = "address"


class Usage(NamedTuple):
    """How much of a limit is used, at a request; ``reset_s`` are the seconds until the window ends, at least 1."""

    name: str
    limit: int
    window_s: int
    remaining: int
    reset_s: int
    exceeded: bool

    @property
    def policy(self) -> str:
        """The item of ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10)."""
        return f'"{self.name}";q={self.limit};w={self.window_s}'

    @property
    def state(self) -> str:
        """The item of ``RateLimit``."""
        return f'"{self.name}";r={self.remaining};t={self.reset_s}'


def parse_limit(text: str) -> RateLimitItem:
    """Returns the limit that a text states, like "60000/minute"; raises ``ValueError`` for anything else."""
    try:
        (item,) = parse_many(text)
        # The library takes a time of 0 for 1.
        if all(0 < int(number) < 10**9 for number in re.findall(r"\d+", text)) and item.get_expiry() < 10**9:
            return item
    except ValueError:
        pass
    raise ValueError('A limit is one number of requests for a time, like "60000/minute" or "100 per 5 minutes".')


class RateLimits:
    """One limit for each class, and a count for each caller of it.

    ``key``, the same on every instance, hides callers from whoever reads the storage. ``clock`` returns seconds since
    1970.
    """

    def __init__(
        self,
        limits: Mapping[RateClass, str],
        storage_url: str | None = None,
        *,
        key: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.texts = {str(kind): text for kind, text in limits.items()}
        self._limits = {kind: parse_limit(text) for kind, text in limits.items()}
        self._counts = {kind: _Counts() for kind in limits}
        self._shared = None if storage_url is None else _SharedCounts(storage_url, clock)
        self._key = key
        self._clock = clock

    async def hit(self, kind: RateClass, who: str) -> Usage:
        """Counts a request; ``exceeded`` says that it is one too many."""
        return await self._count(kind, who, 1)

    async def check(self, kind: RateClass, who: str) -> Usage:
        """Counts nothing; ``exceeded`` says that nothing is left."""
        return await self._count(kind, who, 0)

    async def shared(self) -> bool | None:
        """Says whether instances count together just now; None if they are not meant to."""
        return None if self._shared is None else await self._shared.add("ready", 0, 0) is not None

    async def close(self) -> None:
        """Closes the connections to the storage."""
        if self._shared:
            await self._shared.close()

    async def _count(self, kind: RateClass, who: str, amount: int) -> Usage:
        limit, window_s = self._limits[kind].amount, self._limits[kind].get_expiry()
        window, elapsed_s = divmod(int(self._clock()), window_s)
        # As long for any caller.
        caller = blake2b(who.encode(errors="surrogatepass"), digest_size=16, key=self._key).hexdigest()
        used = self._counts[kind].add(caller, window, amount)
        # What is too much in this process alone is too much.
        if self._shared and used <= limit:
            shared = await self._shared.add(f"{kind}:{window}:{caller}", window_s + CLOCK_SKEW_S, amount)
            used = used if shared is None else shared
        exceeded = used + 1 - amount > limit
        return Usage(kind, limit, window_s, max(limit - used, 0), window_s - elapsed_s, exceeded)


class _Counts:
    """This process's counts in the current window.

    Not the library's: its memory storage looks at every caller at every request (asynchronous), or all the time in a
    thread (synchronous), and holds any number of them.
    """

    def __init__(self) -> None:
        self._window = 0
        self._counts: LRUCache[str, int] = LRUCache(MAX_CALLERS)

    def add(self, caller: str, window: int, amount: int) -> int:
        """Returns the count with the amount, 0 or 1, added."""
        if window != self._window:
            self._window, self._counts = window, LRUCache(MAX_CALLERS)
        used = self._counts.get(caller, 0) + amount
        if amount:
            self._counts[caller] = used
        return used


class _SharedCounts:
    """All instances' counts, in Valkey or Redis."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        try:
            self._connections = _connections(url)
        except Exception as error:  # noqa: BLE001 — the URL holds a password, and so may any error about it
            raise ConfigurationError(
                f"RATE_LIMIT_STORAGE_URL is wrong ({type(error).__name__}). Write valkey://user:password@host:port/db,"
                " or the same with valkeys, redis or rediss, or unix:///path?db=0."
            ) from None
        # Not by the URL: the library wants a port in it, and shows all of it in its errors.
        self._storage = RedisStorage(
            "async+valkey://",
            connection_pool=self._connections,  # type: ignore[arg-type] # its documentation allows it
            key_prefix=KEY_PREFIX,
        )
        self._slots = asyncio.Semaphore(STORAGE_CONNECTIONS)
        self._clock = clock
        self._failed_at: float | None = None

    async def add(self, key: str, expiry_s: int, amount: int) -> int | None:
        """Returns the count with the amount, 0 or 1, added; ``None`` while the storage does not answer."""
        failed_at = self._failed_at
        if failed_at is not None:
            # abs: the clock may have been set back.
            if abs(self._clock() - failed_at) < STORAGE_RETRY_S:
                return None
            # Only this request asks whether it is back.
            self._failed_at = self._clock()
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT_S), self._slots:
                if failed_at is None and self._failed_at is not None:
                    return None  # it failed while this request waited for its turn
                count = await (self._storage.incr(key, expiry_s) if amount else self._storage.get(key))
        except Exception as error:  # noqa: BLE001 — no request fails because its count does
            if self._failed_at is None:
                _log.warning("rate_limits_storage_unavailable", error=type(error).__name__)
            self._failed_at = self._clock()
            return None
        if failed_at is not None:
            self._failed_at = None
        return count

    async def close(self) -> None:
        """Closes the connections."""
        await self._connections.aclose()


def _connections(url: str) -> "ConnectionPool":
    """Returns connections to make; raises any exception for a URL that is wrong."""
    # Slow to import, and seldom needed.
    from valkey.asyncio import ConnectionPool, SSLConnection

    parts = urlsplit(url)
    # The client takes the database 0 for what is not a number.
    if not re.fullmatch(r"/.+" if parts.scheme == "unix" else r"/?|/\d+", parts.path):
        raise ValueError
    # Otherwise a certificate for any name would do.
    options = {"ssl_check_hostname": True} if parts.scheme in ("rediss", "valkeys") else {}
    pool = ConnectionPool.from_url(url, socket_timeout=None, socket_connect_timeout=STORAGE_TIMEOUT_S, **options)
    # Raises for an option of the URL that does not exist.
    first = pool.make_connection()  # type: ignore[no-untyped-call]
    if isinstance(first, SSLConnection):
        context = first.ssl_context
        context.get()

        def connect(**options: Any) -> SSLConnection:
            # One context for all: each would read the authorities' certificates, and hold up everything for 20 ms.
            connection = SSLConnection(**options)
            connection.ssl_context = context
            return connection

        pool.connection_class = connect  # type: ignore[assignment]
    return pool
