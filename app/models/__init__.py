"""The tables, and nothing else."""

from app.models.accounts import ApiKey, Membership, User
from app.models.analyses import Insight, Summary
from app.models.base import Base
from app.models.chats import Conversation, Message, Participant
from app.models.workspaces import Workspace

__all__ = [
    "ApiKey",
    "Base",
    "Conversation",
    "Insight",
    "Membership",
    "Message",
    "Participant",
    "Summary",
    "User",
    "Workspace",
]
