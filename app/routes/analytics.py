"""How conversations develop, what models are asked and what it costs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import Admin, App, BudgetScope, Reader
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.topics import TopicQuery, Topics
from app.schemas.trends import TrendQuery, Trends
from app.schemas.usage import BudgetIn, Usage, UsageQuery

router = APIRouter(tags=["analytics"], route_class=Operation)

_budget = TypeAdapter(BudgetIn)


@router.get(
    "/analytics/trends",
    operation_id="getTrends",
    summary="How conversations develop",
    response_model=Trends,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def get_trends(app: App, viewer: Reader, query: Annotated[TrendQuery, Query()]) -> Response:
    """Counts the conversations that began in each interval, all of them and by sentiment, outcome or keyword.

    Only whole intervals are counted, at most 2,000 of them. By sender, by sentiment and outcome together, by two
    keywords, or by keyword and hour, at most 100,000 conversations of the range are looked at.
    """
    return reply(await app.trends.trends(viewer, query))


@router.get(
    "/analytics/usage",
    operation_id="getUsage",
    summary="What models cost",
    response_model=Usage,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def get_usage(app: App, viewer: Reader, query: Annotated[UsageQuery, Query()]) -> Response:
    """Returns calls, tokens and cost by day and model, and what is left of the budgets."""
    return reply(await app.usage.used(viewer, query))


@router.get(
    "/analytics/topics",
    operation_id="getTopics",
    summary="What conversations are about",
    response_model=Topics,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def get_topics(app: App, viewer: Reader, query: Annotated[TopicQuery, Query()]) -> Response:
    """Returns the topics of the conversations that began in a range of time, with how many each has, and examples.

    Workers find them, without a model's help, from 50 conversations on, and keep them up to date as messages come.
    """
    return reply(await app.topics.report(viewer, query))


@router.put(
    "/analytics/budgets/{scope}",
    operation_id="setBudget",
    summary="Set a budget",
    status_code=204,
    response_class=Response,
    responses=describe(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(BudgetIn)),
)
async def set_budget(request: Request, app: App, viewer: Admin, scope: BudgetScope) -> Response:
    """Sets what models may cost a day and a month: all of the `workspace`, a `key:<id>` or a `member:<id>`.

    What a call may cost is reserved before it. When too little is left, the built-in engine answers, and `provenance`
    says `over_budget`.
    """
    await app.usage.set_budget(viewer, scope, await read_json(request, _budget))
    return Response(status_code=204)
