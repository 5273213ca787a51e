"""What goes over a live socket: events to the client, commands from it."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.schemas.analyses import Summary
from app.schemas.base import Schema
from app.schemas.chats import Conversation, Message
from app.schemas.problems import ProblemDocument


class Snapshot(Schema):
    """The conversation as it is: the first event, and again when the ones between cannot be told one by one."""

    type: Literal["snapshot"] = "snapshot"
    conversation: Conversation
    messages: Annotated[list[Message], Field(description="The newest ones, up to 100 and about 1 MiB, oldest first.")]
    summary: Summary | None


class NewMessage(Schema):
    """A message that was stored; it may be older than those before it."""

    type: Literal["message"] = "message"
    message: Message


class SummaryDelta(Schema):
    """What was added to the text of a summary that is being written."""

    type: Literal["summary.delta"] = "summary.delta"
    text: str


class SummaryRestarted(Schema):
    """The text so far is void: a model failed, or another text was stored; ``reason`` is a stable word."""

    type: Literal["summary.restarted"] = "summary.restarted"
    reason: str


class SummaryUpdated(Schema):
    """The summary that is stored now."""

    type: Literal["summary.updated"] = "summary.updated"
    summary: Summary


class ConversationDeleted(Schema):
    """The last event."""

    type: Literal["conversation.deleted"] = "conversation.deleted"


class Failed(Schema):
    """What went wrong; the socket stays open. ``retry_after`` are seconds."""

    type: Literal["error"] = "error"
    problem: ProblemDocument
    retry_after: int | None = None


Event = Snapshot | NewMessage | SummaryDelta | SummaryRestarted | SummaryUpdated | ConversationDeleted


class Command(Schema):
    """What a client wants: to store a message, or a summary; the other fields are those of the request over HTTP."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Any]

    type: Literal["message", "summarize"]
