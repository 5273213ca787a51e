"""Jobs as those who ask for them see them."""

from collections.abc import Sequence

import asyncpg

from app.repositories import SWEPT
from app.repositories.outbox import tell
from app.schemas.enums import JobStatus, WebhookEvent
from app.schemas.rows import JobRow, SizeRow

KEPT = "interval '30 days'"
"""How long a job is kept that is over."""

OVERHEAD = 110 - 29
"""By how many characters a model is shown more of a message than its sealed text and its ids have.

There are the names of fields, the sender's type and the time; what a sealed text is longer is not shown.
"""

_CREATE = """
    INSERT INTO jobs (workspace_id, job_id, requested_by, force, batch, status, total, done, failed, absent, cost_usd)
    VALUES ($1, $2, $3, $4, $5, 'queued', 0, 0, 0, '{}', 0)
"""

# A conversation that is being deleted is waited for, and left out.
_ADD_ITEMS = """
    INSERT INTO job_items (workspace_id, job_id, conversation_id, state, attempts)
    SELECT $1, $2, c.conversation_id, 'queued', 0 FROM conversations AS c
    WHERE c.workspace_id = $1 AND c.conversation_id = ANY ($3::text[])
    ORDER BY c.conversation_id FOR KEY SHARE
    RETURNING conversation_id
"""

_COUNT = """
    UPDATE jobs SET total = $3, failed = $4, absent = $5,
        status = CASE WHEN $3 = 0 THEN 'completed' ELSE status END,
        finished_at = CASE WHEN $3 = 0 THEN clock_timestamp() END
    WHERE workspace_id = $1 AND job_id = $2
"""

_SWEEP = f"""
    WITH over AS (
        SELECT job_id FROM jobs WHERE workspace_id = $1 AND finished_at < now() - {KEPT} LIMIT $2
    )
    DELETE FROM jobs AS j USING over WHERE j.workspace_id = $1 AND j.job_id = over.job_id
"""  # noqa: S608 — only constants

_COLUMNS = "job_id, status, total, done, failed, absent, cost_usd"

_GET = f"""
    SELECT {_COLUMNS} FROM jobs
    WHERE workspace_id = $1 AND job_id = $2 AND coalesce(finished_at, now()) >= now() - {KEPT}
"""  # noqa: S608 — only constants

_ERRORS = """
    SELECT conversation_id, error FROM job_items WHERE workspace_id = $1 AND job_id = $2 AND state = 'failed'
    ORDER BY conversation_id LIMIT $3
"""

_CANCEL = """
    UPDATE jobs SET status = 'cancelled', finished_at = clock_timestamp()
    WHERE workspace_id = $1 AND job_id = $2 AND status IN ('queued', 'running')
    RETURNING status
"""

_SIZE = """
    WITH wanted AS (
        SELECT c.conversation_id, $3 OR s.messages_total IS DISTINCT FROM c.message_count AS reads
        FROM conversations AS c
        LEFT JOIN summaries AS s ON s.workspace_id = c.workspace_id AND s.conversation_id = c.conversation_id
        WHERE c.workspace_id = $1 AND c.conversation_id = ANY ($2::text[])
    )
    SELECT count(*), coalesce(array_agg(sized.size ORDER BY wanted.conversation_id) FILTER (WHERE wanted.reads), '{}')
    FROM wanted CROSS JOIN LATERAL (
        SELECT coalesce(sum(
            octet_length(m.content) + octet_length(m.message_id) + octet_length(m.user_id) + $4::int
        ), 0)::bigint AS size
        FROM messages AS m WHERE m.workspace_id = $1 AND m.conversation_id = wanted.conversation_id AND wanted.reads
    ) AS sized
"""


class JobRepository:
    """The tables of jobs."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def create(
        self,
        caller: tuple[int, str],
        job_id: int,
        conversation_ids: Sequence[str],
        absent_kept: int,
        *,
        force: bool,
        batch: bool,
    ) -> int:
        """Stores a job of those of the conversations that exist and puts it into the queue; returns how many exist."""
        from app.repositories.queue import enqueue  # 4 MB and a tenth of a second, which few API processes need

        workspace_id, requested_by = caller
        await self._driver.execute(_SWEEP, workspace_id, SWEPT)
        await self._driver.execute(_CREATE, workspace_id, job_id, requested_by, force, batch)
        rows = await self._driver.fetch(_ADD_ITEMS, workspace_id, job_id, conversation_ids)
        found = {row[0] for row in rows}
        absent = [each for each in conversation_ids if each not in found]
        counts = len(conversation_ids), len(absent), absent[:absent_kept]
        await self._driver.execute(_COUNT, workspace_id, job_id, *counts)
        if found:
            await enqueue(self._driver, workspace_id, job_id, len(found))
        if not conversation_ids:
            await tell_finished(self._driver, workspace_id, job_id, JobStatus.COMPLETED)
        return len(found)

    async def get(self, workspace_id: int, job_id: int) -> JobRow | None:
        """Returns a job, unless it has been over for too long."""
        row = await self._driver.fetchrow(_GET, workspace_id, job_id)
        return JobRow(**{**row, "status": JobStatus(row["status"])}) if row else None

    async def errors(self, workspace_id: int, job_id: int, limit: int) -> list[tuple[str, str]]:
        """Returns conversations that failed, with their codes."""
        return [tuple(row) for row in await self._driver.fetch(_ERRORS, workspace_id, job_id, limit)]

    async def cancel(self, workspace_id: int, job_id: int) -> None:
        """Ends a job that is not over."""
        await tell_finished(
            self._driver, workspace_id, job_id, await self._driver.fetchval(_CANCEL, workspace_id, job_id)
        )

    async def size(self, workspace_id: int, conversation_ids: Sequence[str], *, force: bool) -> SizeRow:
        """Returns how much there is to read, by the lengths of the sealed texts."""
        return SizeRow(*await self._driver.fetchrow(_SIZE, workspace_id, conversation_ids, force, OVERHEAD))


async def tell_finished(driver: asyncpg.Connection, workspace_id: int, job_id: int, status: str | None) -> None:
    """Writes down whom to tell that a job ended with a status, if it did."""
    if status:
        await tell(driver, workspace_id, None, {WebhookEvent.JOB_FINISHED: {"job_id": str(job_id), "status": status}})
