"""What crosses the storage door of webhooks: URLs and secrets sealed."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from app.schemas.enums import DeliveryState


class WebhookRow(NamedTuple):
    """A webhook: its URL and its secrets sealed."""

    workspace_id: int
    webhook_id: int
    url: bytes
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    events: list[str]
    enabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime


class DeliveryRow(NamedTuple):
    """A delivery as its log shows it."""

    delivery_id: UUID
    event: str
    conversation_id: str | None
    data: dict[str, Any]
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    attempted_at: datetime | None
    status_code: int | None
    error: str | None
    duration_ms: int | None
    created_at: datetime


class EndpointRow(NamedTuple):
    """A webhook that something is due for: how many, up to a bound, and whether it is failing."""

    workspace_id: int
    webhook_id: int
    due: int
    failing: bool


class ClaimedDelivery(NamedTuple):
    """A delivery that this worker may send until ``leased_until``; ``previous_secret`` if it still signs."""

    delivery_id: UUID
    event: str
    conversation_id: str | None
    data: dict[str, Any]
    attempts: int
    created_at: datetime
    leased_until: datetime
    url: bytes
    secret: bytes
    previous_secret: bytes | None


class AttemptRow(NamedTuple):
    """What came of an attempt; ``retry`` is when it is tried again, None if that is over or not needed."""

    delivered: bool
    status_code: int | None
    error: str | None
    duration_ms: int
    retry: timedelta | None
