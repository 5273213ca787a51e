"""How many conversations began when, by label and keyword. Triggers on ``conversations`` keep both tables."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ARRAY, DateTime, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, Time, one_of

COUNTS = ("conversations", "positive", "neutral", "negative", "mixed", "yes", "no", "maybe", "curious")

_Word = Text(collation="C")


class Span(StrEnum):
    """How much time a count is about, in UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class TrendCount(Base):
    """Conversations that began in a span, and those of them that have a label; no row counts none.

    ``keyword`` is a keyed hash, or empty: then all conversations are counted, by the hour too.
    """

    __tablename__ = "trend_counts"
    __table_args__ = (
        one_of("span", Span),
        # The commonest keywords of a month, of all conversations and of those with a label.
        *(
            Index(
                f"trend_counts_{name}_idx",
                *("workspace_id", "starts_at", name),
                postgresql_where=text(f"span = 'month' AND keyword <> '' AND {name} > 0"),
            )
            for name in COUNTS
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    keyword: Mapped[str] = mapped_column(_Word, primary_key=True)
    span: Mapped[str] = mapped_column(_Word, primary_key=True)
    starts_at: Mapped[Time] = mapped_column(primary_key=True)
    conversations: Mapped[int] = mapped_column(Integer)
    positive: Mapped[int] = mapped_column(Integer)
    neutral: Mapped[int] = mapped_column(Integer)
    negative: Mapped[int] = mapped_column(Integer)
    mixed: Mapped[int] = mapped_column(Integer)
    yes: Mapped[int] = mapped_column(Integer)
    no: Mapped[int] = mapped_column(Integer)
    maybe: Mapped[int] = mapped_column(Integer)
    curious: Mapped[int] = mapped_column(Integer)


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
