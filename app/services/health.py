"""Whether the service can work."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from app.db import Database
from app.errors import ConfigurationError, Unavailable
from app.llm.hops import Hop
from app.reads import Reads
from app.repositories.sessions import APP_ROLE
from app.schemas.health import Health
from app.schemas.rows import QueueRow
from app.services.rate_limits import RateLimits

SCHEMA_VERSION = "0013"
"""The migration that this code needs; a database that is further on serves it as well."""
QUEUE_S = 5.0
"""How old what is known of the queue may be."""
LATE_S = 3.0
"""How long a report waits for a look; then the database does not answer."""

MODEL = "llm_"
"""What the names of models begin with among the dependencies: of these each process knows its own failures only."""

OK, DEGRADED, UNAVAILABLE = "ok", "degraded", "unavailable"
LEVELS = {OK: 1.0, DEGRADED: 0.5}
"""How well a dependency is, as a number."""

_log = structlog.get_logger(__name__)


class Report(NamedTuple):
    """What metrics tell: how well each dependency that all share is, from 0 to 1, and the queue, if it is known."""

    levels: Mapping[str, float]
    queue: QueueRow | None


class HealthService:
    """Public: load balancers and orchestrators ask.

    ``db`` should be nobody else's: requests that have all connections do not make the database unavailable.
    """

    def __init__(self, db: Database, reads: Reads, rate_limits: RateLimits, hops: Sequence[Hop]) -> None:
        self._db = db
        self._reads = reads
        self._rate_limits = rate_limits
        self._hops = hops
        self._running: asyncio.Task[Health] | None = None
        self._queue: tuple[float, QueueRow | None] | None = None

    async def ready(self) -> Health:
        """Returns whether requests can be served now, by dependency; all who ask at the same time share one look.

        What is ``degraded`` makes answers worse, and requests are served all the same.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._look())
        return await asyncio.shield(self._running)

    async def report(self) -> Report:
        """Returns the same in numbers, and before anybody who asks for it gives up."""
        try:
            async with asyncio.timeout(LATE_S):
                health = await self.ready()
        except TimeoutError:
            return Report({"database": 0.0}, None)
        queue = self._queue[1] if self._queue and health.status != UNAVAILABLE else None
        shared = {name: word for name, word in health.checks.items() if not name.startswith(MODEL)}
        return Report({name: LEVELS.get(word, 0.0) for name, word in shared.items()}, queue)

    async def _look(self) -> Health:
        checks = {"database": UNAVAILABLE}
        try:
            await check_database(self._db)
            checks = {"database": OK, "schema": OK, "queue": await self._look_at_queue()}
        except Unavailable as problem:
            _log.warning("not_ready", error=type(problem.__cause__).__name__)
            return Health(status=UNAVAILABLE, checks=checks)
        except ConfigurationError:
            return Health(status=UNAVAILABLE, checks={"database": OK, "schema": "not migrated"})
        if (keeps_up := self._reads.keeps_up) is not None:
            checks["replica"] = OK if keeps_up else DEGRADED
        together = await self._rate_limits.shared()
        if together is not None:
            checks["rate_limits"] = OK if together else DEGRADED
        for hop in self._hops:
            checks[f"{MODEL}{hop.model.partition('/')[0]}"] = DEGRADED if hop.breaker.is_open else OK
        return Health(status=OK if {*checks.values()} == {OK} else DEGRADED, checks=checks)

    async def _look_at_queue(self) -> str:
        now = time.monotonic()
        if self._queue is None or now - self._queue[0] > QUEUE_S:
            async with self._db.read() as unit:
                self._queue = now, await unit.health.queue()
        queue = self._queue[1]
        if queue is None:
            return UNAVAILABLE
        return DEGRADED if queue.overdue and not queue.heard else OK


async def check_database(db: Database) -> None:
    """Raises ``Unavailable`` if the database does not answer, ``ConfigurationError`` if it was not migrated."""
    async with db.read() as unit:
        role, version = await unit.workspaces.works_as(), await unit.workspaces.schema_version()
    if role != APP_ROLE:
        raise ConfigurationError(f"The service works as {role}, not as {APP_ROLE}: does a pooler drop `role`?")
    if version is None or version < SCHEMA_VERSION:
        raise ConfigurationError(
            f"The database is at migration {version or 0}, not {SCHEMA_VERSION} yet. Run `alembic upgrade head`."
        )
