"""JSON bodies: reading them, answering with them, and saying in the API's document what they are."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from app.errors import Invalid, Malformed, Problem, UnsupportedMediaType
from app.routes.deps import services
from app.schemas.accounts import KeyIn, KeyRotation, MemberChange, MemberIn, TokenRequest, WorkspaceChange
from app.schemas.analyses import AnalysisRequest
from app.schemas.base import json_rfc3339
from app.schemas.chats import BATCH_SIZE, MessageIn
from app.schemas.feedback import FeedbackIn
from app.schemas.jobs import JobRequest
from app.schemas.problems import ProblemDocument, field_errors
from app.schemas.usage import BudgetIn
from app.schemas.webhooks import WebhookChange, WebhookIn
from app.security.permissions import require
from app.services.structure import check_json

T = TypeVar("T")

BLOCK_BYTES = 2**16
"""A body of up to this size is looked at at once; of a larger one, others do not wait for the end."""

_REFERENCE = "#/components/schemas/{model}"


def media_type(request: Request) -> str:
    """Returns the body's media type; raises ``UnsupportedMediaType`` for an encoding other than plain UTF-8."""
    media, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "') or "utf-8"
    encoding = request.headers.get("content-encoding", "identity").lower()
    if charset not in ("utf-8", "utf8", "us-ascii") or encoding != "identity":
        raise UnsupportedMediaType("Send UTF-8 without a content encoding.")
    return media.strip()


async def _look_again(request: Request) -> None:
    # A body may take longer to come than a revocation to act.
    if shown := getattr(request.state, "shown", None):
        viewer = await services(request).auth.viewer(*shown)
        require(viewer, request.state.needed)


async def read_json(request: Request, adapter: TypeAdapter[T], default: T | None = None) -> T:
    """Returns the JSON body, or the default if there is a default and no body.

    Raises:
        Unauthenticated, Forbidden: if the caller may not do so any more.
        UnsupportedMediaType: if it is not said to be JSON.
        Malformed: if it is none.
        Invalid: if it does not fit the schema.
    """
    media = media_type(request)
    if media != "application/json" and (media or default is None):
        raise UnsupportedMediaType("Send `Content-Type: application/json`.")
    body = await request.body()
    await _look_again(request)
    if not body and default is not None:
        return default
    if not media:
        raise UnsupportedMediaType("Send `Content-Type: application/json`.")
    if len(body) > BLOCK_BYTES:
        await asyncio.to_thread(check_json, body, messages=BATCH_SIZE)
    else:
        check_json(body, messages=BATCH_SIZE)
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise misfit(error, "body") from None


def misfit(error: ValidationError, what: str) -> Problem:
    """Returns the problem that something is no JSON, or not of its schema; no value is told."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return Malformed(f"The {what} is not valid JSON.", field_errors(found))
    return Invalid(f"The {what} does not fit the schema.", field_errors(found))


def reply(content: BaseModel | Mapping[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a model, or a dictionary, as a JSON response."""
    if isinstance(content, BaseModel):
        body = content.__pydantic_serializer__.to_json(content)
    else:
        body = orjson.dumps(content, json_rfc3339, orjson.OPT_PASSTHROUGH_DATETIME)
    return Response(body, status, headers, "application/json")


_DOCUMENTED: list[type[BaseModel]] = [
    AnalysisRequest,
    BudgetIn,
    JobRequest,
    FeedbackIn,
    KeyIn,
    KeyRotation,
    MemberChange,
    MemberIn,
    MessageIn,
    ProblemDocument,
    TokenRequest,
    WebhookChange,
    WebhookIn,
    WorkspaceChange,
]


def documented_schemas() -> dict[str, Any]:
    """Returns the OpenAPI schemas that routes name by reference."""
    schemas = models_json_schema([(model, "validation") for model in _DOCUMENTED], ref_template=_REFERENCE)[1]
    found: dict[str, Any] = schemas["$defs"]
    return found


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Returns a reference to a documented schema."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def json_body(
    schema: dict[str, Any], more: Mapping[str, dict[str, Any]] | None = None, *, required: bool = True
) -> dict[str, Any]:
    """Returns the OpenAPI description of a body that ``read_json`` reads; ``more`` are other media types."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}, **(more or {})}}}
