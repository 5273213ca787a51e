"""The audit log."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.routes.bodies import reply
from app.routes.deps import AdminReader, App
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.accounts import AuditList, AuditQuery

router = APIRouter(tags=["accounts"], route_class=Operation)


@router.get(
    "/audit",
    operation_id="listAudit",
    summary="Read the audit log",
    response_model=AuditList,
    responses=describe(400, 401, 403, 422, 429, 503),
)
async def list_audit(app: App, viewer: AdminReader, query: Annotated[AuditQuery, Query()]) -> Response:
    """Lists what was done in the workspace, newest first: sign-ins, denials, changes of keys and members, deletions.

    No entry can be changed or removed through the service.
    """
    return reply(await app.audit.page(viewer, query))
