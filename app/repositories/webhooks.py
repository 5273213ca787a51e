"""Webhooks as admins see them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from app.repositories.outbox import tell
from app.schemas.enums import DeliveryState, WebhookEvent
from app.schemas.webhook_rows import DeliveryRow, WebhookRow

ROW = ", ".join(WebhookRow._fields)
LOG = ", ".join(DeliveryRow._fields)

ABANDON = """
    WITH pending AS (
        SELECT delivery_id FROM webhook_deliveries WHERE workspace_id = $1 AND webhook_id = $2 AND due_at IS NOT NULL
        ORDER BY delivery_id FOR UPDATE
    )
    UPDATE webhook_deliveries AS d SET state = 'failed', due_at = NULL,
        error = CASE WHEN d.status_code = 410 THEN d.error ELSE 'disabled' END,
        conversation_id = CASE WHEN d.event <> 'conversation.deleted' THEN d.conversation_id END
    FROM pending WHERE d.workspace_id = $1 AND d.webhook_id = $2 AND d.delivery_id = pending.delivery_id
"""
"""Gives up what is on its way to a webhook."""

# Two who make one at the same time count each other's.
_LOCK = "SELECT FROM workspaces WHERE workspace_id = $1 FOR NO KEY UPDATE"
_COUNT = "SELECT count(*) FROM webhooks WHERE workspace_id = $1"

_ADD = f"""
    INSERT INTO webhooks (workspace_id, webhook_id, url, secret, events, enabled) VALUES ($1, $2, $3, $4, $5, true)
    RETURNING {ROW}
"""  # noqa: S608 — only constants

_PAGE = f"""
    SELECT {ROW} FROM webhooks
    WHERE workspace_id = $1 AND (created_at, webhook_id) < ($2::text::timestamptz, $3::bigint)
    ORDER BY created_at DESC, webhook_id DESC LIMIT $4
"""  # noqa: S608 — only constants

_GET = f"SELECT {ROW} FROM webhooks WHERE workspace_id = $1 AND webhook_id = $2"  # noqa: S608 — only constants

_DELIVERIES = f"""
    SELECT {LOG} FROM webhook_deliveries
    WHERE workspace_id = $1 AND webhook_id = $2 AND (created_at, delivery_id) < ($3::text::timestamptz, $4::uuid)
    ORDER BY created_at DESC, delivery_id DESC LIMIT $5
"""  # noqa: S608 — only constants

# What is being sent just now stays as it is.
_REPLAY = f"""
    UPDATE webhook_deliveries SET
        state = CASE WHEN state = 'sending' THEN state ELSE 'pending' END,
        attempts = CASE WHEN state = 'sending' THEN attempts ELSE 0 END,
        due_at = CASE WHEN state = 'sending' THEN due_at ELSE clock_timestamp() END
    WHERE workspace_id = $1 AND webhook_id = $2 AND delivery_id = $3
    AND (event <> 'conversation.deleted' OR conversation_id IS NOT NULL)
    RETURNING {LOG}
"""  # noqa: S608 — only constants

_DELIVERY = f"""
    SELECT {LOG} FROM webhook_deliveries WHERE workspace_id = $1 AND webhook_id = $2 AND delivery_id = $3
"""  # noqa: S608 — only constants

_PUT = """
    UPDATE webhooks SET url = $3, secret = $4, previous_secret = $5, previous_until = $6, events = $7, enabled = $8,
        disabled_reason = $9, failing_since = $10
    WHERE workspace_id = $1 AND webhook_id = $2
"""

_REMOVE = "DELETE FROM webhooks WHERE workspace_id = $1 AND webhook_id = $2 RETURNING webhook_id"

NEWEST = "infinity"
"""Behind which place the first page begins."""


class WebhookRepository:
    """The tables of webhooks and of what they were told."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def tell(
        self, workspace_id: int, conversation_id: str, events: Mapping[WebhookEvent, Mapping[str, object]]
    ) -> None:
        """Writes down whom to tell of events about a conversation, in the transaction of the act."""
        await tell(self._driver, workspace_id, conversation_id, events)

    async def count(self, workspace_id: int) -> int:
        """Returns how many webhooks a workspace has, which nobody else changes until the transaction is over."""
        await self._driver.execute(_LOCK, workspace_id)
        found: int = await self._driver.fetchval(_COUNT, workspace_id)
        return found

    async def add(
        self, workspace_id: int, webhook_id: int, url: bytes, secret: bytes, events: Sequence[str]
    ) -> WebhookRow:
        """Stores a webhook."""
        return WebhookRow(*await self._driver.fetchrow(_ADD, workspace_id, webhook_id, url, secret, events))

    async def get(self, workspace_id: int, webhook_id: int, *, lock: bool = False) -> WebhookRow | None:
        """Returns a webhook; with ``lock``, nobody else changes it until the transaction is over."""
        row = await self._driver.fetchrow(f"{_GET} FOR NO KEY UPDATE" if lock else _GET, workspace_id, webhook_id)
        return WebhookRow(*row) if row else None

    async def page(self, workspace_id: int, after: tuple[datetime, int] | None, limit: int) -> list[WebhookRow]:
        """Returns webhooks, newest first, from behind a position."""
        place = (after[0].isoformat(), after[1]) if after else (NEWEST, 0)
        rows = await self._driver.fetch(_PAGE, workspace_id, *place, limit)
        return [WebhookRow(*row) for row in rows]

    async def put(self, row: WebhookRow) -> None:
        """Stores what a webhook is to be; of a disabled one, gives up what is on its way."""
        await self._driver.execute(_PUT, *row[:-1])
        if not row.enabled:
            await self._driver.execute(ABANDON, row.workspace_id, row.webhook_id)

    async def remove(self, workspace_id: int, webhook_id: int) -> bool:
        """Deletes a webhook with its log; returns False if there was none."""
        return await self._driver.fetchval(_REMOVE, workspace_id, webhook_id) is not None

    async def deliveries(
        self, workspace_id: int, webhook_id: int, after: tuple[datetime, UUID] | None, limit: int
    ) -> list[DeliveryRow]:
        """Returns deliveries to a webhook, newest first, from behind a position."""
        place = (after[0].isoformat(), after[1]) if after else (NEWEST, UUID(int=0))
        rows = await self._driver.fetch(_DELIVERIES, workspace_id, webhook_id, *place, limit)
        return [_delivery(row) for row in rows]

    async def delivery(self, workspace_id: int, webhook_id: int, delivery_id: UUID) -> DeliveryRow | None:
        """Returns a delivery."""
        row = await self._driver.fetchrow(_DELIVERY, workspace_id, webhook_id, delivery_id)
        return _delivery(row) if row else None

    async def replay(self, workspace_id: int, webhook_id: int, delivery_id: UUID) -> DeliveryRow | None:
        """Makes a delivery due, as if it had never been tried; returns None if what it is about is not known any more.

        One that is being sent just now stays as it is.
        """
        row = await self._driver.fetchrow(_REPLAY, workspace_id, webhook_id, delivery_id)
        return _delivery(row) if row else None


def _delivery(row: asyncpg.Record) -> DeliveryRow:
    found = DeliveryRow(*row)
    return found._replace(state=DeliveryState(found.state))
