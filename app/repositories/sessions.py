"""What lies between the service and PostgreSQL: nothing, or a pooler, which shares sessions among connections."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg

from app.errors import ConfigurationError

CONNECT_TIMEOUT_S = 5.0

APP_ROLE = "chat_insights_app"
"""Who the service works as, whoever it connects as: a role that owns nothing and may create nothing."""

# work_mem is a bound, not a reservation: below it a batch would spill its plain text into temporary files.
# Compiling a query takes longer than any of ours runs. Our statements are written for one plan, made once: to plan for
# the values takes as long as many of them run. One that is made while a table is empty should not read all of it later.
SESSION = {
    "application_name": "chat-insights",
    "role": APP_ROLE,
    "work_mem": "64MB",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}

POOLED = (
    f"Through a pooler the service has to log in as {APP_ROLE}: let that role LOGIN with a PASSWORD, and put both into"
    " DATABASE_URL. What a session needs besides, `alembic upgrade head` has given the database; give it to a restored"
    " one by ALTER DATABASE ... SET work_mem = '64MB' and SET jit = off. Let the pooler make its connections anew"
    " afterwards. Wrong in this one: "
)

_SESSION = """
    SELECT pg_backend_pid() AS pid, session_user AS role, current_setting('work_mem') AS work_mem,
        current_setting('jit') AS jit
"""
_PREPARED = "SELECT NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"


async def lent_session(connection: asyncpg.Connection) -> asyncpg.Record | None:
    """Returns who logged in to a session that a pooler lends, and its settings; None if the session is our own.

    A role that was only set there, another client may set again. A pooler invents the process id that it greets with: a
    real one is the server's business.
    """
    # Without a name: one that is left in a shared session would be in the way of others.
    session = await (await connection.prepare(_SESSION, name="")).fetchrow()
    return None if session["pid"] == connection.get_server_pid() else session


async def keeps_statements(connection: asyncpg.Connection) -> bool:
    """Says whether a pooler keeps prepared statements of its own for each connection: then they get other names."""
    name = f"probe_{uuid.uuid4().hex}"
    async with connection.transaction():
        kept: bool = await (await connection.prepare(_PREPARED, name=name)).fetchval(name)
        if not kept:
            await connection.execute(f"DEALLOCATE {name}")
    return kept


class _Pooled(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection through a pooler: each of its transactions may run in another session."""

    async def add_listener(self, channel: str, callback: object) -> None:
        """Hears nothing: LISTEN would go on in a session that is somebody else's by then."""


async def connect_to(dsn: str, timeout_s: float) -> asyncpg.Connection:
    """Returns a connection whose statements may each take so long.

    Raises:
        ConfigurationError: if a pooler's sessions are not as the service needs them.
    """

    async def connect(
        fits: Callable[[asyncpg.Connection], Awaitable[bool]], **options: Any
    ) -> asyncpg.Connection | None:
        connection = await asyncpg.connect(dsn, command_timeout=timeout_s, **options)
        kept = False
        try:
            kept = await fits(connection)
            return connection if kept else None
        finally:
            if not kept:
                connection.terminate()

    pooled = {"connection_class": _Pooled, "server_settings": {"application_name": SESSION["application_name"]}}
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        with suppress(asyncpg.ProtocolViolationError):  # from a pooler that is not told to ignore what it does not know
            if direct := await connect(_is_direct, server_settings=SESSION):
                return direct
        if plain := await connect(_needs_no_cache, statement_cache_size=0, **pooled):
            return plain
        return await asyncpg.connect(dsn, command_timeout=timeout_s, **pooled)


async def _is_direct(connection: asyncpg.Connection) -> bool:
    return await lent_session(connection) is None


async def _needs_no_cache(connection: asyncpg.Connection) -> bool:
    session = await lent_session(connection) or {}
    if wrong := [name for name, value in session.items() if SESSION.get(name, value) != value]:
        raise ConfigurationError(POOLED + ", ".join(wrong) + ".")
    return not await keeps_statements(connection)
