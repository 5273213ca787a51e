"""What routes are handed: the services, who is asking, ids from the path, bodies."""

import asyncio
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from app.errors import Invalid, Malformed, Unauthenticated, UnsupportedMediaType
from app.factory import Services
from app.schemas.analyses import AnalysisRequest
from app.schemas.base import Id
from app.schemas.chats import BATCH_SIZE, MessageIn
from app.schemas.enums import Role
from app.schemas.problems import ProblemDocument, field_errors
from app.schemas.viewer import Viewer
from app.security.permissions import require
from app.services.structure import check_json

T = TypeVar("T")

_REFERENCE = "#/components/schemas/{model}"

_bearer = HTTPBearer(auto_error=False, description="An API key.")
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same API key.")


def services(request: Request) -> Services:
    """Returns the services of this application."""
    found: Services = request.app.state.services
    return found


App = Annotated[Services, Depends(services)]


async def viewer(
    app: App,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    api_key: Annotated[str | None, Security(_api_key)],
) -> Viewer:
    """Returns who is asking; raises ``Unauthenticated``."""
    credential = bearer.credentials if bearer else api_key
    if not credential:
        raise Unauthenticated("Send an API key: `Authorization: Bearer <key>` or `X-API-Key: <key>`.")
    return await app.auth.viewer(credential)


class AtLeast:
    """A guard: only viewers with a role or a stronger one pass."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def __call__(self, viewer: Annotated[Viewer, Depends(viewer)]) -> Viewer:
        """Returns the viewer; raises ``Forbidden``."""
        require(viewer, self.role)
        return viewer


Reader = Annotated[Viewer, Depends(AtLeast(Role.VIEWER))]
Editor = Annotated[Viewer, Depends(AtLeast(Role.EDITOR))]
Admin = Annotated[Viewer, Depends(AtLeast(Role.ADMIN))]


def _decode_segment(segment: object) -> str:
    # The front door leaves the path encoded, so that a slash inside an id stays inside it.
    try:
        return unquote_to_bytes(str(segment)).decode()
    except UnicodeDecodeError:
        raise ValueError("must be percent-encoded UTF-8") from None


_PathId = Annotated[Id, BeforeValidator(_decode_segment)]
ConversationId = Annotated[_PathId, Path(examples=["order-1042"])]
UserId = Annotated[_PathId, Path(examples=["ana"])]


def media_type(request: Request) -> str:
    """Returns the body's media type; raises ``UnsupportedMediaType`` for an encoding other than plain UTF-8."""
    media, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "') or "utf-8"
    encoding = request.headers.get("content-encoding", "identity").lower()
    if charset not in ("utf-8", "utf8", "us-ascii") or encoding != "identity":
        raise UnsupportedMediaType("Send UTF-8 without a content encoding.")
    return media.strip()


async def read_json(request: Request, adapter: TypeAdapter[T]) -> T:
    """Returns the JSON body.

    Raises:
        UnsupportedMediaType: if it is not said to be JSON.
        Malformed: if it is none.
        Invalid: if it does not fit the schema.
    """
    if media_type(request) != "application/json":
        raise UnsupportedMediaType("Send `Content-Type: application/json`.")
    body = await request.body()
    await asyncio.to_thread(check_json, body, messages=BATCH_SIZE)
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise Malformed("The body is not valid JSON.", field_errors(found)) from None
        raise Invalid("The body does not fit the schema.", field_errors(found)) from None


def reply(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a model as a JSON response."""
    return Response(model.__pydantic_serializer__.to_json(model), status, headers, "application/json")


_DOCUMENTED: list[type[BaseModel]] = [AnalysisRequest, MessageIn, ProblemDocument]


def documented_schemas() -> dict[str, Any]:
    """Returns the OpenAPI schemas that routes name by reference."""
    schemas = models_json_schema([(model, "validation") for model in _DOCUMENTED], ref_template=_REFERENCE)[1]
    found: dict[str, Any] = schemas["$defs"]
    return found


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Returns a reference to a documented schema."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def json_body(schema: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    """Returns the OpenAPI description of a body that ``read_json`` reads; ``more`` are other media types."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}, **more}}}
