"""How conversations develop over time."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from app.schemas import examples
from app.schemas.base import Id, Schema, Timestamp, closed
from app.schemas.enums import Interval, Metric, Outcome, Sentiment
from app.schemas.search import Keyword

INTERVALS = 2_000
"""How many intervals an answer holds."""

KEYWORDS = 20
"""How many keywords an answer counts: the commonest of the range."""

LEAST_SHARED = 2
"""A keyword of a single conversation would say what that one is about."""

Count = Annotated[int, Field(description="Conversations.")]
Conversations = Annotated[int, Field(description="Conversations that began then: the denominator of volume.")]
Analysed = Annotated[int, Field(description="Those of them with a summary or insights: the denominator of the counts.")]
Counts = Annotated[
    dict[str, Count],
    Field(description="Conversations by label or keyword; a conversation has several keywords. None for the volume."),
]


class TrendQuery(Schema):
    """What to count; all conditions that are given must hold."""

    metric: Annotated[Metric, Field(description="What `counts` tells of.")] = Metric.VOLUME
    interval: Annotated[Interval, Field(description="In UTC; a week begins on Monday (ISO 8601).")] = Interval.DAY
    since: Annotated[
        Timestamp | None,
        Field(alias="from", description="From the interval that holds this time; 30 intervals if nothing is said."),
    ] = None
    until: Annotated[
        Timestamp | None,
        Field(
            alias="to",
            description="Up to the interval that holds the last moment before this time; now if nothing is said. If"
            " `from` is not said either, and no conversation began in the last 30 intervals, up to when the newest one"
            " began.",
        ),
    ] = None
    user_id: Annotated[Id | None, Field(description="Somebody who sent a message in it.")] = None
    sentiment: Annotated[Sentiment | None, Field(description="Its latest analysis says so.")] = None
    outcome: Annotated[Outcome | None, Field(description="Its latest analysis says so.")] = None
    keyword: Annotated[Keyword | None, Field(description="One of the keywords of its latest analysis.")] = None
    min_count: Annotated[
        int,
        Field(
            ge=LEAST_SHARED,
            le=1_000_000,
            description="A keyword that fewer conversations share is not shown, in an interval or in the totals.",
        ),
    ] = 3


@closed()
class TrendTotals(TypedDict):
    """All intervals together."""

    conversations: Conversations
    analysed: Analysed
    counts: Counts


@closed()
class TrendInterval(TrendTotals):
    """One interval."""

    start: Timestamp


_Range = TypedDict(
    "_Range",
    {
        "from": Annotated[Timestamp, Field(description="When the first interval begins (inclusive).")],
        "to": Annotated[Timestamp, Field(description="When the last interval ends (exclusive).")],
    },
)


@closed(examples.TRENDS)
class Trends(_Range):
    """Counts of conversations by when they began, one entry an interval without a gap, oldest first."""

    metric: Metric
    interval: Interval
    min_count: int
    complete: Annotated[
        bool,
        Field(
            description="False if so many keywords are about as common that not all were compared: one may be missing"
            " that is as common as those that are shown. What is counted is exact all the same."
        ),
    ]
    totals: TrendTotals
    data: list[TrendInterval]
