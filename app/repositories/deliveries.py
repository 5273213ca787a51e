"""Deliveries of events to webhooks, for the workers that send them.

A row is the truth: whoever claims it has it until its lease ends, and what a worker found out counts only if the row
is still under that lease.
"""

from datetime import timedelta

import asyncpg

from app.repositories.webhooks import ABANDON
from app.schemas.enums import DeliveryState, DisabledReason
from app.schemas.webhook_rows import AttemptRow, ClaimedDelivery, EndpointRow

KEPT = "interval '30 days'"
"""How long a delivery is kept."""

# Across workspaces, as a worker is for all of them.
_DUE = """
    SELECT w.workspace_id, w.webhook_id, due.count, w.failing_since IS NOT NULL FROM webhooks AS w
    CROSS JOIN LATERAL (
        SELECT count(*)::int AS count FROM (
            SELECT FROM webhook_deliveries AS d
            WHERE d.workspace_id = w.workspace_id AND d.webhook_id = w.webhook_id AND d.due_at <= clock_timestamp()
            LIMIT $2
        ) AS first
    ) AS due
    WHERE w.enabled = $1::boolean AND due.count > 0
"""

_CLAIM = """
    WITH next AS (
        SELECT d.delivery_id FROM webhook_deliveries AS d
        WHERE d.workspace_id = $1 AND d.webhook_id = $2 AND d.due_at <= clock_timestamp()
        ORDER BY d.due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries AS d SET state = 'sending', attempts = d.attempts + 1, attempted_at = clock_timestamp(),
        due_at = clock_timestamp() + $3::interval
    FROM next, webhooks AS w
    WHERE d.workspace_id = $1 AND d.webhook_id = $2 AND d.delivery_id = next.delivery_id
    AND w.workspace_id = $1 AND w.webhook_id = $2 AND w.enabled
    RETURNING d.delivery_id, d.event, d.conversation_id, d.data, d.attempts, d.created_at, d.due_at, w.url, w.secret,
        CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_secret END
"""

_SETTLE = """
    UPDATE webhook_deliveries SET
        state = CASE WHEN $5 THEN 'delivered' WHEN $9::interval IS NULL THEN 'failed' ELSE 'pending' END,
        due_at = clock_timestamp() + $9, status_code = $6, error = $7, duration_ms = $8,
        conversation_id = CASE WHEN event <> 'conversation.deleted' OR $9 IS NOT NULL THEN conversation_id END
    WHERE workspace_id = $1 AND webhook_id = $2 AND delivery_id = $3 AND state = 'sending' AND due_at = $4
    RETURNING state
"""

_NOTE = """
    UPDATE webhooks SET failing_since = CASE WHEN NOT $3 THEN clock_timestamp() END
    WHERE workspace_id = $1 AND webhook_id = $2 AND url = $4 AND (failing_since IS NULL) = NOT $3
"""

_DISABLE = """
    UPDATE webhooks SET enabled = false, disabled_reason = $3
    WHERE workspace_id = $1 AND webhook_id = $2 AND enabled
    AND url = $5 AND ($4::interval IS NULL OR failing_since < clock_timestamp() - $4)
    RETURNING webhook_id
"""

# An event may be written for a webhook while that is being disabled.
_OVER = f"""
    SELECT w.workspace_id, w.webhook_id, w.enabled FROM webhooks AS w WHERE w.enabled = $1::boolean AND EXISTS (
        SELECT FROM webhook_deliveries AS d WHERE d.workspace_id = w.workspace_id AND d.webhook_id = w.webhook_id
        AND (d.created_at < now() - {KEPT} OR (NOT w.enabled AND d.due_at IS NOT NULL))
    )
"""  # noqa: S608 — only constants

_DROP = f"""
    WITH over AS (
        SELECT delivery_id FROM webhook_deliveries
        WHERE workspace_id = $1 AND webhook_id = $2 AND created_at < now() - {KEPT}
        ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM webhook_deliveries AS d USING over
    WHERE d.workspace_id = $1 AND d.webhook_id = $2 AND d.delivery_id = over.delivery_id
    RETURNING d.delivery_id
"""  # noqa: S608 — only constants


class DeliveryRepository:
    """The tables of webhooks and deliveries, for workers."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def due(self, most: int) -> list[EndpointRow]:
        """Returns the webhooks of all workspaces that something is due for, and how much, up to ``most``."""
        return [EndpointRow(*row) for row in await self._driver.fetch(_DUE, True, most)]

    async def claim(self, workspace_id: int, webhook_id: int, lease: timedelta) -> ClaimedDelivery | None:
        """Returns what is longest due for a webhook and nobody has, and counts the attempt; None if nothing is."""
        row = await self._driver.fetchrow(_CLAIM, workspace_id, webhook_id, lease)
        return ClaimedDelivery(*row) if row else None

    async def settle(
        self, workspace_id: int, webhook_id: int, claimed: ClaimedDelivery, attempt: AttemptRow
    ) -> DeliveryState | None:
        """Writes down what came of an attempt; returns None if it is not this worker's any more."""
        place = workspace_id, webhook_id, claimed.delivery_id, claimed.leased_until
        state = await self._driver.fetchval(_SETTLE, *place, *attempt)
        return DeliveryState(state) if state else None

    async def note(self, workspace_id: int, webhook_id: int, url: bytes, *, delivered: bool) -> None:
        """Writes down whether a webhook is failing, and since when, if its URL is still the one that was asked."""
        await self._driver.execute(_NOTE, workspace_id, webhook_id, delivered, url)

    async def disable(
        self, workspace_id: int, webhook_id: int, url: bytes, reason: DisabledReason, failing_for: timedelta | None
    ) -> bool:
        """Disables a webhook, and gives up what is on its way.

        Returns False if it was disabled, is not failing so long, or has another URL than the one that was asked.
        """
        found = await self._driver.fetchval(_DISABLE, workspace_id, webhook_id, reason, failing_for, url)
        if found is not None:
            await self.abandon(workspace_id, webhook_id)
        return found is not None

    async def over(self) -> list[tuple[int, int, bool]]:
        """Returns the webhooks of all workspaces with deliveries that are over, and whether each is enabled."""
        return [tuple(row) for enabled in (True, False) for row in await self._driver.fetch(_OVER, enabled)]

    async def abandon(self, workspace_id: int, webhook_id: int) -> None:
        """Gives up what is on its way to a webhook."""
        await self._driver.execute(ABANDON, workspace_id, webhook_id)

    async def drop(self, workspace_id: int, webhook_id: int, most: int) -> int:
        """Removes deliveries that were kept long enough, up to ``most``; returns how many."""
        return len(await self._driver.fetch(_DROP, workspace_id, webhook_id, most))
