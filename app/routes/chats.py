"""Storing, reading, finding and deleting conversations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, TypeAdapter

from app.errors import Unavailable, UnsupportedMediaType
from app.factory import Services
from app.routes.bodies import json_body, media_type, read_json, reference, reply
from app.routes.deps import Admin, App, ConversationId, Editor, Reader, Searcher, UserId
from app.routes.idempotency import Attempt, IdempotencyKey, once
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.chats import (
    BATCH_SIZE,
    ConversationList,
    ConversationPage,
    DeletedConversation,
    DeletedConversations,
    Imported,
    MessageIn,
    NumberedConversationList,
    Stored,
)
from app.schemas.search import ConversationQuery, DeleteQuery, MessageQuery, UserQuery
from app.schemas.viewer import Viewer
from app.services.chats import identified
from app.services.records import CsvRows, JsonLines
from app.services.records import Reader as RowReader

router = APIRouter(tags=["chats"], route_class=Operation)

LARGE_BYTES = 2**16
"""A larger body waits for its place before it is parsed: as objects it takes ten times the memory."""

WAIT_S = 5.0
"""How long it may wait for its place."""

ANSWER_S = 9.5
"""How long it may take in all."""

_batch = TypeAdapter(Annotated[list[MessageIn], Field(min_length=1, max_length=BATCH_SIZE)])
_message = TypeAdapter(MessageIn)

_CSV_EXAMPLE = (
    "conversation_id,message_id,user_id,user_type,timestamp,message_content\n"
    'order-1042,m-1,ana,customer,2026-11-22T10:00:00Z,"Hi, my parcel has not arrived yet."\n'
)
_NDJSON_EXAMPLE = (
    '{"conversation_id": "order-1042", "message_id": "m-1", "user_id": "ana", "user_type": "customer",'
    ' "message_content": "Hi, my parcel has not arrived yet."}\n'
)


def _text(example: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "example": example}


@router.post(
    "/chats",
    operation_id="storeMessages",
    summary="Store messages",
    status_code=201,
    response_model=None,
    responses={
        201: {"model": Stored},
        200: {"model": Imported},
        **describe(400, 401, 403, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=json_body(
        {
            "anyOf": [
                reference(MessageIn),
                {"type": "array", "items": reference(MessageIn), "minItems": 1, "maxItems": BATCH_SIZE},
            ]
        },
        {"application/x-ndjson": _text(_NDJSON_EXAMPLE), "text/csv": _text(_CSV_EXAMPLE)},
    ),
)
async def store_messages(request: Request, app: App, viewer: Editor, key: IdempotencyKey = None) -> Response:
    """Stores one message, an array of up to 10,000 (all or nothing), or a stream of NDJSON or CSV of any length.

    A stream is committed in chunks and answers 200 with what became of its rows. Sending the same messages again, after
    a cut say, changes nothing: they are duplicates by conversation and message id. The same id with other content is a
    conflict.
    """
    readers: dict[str, type[RowReader]] = {"application/x-ndjson": JsonLines, "text/csv": CsvRows}
    media = media_type(request)
    if media in readers:

        async def load(attempt: Attempt) -> Response:
            return reply(await app.imports.run(viewer, readers[media](), attempt.stream, seed=attempt.seed))

        return (await once(request, app, viewer.caller, key, load, streamed=True)).response
    if media != "application/json":
        raise UnsupportedMediaType("Send application/json, application/x-ndjson or text/csv.")
    if len(await request.body()) <= LARGE_BYTES:
        return await _store(request, app, viewer, key)
    async with _place(app, viewer):
        return await _store(request, app, viewer, key)


async def _store(request: Request, app: Services, viewer: Viewer, key: str | None) -> Response:
    single = not (await request.body()).lstrip().startswith(b"[")
    batch = [await read_json(request, _message)] if single else await read_json(request, _batch)

    async def store(attempt: Attempt) -> Response:
        stored = await app.chats.store(viewer, _identified(batch, attempt.seed), single=single)
        # Which ids there were is not kept beyond the conversation: they follow from the request.
        return reply(stored if attempt.seed is None else stored.model_copy(update={"message_ids": []}), 201)

    answer = await once(request, app, viewer.caller, key, store)
    if answer.seed is None or answer.response.status_code != 201:
        return answer.response
    ids = [message.message_id for message in _identified(batch, answer.seed)]
    stored = Stored.model_validate_json(bytes(answer.response.body)).model_copy(update={"message_ids": ids})
    replayed = answer.response.headers.get("idempotency-replayed")
    return reply(stored, 201, {"Idempotency-Replayed": replayed} if replayed else None)


@asynccontextmanager
async def _place(app: Services, viewer: Viewer) -> AsyncIterator[None]:
    """Waits for one of the places that large writes have, so that small requests find connections and memory free."""
    try:
        async with (
            asyncio.timeout(ANSWER_S) as answering,
            asyncio.timeout(WAIT_S) as waiting,
            app.large_writes.turn(viewer.workspace_id),
        ):
            waiting.reschedule(None)
            yield
    except TimeoutError:
        if not (answering.expired() or waiting.expired()):
            raise
        raise Unavailable("Too much is being written at once. Send the request again.") from None


def _identified(batch: list[MessageIn], seed: bytes | None) -> list[MessageIn]:
    return [identified(message, seed, place) for place, message in enumerate(batch)]


@router.get(
    "/chats",
    operation_id="findConversations",
    summary="Find conversations",
    response_model=ConversationList,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def find_conversations(app: App, viewer: Searcher, query: Annotated[ConversationQuery, Query()]) -> Response:
    """Lists the conversations that pass every filter given, newest first; with `q`, each with its best matches."""
    return reply(await app.search.page(viewer, query))


@router.delete(
    "/chats",
    operation_id="deleteConversations",
    summary="Delete conversations by filter",
    response_model=DeletedConversations,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def delete_conversations(app: App, viewer: Admin, query: Annotated[DeleteQuery, Query()]) -> Response:
    """Removes the conversations that pass the filters, at least one, and everything that was derived from them."""
    async with _place(app, viewer):
        return reply(await app.search.delete(viewer, query))


@router.get(
    "/chats/{conversation_id}",
    operation_id="getConversation",
    summary="Read a conversation",
    response_model=ConversationPage,
    responses={304: {"description": "Not Modified"}, **describe(400, 401, 403, 404, 422, 429, 503)},
)
async def get_conversation(
    request: Request, app: App, viewer: Reader, conversation_id: ConversationId, query: Annotated[MessageQuery, Query()]
) -> Response:
    """Returns a conversation with its messages, oldest first."""
    given = request.headers.get("if-none-match", "").split(",")
    known = {tag.strip().removeprefix("W/").strip('"') for tag in given}
    page, tag = await app.chats.page(viewer, conversation_id, query, known)
    headers = {"ETag": f'"{tag}"'}
    return reply(page, headers=headers) if page else Response(status_code=304, headers=headers)


@router.delete(
    "/chats/{conversation_id}",
    operation_id="deleteConversation",
    summary="Delete a conversation",
    response_model=DeletedConversation,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def delete_conversation(app: App, viewer: Admin, conversation_id: ConversationId) -> Response:
    """Removes a conversation and everything that was derived from it, and says how much that was."""
    return reply(await app.chats.delete(viewer, conversation_id))


@router.get(
    "/users/{user_id}/chats",
    operation_id="listUserConversations",
    summary="Read a sender's history",
    response_model=NumberedConversationList,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def list_user_conversations(
    request: Request, app: App, viewer: Searcher, user_id: UserId, query: Annotated[UserQuery, Query()]
) -> Response:
    """Lists the conversations that somebody sent messages in, newest first, in numbered pages with `Link` headers."""
    found = await app.search.history(viewer, user_id, query)
    pages = {"first": 1, "last": max(found["pages"], 1)}
    if query.page > 1:
        pages["prev"] = min(query.page - 1, pages["last"])
    if found["has_more"]:
        pages["next"] = query.page + 1
    others = [(name, value) for name, value in request.state.query.items() if name not in ("page", "limit")]
    links = [
        f'<{request.scope["path"]}?{urlencode([*others, ("page", page), ("limit", query.limit)])}>; rel="{name}"'
        for name, page in pages.items()
    ]
    return reply(found, headers={"Link": ", ".join(links)})
