"""Feedback on summaries."""

from typing import Annotated

from pydantic import Field

from app.schemas import examples
from app.schemas.base import SafeText, Schema, Timestamp, example
from app.schemas.enums import Outcome, Rating, Sentiment


class Corrections(Schema):
    """What a summary should have said; what is left out was right or is not judged."""

    summary: Annotated[SafeText | None, Field(min_length=1, max_length=20_000)] = None
    sentiment: Sentiment | None = None
    outcome: Outcome | None = None
    keywords: Annotated[list[Annotated[SafeText, Field(min_length=1, max_length=100)]] | None, Field(max_length=50)] = (
        None
    )


class FeedbackIn(Schema):
    """What somebody thinks of a summary."""

    model_config = example(examples.FEEDBACK_IN)

    rating: Rating
    comment: Annotated[SafeText | None, Field(min_length=1, max_length=10_000)] = None
    corrections: Corrections | None = None


class SummaryVersion(Schema):
    """Which version of a summary it was, and what made it."""

    prompt_version: str
    input_sha256: str
    model: str
    updated_at: Timestamp


class FeedbackDetails(Schema):
    """What is kept sealed of feedback."""

    comment: str | None
    corrections: Corrections | None
    summary_version: SummaryVersion


class Feedback(FeedbackDetails):
    """Feedback as it is stored."""

    model_config = example(examples.FEEDBACK)

    conversation_id: str
    rating: Rating
    created_at: Timestamp
    updated_at: Timestamp
