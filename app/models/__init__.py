"""The tables, and nothing else."""

from app.models.accounts import ApiKey, Membership, OAuthState, Session, User
from app.models.analyses import Feedback, Insight, Summary
from app.models.base import Base
from app.models.chats import Conversation, Message, Participant
from app.models.jobs import Job, JobItem
from app.models.operations import AuditEntry, IdempotencyKey
from app.models.topics import ConversationTopic, TopicModel
from app.models.trends import TrendChange, TrendCount
from app.models.usage import AnalysisClaim, Budget, ModelCall, Spending
from app.models.webhooks import Webhook, WebhookDelivery
from app.models.workspaces import Workspace

__all__ = [
    "AnalysisClaim",
    "ApiKey",
    "AuditEntry",
    "Base",
    "Budget",
    "Conversation",
    "ConversationTopic",
    "Feedback",
    "IdempotencyKey",
    "Insight",
    "Job",
    "JobItem",
    "Membership",
    "Message",
    "ModelCall",
    "OAuthState",
    "Participant",
    "Session",
    "Spending",
    "Summary",
    "TopicModel",
    "TrendChange",
    "TrendCount",
    "User",
    "Webhook",
    "WebhookDelivery",
    "Workspace",
]
