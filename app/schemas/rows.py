"""What crosses the storage door: texts sealed, everything else plain."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from app.schemas.chats import Conversation
from app.schemas.enums import JobStatus, Outcome, Rating, Role, Sentiment, UserType


class WorkspaceRow(NamedTuple):
    """A workspace and its wrapped data key."""

    workspace_id: int
    name: str
    master_key_id: str
    wrapped_key: bytes
    created_at: datetime
    redact: bool


class ApiKeyRow(NamedTuple):
    """An API key without its secret."""

    workspace_id: int
    key_id: int
    name: str
    role: Role
    digest: bytes
    member_id: int | None
    created_at: datetime
    expires_at: datetime | None
    lifetime: timedelta | None
    last_used_at: datetime | None


class SessionRow(NamedTuple):
    """A session: of a member, or of an API key."""

    workspace_id: int
    session_id: int
    member_id: int | None
    key_id: int | None
    generation: int
    expires_at: datetime


class MemberRow(NamedTuple):
    """A member, or an invitation, with what is known of the person."""

    member_id: int
    user_id: int | None
    email: str
    name: str | None
    role: Role
    created_at: datetime
    joined_at: datetime | None


class UserRow(NamedTuple):
    """A person who signs in."""

    user_id: int
    email: str
    name: str | None
    auth_provider: str


class SignInRow(NamedTuple):
    """A sign-in that was begun."""

    state_digest: bytes
    browser_digest: bytes
    provider: str
    next_path: str
    wanted_workspace: int | None
    expires_at: datetime


class AuditRow(NamedTuple):
    """An entry of the audit log."""

    entry_id: int
    created_at: datetime
    actor: str
    action: str
    target: str | None
    details: dict[str, Any]


class Answered(NamedTuple):
    """What is known of an idempotency key: no ``answer`` while the first request is running."""

    fingerprint: bytes | None
    answer: bytes | None
    expires_at: datetime


class NewMessage(NamedTuple):
    """A message to insert; its text is indexed and not stored, by ``words``, a tsvector of hashes, if there are any."""

    conversation_id: str
    message_id: str
    user_id: str
    user_type: UserType
    timestamp: datetime
    content: bytes
    text: str
    words: str | None = None


class SealedMessage(NamedTuple):
    """A stored message; ``sequence`` is the order of arrival."""

    message_id: str
    user_id: str
    user_type: UserType
    timestamp: datetime
    content: bytes
    sequence: int


class PageRow(NamedTuple):
    """A conversation with a page of its messages, and whether there are more behind them."""

    conversation: Conversation
    created_at: datetime
    messages: list[SealedMessage]
    has_more: bool


class ConversationRow(NamedTuple):
    """A conversation; ``created_at`` tells it from one that was made anew under its id."""

    conversation: Conversation
    created_at: datetime


class LiveRow(NamedTuple):
    """A conversation as a live reader sees it: when its summary was stored last, and some of its messages."""

    conversation: Conversation
    created_at: datetime
    summarised_at: datetime | None
    messages: list[SealedMessage]


class LiveVersion(NamedTuple):
    """What differs once there is something new in a conversation."""

    created_at: datetime
    message_count: int
    summarised_at: datetime | None


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
    through_sequence: int | None


class FeedbackRow(NamedTuple):
    """What somebody thinks of a summary's version, their words sealed."""

    conversation_id: str
    actor: str
    summary_updated_at: datetime
    rating: Rating
    details: bytes
    created_at: datetime
    updated_at: datetime


class ModelCallRow(NamedTuple):
    """A call of a provider that begins; what it will take is not known yet."""

    workspace_id: int
    actor: str
    task: str
    model: str
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal
    latency_ms: int


class UsageRow(NamedTuple):
    """A model's calls on a day."""

    day: date
    model: str
    calls: int
    answered: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_usd: Decimal


class BudgetRow(NamedTuple):
    """A budget, and what was spent of it."""

    scope: str
    period: str
    limit_usd: Decimal
    spent_usd: Decimal


class JobRow(NamedTuple):
    """A job; ``absent`` are ids of no conversation."""

    job_id: int
    status: JobStatus
    total: int
    done: int
    failed: int
    absent: list[str]
    cost_usd: float


class OrderRow(NamedTuple):
    """What a job is to do, and for whom."""

    force: bool
    batch: bool
    requested_by: str


class BatchBounds(NamedTuple):
    """How many conversations may go together, and how many characters each and all of them may have."""

    conversations: int
    characters_each: int
    characters: int


class ItemRow(NamedTuple):
    """A conversation of a job whose turn it is; ``started_at`` is when it first was."""

    conversation_id: str
    attempts: int
    started_at: datetime


class SizeRow(NamedTuple):
    """How many conversations there are, and the characters of each that has to be read, in the order of their ids."""

    conversations: int
    to_read: list[int]


class QueueRow(NamedTuple):
    """The queue; ``overdue`` is what no worker took for long, ``heard`` that one works and lives.

    ``oldest_s`` is how long the first job has waited, ``delivery_oldest_s`` the first event for a webhook that is well.
    """

    waiting: int
    running: int
    oldest_s: float
    delivery_oldest_s: float
    heard: bool
    overdue: bool


class ServerRow(NamedTuple):
    """The database server, as the service sees it.

    ``login`` is who it connects as, and that may be a ``superuser``; ``role`` is who it works as. ``pooled`` says that
    a pooler lends its sessions.
    """

    version: int
    version_text: str
    role: str
    login: str
    now: datetime
    read_only: bool
    max_connections: int
    superuser: bool
    pooled: bool
