"""Summaries and insights as they are stored and returned."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from app.schemas import examples
from app.schemas.base import Id, Schema, Timestamp, example
from app.schemas.enums import Level, Outcome, QuestionStatus, Sentiment, UserType


class AnalysisRequest(Schema):
    """Which conversation to read; ``force`` reads it anew even if nothing changed."""

    model_config = example(examples.ANALYSIS_REQUEST)

    conversation_id: Annotated[Id, Field(examples=["order-1042"])]
    force: StrictBool = False


class Evidence(Schema):
    """A passage of a message, word for word."""

    message_id: str
    quote: str


class Item(Schema):
    """A statement; ``verified`` when every quote was found again in its message."""

    text: str
    evidence: list[Evidence]
    verified: bool


class ActionItem(Item):
    """Something that somebody is to do."""

    owner: str | None
    due: str | None


class Question(Item):
    """A question and, if it was answered, its answer."""

    status: QuestionStatus
    answer: str | None


class Coverage(Schema):
    """How much of the conversation was read."""

    messages_read: int
    messages_total: int
    complete: bool


class Fallback(Schema):
    """A model that was asked and did not answer usefully."""

    model: str
    reason: str


class Provenance(Schema):
    """Who answered, from what, at what price."""

    model: str
    provider: str
    fallbacks: list[Fallback]
    prompt_version: str
    input_sha256: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    latency_ms: int


class Analysis(Schema):
    """What summaries and insights have in common."""

    conversation_id: str
    coverage: Coverage
    provenance: Provenance
    stale: Annotated[bool, Field(description="Messages came or went after it.")]
    created_at: Timestamp
    updated_at: Timestamp


class Change(Schema):
    """An action item, a decision or a question that is not as it was."""

    kind: Literal["action_item", "decision", "question"]
    text: str


class Changes(Schema):
    """What new messages changed since the summary before."""

    opened: Annotated[list[Change], Field(description="Was not there before.")]
    closed: Annotated[list[Change], Field(description="Was answered, or is no longer to be done.")]
    changed: Annotated[list[Change], Field(description="Is there still, and says something else.")]


class SummaryBody(Schema):
    """What a summary says."""

    summary: str
    action_items: list[ActionItem]
    decisions: list[Item]
    questions: list[Question]
    sentiment: Sentiment
    outcome: Outcome
    keywords: list[str]
    changes: Annotated[
        Changes | None,
        Field(description="What changed since the summary that this one was made from; null if from the whole."),
    ] = None


class Summary(Analysis, SummaryBody):
    """The summary of a conversation."""

    model_config = example(examples.SUMMARY)


class SenderSentiment(Schema):
    """How one sender feels over the whole conversation."""

    user_id: str
    user_type: UserType
    label: Sentiment
    score: float


class SentimentAt(Schema):
    """The customer's feeling at one message."""

    message_id: str
    timestamp: Timestamp
    score: float


class SentimentInsight(Schema):
    """The customer's feeling; scores run from -1 to 1, the confidence from 0 to 1."""

    label: Sentiment
    score: float
    confidence: float
    by_participant: list[SenderSentiment]
    timeline: list[SentimentAt]


class OutcomeInsight(Schema):
    """Whether the customer left with what they came for, and where it shows."""

    label: Outcome
    confidence: float
    reason: str
    evidence: list[Evidence]
    verified: bool


class CustomerEffort(Schema):
    """How much work it was for the customer, and where it shows; the score runs from 0 to 1."""

    label: Level
    score: float
    reason: str
    evidence: list[Evidence]
    verified: bool


class EscalationRisk(Schema):
    """How likely the customer is to take the matter further, and each sign of it; the score runs from 0 to 1."""

    label: Level
    score: float
    reasons: list[Item]


class Keyword(Schema):
    """A keyword and its weight from 0 to 1."""

    text: str
    score: float


_OLD = "Null in insights that were made before the service told it; `force` makes them anew."


class InsightsBody(Schema):
    """What insights say."""

    sentiment: SentimentInsight
    outcome: OutcomeInsight
    customer_effort: Annotated[CustomerEffort | None, Field(description=_OLD)] = None
    escalation_risk: Annotated[EscalationRisk | None, Field(description=_OLD)] = None
    topics: Annotated[list[str] | None, Field(description=f"What it is about, in a few short phrases. {_OLD}")] = None
    keywords: list[Keyword]
    resolution: str


class Insights(Analysis, InsightsBody):
    """The insights into a conversation."""

    model_config = example(examples.INSIGHTS)
