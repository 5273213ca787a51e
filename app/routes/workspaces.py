"""The workspace itself."""

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import Admin, App, Reader
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.accounts import Workspace, WorkspaceChange

router = APIRouter(tags=["accounts"], route_class=Operation)

_change = TypeAdapter(WorkspaceChange)


@router.get(
    "/workspace",
    operation_id="getWorkspace",
    summary="Read the workspace's settings",
    response_model=Workspace,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def get_workspace(app: App, viewer: Reader) -> Response:
    """Returns the workspace that the credential is for."""
    return reply(await app.workspaces.settings(viewer))


@router.patch(
    "/workspace",
    operation_id="changeWorkspace",
    summary="Change the workspace's settings",
    response_model=Workspace,
    responses=describe(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(WorkspaceChange)),
)
async def change_workspace(request: Request, app: App, viewer: Admin) -> Response:
    """Says whether providers of models see placeholders for addresses, numbers and ids, from their next call on."""
    wanted = await read_json(request, _change)
    return reply(await app.workspaces.change(viewer, wanted))
