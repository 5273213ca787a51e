"""The closed sets of words that the API uses."""

from enum import StrEnum


class UserType(StrEnum):
    """Which side of the conversation a sender is on."""

    CUSTOMER = "customer"
    SUPPORT_AGENT = "support_agent"


class Role(StrEnum):
    """What a credential may do, weakest first."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"


class Sentiment(StrEnum):
    """How the customer feels."""

    POSITIVE = "positive"
    NEUTRAL = "neutral"
    NEGATIVE = "negative"
    MIXED = "mixed"


class Outcome(StrEnum):
    """Whether the customer left with what they came for."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"
    CURIOUS = "curious"


class Level(StrEnum):
    """How much of something there is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class QuestionStatus(StrEnum):
    """Whether a question got its answer in the conversation."""

    ANSWERED = "answered"
    UNANSWERED = "unanswered"


class Rating(StrEnum):
    """What somebody thinks of a summary."""

    UP = "up"
    DOWN = "down"


class MemberStatus(StrEnum):
    """Whether a member has joined, or is only invited."""

    ACTIVE = "active"
    INVITED = "invited"


class Provider(StrEnum):
    """Who vouches for a person at sign-in."""

    GOOGLE = "google"
    GITHUB = "github"


class BudgetPeriod(StrEnum):
    """For how long a budget is, in UTC."""

    DAY = "day"
    MONTH = "month"


class Metric(StrEnum):
    """What a trend counts."""

    VOLUME = "volume"
    SENTIMENT = "sentiment"
    OUTCOME = "outcome"
    KEYWORDS = "keywords"


class Interval(StrEnum):
    """How much time each point of a trend is about."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class JobStatus(StrEnum):
    """How far a job is; ``failed`` when none of its conversations could be summarised."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ItemState(StrEnum):
    """How far one conversation of a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class WebhookEvent(StrEnum):
    """What a webhook can be told of."""

    SUMMARY_CREATED = "summary.created"
    INSIGHTS_CREATED = "insights.created"
    QUESTION_UNANSWERED = "question.unanswered"
    CONVERSATION_DELETED = "conversation.deleted"
    JOB_FINISHED = "job.finished"


class DeliveryState(StrEnum):
    """How far a delivery is; ``failed`` when it is not tried any more."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DisabledReason(StrEnum):
    """Why the service has disabled a webhook by itself."""

    GONE = "gone"
    FAILING = "failing"
