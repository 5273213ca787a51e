"""Webhooks: whom to tell of events, and what they were told."""

import uuid
from typing import Any

from sqlalchemy import ARRAY, Boolean, ForeignKey, ForeignKeyConstraint, Index, Integer, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, CreatedAt, Time, one_of
from app.schemas.enums import DeliveryState


class Webhook(Base):
    """Where events are sent: the URL and the secrets sealed.

    ``failing_since`` is the first failure after the last success.
    """

    __tablename__ = "webhooks"

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    webhook_id: Mapped[BigId] = mapped_column(primary_key=True)
    url: Mapped[bytes]
    secret: Mapped[bytes]
    previous_secret: Mapped[bytes | None]
    previous_until: Mapped[Time | None]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    enabled: Mapped[bool] = mapped_column(Boolean)
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[Time | None]
    created_at: Mapped[CreatedAt]


class WebhookDelivery(Base):
    """An event on its way to a webhook, or its record afterwards.

    ``due_at`` is when it is tried next, or, while it is sent, when the worker that does so counts as dead. What is told
    of a conversation goes with the conversation, by ``note_deleted``. That it was deleted is told afterwards, so no
    foreign key holds the id; it is cleared as soon as nobody is to be told any more.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        one_of("state", DeliveryState),
        ForeignKeyConstraint(
            ["workspace_id", "webhook_id"], ["webhooks.workspace_id", "webhooks.webhook_id"], ondelete="CASCADE"
        ),
        Index("webhook_deliveries_log_idx", "workspace_id", "webhook_id", "created_at", "delivery_id"),
        Index(
            "webhook_deliveries_due_idx",
            *("workspace_id", "webhook_id", "due_at"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index(
            "webhook_deliveries_conversation_idx",
            *("workspace_id", "conversation_id"),
            postgresql_where=text("conversation_id IS NOT NULL"),
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    webhook_id: Mapped[BigId] = mapped_column(primary_key=True)
    delivery_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, server_default=text("gen_random_uuid()"))
    event: Mapped[str]
    conversation_id: Mapped[ClientId | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    due_at: Mapped[Time | None] = mapped_column(server_default=text("clock_timestamp()"))
    attempted_at: Mapped[Time | None]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    duration_ms: Mapped[int | None]
    created_at: Mapped[CreatedAt]
