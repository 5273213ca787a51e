"""What the analytics operations answer, as far as it is shown."""

from datetime import datetime

from typing_extensions import TypedDict


class Bucket(TypedDict):
    """The conversations that began in an interval, those of them with labels, and how often each label is theirs."""

    start: datetime
    conversations: int
    analysed: int
    counts: dict[str, int]


class Totals(TypedDict):
    """The same of the whole range."""

    conversations: int
    analysed: int
    counts: dict[str, int]


class Trends(TypedDict):
    """Counts over time; below ``min_count`` nothing is told."""

    metric: str
    interval: str
    min_count: int
    totals: Totals
    data: list[Bucket]


class Example(TypedDict):
    """A conversation of a topic, and a passage of it."""

    conversation_id: str
    snippet: str


class Topic(TypedDict):
    """What conversations are about; ``share`` is its part of those that were assigned."""

    topic_id: str
    label: str
    keywords: list[str]
    conversations: int
    share: float
    examples: list[Example]


class Topics(TypedDict):
    """The topics of a range; ``status`` is ``ready``, ``too_few`` or ``pending``."""

    status: str
    conversations: int
    assigned: int
    updated_at: datetime | None
    data: list[Topic]
