"""The queue: pgqueuer, in a schema of its own. It only says that a job is waiting; the job's rows are the truth."""

import asyncpg
import orjson
from pgqueuer import AsyncpgDriver, Queries
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder
from pgqueuer.domain.settings import DBSettings
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

ENTRYPOINT = "summarize"
ENTRYPOINT_FEW = "summarize_few"
FEW = 8
"""Up to how many conversations a job does not wait for a place among the larger ones."""
HELD = 1_000


class _Names(DBSettings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leaves the environment out: the library's names for it, such as CHANNEL, may be anybody's."""
        return (init_settings,)


NAMES = _Names(db_schema="pgqueuer")
"""What the library's tables are called, and where they are."""


def queue_on(connection: asyncpg.Connection) -> Queries:
    """Returns the queue on a connection, and in its transaction if it is in one."""
    return Queries(AsyncpgDriver(connection), QueryBuilderEnvironment(NAMES), QueryQueueBuilder(NAMES))


async def enqueue(connection: asyncpg.Connection, workspace_id: int, job_id: int, conversations: int) -> None:
    """Puts a job into the queue, a smaller one before a larger one."""
    entrypoint = ENTRYPOINT_FEW if conversations <= FEW else ENTRYPOINT
    await queue_on(connection).enqueue(entrypoint, orjson.dumps([workspace_id, job_id]), -conversations)


async def requeue_held(queue: Queries) -> None:
    """Puts back what a worker could not give back itself: the library sets it aside."""
    held = await queue.list_failed_jobs(HELD)
    await queue.requeue_jobs([each.id for each in held])
