"""Conversations, who took part, and what was said."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    Sequence,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, CreatedAt, Time, of_conversation, one_of
from app.schemas.enums import Outcome, Sentiment, UserType

message_batches = Sequence("message_batches", data_type=BigInteger, metadata=Base.metadata)
"""One number an insert statement; a message's ``sequence`` is that number and its place in the statement."""


class Conversation(Base):
    """A conversation: counts kept by the inserts, labels kept by the analyses.

    ``topic_messages`` is how many messages it had when its topic was last looked for.
    """

    __tablename__ = "conversations"
    __table_args__ = (
        one_of("sentiment", Sentiment),
        one_of("outcome", Outcome),
        Index("conversations_last_message_at_idx", "workspace_id", "last_message_at", "conversation_id"),
        Index(
            "conversations_sentiment_idx",
            *("workspace_id", "sentiment", "last_message_at", "conversation_id"),
            postgresql_where=text("sentiment IS NOT NULL"),
        ),
        Index(
            "conversations_outcome_idx",
            *("workspace_id", "outcome", "last_message_at", "conversation_id"),
            postgresql_where=text("outcome IS NOT NULL"),
        ),
        # Which began before a time is known of the others by when they ended.
        Index(
            "conversations_long_idx",
            *("workspace_id", "last_message_at", "conversation_id", "first_message_at"),
            postgresql_where=text("last_message_at - first_message_at > interval '24 hours'"),
        ),
        Index("conversations_keyword_hashes_idx", "keyword_hashes", postgresql_using="gin"),
        # Those that nobody has read for their topic yet, or not to the end.
        Index(
            "conversations_topic_waiting_idx",
            *("workspace_id", "first_message_at", "topic_messages", "conversation_id"),
            postgresql_where=text("topic_messages IS DISTINCT FROM message_count"),
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    message_count: Mapped[int] = mapped_column(Integer)
    first_message_at: Mapped[Time]
    last_message_at: Mapped[Time]
    created_at: Mapped[CreatedAt]
    sentiment: Mapped[str | None]
    outcome: Mapped[str | None]
    keyword_hashes: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    topic_messages: Mapped[int | None] = mapped_column(Integer)


class Participant(Base):
    """A sender in a conversation; ``last_message_at`` is the conversation's, so that one index is their history."""

    __tablename__ = "participants"
    __table_args__ = (
        one_of("user_type", UserType),
        of_conversation(),
        Index("participants_history_idx", "workspace_id", "user_id", "last_message_at", "conversation_id"),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    user_id: Mapped[ClientId] = mapped_column(primary_key=True)
    user_type: Mapped[str]
    message_count: Mapped[int] = mapped_column(Integer)
    last_message_at: Mapped[Time]


class Message(Base):
    """A message: its text sealed, its lexemes hashed."""

    __tablename__ = "messages"
    __table_args__ = (
        one_of("user_type", UserType),
        of_conversation(),
        Index("messages_order_idx", "workspace_id", "conversation_id", "timestamp", "sequence"),
        # The lexemes are hashed under a key of the workspace: no two workspaces share an entry.
        # A search reads the entries that are not merged yet one by one: 1 MB of them at most, not 4.
        Index(
            "messages_search_vector_idx",
            "search_vector",
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": 1024},
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    message_id: Mapped[ClientId] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[ClientId]
    user_type: Mapped[str]
    timestamp: Mapped[Time]
    content: Mapped[bytes]
    search_vector: Mapped[str] = mapped_column(TSVECTOR)
