"""API keys."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Interval, Row, and_, delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import ApiKey
from app.schemas.enums import Role
from app.schemas.rows import ApiKeyRow

_COLUMNS = [getattr(ApiKey, name) for name in ApiKeyRow._fields]


class AuthRepository:
    """The table of API keys."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_key(self, key: ApiKeyRow) -> None:
        """Stores a key."""
        values = {name: value for name, value in key._asdict().items() if name != "created_at"}
        await self._connection.execute(insert(ApiKey).values(values))

    async def valid_key(self, workspace_id: int, key_id: int) -> ApiKeyRow | None:
        """Returns a key that has not expired."""
        valid = and_(_is(workspace_id, key_id), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
        row = (await self._connection.execute(select(*_COLUMNS).where(valid))).one_or_none()
        return _row(row) if row else None

    async def note_use(self, workspace_id: int, key_id: int) -> None:
        """Writes down that a key was used, at most once a minute."""
        minute_ago = func.now() - literal("1 minute").cast(Interval)
        stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < minute_ago)
        await self._connection.execute(
            update(ApiKey).where(_is(workspace_id, key_id), stale).values(last_used_at=func.now())
        )

    async def keys(self, workspace_id: int) -> Sequence[ApiKeyRow]:
        """Returns a workspace's keys, oldest first."""
        statement = select(*_COLUMNS).where(ApiKey.workspace_id == workspace_id).order_by(ApiKey.created_at)
        return [_row(row) for row in await self._connection.execute(statement)]

    async def remove_key(self, workspace_id: int, key_id: int) -> bool:
        """Deletes a key; returns False if there was none."""
        return (await self._connection.execute(delete(ApiKey).where(_is(workspace_id, key_id)))).rowcount == 1


def _is(workspace_id: int, key_id: int) -> ColumnElement[bool]:
    return and_(ApiKey.workspace_id == workspace_id, ApiKey.key_id == key_id)


def _row(row: Row[Any]) -> ApiKeyRow:
    key = ApiKeyRow._make(row)
    return key._replace(role=Role(key.role))
