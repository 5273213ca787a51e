"""The outbox: what webhooks are to be told, written in the transaction of the act it is about."""

from collections.abc import Mapping

import asyncpg
import orjson

from app.schemas.enums import WebhookEvent

# A webhook that is just being deleted is passed over, not waited for.
_TELL = """
    INSERT INTO webhook_deliveries (workspace_id, webhook_id, event, conversation_id, data)
    SELECT $1, w.webhook_id, told.event, $2, told.data
    FROM (
        SELECT webhook_id, events FROM webhooks
        WHERE workspace_id = $1 AND enabled AND events && $3::text[] FOR KEY SHARE SKIP LOCKED
    ) AS w JOIN unnest($3::text[], $4::jsonb[]) AS told (event, data) ON told.event = ANY (w.events)
"""


async def tell(
    driver: asyncpg.Connection,
    workspace_id: int,
    conversation_id: str | None,
    events: Mapping[WebhookEvent, Mapping[str, object]],
) -> None:
    """Writes a delivery of each event for each webhook that wants it.

    What an event says besides the conversation's id may hold neither text nor ids of conversations.
    """
    details = [orjson.dumps(data).decode() for data in events.values()]
    await driver.execute(_TELL, workspace_id, conversation_id, list(events), details)
