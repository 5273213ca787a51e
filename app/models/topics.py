"""What conversations are about."""

from sqlalchemy import REAL, BigInteger, Boolean, ForeignKey, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, Time, of_conversation


class TopicModel(Base):
    """A workspace's topics, sealed, who keeps them up to date just now, and when that will be to do over.

    The model was made from ``sampled`` of ``fitted_total`` conversations, of which ``strays`` had no topic; since then
    ``new_total`` came, ``new_strays`` of them without one (below zero, those are still to be read that were there
    before). Up to ``swept_through`` the conversations are assigned by
    this model, and not by the one before it; null is all of them. From ``label_at`` on topics want a label.
    """

    __tablename__ = "topic_models"

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    claim_id: Mapped[int] = mapped_column(BigInteger)
    leased_until: Mapped[Time]
    model: Mapped[bytes | None]
    topics: Mapped[bytes | None]
    fitted_at: Mapped[Time | None]
    fitted_total: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    sampled: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    strays: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    new_total: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    new_strays: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    swept_through: Mapped[ClientId | None]
    label_at: Mapped[Time | None]
    updated_at: Mapped[Time | None]


class ConversationTopic(Base):
    """The topic of a conversation, if it has one; ``sampled`` if the model was made from it, among others."""

    __tablename__ = "conversation_topics"
    __table_args__ = (
        of_conversation(),
        # It counts the conversations of a topic in a range of time, and has the nearest ones first.
        Index(
            "conversation_topics_weight_idx",
            *("workspace_id", "topic_id", "weight", "first_message_at", "conversation_id"),
        ),
        Index("conversation_topics_sampled_idx", "workspace_id", postgresql_where=text("sampled")),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    topic_id: Mapped[int | None] = mapped_column(Integer)
    weight: Mapped[float] = mapped_column(REAL)
    first_message_at: Mapped[Time]
    sampled: Mapped[bool] = mapped_column(Boolean)
