"""Members of the workspace, and invitations."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import Admin, AdminReader, App, RowId
from app.routes.idempotency import Attempt, IdempotencyKey, once
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.accounts import Member, MemberChange, MemberIn, MemberList, PageQuery

router = APIRouter(tags=["accounts"], route_class=Operation)

_member_in = TypeAdapter(MemberIn)
_change = TypeAdapter(MemberChange)


@router.get(
    "/workspace/members",
    operation_id="listMembers",
    summary="List members",
    response_model=MemberList,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def list_members(app: App, viewer: AdminReader, query: Annotated[PageQuery, Query()]) -> Response:
    """Lists the workspace's members and invitations, oldest first."""
    return reply(await app.members.page(viewer, query))


@router.post(
    "/workspace/members",
    operation_id="inviteMember",
    summary="Invite somebody",
    status_code=201,
    response_model=Member,
    responses=describe(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(MemberIn)),
)
async def invite_member(request: Request, app: App, viewer: Admin, key: IdempotencyKey = None) -> Response:
    """Invites an e-mail address for 14 days. Who signs in with it, verified by the provider, for the first time, joins.

    Who has a workspace already accepts by signing in with this `workspace_id`. Nothing is sent to the address. Invited
    again, the invitation gets the new role and another 14 days.
    """
    wanted = await read_json(request, _member_in)

    async def act(_: Attempt) -> Response:
        return reply(await app.members.invite(viewer, wanted), 201)

    return (await once(request, app, viewer.caller, key, act)).response


@router.patch(
    "/workspace/members/{member_id}",
    operation_id="changeMember",
    summary="Change a member's role",
    response_model=Member,
    responses=describe(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra=json_body(reference(MemberChange)),
)
async def change_member(request: Request, app: App, viewer: Admin, member_id: RowId) -> Response:
    """Gives a member, or whoever accepts the invitation, another role; it acts everywhere within five seconds."""
    wanted = await read_json(request, _change)
    return reply(await app.members.change(viewer, member_id, wanted.role))


@router.delete(
    "/workspace/members/{member_id}",
    operation_id="removeMember",
    summary="Remove a member",
    status_code=204,
    response_class=Response,
    responses=describe(400, 401, 403, 404, 409, 422, 429, 503),
)
async def remove_member(app: App, viewer: Admin, member_id: RowId) -> Response:
    """Removes a member, with the keys they made and their sessions, or takes an invitation back."""
    await app.members.remove(viewer, member_id)
    return Response(status_code=204)
