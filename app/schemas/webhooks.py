"""Webhooks and their deliveries."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator
from pydantic.json_schema import SkipJsonSchema

from app.schemas import examples
from app.schemas.base import SafeText, Schema, Timestamp, example, matching
from app.schemas.enums import DeliveryState, DisabledReason, JobStatus, WebhookEvent

URL_LENGTH = 2_048

TargetUrl = Annotated[
    SafeText,
    Field(max_length=URL_LENGTH, description="`https://`, at a public address; redirects count as errors."),
    *matching(r"https?://[!-~]+", "must be a URL such as https://example.com/hooks, in ASCII"),
]
Events = Annotated[list[WebhookEvent], Field(min_length=1, max_length=len(WebhookEvent))]


class WebhookIn(Schema):
    """A webhook to be."""

    model_config = example(examples.WEBHOOK_IN)

    url: TargetUrl
    events: Events


class WebhookChange(Schema):
    """What is to change; the rest stays."""

    model_config = example(examples.WEBHOOK_CHANGE, minProperties=1)

    url: TargetUrl | SkipJsonSchema[None] = None
    events: Events | SkipJsonSchema[None] = None
    enabled: Annotated[
        StrictBool | SkipJsonSchema[None],
        Field(description="A disabled webhook is told nothing, and what was on its way is given up."),
    ] = None
    rotate_secret: Annotated[
        StrictBool | SkipJsonSchema[None],
        Field(description="Makes a new secret, which the answer shows; the old one signs as well for 24 hours."),
    ] = None

    @model_validator(mode="after")
    def _check_given(self) -> "WebhookChange":
        if not self.model_fields_set or any(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("must change something, and nothing to null")
        return self


class Webhook(Schema):
    """Where events are sent."""

    model_config = example(examples.WEBHOOK)

    id: str
    url: str
    events: list[WebhookEvent]
    enabled: bool
    disabled_reason: Annotated[
        DisabledReason | None,
        Field(description="Why the service disabled it: the target answered 410, or failed for five days."),
    ] = None
    failing_since: Annotated[Timestamp | None, Field(description="The first failure since the last success.")] = None
    created_at: Timestamp


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown only when it is made; null if it was not."""

    model_config = example(examples.NEW_WEBHOOK)

    secret: Annotated[str | None, Field(description="`whsec_` and the key in base64 (Standard Webhooks).")] = None


class WebhookList(Schema):
    """A page of webhooks, newest first."""

    model_config = example(examples.WEBHOOK_LIST)

    data: list[Webhook]
    has_more: bool
    next_cursor: str | None


class Delivery(Schema):
    """An event that was or is to be sent to a webhook; kept for 30 days."""

    model_config = example(examples.DELIVERY)

    id: Annotated[str, Field(description="The `webhook-id` of each attempt.")]
    event: WebhookEvent
    state: DeliveryState
    conversation_id: Annotated[str | None, Field(description="Forgotten once a deletion was told.")]
    job_id: str | None = None
    attempts: Annotated[int, Field(description="Ten at the most; begun anew by a replay.")]
    created_at: Timestamp
    last_attempt_at: Timestamp | None
    next_attempt_at: Timestamp | None
    status_code: Annotated[int | None, Field(description="What the target answered last.")]
    error: Annotated[
        str | None,
        Field(
            description="A stable code: `status_<code>`, `redirect`, `timeout`, `refused`, `unknown_host`,"
            " `not_public`, `tls`, `disconnected`, `invalid_url`, `internal` (a defect of this service), or"
            " `disabled` if that ended it."
        ),
    ]
    duration_ms: int | None


class DeliveryList(Schema):
    """A page of deliveries, newest first."""

    model_config = example(examples.DELIVERY_LIST)

    data: list[Delivery]
    has_more: bool
    next_cursor: str | None


class ConversationEvent(Schema):
    """Something about a conversation; no text of it."""

    conversation_id: str
    url: Annotated[str, Field(description="Where to read it, with a credential.")]


class QuestionsEvent(ConversationEvent):
    """A summary has questions without an answer."""

    questions: Annotated[int, Field(description="How many.")]


class DeletedEvent(Schema):
    """A conversation is gone."""

    conversation_id: str


class JobEvent(Schema):
    """A job is over."""

    job_id: str
    status: Literal[JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]
    url: str


class SummaryCreated(Schema):
    """A summary was made, for the first time or anew."""

    model_config = example(examples.SUMMARY_CREATED)

    type: Literal[WebhookEvent.SUMMARY_CREATED]
    timestamp: Timestamp
    data: ConversationEvent


class InsightsCreated(Schema):
    """Insights were made, for the first time or anew."""

    model_config = example(examples.INSIGHTS_CREATED)

    type: Literal[WebhookEvent.INSIGHTS_CREATED]
    timestamp: Timestamp
    data: ConversationEvent


class QuestionUnanswered(Schema):
    """A summary was made that has questions without an answer."""

    model_config = example(examples.QUESTION_UNANSWERED)

    type: Literal[WebhookEvent.QUESTION_UNANSWERED]
    timestamp: Timestamp
    data: QuestionsEvent


class ConversationDeleted(Schema):
    """A conversation was deleted: alone, by a filter, or because it was kept long enough."""

    model_config = example(examples.CONVERSATION_DELETED)

    type: Literal[WebhookEvent.CONVERSATION_DELETED]
    timestamp: Timestamp
    data: DeletedEvent


class JobFinished(Schema):
    """A job is over: completed, failed or cancelled."""

    model_config = example(examples.JOB_FINISHED)

    type: Literal[WebhookEvent.JOB_FINISHED]
    timestamp: Timestamp
    data: JobEvent


PAYLOADS: dict[WebhookEvent, type[Schema]] = {
    WebhookEvent.SUMMARY_CREATED: SummaryCreated,
    WebhookEvent.INSIGHTS_CREATED: InsightsCreated,
    WebhookEvent.QUESTION_UNANSWERED: QuestionUnanswered,
    WebhookEvent.CONVERSATION_DELETED: ConversationDeleted,
    WebhookEvent.JOB_FINISHED: JobFinished,
}
"""What is sent of each event."""
