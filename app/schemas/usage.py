"""What models were asked, what it cost, and what it may cost, in US dollars."""

from datetime import date
from typing import Annotated

from pydantic import Field

from app.schemas import examples
from app.schemas.base import Schema, Timestamp, example
from app.schemas.enums import BudgetPeriod

Dollars = Annotated[float, Field(strict=True, ge=0, le=1_000_000, allow_inf_nan=False)]


class ModelUsage(Schema):
    """A model's calls on one day, in UTC."""

    day: date
    model: str
    calls: int
    answered: Annotated[int, Field(description="How many of the calls brought an answer that could be used.")]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: Annotated[
        int, Field(description="How many of the prompt's tokens the provider knew already, and charged less for.")
    ]
    cost_usd: float


class BudgetLeft(Schema):
    """A budget and what is left of it in the period that is going on."""

    scope: str
    period: BudgetPeriod
    limit_usd: float
    spent_usd: Annotated[float, Field(description="Spent, or reserved for calls that are going on.")]
    left_usd: float


class Usage(Schema):
    """What models were asked in a range of time, and the budgets."""

    model_config = example(examples.USAGE)

    data: list[ModelUsage]
    cost_usd: float
    budgets: list[BudgetLeft]


class UsageQuery(Schema):
    """Which range of time; the last thirty days if nothing is said."""

    since: Annotated[Timestamp | None, Field(alias="from", description="At this time or later (inclusive).")] = None
    until: Annotated[Timestamp | None, Field(alias="to", description="Before this time (exclusive).")] = None


class BudgetIn(Schema):
    """What may be spent; null takes a limit away."""

    model_config = example(examples.BUDGET_IN)

    day_usd: Annotated[Dollars | None, Field(description="In a day, in UTC.")] = None
    month_usd: Annotated[Dollars | None, Field(description="In a calendar month, in UTC.")] = None
