"""What tests of jobs share: the queue as PostgreSQL sees it, and running what is in it."""

import asyncio
from typing import Any

import orjson
import psycopg

from app.factory import Services


def queued(database: psycopg.Connection) -> list[tuple[int, int]]:
    """Returns workspace and id of each job in the queue."""
    database.rollback()
    rows = database.execute("SELECT payload FROM pgqueuer.pgqueuer ORDER BY id").fetchall()
    return [tuple(orjson.loads(payload)) for (payload,) in rows]


def entries(database: psycopg.Connection) -> int:
    """Returns how many jobs are in the queue."""
    return len(queued(database))


async def run_all(services: Services, database: psycopg.Connection) -> None:
    """Carries on every job in the queue until it is over, in this process and without a worker's loop."""
    for job in queued(database):
        assert await services.jobs.run(*job, asyncio.Event())
    database.rollback()


def items(database: psycopg.Connection) -> dict[str, Any]:
    """Returns state, attempts and error of each conversation of every job."""
    database.rollback()
    rows = database.execute("SELECT conversation_id, state, attempts, error FROM job_items").fetchall()
    return {name: tuple(rest) for name, *rest in rows}
