"""What crosses the storage door: texts sealed, everything else plain."""

from datetime import datetime
from typing import NamedTuple

from app.schemas.chats import Conversation
from app.schemas.enums import Outcome, Role, Sentiment, UserType


class WorkspaceRow(NamedTuple):
    """A workspace and its wrapped data key."""

    workspace_id: int
    name: str
    master_key_id: str
    wrapped_key: bytes
    created_at: datetime


class ApiKeyRow(NamedTuple):
    """An API key without its secret."""

    workspace_id: int
    key_id: int
    name: str
    role: Role
    digest: bytes
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewMessage(NamedTuple):
    """A message to insert; ``text`` is indexed and not stored."""

    conversation_id: str
    message_id: str
    user_id: str
    user_type: UserType
    timestamp: datetime
    content: bytes
    text: str


class SealedMessage(NamedTuple):
    """A stored message; ``sequence`` is the order of arrival."""

    message_id: str
    user_id: str
    user_type: UserType
    timestamp: datetime
    content: bytes
    sequence: int


class ConversationRow(NamedTuple):
    """A conversation; ``created_at`` tells it from one that was made anew under its id."""

    conversation: Conversation
    created_at: datetime


class Labels(NamedTuple):
    """What the latest analysis says, by which conversations are found."""

    sentiment: Sentiment
    outcome: Outcome
    keyword_hashes: list[str]


class AnalysisRow(NamedTuple):
    """A stored analysis: its parts sealed, each under its own name."""

    parts: dict[str, bytes]
    sentiment: Sentiment
    outcome: Outcome
    messages_read: int
    messages_total: int
    stale: bool
    created_at: datetime
    updated_at: datetime
