"""What was done, and what was answered."""

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, CreatedAt, Time, of_conversation


class AuditEntry(Base):
    """An act; the application may add entries and read them, and nothing else."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "workspace_id", "action", "created_at", "entry_id"),
        Index(None, "workspace_id", "actor", "created_at", "entry_id"),
        Index(
            "audit_log_target_idx",
            *("workspace_id", "target", "created_at", "entry_id"),
            postgresql_where=text("target IS NOT NULL"),
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[CreatedAt] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    actor: Mapped[str]
    action: Mapped[str]
    target: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)


class IdempotencyKey(Base):
    """The first answer to a request, sealed; none while the request is running.

    An answer that holds what was written from a conversation goes with the conversation.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        of_conversation(),
        Index(None, "workspace_id", "expires_at"),
        Index(
            "idempotency_keys_conversation_idx",
            *("workspace_id", "conversation_id"),
            postgresql_where=text("conversation_id IS NOT NULL"),
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    key_digest: Mapped[bytes] = mapped_column(primary_key=True)
    claim_id: Mapped[BigId]
    fingerprint: Mapped[bytes | None]
    leased_until: Mapped[Time]
    answer: Mapped[bytes | None]
    conversation_id: Mapped[ClientId | None]
    expires_at: Mapped[Time]
