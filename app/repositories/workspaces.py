"""Workspaces and their wrapped data keys."""

from collections.abc import Sequence

from sqlalchemy import ColumnClause, cast, column, func, literal, select, table, update
from sqlalchemy.dialects.postgresql import OID, distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Workspace
from app.schemas.rows import WorkspaceRow

_COLUMNS = [getattr(Workspace, name) for name in WorkspaceRow._fields]


class WorkspaceRepository:
    """The table of workspaces."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def works_as(self) -> str:
        """Returns the database role."""
        role: str = (await self._connection.execute(select(func.current_user()))).scalar_one()
        return role

    async def schema_version(self) -> str | None:
        """Returns the migration that the database is at, or None if there was none."""
        there = func.to_regclass("alembic_version")
        readable = func.coalesce(func.has_table_privilege(cast(there, OID), "SELECT"), literal(False))
        if not (await self._connection.execute(select(readable))).scalar_one():
            return None
        version: ColumnClause[str] = column("version_num")
        return (await self._connection.execute(select(version).select_from(table("alembic_version")))).scalar()

    async def add(self, workspace_id: int, name: str, master_key_id: str, wrapped_key: bytes) -> bool:
        """Stores a new workspace; returns False if the name is taken."""
        values = {
            "workspace_id": workspace_id,
            "name": name,
            "master_key_id": master_key_id,
            "wrapped_key": wrapped_key,
        }
        statement = upsert(Workspace).values(values).on_conflict_do_nothing(index_elements=["name"])
        return (await self._connection.execute(statement)).rowcount == 1

    async def get(self, workspace_id: int) -> WorkspaceRow | None:
        """Returns a workspace."""
        found = await self._connection.execute(select(*_COLUMNS).where(Workspace.workspace_id == workspace_id))
        row = found.one_or_none()
        return WorkspaceRow(*row) if row else None

    async def named(self, name: str) -> WorkspaceRow | None:
        """Returns the workspace of a name."""
        row = (await self._connection.execute(select(*_COLUMNS).where(Workspace.name == name))).one_or_none()
        return WorkspaceRow(*row) if row else None

    async def all(self) -> Sequence[WorkspaceRow]:
        """Returns every workspace by name: for operators, never for a viewer."""
        rows = await self._connection.execute(select(*_COLUMNS).order_by(Workspace.name))
        return [WorkspaceRow(*row) for row in rows]

    async def one_per_master_key(self) -> Sequence[WorkspaceRow]:
        """Returns one workspace for each master key in use."""
        statement = select(*_COLUMNS).ext(distinct_on(Workspace.master_key_id)).order_by(Workspace.master_key_id)
        return [WorkspaceRow(*row) for row in await self._connection.execute(statement)]

    async def set_redact(self, workspace_id: int, *, redact: bool) -> WorkspaceRow | None:
        """Says whether providers see placeholders; returns the workspace as it was, locked."""
        found = await self._connection.execute(
            select(*_COLUMNS).where(Workspace.workspace_id == workspace_id).with_for_update()
        )
        row = found.one_or_none()
        await self._connection.execute(
            update(Workspace).where(Workspace.workspace_id == workspace_id).values(redact=redact)
        )
        return WorkspaceRow(*row) if row else None

    async def rewrap(self, workspace: WorkspaceRow, master_key_id: str, wrapped_key: bytes) -> None:
        """Replaces the wrapping of a workspace's data key."""
        statement = (
            update(Workspace)
            .where(Workspace.workspace_id == workspace.workspace_id)
            .values(master_key_id=master_key_id, wrapped_key=wrapped_key)
        )
        await self._connection.execute(statement)
