"""Summaries, what people think of them, and insights."""

from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import TypeAdapter

from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import Analyst, App, ConversationId, Member, Reader
from app.routes.idempotency import Answer, Attempt, IdempotencyKey, once
from app.routes.jobs import accepted
from app.routes.operations import Operation
from app.routes.problems import describe
from app.routes.streams import DOCUMENTED, stream, wants_events
from app.schemas.analyses import AnalysisRequest, Insights, Summary
from app.schemas.feedback import Feedback, FeedbackIn
from app.schemas.jobs import Job, JobRequest

router = APIRouter(tags=["summaries and insights"], route_class=Operation)

_request = TypeAdapter(AnalysisRequest)
_feedback = TypeAdapter(FeedbackIn)

Prefer = Annotated[str | None, Header(description="`respond-async`: answer with a job at once (RFC 7240).")]


@router.post(
    "/chats/summarize",
    operation_id="summarizeConversation",
    summary="Summarise a conversation",
    response_model=Summary,
    responses={
        200: {"content": DOCUMENTED},
        202: {"model": Job},
        **describe(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=json_body(reference(AnalysisRequest)),
)
async def summarize_conversation(
    request: Request, app: App, viewer: Analyst, key: IdempotencyKey = None, prefer: Prefer = None
) -> Response:
    """Returns the conversation's summary, asking a model only if there is none or messages came or went after it.

    With `Accept: text/event-stream` its text comes while it is written, if this instance is the one that asks a model.
    """
    wanted = await read_json(request, _request)
    asynchronous = "respond-async" in {each.strip().lower() for each in (prefer or "").split(",")}

    async def act(_: Attempt) -> Response:
        if asynchronous:
            job = JobRequest(conversation_ids=[wanted.conversation_id], force=wanted.force)
            return accepted(await app.jobs.create(viewer, job))
        return reply(await app.summaries.make(viewer, wanted))

    def acting() -> Coroutine[Any, Any, Answer]:
        return once(request, app, viewer.caller, key, act, conversation_id=wanted.conversation_id)

    if not asynchronous and wants_events(", ".join(request.headers.getlist("accept"))):
        return await stream(request, app, viewer, wanted.conversation_id, acting)
    return (await acting()).response


@router.get(
    "/chats/{conversation_id}/summary",
    operation_id="getSummary",
    summary="Read a summary",
    response_model=Summary,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def get_summary(app: App, viewer: Reader, conversation_id: ConversationId) -> Response:
    """Returns the stored summary; `stale` when messages came or went after it."""
    return reply(await app.summaries.get(viewer, conversation_id))


@router.post(
    "/chats/{conversation_id}/summary/feedback",
    operation_id="giveFeedback",
    summary="Rate a summary",
    status_code=201,
    response_model=Feedback,
    responses=describe(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(FeedbackIn)),
)
async def give_feedback(
    request: Request, app: App, viewer: Member, conversation_id: ConversationId, key: IdempotencyKey = None
) -> Response:
    """Keeps what you think of the stored summary, with the version that you speak of; said again, it replaces that."""
    given = await read_json(request, _feedback)

    async def act(_: Attempt) -> Response:
        return reply(await app.feedback.give(viewer, conversation_id, given), 201)

    return (await once(request, app, viewer.caller, key, act, conversation_id=conversation_id)).response


@router.post(
    "/chats/insights",
    operation_id="analyzeConversation",
    summary="Analyse a conversation",
    response_model=Insights,
    responses=describe(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(AnalysisRequest)),
)
async def analyze_conversation(request: Request, app: App, viewer: Analyst, key: IdempotencyKey = None) -> Response:
    """Returns the insights into a conversation, asking a model only if there are none or messages came or went."""
    wanted = await read_json(request, _request)

    async def act(_: Attempt) -> Response:
        return reply(await app.insights.make(viewer, wanted))

    return (await once(request, app, viewer.caller, key, act, conversation_id=wanted.conversation_id)).response


@router.get(
    "/chats/{conversation_id}/insights",
    operation_id="getInsights",
    summary="Read insights",
    response_model=Insights,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def get_insights(app: App, viewer: Reader, conversation_id: ConversationId) -> Response:
    """Returns the stored insights; `stale` when messages came or went after them."""
    return reply(await app.insights.get(viewer, conversation_id))
