"""The audit log, as admins read it."""

from app.db import Database
from app.schemas.accounts import AuditEntry, AuditFilter, AuditList, AuditQuery
from app.schemas.enums import Role
from app.schemas.viewer import Viewer
from app.security.blind_index import keyed_hash
from app.security.cursors import CursorSigner, time_at
from app.security.encryption import WorkspaceKeys
from app.services.workspaces import WorkspaceService


class AuditService:
    """What was done in the viewer's workspace. Acts write their own entries, in their own transactions."""

    def __init__(self, db: Database, workspaces: WorkspaceService, cursors: CursorSigner) -> None:
        self._db = db
        self._workspaces = workspaces
        self._cursors = cursors

    async def denied(self, viewer: Viewer, operation: str, needed: Role) -> None:
        """Writes down that a viewer's role did not allow an operation."""
        async with self._db.read() as unit:
            await unit.audit.add(
                viewer.caller,
                "access.denied",
                operation=operation,
                reason="role",
                role=viewer.role,
                needed=needed,
            )

    async def page(self, viewer: Viewer, query: AuditQuery) -> AuditList:
        """Returns a page of entries, newest first."""
        wanted = AuditFilter.model_construct(**{name: getattr(query, name) for name in AuditFilter.model_fields})
        context = ["audit", viewer.workspace_id, wanted.model_dump_json()]
        after = None
        if query.cursor:
            time, entry_id = self._cursors.read(context, query.cursor)
            after = time_at(time), entry_id
        conditions = [("action", query.action), ("actor", query.actor), ("target", query.target)]
        if query.conversation_id is not None:
            keys = await self._workspaces.keys(viewer.workspace_id)
            conditions.append(("target", conversation_target(keys, query.conversation_id)))
        async with self._db.read() as unit:
            found = await unit.audit.page(
                viewer.workspace_id, conditions, query.since, query.until, after, query.limit + 1
            )
        shown, has_more, cursor = self._cursors.cut(
            context, found, query.limit, lambda row: [row.created_at, row.entry_id]
        )
        return AuditList(
            data=[
                AuditEntry(id=str(row.entry_id), **{k: v for k, v in row._asdict().items() if k != "entry_id"})
                for row in shown
            ],
            has_more=has_more,
            next_cursor=cursor,
        )


def conversation_target(keys: WorkspaceKeys, conversation_id: str) -> str:
    """Returns how the audit log names a conversation: its id may be personal, and must not outlive it."""
    return f"conversation:{keyed_hash(keys.audit_key, conversation_id)}"
