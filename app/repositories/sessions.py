"""What lies between the service and PostgreSQL: nothing, or a pooler, which shares sessions among connections."""

import uuid

import asyncpg

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
