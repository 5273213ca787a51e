"""What a model is shown of a conversation, and what it must answer.

A draft is a model's answer before its evidence is checked. Every model answers in these shapes, the built-in engine
included. Absent texts are empty strings and every list is always there, so that the JSON schema stays flat enough for
every provider's structured output.
"""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.schemas.enums import Level, Outcome, QuestionStatus, Sentiment, UserType

Sentence = Annotated[str, Field(max_length=2_000)]
Word = Annotated[str, Field(min_length=1, max_length=100)]
Score = Annotated[float, Field(ge=-1, le=1)]
Confidence = Annotated[float, Field(ge=0, le=1)]


class Draft(BaseModel):
    """A part of a model's answer: closed, immutable, bounded."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Turn(Draft):
    """A message as a model reads it."""

    message_id: str
    user_id: str
    user_type: UserType
    timestamp: datetime
    text: str


TURNS = TypeAdapter(list[Turn])
"""A conversation as JSON, which is how a model is shown it."""


class Quote(Draft):
    """A passage of a message, word for word, that supports a statement."""

    message_id: str
    quote: Sentence


class DraftItem(Draft):
    """A statement about the conversation and where it was said."""

    text: Annotated[str, Field(min_length=1, max_length=2_000)]
    evidence: Annotated[list[Quote], Field(max_length=20)]


class DraftActionItem(DraftItem):
    """Something that somebody is to do; ``owner`` and ``due`` are empty when nobody said them."""

    owner: Annotated[str, Field(max_length=255)]
    due: Annotated[str, Field(max_length=255)]


class DraftQuestion(DraftItem):
    """A question that was asked; ``answer`` is empty when it was not answered."""

    status: QuestionStatus
    answer: Sentence


class SummaryDraft(Draft):
    """A model's summary of one conversation."""

    summary: Annotated[str, Field(min_length=1, max_length=20_000)]
    action_items: Annotated[list[DraftActionItem], Field(max_length=100)]
    decisions: Annotated[list[DraftItem], Field(max_length=100)]
    questions: Annotated[list[DraftQuestion], Field(max_length=200)]
    sentiment: Sentiment
    outcome: Outcome
    keywords: Annotated[list[Word], Field(max_length=50)]


class Numbered(Draft):
    """What a model says of one of several conversations; it names the number first."""

    conversation: Annotated[int, Field(ge=-(2**31), lt=2**31)]


class NumberedSummary(SummaryDraft, Numbered):
    """A model's summary of one of several conversations."""


class SummariesDraft(Draft):
    """A model's summaries of several conversations."""

    summaries: Annotated[list[NumberedSummary], Field(max_length=100)]


class ParticipantSentiment(Draft):
    """How one sender feels over the whole conversation; ``score`` runs from -1 to 1."""

    user_id: str
    label: Sentiment
    score: Score


class SentimentPoint(Draft):
    """The customer's feeling at one of their messages; ``score`` runs from -1 to 1."""

    message_id: str
    score: Score


class DraftSentiment(Draft):
    """The customer's feeling: overall, by sender and over time."""

    label: Sentiment
    score: Score
    confidence: Confidence
    by_participant: Annotated[list[ParticipantSentiment], Field(max_length=200)]
    timeline: Annotated[list[SentimentPoint], Field(max_length=200)]


class DraftOutcome(Draft):
    """Whether the customer left with what they came for, why, and where it shows."""

    label: Outcome
    confidence: Confidence
    reason: Sentence
    evidence: Annotated[list[Quote], Field(max_length=20)]


class DraftEffort(Draft):
    """How much work it was for the customer, from 0 to 1, why, and where it shows."""

    label: Level
    score: Confidence
    reason: Sentence
    evidence: Annotated[list[Quote], Field(max_length=20)]


class DraftEscalation(Draft):
    """How likely the customer is to take the matter further, from 0 to 1; each sign of it is a reason."""

    label: Level
    score: Confidence
    reasons: Annotated[list[DraftItem], Field(max_length=20)]


class ScoredKeyword(Draft):
    """A word or phrase and its weight from 0 to 1."""

    text: Word
    score: Confidence


class InsightsDraft(Draft):
    """A model's insights into one conversation; ``resolution`` says in a sentence how it ended."""

    sentiment: DraftSentiment
    outcome: DraftOutcome
    customer_effort: DraftEffort
    escalation_risk: DraftEscalation
    topics: Annotated[list[Word], Field(max_length=20)]
    keywords: Annotated[list[ScoredKeyword], Field(max_length=50)]
    resolution: Sentence
