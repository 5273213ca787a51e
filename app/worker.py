"""The worker: takes jobs from the queue and carries them on."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

import asyncpg
import orjson
import structlog
from pgqueuer import Job, QueueManager, RetryRequested

from app.errors import Unavailable
from app.factory import Services
from app.metrics import worker_ready
from app.repositories.queue import ENTRYPOINT, ENTRYPOINT_FEW, NAMES, queue_on, requeue_held
from app.services.health import UNAVAILABLE
from app.services.jobs import Replaced
from app.telemetry import log_failure

JOBS_AT_ONCE = 16
"""How many jobs take turns in a process, and how many of few conversations besides."""
HEARTBEAT_TIMEOUT = timedelta(seconds=20)
"""After how long without a sign of life a worker's jobs are another's."""
POLL = timedelta(seconds=5)
"""How often the queue is looked at when nothing is heard of it, as behind a pooler that does not pass on NOTIFY."""
RETRY = timedelta(seconds=2)
"""When a job is tried again after the database failed it, and the queue after its connection was lost."""

_log = structlog.get_logger(__name__)


class Chore(NamedTuple):
    """What every worker sees to again and again; several may do so at the same time."""

    name: str
    every_s: float
    run: Callable[[Services, asyncio.Event], Awaitable[None]]


async def _look(services: Services, _: asyncio.Event) -> None:
    if (await services.health.ready()).status != UNAVAILABLE:
        worker_ready.set_to_current_time()


CHORES: tuple[Chore, ...] = (
    Chore("look", 5.0, _look),
    Chore("retention", 600.0, lambda services, stopping: services.retention.run(stopping)),
    Chore("fold_trends", 10.0, lambda services, stopping: services.trends.fold_all(stopping)),
    Chore("topics", 5.0, lambda services, stopping: services.topics.keep_up(stopping)),
    Chore("deliveries", 1.0, lambda services, stopping: services.deliveries.run(stopping)),
    Chore("old_deliveries", 3_600.0, lambda services, _: services.deliveries.drop_old()),
)


async def work(services: Services, stopping: asyncio.Event) -> None:
    """Works until it is to stop."""
    async with asyncio.TaskGroup() as places:
        for entrypoint in (ENTRYPOINT, ENTRYPOINT_FEW):
            places.create_task(_work(entrypoint, services, stopping))
        for chore in CHORES:
            places.create_task(_see_to(chore, services, stopping))


async def _see_to(chore: Chore, services: Services, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            await chore.run(services, stopping)
        except Exception as error:  # noqa: BLE001 — its text may hold anything, and the other work goes on
            log_failure(_log, "chore_failed", error, chore=chore.name)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), chore.every_s)


async def _work(entrypoint: str, services: Services, stopping: asyncio.Event) -> None:
    # The library gives up when its connection breaks; then this begins anew on another.
    while not stopping.is_set():
        try:
            async with services.queue_connection() as connection:
                await _work_on(connection, entrypoint, services, stopping)
        except (OSError, Unavailable, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            _log.warning("worker_disconnected", error=type(error).__name__)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), RETRY.total_seconds())


async def _work_on(
    connection: asyncpg.Connection, entrypoint: str, services: Services, stopping: asyncio.Event
) -> None:
    queue = queue_on(connection)
    manager = QueueManager(queue, NAMES.channel)
    # Without its connection the library waits for the jobs that run, however long they are.
    connection.add_termination_listener(lambda _: manager.shutdown.set())

    # An entry is never deleted because something failed, only set aside.
    @manager.entrypoint(entrypoint, on_failure="hold")
    async def carry_on(entry: Job) -> None:
        workspace_id, job_id = orjson.loads(entry.payload or b"")
        try:
            over = await services.jobs.run(workspace_id, job_id, manager.shutdown)
        except Replaced:
            _log.warning("worker_replaced")
            connection.terminate()  # the library would take the entry away from the other worker
            raise RetryRequested from None
        except Exception as error:  # noqa: BLE001 — its text may hold anything, and the library would write it down
            log_failure(_log, "job_interrupted", error)
            raise RetryRequested(RETRY) from None
        if not over:
            raise RetryRequested

    async def stop() -> None:
        await stopping.wait()
        _log.info("worker_stopping")
        manager.shutdown.set()

    stopper = asyncio.create_task(stop())
    try:
        await requeue_held(queue)
        _log.info("worker_ready")
        await manager.run(
            dequeue_timeout=POLL,
            batch_size=1,
            max_concurrent_tasks=JOBS_AT_ONCE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            log_aggregation_interval=timedelta(0),
        )
    finally:
        stopper.cancel()
