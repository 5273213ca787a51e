"""How many conversations began when, by label and keyword. Triggers on ``conversations`` keep both tables."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ARRAY, DateTime, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, Time, one_of

_Word = Text(collation="C")


class Span(StrEnum):
    """How much time a count is about, in UTC."""

    HOUR = "hour"
    MONTH = "month"


class TrendCount(Base):
    """Conversations that began in a span; no row counts none.

    ``keyword`` is a keyed hash, or empty: then all conversations are counted. Without an analysis the labels are empty.
    """

    __tablename__ = "trend_counts"
    __table_args__ = (
        one_of("span", Span),
        # What was commonest in a range; the key finds the course of one keyword.
        Index("trend_counts_starts_at_idx", "workspace_id", "span", "starts_at"),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    span: Mapped[str] = mapped_column(_Word, primary_key=True)
    keyword: Mapped[str] = mapped_column(_Word, primary_key=True)
    starts_at: Mapped[Time] = mapped_column(primary_key=True)
    sentiment: Mapped[str] = mapped_column(_Word, primary_key=True)
    outcome: Mapped[str] = mapped_column(_Word, primary_key=True)
    conversations: Mapped[int] = mapped_column(Integer)


class TrendChange(Base):
    """A conversation that came or changed since it was counted, and as what it is counted: nothing if it is not.

    It goes with the conversation by the trigger that takes away what is counted, not by a foreign key, which would
    remove it before that.
    """

    __tablename__ = "trend_changes"

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    first_message_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    sentiment: Mapped[str | None]
    outcome: Mapped[str | None]
    keyword_hashes: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
