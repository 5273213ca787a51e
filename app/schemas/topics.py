"""What conversations are about."""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field

from app.schemas import examples
from app.schemas.base import Schema, Timestamp, example
from app.schemas.drafts import Draft

Range = tuple[datetime, datetime]
"""From a time on, and before another."""


class TopicQuery(Schema):
    """Which conversations: those that began in a range of time; all of them if nothing is said."""

    since: Annotated[Timestamp | None, Field(alias="from", description="Began then or later (inclusive).")] = None
    until: Annotated[Timestamp | None, Field(alias="to", description="Began before this time (exclusive).")] = None


class TopicExample(Schema):
    """A conversation that is very much about a topic, and something that was said in it."""

    conversation_id: str
    snippet: str


class TopicItem(Schema):
    """A topic and how many conversations of the range are about it."""

    topic_id: Annotated[str, Field(description="The same topic keeps its id, however often topics are found anew.")]
    label: Annotated[str, Field(description="By a model if one is configured, else the first keywords.")]
    keywords: list[str]
    conversations: int
    share: Annotated[float, Field(description="Of the conversations that have a topic, from 0 to 1.")]
    examples: list[TopicExample]


class Topics(Schema):
    """The topics of a range of time, the commonest first."""

    model_config = {**example(examples.TOPICS), "serialize_by_alias": True, "validate_by_name": True}

    since: Annotated[Timestamp | None, Field(alias="from")]
    until: Annotated[Timestamp | None, Field(alias="to")]
    status: Annotated[
        Literal["ready", "too_few", "pending"],
        Field(description="`too_few`: the workspace has less than 50 conversations; `pending`: a worker is to come."),
    ]
    conversations: Annotated[int, Field(description="How many began in the range.")]
    assigned: Annotated[int, Field(description="How many of them have a topic.")]
    updated_at: Annotated[Timestamp | None, Field(description="When a worker last wrote something of this down.")]
    data: list[TopicItem]


class Topic(BaseModel):
    """A topic as it is stored; without a label its keywords stand in."""

    topic_id: int
    label: str = ""
    keywords: list[str]

    def named(self, label: str) -> "Topic":
        """Returns the topic with a label."""
        return self.model_copy(update={"label": label})


class TopicModel(BaseModel):
    """What tells which topic a conversation is about.

    ``idf`` are the terms' inverse document frequencies, ``weights`` each topic's terms as a vector of length 1.
    ``apart`` says that most conversations are of different customers: then each term is several customers' own.
    """

    idf: dict[str, float]
    weights: dict[int, dict[str, float]]
    next_id: int
    apart: bool


class Assigned(NamedTuple):
    """A conversation's topic, and how near the two are, from 0 to 1; None if it is near none."""

    topic_id: int | None
    weight: float


class TopicLabelDraft(Draft):
    """A model's name for one of several topics."""

    topic: Annotated[int, Field(ge=-(2**31), lt=2**31)]
    label: Annotated[str, Field(max_length=200)]


class TopicLabelsDraft(Draft):
    """A model's names for topics."""

    labels: Annotated[list[TopicLabelDraft], Field(max_length=100)]
