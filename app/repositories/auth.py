"""API keys and sessions."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Interval,
    Row,
    Select,
    and_,
    any_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import ApiKey, Membership, Session
from app.repositories import SWEPT
from app.schemas.enums import Role
from app.schemas.rows import ApiKeyRow, SessionRow
from app.schemas.viewer import Viewer

_KEY = [getattr(ApiKey, name) for name in ApiKeyRow._fields]
_SESSION = [getattr(Session, name) for name in SessionRow._fields]


class AuthRepository:
    """The tables of API keys and sessions."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def roles_now(self, viewer: Viewer) -> list[Role] | None:
        """Returns the roles that the viewer's member and key have now; None if any of them, or the session, is gone.

        It locks nothing: shared locks of those who come one after another would keep a revocation waiting for ever.
        """
        workspace_id, found = viewer.workspace_id, []
        if viewer.member_id is not None:
            member = select(Membership.role).where(_made_by(literal(viewer.member_id), workspace_id))
            found.append(await self._connection.scalar(member))
        if viewer.key_id is not None:
            valid = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
            key = select(ApiKey.role).where(_is_key(workspace_id, viewer.key_id), valid)
            found.append(await self._connection.scalar(key))
        if viewer.session_id is not None:
            going_on = _is_session(workspace_id, viewer.session_id), Session.expires_at > func.now()
            session = select(literal(Role.ADMIN.value)).select_from(Session).where(*going_on)
            found.append(await self._connection.scalar(session))
        return None if None in found else [Role(role) for role in found if role]

    async def is_actor(self, workspace_id: int, kind: str, number: int) -> bool:
        """Says whether there is such a ``key`` or ``member`` in the workspace."""
        if number >= 2**63:
            return False
        if kind == "key":
            return await self.key(workspace_id, number) is not None
        member = select(Membership.member_id).where(_made_by(literal(number), workspace_id))
        return kind == "member" and (await self._connection.execute(member)).first() is not None

    async def gone(self, workspace_id: int, viewers: Collection[Viewer]) -> set[Viewer]:
        """Returns those of a workspace's viewers whose key, member or session is gone or has expired."""
        valid = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
        kinds: list[tuple[str, Select[int]]] = [
            ("key_id", select(ApiKey.key_id).where(ApiKey.workspace_id == workspace_id, valid)),
            ("member_id", select(Membership.member_id).where(Membership.workspace_id == workspace_id)),
            (
                "session_id",
                select(Session.session_id).where(Session.workspace_id == workspace_id, Session.expires_at > func.now()),
            ),
        ]
        found: set[Viewer] = set()
        for name, statement in kinds:
            ids = {viewer: number for viewer in viewers if (number := getattr(viewer, name)) is not None}
            if ids:
                asked = literal(list(set(ids.values())), ARRAY(BigInteger))
                [column] = statement.selected_columns
                there = set(await self._connection.scalars(statement.where(column == any_(asked))))
                found.update(viewer for viewer, number in ids.items() if number not in there)
        return found

    async def add_key(self, key: ApiKeyRow) -> None:
        """Stores a key."""
        await self._connection.execute(insert(ApiKey).values(key._asdict()))

    async def key(self, workspace_id: int, key_id: int) -> tuple[ApiKeyRow, Role | None] | None:
        """Returns a key, expired or not, and the role of the member who made it."""
        statement = (
            select(*_KEY, Membership.role)
            .outerjoin(Membership, _made_by(ApiKey.member_id, workspace_id))
            .where(_is_key(workspace_id, key_id))
        )
        row = (await self._connection.execute(statement)).one_or_none()
        return (_key(row[:-1]), Role(row[-1]) if row[-1] else None) if row else None

    async def note_use(self, workspace_id: int, key_id: int, digest: bytes) -> None:
        """Writes down that a key was used, at most once a minute, and its digest if that is another by now.

        It waits for nobody: whoever holds the row has a later say.
        """
        minute_ago = func.now() - literal("1 minute").cast(Interval)
        stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < minute_ago, ApiKey.digest != digest)
        free = select(ApiKey.key_id).where(_is_key(workspace_id, key_id), stale).with_for_update(skip_locked=True)
        values = {"last_used_at": func.now(), "digest": digest}
        statement = update(ApiKey).where(ApiKey.workspace_id == workspace_id, ApiKey.key_id.in_(free)).values(values)
        await self._connection.execute(statement)

    async def keys(
        self, workspace_id: int, after: tuple[datetime, int] | None = None, limit: int | None = None
    ) -> Sequence[ApiKeyRow]:
        """Returns a workspace's keys, newest first, from behind a position."""
        statement = select(*_KEY).where(ApiKey.workspace_id == workspace_id)
        if after:
            statement = statement.where(tuple_(ApiKey.created_at, ApiKey.key_id) < tuple_(*map(literal, after)))
        statement = statement.order_by(ApiKey.created_at.desc(), ApiKey.key_id.desc()).limit(limit)
        return [_key(row) for row in await self._connection.execute(statement)]

    async def expire_key(self, workspace_id: int, key_id: int, at: datetime) -> None:
        """Lets a key end at a time, or earlier if that was said before."""
        await self._connection.execute(
            update(ApiKey)
            .where(_is_key(workspace_id, key_id))
            .values(expires_at=func.least(func.coalesce(ApiKey.expires_at, at), at))
        )

    async def remove_key(self, workspace_id: int, key_id: int) -> bool:
        """Deletes a key and its sessions; returns False if there was none."""
        return (await self._connection.execute(delete(ApiKey).where(_is_key(workspace_id, key_id)))).rowcount == 1

    async def add_session(self, session: SessionRow) -> None:
        """Stores a session, and removes some of the workspace's that are over."""
        ours = Session.workspace_id == session.workspace_id
        over = select(Session.session_id).where(ours, Session.expires_at < func.now()).limit(SWEPT)
        some = over.with_for_update(skip_locked=True)
        await self._connection.execute(delete(Session).where(ours, Session.session_id.in_(some)))
        await self._connection.execute(insert(Session).values(session._asdict()))

    async def session(
        self, workspace_id: int, session_id: int
    ) -> tuple[SessionRow, int | None, Role | None, Role | None] | None:
        """Returns a session that is not over, nor its key, with the member and the roles of key and member."""
        statement = (
            select(*_SESSION, func.coalesce(Session.member_id, ApiKey.member_id), ApiKey.role, Membership.role)
            .outerjoin(ApiKey, and_(ApiKey.workspace_id == workspace_id, ApiKey.key_id == Session.key_id))
            .outerjoin(Membership, _made_by(func.coalesce(Session.member_id, ApiKey.member_id), workspace_id))
            .where(
                _is_session(workspace_id, session_id),
                Session.expires_at > func.now(),
                or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
            )
        )
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            return None
        member_id, *roles = row[-3:]
        key_role, member_role = (Role(role) if role else None for role in roles)
        return SessionRow._make(row[:-3]), member_id, key_role, member_role

    async def advance(self, workspace_id: int, session_id: int, generation: int) -> bool:
        """Makes the next refresh token the valid one; returns False if ``generation`` was not the one."""
        statement = (
            update(Session)
            .where(_is_session(workspace_id, session_id), Session.generation == generation)
            .values(generation=generation + 1)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def remove_session(self, workspace_id: int, session_id: int) -> SessionRow | None:
        """Ends a session and returns it; returns None if there was none."""
        statement = delete(Session).where(_is_session(workspace_id, session_id)).returning(*_SESSION)
        row = (await self._connection.execute(statement)).one_or_none()
        return SessionRow._make(row) if row else None


def _is_key(workspace_id: int, key_id: int) -> ColumnElement[bool]:
    return and_(ApiKey.workspace_id == workspace_id, ApiKey.key_id == key_id)


def _is_session(workspace_id: int, session_id: int) -> ColumnElement[bool]:
    return and_(Session.workspace_id == workspace_id, Session.session_id == session_id)


def _made_by(member_id: Any, workspace_id: int) -> ColumnElement[bool]:
    return and_(Membership.workspace_id == workspace_id, Membership.member_id == member_id)


def _key(row: Row[Any] | tuple[Any, ...]) -> ApiKeyRow:
    key = ApiKeyRow._make(row)
    # The driver takes the last microsecond of the year 9999 for infinity, and gives that back without an offset.
    expires_at = key.expires_at.replace(tzinfo=UTC) if key.expires_at else None
    return key._replace(role=Role(key.role), expires_at=expires_at)
