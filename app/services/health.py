"""Whether the service can work."""

import asyncio

import structlog

from app.db import APP_ROLE, Database
from app.errors import ConfigurationError, Unavailable
from app.schemas.health import Health

SCHEMA_VERSION = "0013"
"""The migration that this code needs; a database that is further on serves it as well."""

_log = structlog.get_logger(__name__)


class HealthService:
    """Public: load balancers and orchestrators ask."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._running: asyncio.Task[Health] | None = None

    async def ready(self) -> Health:
        """Returns whether requests can be served now, by dependency; all who ask at the same time share one look."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._look())
        return await asyncio.shield(self._running)

    async def _look(self) -> Health:
        try:
            await self.check()
        except Unavailable as problem:
            _log.warning("not_ready", error=type(problem.__cause__).__name__)
            return Health(status="unavailable", checks={"database": "unavailable"})
        except ConfigurationError:
            return Health(status="unavailable", checks={"database": "ok", "schema": "not migrated"})
        return Health(status="ok", checks={"database": "ok", "schema": "ok"})

    async def check(self) -> None:
        """Raises ``Unavailable`` if the database does not answer, ``ConfigurationError`` if it was not migrated."""
        async with self._db.read() as unit:
            role, version = await unit.workspaces.works_as(), await unit.workspaces.schema_version()
        if role != APP_ROLE:
            raise ConfigurationError(f"The service works as {role}, not as {APP_ROLE}: does a pooler drop `role`?")
        if version is None or version < SCHEMA_VERSION:
            raise ConfigurationError(
                f"The database is at migration {version or 0}, not {SCHEMA_VERSION} yet. Run `alembic upgrade head`."
            )
