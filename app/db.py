"""The database: short transactions, and a repository for each noun inside them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cached_property

import asyncpg
import sqlalchemy.exc
from sqlalchemy import Connection, ExceptionContext, PoolProxiedConnection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app import metrics
from app.errors import ConfigurationError, Unavailable
from app.repositories.analyses import AnalysisRepository
from app.repositories.audit import AuditRepository
from app.repositories.auth import AuthRepository
from app.repositories.chats import ChatRepository
from app.repositories.deliveries import DeliveryRepository
from app.repositories.feedback import FeedbackRepository
from app.repositories.health import HealthRepository
from app.repositories.idempotency import IdempotencyRepository
from app.repositories.jobs import JobRepository
from app.repositories.live import LiveRepository
from app.repositories.members import MemberRepository
from app.repositories.messages import MessageRepository
from app.repositories.runs import RunRepository
from app.repositories.search import SearchRepository
from app.repositories.sessions import APP_ROLE, connect_to
from app.repositories.topics import TopicRepository
from app.repositories.trends import TrendRepository
from app.repositories.usage import UsageRepository
from app.repositories.webhooks import WebhookRepository
from app.repositories.workspaces import WorkspaceRepository

POOL_TIMEOUT_S = 1.5
UNAVAILABLE = "The database is not available or took too long."
UNDO_S = 0.4
"""How long the end of a transaction that failed may take, beside the time that a statement has."""

# What says nothing about our SQL, only about the server's or the network's state: worth a retry.
_TRANSIENT = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that breaks while it is being made
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.OperationalError,
)

_count = metrics.units.labels("read").inc, metrics.units.labels("transaction").inc


class Unit:
    """A unit of work: the repositories on one connection, and the topics that it has something new of."""

    def __init__(self, engine: AsyncEngine, pooled: PoolProxiedConnection, driver: asyncpg.Connection) -> None:
        self._engine = engine
        self._pooled = pooled
        self._driver = driver
        self.topics = set[str]()

    @cached_property
    def _connection(self) -> AsyncConnection:
        return AsyncConnection(self._engine, Connection(self._engine.sync_engine, self._pooled))

    analyses = cached_property(lambda unit: AnalysisRepository(unit._connection))
    audit = cached_property(lambda unit: AuditRepository(unit._connection))
    auth = cached_property(lambda unit: AuthRepository(unit._connection))
    chats = cached_property(lambda unit: ChatRepository(unit._driver))
    deliveries = cached_property(lambda unit: DeliveryRepository(unit._driver))
    health = cached_property(lambda unit: HealthRepository(unit._driver))
    feedback = cached_property(lambda unit: FeedbackRepository(unit._connection))
    idempotency = cached_property(lambda unit: IdempotencyRepository(unit._connection))
    jobs = cached_property(lambda unit: JobRepository(unit._driver))
    live = cached_property(lambda unit: LiveRepository(unit._driver))
    members = cached_property(lambda unit: MemberRepository(unit._connection))
    messages = cached_property(lambda unit: MessageRepository(unit._driver))
    runs = cached_property(lambda unit: RunRepository(unit._driver))
    search = cached_property(lambda unit: SearchRepository(unit._driver))
    topic_models = cached_property(lambda unit: TopicRepository(unit._driver))
    trends = cached_property(lambda unit: TrendRepository(unit._driver))
    usage = cached_property(lambda unit: UsageRepository(unit._connection))
    webhooks = cached_property(lambda unit: WebhookRepository(unit._driver))
    workspaces = cached_property(lambda unit: WorkspaceRepository(unit._connection))


class Database:
    """The connection pool.

    Connections are in autocommit, so that a read of one statement needs no transaction; a write opens one. ``connect``
    returns a connection beside the pool, to close by oneself. ``on_commit`` is called with a unit's topics, when it
    is or may be committed. ``server`` is what metrics call it; without one they leave it out.

    SQLAlchemy's pool makes the connections, but what is idle is kept here: to take it from there takes a greenlet, and
    that the time of a small statement.
    """

    def __init__(
        self, dsn: str, *, pool_size: int = 10, timeout_s: float = 7.0, server: str | None = "primary"
    ) -> None:
        async def connect() -> asyncpg.Connection:
            try:
                return await connect_to(dsn, timeout_s)
            except (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError) as error:
                raise ConfigurationError(
                    f"The user of DATABASE_URL cannot work as the role {APP_ROLE}. Run `alembic upgrade head`; if"
                    f" another user did, then let this one: GRANT {APP_ROLE} TO <the user of DATABASE_URL>."
                ) from error
            except (OSError, OverflowError, ValueError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                metrics.database_errors.labels("connection").inc()
                raise Unavailable("The database does not answer, or refuses the user of DATABASE_URL.") from error

        self.connect = connect
        self.on_commit: Callable[[set[str]], None] = lambda _: None
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_reset_on_return=None,  # a unit sees to it that no transaction is left open
            hide_parameters=True,
        )
        event.listen(self._engine.sync_engine, "handle_error", _keep)
        self._idle: list[tuple[PoolProxiedConnection, asyncpg.Connection]] = []
        self._in_use = 0
        if server:
            metrics.pool_size.labels(server).set(pool_size)
            metrics.read_level(metrics.pool_in_use.labels(server), lambda: self._in_use)
        self._free = asyncio.Semaphore(pool_size)

    def read(self) -> AbstractAsyncContextManager[Unit]:
        """Yields a unit whose statements are each a transaction of their own; raises ``Unavailable``."""
        return self._unit(transaction=False)

    def write(self) -> AbstractAsyncContextManager[Unit]:
        """Yields a unit that is one transaction: committed at the end, undone by an exception."""
        return self._unit(transaction=True)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[asyncpg.Connection]:
        """Yields a connection outside the pool, for what listens on it; raises ``Unavailable``."""
        connection = await self.connect()
        try:
            yield connection
        finally:
            connection.terminate()

    async def close(self) -> None:
        """Closes every connection of the pool, without a word that a silent server would have to answer."""
        while self._idle:
            pooled, driver = self._idle.pop()
            driver.terminate()
            _drop(pooled)
        await self._engine.dispose()

    async def _taken(self) -> tuple[PoolProxiedConnection, asyncpg.Connection]:
        """Returns a connection that nobody else has, and that the server has not closed, and the driver's."""
        if self._free.locked():
            try:
                with metrics.pool_waits.time():
                    async with asyncio.timeout(POOL_TIMEOUT_S):
                        await self._free.acquire()
            except TimeoutError as error:
                metrics.database_errors.labels("pool_exhausted").inc()
                raise Unavailable(UNAVAILABLE) from error
        else:
            await self._free.acquire()
        try:
            while self._idle:
                pooled, driver = self._idle.pop()
                if not driver.is_closed():
                    return pooled, driver
                _drop(pooled)
            pooled = await self._engine.raw_connection()
            return pooled, pooled.driver_connection
        except BaseException:
            self._free.release()
            raise

    @asynccontextmanager
    async def _unit(self, *, transaction: bool) -> AsyncIterator[Unit]:
        try:
            pooled, driver = await self._taken()
            self._in_use += 1
            unit = Unit(self._engine, pooled, driver)
            begun, topics = not transaction, set[str]()
            try:
                if transaction:
                    async with _transaction(driver):
                        begun = True
                        yield unit
                        topics = unit.topics  # who is cancelled from here on may be committed all the same
                else:
                    topics = unit.topics
                    yield unit
            finally:
                if topics:
                    self.on_commit(topics)
                # Called off while it began or ended: the next transactions would run inside this one, uncommitted.
                if not driver.is_closed() and (not begun or driver.is_in_transaction()):
                    driver.terminate()
                self._in_use -= 1
                _count[transaction]()
                if driver.is_closed():
                    _drop(pooled)
                else:
                    self._idle.append((pooled, driver))
                self._free.release()
        except Exception as error:
            # SQLAlchemy wraps what the driver raises, twice.
            wrapped = error.orig and error.orig.__cause__ if isinstance(error, sqlalchemy.exc.DBAPIError) else None
            cause = wrapped or error
            if not isinstance(cause, _TRANSIENT) or isinstance(cause, ValueError):  # the driver's for a wrong argument
                if isinstance(cause, asyncpg.PostgresError):
                    metrics.database_errors.labels("refused").inc()
                raise
            metrics.database_errors.labels(_reason(cause)).inc()
            raise Unavailable(UNAVAILABLE) from cause


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return "timeout"
    if isinstance(error, asyncpg.TransactionRollbackError | asyncpg.LockNotAvailableError):
        return "conflict"
    if isinstance(error, asyncpg.InsufficientResourcesError):
        return "resources"
    return "connection"


@asynccontextmanager
async def _transaction(driver: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = driver.transaction()
    await transaction.start()
    try:
        yield
    except BaseException:
        # Who does not answer a statement will hardly answer this; without it, the connection is closed.
        with suppress(TimeoutError, *_TRANSIENT):
            async with asyncio.timeout(UNDO_S):
                await transaction.rollback()
        raise
    await transaction.commit()


def _keep(context: ExceptionContext) -> None:
    # SQLAlchemy takes a timeout for a broken connection, and for two seconds waits for it to say goodbye.
    context.is_disconnect = False


def _drop(pooled: PoolProxiedConnection) -> None:
    if pooled.is_valid:
        pooled.invalidate()
    pooled.close()
