"""The tables, and nothing else."""

from app.models.accounts import ApiKey, Membership, OAuthState, Session, User
from app.models.analyses import Feedback, Insight, Summary
from app.models.base import Base
from app.models.chats import Conversation, Message, Participant
from app.models.operations import AuditEntry, IdempotencyKey
from app.models.workspaces import Workspace

__all__ = [
    "ApiKey",
    "AuditEntry",
    "Base",
    "Conversation",
    "Feedback",
    "IdempotencyKey",
    "Insight",
    "Membership",
    "Message",
    "OAuthState",
    "Participant",
    "Session",
    "Summary",
    "User",
    "Workspace",
]
