"""How the database is, how far a replica has got, and what waits in the queue."""

from collections.abc import Iterable

import asyncpg

from app.schemas.rows import QueueRow, ServerRow

HEARD_S = 30
"""After how long without a sign of life a worker is believed gone: longer than its jobs take to be another's."""

QUEUE = "pgqueuer.pgqueuer"
"""The queue's table."""

# Of a job that waits only since a moment nobody knows yet whether a worker takes it.
_QUEUE = f"""
    SELECT count(*) FILTER (WHERE status = 'queued') AS waiting, count(*) FILTER (WHERE status = 'picked') AS running,
        coalesce(extract(epoch FROM now() - min(created) FILTER (WHERE status = 'queued')), 0)::float8 AS oldest_s,
        coalesce(bool_or(status = 'picked' AND heartbeat > now() - interval '{HEARD_S} s'), false) AS heard,
        coalesce(bool_or(
            status = 'queued' AND greatest(execute_after, updated) < now() - interval '{HEARD_S} s'
        ), false) AS overdue
    FROM {QUEUE}
"""  # noqa: S608 — only constants

# What waits for a webhook says nothing about the workers if it is failing, and so is tried by one lane; and nothing of
# their absence if something is being sent to it.
_DELIVERIES = f"""
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(first.due_at)), 0)::float8 AS oldest_s,
        coalesce(bool_or(first.due_at < clock_timestamp() - interval '{HEARD_S} s' AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS s WHERE s.workspace_id = w.workspace_id AND s.webhook_id = w.webhook_id
            AND s.due_at > clock_timestamp() AND s.state = 'sending'
        )), false) AS overdue
    FROM webhooks AS w CROSS JOIN LATERAL (
        SELECT d.due_at FROM webhook_deliveries AS d
        WHERE d.workspace_id = w.workspace_id AND d.webhook_id = w.webhook_id AND d.due_at <= clock_timestamp()
        ORDER BY d.due_at LIMIT 1
    ) AS first
    WHERE w.enabled = $1::boolean AND w.failing_since IS NULL
"""  # noqa: S608 — only a constant

_SERVER = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
        current_user::text AS role, session_user::text AS login, clock_timestamp() AS now,
        pg_is_in_recovery() AS read_only, current_setting('max_connections')::int AS max_connections,
        (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS superuser, pg_backend_pid() AS pid
"""

# Not to_regclass: it fails for a schema that the role may not use.
_FORBIDDEN = """
    SELECT name FROM unnest($1::text[]) AS needed (name)
    JOIN pg_class ON relname = split_part(name, '.', -1)
    JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname || '.' || relname IN (name, 'public.' || name)
    WHERE NOT (has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(pg_class.oid, 'SELECT'))
    ORDER BY name
"""

_WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
_REPLAYED = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint WHERE pg_is_in_recovery()"


class HealthRepository:
    """The queue's table, and the server's own words."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def queue(self) -> QueueRow | None:
        """Returns what waits, jobs and events for webhooks, and whether a worker was heard of.

        None if the role may not read it.
        """
        try:
            row = dict(await self._driver.fetchrow(_QUEUE))
            delivery_oldest_s, overdue = await self._driver.fetchrow(_DELIVERIES, True)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
            return None
        return QueueRow(overdue=row.pop("overdue") or overdue, delivery_oldest_s=delivery_oldest_s, **row)

    async def server(self) -> ServerRow:
        """Returns which server it is, and as whom the service works there."""
        row = dict(await self._driver.fetchrow(_SERVER))
        return ServerRow(pooled=row.pop("pid") != self._driver.get_server_pid(), **row)

    async def forbidden(self, tables: Iterable[str]) -> list[str]:
        """Returns those of the tables that there are and that the role may not read."""
        return [row[0] for row in await self._driver.fetch(_FORBIDDEN, list(tables))]

    async def written(self) -> int:
        """Returns how much a primary has written into its journal, in bytes."""
        place: int = await self._driver.fetchval(_WRITTEN)
        return place

    async def replayed(self) -> int | None:
        """Returns how much of it a replica has carried out; None if the server is none."""
        place: int | None = await self._driver.fetchval(_REPLAYED)
        return place
