"""A client of the public API, and nothing else of ours: over HTTP, and live; with the words that both use."""

from app.client.errors import ApiError
from app.client.http import Client
from app.client.live import Follower, View, beginning
from app.schemas.accounts import Key, Me, Member, NewKey
from app.schemas.analyses import Analysis, CustomerEffort, EscalationRisk, Evidence, Insights, Item, Summary
from app.schemas.chats import ConversationItem, ConversationPage, Imported, Message
from app.schemas.enums import Outcome, Role, Sentiment, UserType, WebhookEvent
from app.schemas.jobs import Job
from app.schemas.topics import Topics
from app.schemas.trends import Trends
from app.schemas.usage import Usage
from app.schemas.webhooks import NewWebhook, Webhook

__all__ = [
    "Analysis",
    "ApiError",
    "Client",
    "ConversationItem",
    "ConversationPage",
    "CustomerEffort",
    "EscalationRisk",
    "Evidence",
    "Follower",
    "Imported",
    "Insights",
    "Item",
    "Job",
    "Key",
    "Me",
    "Member",
    "Message",
    "NewKey",
    "NewWebhook",
    "Outcome",
    "Role",
    "Sentiment",
    "Summary",
    "Topics",
    "Trends",
    "Usage",
    "UserType",
    "View",
    "Webhook",
    "WebhookEvent",
    "beginning",
]
