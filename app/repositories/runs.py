"""A worker's run of a job.

What it writes first locks the job's row and looks whether the run is still the job's: an earlier one, believed dead,
writes nothing. Only a claim locks no more than its conversations: one that an earlier run commits late is taken back
when the job's run has nothing begun any more.
"""

import asyncpg

from app.repositories.jobs import OVERHEAD, tell_finished
from app.schemas.rows import BatchBounds, ItemRow, OrderRow

LOST = "worker_lost"
"""The code of an item whose worker died each time."""

SCANNED = 4
"""Among how many conversations short ones are looked for, as a multiple of how many may go together."""

_START = """
    UPDATE jobs SET status = 'running', run_id = $3
    WHERE workspace_id = $1 AND job_id = $2 AND status IN ('queued', 'running')
    RETURNING force, batch, requested_by
"""

_RECOVER = """
    WITH mine AS (
        SELECT job_id FROM jobs WHERE workspace_id = $1 AND job_id = $2 AND run_id = $3 FOR UPDATE
    ), lost AS (
        UPDATE job_items AS i SET state = CASE WHEN i.attempts < $4 THEN 'queued' ELSE 'failed' END,
            error = CASE WHEN i.attempts >= $4 THEN $5 END
        FROM mine WHERE i.workspace_id = $1 AND i.job_id = mine.job_id AND i.state = 'running'
        RETURNING i.state
    )
    UPDATE jobs AS j SET failed = j.failed + (SELECT count(*) FROM lost WHERE lost.state = 'failed')
    FROM mine WHERE j.workspace_id = $1 AND j.job_id = mine.job_id
"""

_CLAIM = """
    WITH next AS (
        SELECT i.conversation_id FROM job_items AS i
        JOIN jobs AS j ON j.workspace_id = i.workspace_id AND j.job_id = i.job_id
        WHERE i.workspace_id = $1 AND i.job_id = $2 AND i.state = 'queued' AND i.attempts BETWEEN $4 AND $5
        AND j.run_id = $3 AND j.status = 'running'
        ORDER BY i.attempts, i.conversation_id LIMIT 1 FOR UPDATE OF i SKIP LOCKED
    )
    UPDATE job_items AS i SET state = 'running', attempts = i.attempts + 1,
        started_at = coalesce(i.started_at, clock_timestamp())
    FROM next
    WHERE i.workspace_id = $1 AND i.job_id = $2 AND i.conversation_id = next.conversation_id
    RETURNING i.conversation_id, i.attempts, i.started_at
"""

# What a model is shown of the first items that nobody has tried; of the short ones, as many as go together.
_CLAIM_SHORT = """
    WITH next AS (
        SELECT i.conversation_id FROM job_items AS i
        JOIN jobs AS j ON j.workspace_id = i.workspace_id AND j.job_id = i.job_id
        WHERE i.workspace_id = $1 AND i.job_id = $2 AND i.state = 'queued' AND i.attempts = 0
        AND j.run_id = $3 AND j.status = 'running'
        ORDER BY i.conversation_id LIMIT $8 FOR UPDATE OF i SKIP LOCKED
    ), sized AS (
        SELECT next.conversation_id, (
            SELECT sum(octet_length(m.content) + octet_length(m.message_id) + octet_length(m.user_id) + $4::int)
            FROM messages AS m WHERE m.workspace_id = $1 AND m.conversation_id = next.conversation_id
        ) AS size FROM next
    ), short AS (
        SELECT conversation_id, row_number() OVER place AS place, sum(size) OVER place AS so_far
        FROM sized WHERE size <= $6 WINDOW place AS (ORDER BY conversation_id)
    ), fitting AS (
        SELECT conversation_id FROM short WHERE place <= $5 AND so_far <= $7
    )
    UPDATE job_items AS i SET state = 'running', attempts = 1,
        started_at = coalesce(i.started_at, clock_timestamp())
    FROM fitting
    WHERE i.workspace_id = $1 AND i.job_id = $2 AND i.conversation_id = fitting.conversation_id
    AND (SELECT count(*) FROM fitting) > 1
    RETURNING i.conversation_id, i.attempts, i.started_at
"""

_SETTLE = """
    WITH mine AS (
        SELECT job_id FROM jobs WHERE workspace_id = $1 AND job_id = $2 AND run_id = $3 FOR UPDATE
    ), item AS (
        UPDATE job_items AS i SET state = $5, error = $6 FROM mine
        WHERE i.workspace_id = $1 AND i.job_id = mine.job_id AND i.conversation_id = $4 AND i.state = 'running'
        RETURNING i.state
    )
    UPDATE jobs AS j SET cost_usd = j.cost_usd + $7,
        done = j.done + (SELECT count(*) FROM item WHERE item.state = 'done'),
        failed = j.failed + (SELECT count(*) FROM item WHERE item.state = 'failed')
    FROM mine WHERE j.workspace_id = $1 AND j.job_id = mine.job_id
"""

_CHARGE = """
    UPDATE jobs SET cost_usd = cost_usd + $4 WHERE workspace_id = $1 AND job_id = $2 AND run_id = $3
"""

_FINISH = """
    UPDATE jobs AS j SET status = CASE WHEN j.done = 0 THEN 'failed' ELSE 'completed' END, failed = j.total - j.done,
        finished_at = clock_timestamp()
    WHERE j.workspace_id = $1 AND j.job_id = $2 AND j.run_id = $3 AND j.status = 'running' AND NOT EXISTS (
        SELECT FROM job_items AS i
        WHERE i.workspace_id = $1 AND i.job_id = $2 AND i.state IN ('queued', 'running')
    )
    RETURNING j.status
"""

_STATE = """
    SELECT status IN ('queued', 'running') AS is_open, run_id = $3 AS is_mine FROM jobs
    WHERE workspace_id = $1 AND job_id = $2
"""

_RELEASE = """
    WITH mine AS (
        UPDATE jobs SET status = 'queued', run_id = NULL
        WHERE workspace_id = $1 AND job_id = $2 AND run_id = $3 AND status = 'running'
        RETURNING job_id
    )
    UPDATE job_items AS i SET state = 'queued', attempts = i.attempts - 1 FROM mine
    WHERE i.workspace_id = $1 AND i.job_id = mine.job_id AND i.state = 'running'
"""


class RunRepository:
    """The tables of jobs, for their workers."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def start(self, workspace_id: int, job_id: int, run_id: int, tries: int) -> OrderRow | None:
        """Makes a run the job's, and recovers what an earlier one was at.

        Returns what was asked for; None if the job is over, or gone.
        """
        row = await self._driver.fetchrow(_START, workspace_id, job_id, run_id)
        if row is None:
            return None
        await self.recover(workspace_id, job_id, run_id, tries)
        return OrderRow(*row)

    async def recover(self, workspace_id: int, job_id: int, run_id: int, tries: int) -> None:
        """Lets what counts as begun be begun anew, or fail if it had its tries; the run itself is at nothing."""
        await self._driver.execute(_RECOVER, workspace_id, job_id, run_id, tries, LOST)

    async def claim(self, workspace_id: int, job_id: int, run_id: int, tried: tuple[int, int]) -> ItemRow | None:
        """Returns the next conversation, and counts the attempt; ``tried`` bounds how many there were before.

        None if there is no such one, or the run may not go on.
        """
        row = await self._driver.fetchrow(_CLAIM, workspace_id, job_id, run_id, *tried)
        return ItemRow(*row) if row else None

    async def claim_short(self, workspace_id: int, job_id: int, run_id: int, bounds: BatchBounds) -> list[ItemRow]:
        """Returns several conversations to be read together that nobody has tried, and counts the attempt.

        None of them if there are not two such, or the run may not go on.
        """
        rows = await self._driver.fetch(
            _CLAIM_SHORT, workspace_id, job_id, run_id, OVERHEAD, *bounds, SCANNED * bounds.conversations
        )
        return [ItemRow(*row) for row in rows]

    async def goes_on(self, workspace_id: int, job_id: int, run_id: int) -> bool:
        """Says whether a run may begin another conversation."""
        row = await self._driver.fetchrow(_STATE, workspace_id, job_id, run_id)
        return bool(row and row["is_open"] and row["is_mine"])

    async def charge(self, workspace_id: int, job_id: int, run_id: int, cost: float) -> None:
        """Adds to the job's cost what was paid for none of its conversations, in US dollars."""
        await self._driver.execute(_CHARGE, workspace_id, job_id, run_id, cost)

    async def settle(
        self,
        workspace_id: int,
        job_id: int,
        run_id: int,
        conversation_id: str,
        state: str,
        error: str | None,
        cost: float,
    ) -> None:
        """Writes down what became of a conversation, and its cost in US dollars."""
        await self._driver.execute(_SETTLE, workspace_id, job_id, run_id, conversation_id, state, error, cost)

    async def finish(self, workspace_id: int, job_id: int, run_id: int) -> bool | None:
        """Ends the job if nothing of it is open; returns whether it is over, None if another run has it now."""
        status = await self._driver.fetchval(_FINISH, workspace_id, job_id, run_id)
        await tell_finished(self._driver, workspace_id, job_id, status)
        row = await self._driver.fetchrow(_STATE, workspace_id, job_id, run_id)
        if row is None or not row["is_open"]:
            return True
        return False if row["is_mine"] else None

    async def release(self, workspace_id: int, job_id: int, run_id: int) -> None:
        """Leaves the job to another run; what this one was at does not count as tried."""
        await self._driver.execute(_RELEASE, workspace_id, job_id, run_id)
