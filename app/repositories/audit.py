"""The audit log."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import AuditEntry
from app.schemas.rows import AuditRow

_COLUMNS = [getattr(AuditEntry, name) for name in AuditRow._fields]


class AuditRepository:
    """The table of acts."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, caller: tuple[int, str], action: str, target: str | None = None, **details: object) -> None:
        """Writes an act down, in the transaction that it happens in; nothing in it may be personal."""
        workspace_id, actor = caller
        values = {"workspace_id": workspace_id, "actor": actor, "action": action, "target": target, "details": details}
        await self._connection.execute(insert(AuditEntry).values(values))

    async def page(
        self,
        workspace_id: int,
        conditions: Sequence[tuple[str, str | None]],
        since: datetime | None,
        until: datetime | None,
        after: tuple[datetime, int] | None,
        limit: int,
    ) -> Sequence[AuditRow]:
        """Returns entries, newest first, from behind a position; ``conditions`` are columns and their values."""
        place = tuple_(AuditEntry.created_at, AuditEntry.entry_id)
        statement = (
            select(*_COLUMNS)
            .where(
                AuditEntry.workspace_id == workspace_id,
                *(getattr(AuditEntry, name) == value for name, value in conditions if value is not None),
            )
            .order_by(AuditEntry.created_at.desc(), AuditEntry.entry_id.desc())
            .limit(limit)
        )
        if since:
            statement = statement.where(AuditEntry.created_at >= since)
        if until:
            statement = statement.where(AuditEntry.created_at < until)
        if after:
            statement = statement.where(place < tuple_(*map(literal, after)))
        return [AuditRow._make(row) for row in await self._connection.execute(statement)]
