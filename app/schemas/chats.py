"""Messages and conversations.

What is read most often is made of dictionaries: they cost a tenth of a model to make and to write.
"""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from app.schemas import examples
from app.schemas.base import Content, Id, Schema, Timestamp, closed, example
from app.schemas.enums import Outcome, Sentiment, UserType

BATCH_SIZE = 10_000
PAGE_SIZE = 100
MESSAGE_PAGE_SIZE = 1_000
DELETE_SIZE = 10_000


class MessageIn(Schema):
    """A message to store."""

    model_config = example(examples.MESSAGE_IN)

    conversation_id: Annotated[Id, Field(description="Made on first sight.", examples=["order-1042"])]
    message_id: Annotated[
        Id | None,
        Field(description="Unique in its conversation; what makes sending again safe. Generated when left out."),
    ] = None
    user_id: Annotated[Id, Field(description="Who sent it.", examples=["ana"])]
    user_type: Annotated[UserType, Field(examples=["customer"])]
    message_content: Annotated[
        Content, Field(description="Stored verbatim.", examples=["Hi, my parcel has not arrived yet."])
    ]
    timestamp: Annotated[Timestamp | None, Field(description="When it was sent; now when left out.")] = None


@closed()
class Message(TypedDict):
    """A stored message."""

    message_id: str
    user_id: str
    user_type: UserType
    message_content: str
    timestamp: Timestamp


class Stored(Schema):
    """What came of storing messages; ``message_ids`` are in the order they were sent."""

    model_config = example(examples.STORED)

    stored: int
    duplicates: int
    conversations: Annotated[int, Field(description="How many conversations the messages belong to.")]
    message_ids: list[str]


class Rejection(Schema):
    """A line of a stream that was not stored, and why."""

    line: int
    code: str
    detail: str


class Imported(Schema):
    """What came of a stream: stored, duplicates and rejected add up to the rows sent."""

    model_config = example(examples.IMPORTED)

    stored: int
    duplicates: int
    rejected: int
    errors: Annotated[list[Rejection], Field(description="The first 1,000 rejections.")]


@closed()
class Participant(TypedDict):
    """A sender in a conversation."""

    user_id: str
    user_type: UserType
    message_count: int


@closed()
class Conversation(TypedDict):
    """What is known of a conversation without its messages."""

    conversation_id: str
    message_count: int
    first_message_at: Timestamp
    last_message_at: Timestamp
    participants: Annotated[list[Participant], Field(description="The first 100 by number of messages.")]
    sentiment: Annotated[Sentiment | None, Field(description="Of the latest summary or insights.")]
    outcome: Annotated[Outcome | None, Field(description="Of the latest summary or insights.")]


@closed(examples.CONVERSATION_PAGE)
class ConversationPage(Conversation):
    """A conversation with a page of its messages, oldest first."""

    messages: list[Message]
    has_more: bool
    next_cursor: str | None


@closed()
class Match(TypedDict):
    """A message that a search found, and the passage around the words."""

    message_id: str
    snippet: str


@closed()
class ConversationItem(Conversation):
    """A conversation in a list; ``matches`` holds up to three messages, best first, when there was a search."""

    matches: NotRequired[list[Match] | None]


@closed(examples.CONVERSATION_LIST)
class ConversationList(TypedDict):
    """A page of conversations, newest first."""

    data: list[ConversationItem]
    has_more: bool
    next_cursor: str | None


@closed(examples.NUMBERED_CONVERSATION_LIST)
class NumberedConversationList(TypedDict):
    """A numbered page of a sender's conversations, newest first."""

    data: list[ConversationItem]
    has_more: bool
    next_cursor: NotRequired[Annotated[str | None, Field(description="Always null: pages are numbered.")]]
    page: int
    total: Annotated[int, Field(description="Of a long history, 1,000 or more, up to four seconds old.")]
    pages: int


class DeletedRows(Schema):
    """How many rows of each kind went."""

    conversations: int
    messages: int
    participants: int
    summaries: int
    insights: int
    feedback: int


class DeletedConversation(Schema):
    """The receipt for a deleted conversation."""

    model_config = example(examples.DELETED_CONVERSATION)

    conversation_id: str
    deleted: DeletedRows


class DeletedConversations(Schema):
    """The receipt for conversations deleted by a filter."""

    model_config = example(examples.DELETED_CONVERSATIONS)

    deleted: DeletedRows
