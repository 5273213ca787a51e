"""Summaries, insights and feedback, their texts sealed."""

from sqlalchemy import BigInteger, Integer
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from app.models.base import Base, BigId, ClientId, CreatedAt, Time, of_conversation, one_of
from app.schemas.enums import Outcome, Rating, Sentiment


class _Analysis:
    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    messages_read: Mapped[int] = mapped_column(Integer)
    messages_total: Mapped[int] = mapped_column(Integer)
    through_sequence: Mapped[int | None] = mapped_column(BigInteger)
    provenance: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[object, ...]:
        """Returns what makes an analysis go with its conversation."""
        return (
            one_of("sentiment", Sentiment),
            one_of("outcome", Outcome),
            of_conversation(),
        )


class Summary(_Analysis, Base):
    """The latest summary of a conversation."""

    __tablename__ = "summaries"

    summary: Mapped[bytes]
    action_items: Mapped[bytes]
    decisions: Mapped[bytes]
    questions: Mapped[bytes]
    sentiment: Mapped[str]
    outcome: Mapped[str]
    keywords: Mapped[bytes]
    changes: Mapped[bytes | None]


class Insight(_Analysis, Base):
    """The latest insights into a conversation; ``details`` holds all of them."""

    __tablename__ = "insights"

    sentiment: Mapped[str]
    outcome: Mapped[str]
    details: Mapped[bytes]


class Feedback(Base):
    """What somebody thinks of one version of a summary; ``details`` holds their words, and what made that version."""

    __tablename__ = "feedback"
    __table_args__ = (one_of("rating", Rating), of_conversation())

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    actor: Mapped[str] = mapped_column(primary_key=True)
    summary_updated_at: Mapped[Time] = mapped_column(primary_key=True)
    rating: Mapped[str]
    details: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
