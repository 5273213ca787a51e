"""What crosses the storage door of topics: words and texts sealed."""

from datetime import datetime
from typing import NamedTuple


class TopicModelRow(NamedTuple):
    """How far a workspace's topics are, and what there is to do; no ``fitted_at`` if it has no model yet.

    ``sampled_left`` are those of the ``sampled`` conversations that still exist.
    """

    conversations: int
    is_waiting: bool
    sampled_left: int
    fitted_at: datetime | None
    fitted_total: int
    sampled: int
    strays: int
    new_total: int
    new_strays: int
    swept_through: str | None
    wants_labels: bool
    is_claimed: bool


class TextRow(NamedTuple):
    """The beginning of a conversation: id, sender, kind of sender and content of each message."""

    conversation_id: str
    created_at: datetime
    message_count: int
    messages: list[tuple[str, str, str, bytes]]


class AssignedRow(NamedTuple):
    """The topic of a conversation that was made at a time and had so many messages when it was read."""

    conversation_id: str
    made_at: datetime
    read_count: int
    topic_id: int | None
    weight: float


class TopicReportRow(NamedTuple):
    """A workspace's topics, sealed, if it has any; ``not_read`` are the conversations of a range nobody looked at."""

    conversations: int
    not_read: int
    topics: bytes | None
    updated_at: datetime | None
