"""A client of the public API, and nothing else of ours: over HTTP, and live; with the words that both use."""

from app.client.analytics import Topics, Trends
from app.client.errors import ApiError
from app.client.http import Client
from app.client.live import Follower, View
from app.schemas.accounts import Key, Me, Member, NewKey
from app.schemas.analyses import Analysis, Evidence, Insights, Item, Summary
from app.schemas.chats import ConversationItem, ConversationPage, Imported, Message
from app.schemas.enums import Outcome, Role, Sentiment, UserType
from app.schemas.jobs import Job
from app.schemas.usage import Usage

__all__ = [
    "Analysis",
    "ApiError",
    "Client",
    "ConversationItem",
    "ConversationPage",
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
    "Outcome",
    "Role",
    "Sentiment",
    "Summary",
    "Topics",
    "Trends",
    "Usage",
    "UserType",
    "View",
]
