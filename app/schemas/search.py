"""How conversations are asked for."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from app.schemas.base import Id, SafeText, Schema, Timestamp
from app.schemas.chats import DELETE_SIZE, MESSAGE_PAGE_SIZE, PAGE_SIZE
from app.schemas.enums import Outcome, Sentiment

SEARCH_LENGTH = 512
SEARCH_TERMS = 32
CURSOR_LENGTH = 8_192

# PostgreSQL's parser of web searches holds 32 negations of negations; these characters do not end the chain.
_NEGATIONS = re.compile(r"(?:-[\s()!<&|]*){33}", re.ASCII)


def _check_terms(value: str) -> str:
    if len(value.split()) > SEARCH_TERMS:
        raise ValueError(f"must have at most {SEARCH_TERMS} terms")
    if _NEGATIONS.search(value):
        raise ValueError("must not have more than 32 minus signs in a row")
    return value


SearchText = Annotated[SafeText, Field(min_length=1, max_length=SEARCH_LENGTH), AfterValidator(_check_terms)]
Keyword = Annotated[SafeText, Field(min_length=1, max_length=100)]
Cursor = Annotated[SafeText, Field(min_length=1, max_length=CURSOR_LENGTH)]


class Filter(Schema):
    """Conditions on a conversation; all that are given must hold."""

    since: Annotated[
        Timestamp | None, Field(alias="from", description="It went on at this time or later (inclusive).")
    ] = None
    until: Annotated[Timestamp | None, Field(alias="to", description="It began before this time (exclusive).")] = None
    q: Annotated[
        SearchText | None,
        Field(
            description='One of its messages holds this: words, "a phrase", `or`, `-not`.',
            examples=["refund -shipping"],
        ),
    ] = None
    sentiment: Annotated[Sentiment | None, Field(description="Its latest analysis says so.")] = None
    outcome: Annotated[Outcome | None, Field(description="Its latest analysis says so.")] = None
    keyword: Annotated[Keyword | None, Field(description="One of the keywords of its latest analysis.")] = None


class ConversationFilter(Filter):
    """Which conversations."""

    user_id: Annotated[Id | None, Field(description="Somebody who sent a message in it.")] = None

    @classmethod
    def of(cls, query: Filter, **more: str) -> "ConversationFilter":
        """Returns the conditions of a query, without its paging."""
        return cls.model_construct(**{**{k: v for k, v in query if k in cls.model_fields}, **more})

    def is_empty(self) -> bool:
        """Says whether every conversation passes."""
        return all(value is None for _, value in self)


class ConversationQuery(ConversationFilter):
    """A page of conversations."""

    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE)] = 10
    cursor: Annotated[Cursor | None, Field(description="`next_cursor` of the page before.")] = None


class UserQuery(Filter):
    """A numbered page of a sender's conversations."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE)] = 10


class DeleteQuery(ConversationFilter):
    """Which conversations to delete, and how many at the most."""

    max_delete_count: Annotated[
        int, Field(ge=1, le=DELETE_SIZE, description="Nothing is deleted when more conversations match.")
    ]


class MessageQuery(Schema):
    """A page of a conversation's messages."""

    limit: Annotated[int, Field(ge=1, le=MESSAGE_PAGE_SIZE)] = MESSAGE_PAGE_SIZE
    cursor: Annotated[Cursor | None, Field(description="`next_cursor` of the page before.")] = None
