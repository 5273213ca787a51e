"""Webhooks and their deliveries."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BeforeValidator, TypeAdapter, WithJsonSchema

from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import Admin, AdminReader, App, RowId
from app.routes.idempotency import Attempt, IdempotencyKey, once
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.accounts import PageQuery
from app.schemas.webhooks import (
    PAYLOADS,
    Delivery,
    DeliveryList,
    NewWebhook,
    WebhookChange,
    WebhookIn,
    WebhookList,
)

router = APIRouter(tags=["webhooks"], route_class=Operation)
events = APIRouter()
"""What is sent, for the ``webhooks`` of the OpenAPI document."""

_webhook_in = TypeAdapter(WebhookIn)
_change = TypeAdapter(WebhookChange)


def _uuid(segment: object) -> UUID:
    # What is no id of ours is as absent as one that was never given out.
    try:
        return UUID(str(segment))
    except ValueError:
        return UUID(int=0)


DeliveryId = Annotated[
    UUID,
    BeforeValidator(_uuid),
    WithJsonSchema({"type": "string"}),
    Path(examples=["0b6d8a1e-5c0f-4f5e-9a38-2f4f1f6f0c11"]),
]


@router.post(
    "/webhooks",
    operation_id="createWebhook",
    summary="Make a webhook",
    status_code=201,
    response_model=NewWebhook,
    responses=describe(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(WebhookIn)),
)
async def create_webhook(request: Request, app: App, viewer: Admin, key: IdempotencyKey = None) -> Response:
    """Has events sent to a URL as [Standard Webhooks](https://www.standardwebhooks.com) says; up to 20 a workspace.

    The answer shows the secret that signatures are checked with, once. Events hold ids, times and where to read more;
    no text of a conversation.
    """
    wanted = await read_json(request, _webhook_in)

    async def act(_: Attempt) -> Response:
        return reply(await app.webhooks.create(viewer, wanted), 201)

    return (await once(request, app, viewer.caller, key, act)).response


@router.get(
    "/webhooks",
    operation_id="listWebhooks",
    summary="List webhooks",
    response_model=WebhookList,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def list_webhooks(app: App, viewer: AdminReader, query: Annotated[PageQuery, Query()]) -> Response:
    """Lists the workspace's webhooks, newest first, without their secrets."""
    return reply(await app.webhooks.page(viewer, query))


@router.patch(
    "/webhooks/{webhook_id}",
    operation_id="changeWebhook",
    summary="Change a webhook",
    response_model=NewWebhook,
    responses=describe(400, 401, 403, 404, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(WebhookChange)),
)
async def change_webhook(request: Request, app: App, viewer: Admin, webhook_id: RowId) -> Response:
    """Changes URL or events, disables or enables, or makes a new secret, while the old one signs for another day."""
    wanted = await read_json(request, _change)
    return reply(await app.webhooks.change(viewer, webhook_id, wanted))


@router.delete(
    "/webhooks/{webhook_id}",
    operation_id="deleteWebhook",
    summary="Delete a webhook",
    status_code=204,
    response_class=Response,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def delete_webhook(app: App, viewer: Admin, webhook_id: RowId) -> Response:
    """Deletes a webhook with its deliveries; what was not sent by then is not sent."""
    await app.webhooks.delete(viewer, webhook_id)
    return Response(status_code=204)


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    operation_id="listDeliveries",
    summary="List deliveries",
    response_model=DeliveryList,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def list_deliveries(
    app: App, viewer: AdminReader, webhook_id: RowId, query: Annotated[PageQuery, Query()]
) -> Response:
    """Lists what was or is to be sent to a webhook, newest first; for 30 days, unless the conversation is deleted."""
    return reply(await app.webhooks.deliveries(viewer, webhook_id, query))


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
    operation_id="replayDelivery",
    summary="Send a delivery again",
    status_code=202,
    response_model=Delivery,
    responses=describe(400, 401, 403, 404, 409, 413, 422, 429, 503),
)
async def replay_delivery(
    request: Request, app: App, viewer: Admin, webhook_id: RowId, delivery_id: DeliveryId, key: IdempotencyKey = None
) -> Response:
    """Sends a delivery again as soon as possible, with the same `webhook-id`, whatever became of it before.

    The deletion of a conversation cannot be told again: its id is forgotten when that was told, or given up.
    """

    async def act(_: Attempt) -> Response:
        return reply(await app.webhooks.replay(viewer, webhook_id, delivery_id), 202)

    return (await once(request, app, viewer.caller, key, act)).response


def _describe_events() -> None:
    for event, payload in PAYLOADS.items():

        def receive(body: payload) -> None:  # type: ignore[valid-type]
            pass

        events.add_api_route(
            event,
            receive,
            methods=["POST"],
            operation_id=f"on{payload.__name__}",
            status_code=204,
            response_description="Received; any other 2xx says so too.",
            responses={"default": {"description": "Not received: it comes again."}},
            summary=(payload.__doc__ or "").strip(),
            description="Signed by `webhook-id`, `webhook-timestamp` and `webhook-signature`. Any 2xx is taken for"
            " received; otherwise the event comes again, with the same `webhook-id`, for about three days.",
        )


_describe_events()
