"""Users, their memberships, invitations, and sign-ins that are going on."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, literal, select, true, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Membership, OAuthState, User, Workspace
from app.repositories import SWEPT
from app.schemas.enums import Role
from app.schemas.rows import MemberRow, SignInRow, UserRow

_MEMBER = [
    Membership.member_id,
    Membership.user_id,
    func.coalesce(User.email, Membership.invited_email),
    User.name,
    Membership.role,
    Membership.created_at,
    Membership.joined_at,
]
_USER = [getattr(User, name) for name in UserRow._fields]
_SIGN_IN = [getattr(OAuthState, name) for name in SignInRow._fields]


class MemberRepository:
    """The tables of users, memberships and sign-ins."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_sign_in(self, sign_in: SignInRow) -> None:
        """Stores a sign-in that begins, and removes some that took too long."""
        over = select(OAuthState.state_digest).where(OAuthState.expires_at < func.now()).limit(SWEPT)
        some = over.with_for_update(skip_locked=True)
        await self._connection.execute(delete(OAuthState).where(OAuthState.state_digest.in_(some)))
        await self._connection.execute(insert(OAuthState).values(sign_in._asdict()))

    async def take_sign_in(self, state_digest: bytes) -> SignInRow | None:
        """Removes a sign-in and returns it: whoever comes second finds nothing."""
        statement = delete(OAuthState).where(OAuthState.state_digest == state_digest).returning(*_SIGN_IN)
        row = (await self._connection.execute(statement)).one_or_none()
        return SignInRow._make(row) if row else None

    async def sign_in(self, *, provider: str, issuer: str, subject: str, email: str, name: str | None) -> int:
        """Returns the user whom a provider vouches for, made on first sight; locked until the transaction ends."""
        known = {"email": email, "name": name, "last_login": func.now()}
        statement = upsert(User).values(auth_provider=provider, issuer=issuer, provider_id=subject, **known)
        statement = statement.on_conflict_do_update(index_elements=["issuer", "provider_id"], set_=known)
        user_id: int = (await self._connection.execute(statement.returning(User.user_id))).scalar_one()
        return user_id

    async def accept_invitations(
        self, user_id: int, email: str, since: datetime, workspace_id: int | None
    ) -> list[tuple[int, int, Role]]:
        """Makes a user a member wherever the e-mail address was invited after ``since``, or in one workspace only.

        Returns workspace, member and role of each. A workspace that the user is a member of already keeps the role.
        """
        there = select(Membership.workspace_id).where(Membership.user_id == user_id)
        statement = (
            update(Membership)
            .where(
                Membership.invited_email == email,
                Membership.created_at > since,
                Membership.workspace_id.not_in(there),
                true() if workspace_id is None else Membership.workspace_id == workspace_id,
            )
            .values(user_id=user_id, invited_email=None, joined_at=func.now())
            .returning(Membership.workspace_id, Membership.member_id, Membership.role)
        )
        rows = await self._connection.execute(statement)
        return [(workspace_id, member_id, Role(role)) for workspace_id, member_id, role in rows]

    async def memberships(self, user_id: int) -> list[tuple[int, int, Role, str]]:
        """Returns workspace, member, role and the workspace's name for each membership of a user, oldest first."""
        statement = (
            select(Membership.workspace_id, Membership.member_id, Membership.role, Workspace.name)
            .join(Workspace, Workspace.workspace_id == Membership.workspace_id)
            .where(Membership.user_id == user_id)
            .order_by(Membership.joined_at, Membership.member_id)
        )
        rows = await self._connection.execute(statement)
        return [(workspace_id, member_id, Role(role), name) for workspace_id, member_id, role, name in rows]

    async def add_member(self, workspace_id: int, member_id: int, user_id: int, role: Role) -> None:
        """Makes a user a member."""
        values = {"workspace_id": workspace_id, "member_id": member_id, "user_id": user_id, "role": role}
        await self._connection.execute(insert(Membership).values(joined_at=func.now(), **values))

    async def user_of(self, workspace_id: int, member_id: int) -> UserRow | None:
        """Returns the user behind a member."""
        statement = (
            select(*_USER)
            .join(Membership, Membership.user_id == User.user_id)
            .where(Membership.workspace_id == workspace_id, Membership.member_id == member_id)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        return UserRow._make(row) if row else None

    async def is_member(self, workspace_id: int, email: str) -> bool:
        """Says whether a member has an e-mail address."""
        statement = (
            select(Membership.member_id)
            .join(User, User.user_id == Membership.user_id)
            .where(Membership.workspace_id == workspace_id, User.email == email)
        )
        return (await self._connection.execute(statement)).first() is not None

    async def invite(self, workspace_id: int, member_id: int, email: str, role: Role) -> MemberRow:
        """Stores an invitation; one that is there already is made anew."""
        statement = upsert(Membership).values(
            workspace_id=workspace_id, member_id=member_id, invited_email=email, role=role
        )
        statement = statement.on_conflict_do_update(
            index_elements=["workspace_id", "invited_email"],
            set_={"role": role, "created_at": func.clock_timestamp()},
        )
        stored = (await self._connection.execute(statement.returning(Membership.member_id))).scalar_one()
        found = await self.member(workspace_id, stored)
        assert found is not None
        return found

    async def members(self, workspace_id: int, after: tuple[datetime, int] | None, limit: int) -> Sequence[MemberRow]:
        """Returns members and invitations, oldest first, from behind a position."""
        statement = (
            select(*_MEMBER)
            .outerjoin(User, User.user_id == Membership.user_id)
            .where(Membership.workspace_id == workspace_id)
            .order_by(Membership.created_at, Membership.member_id)
            .limit(limit)
        )
        if after:
            place = tuple_(Membership.created_at, Membership.member_id)
            statement = statement.where(place > tuple_(*map(literal, after)))
        return [_member(row) for row in await self._connection.execute(statement)]

    async def member(self, workspace_id: int, member_id: int, *, lock: bool = False) -> MemberRow | None:
        """Returns a member or an invitation; locked, nobody else changes it until the transaction ends."""
        statement = (
            select(*_MEMBER)
            .outerjoin(User, User.user_id == Membership.user_id)
            .where(Membership.workspace_id == workspace_id, Membership.member_id == member_id)
        )
        if lock:
            statement = statement.with_for_update(of=Membership)
        row = (await self._connection.execute(statement)).one_or_none()
        return _member(row) if row else None

    async def lock_admins(self, workspace_id: int) -> set[int]:
        """Returns the members who are admins; none of them can be changed by others until the transaction ends."""
        statement = (
            select(Membership.member_id)
            .where(
                Membership.workspace_id == workspace_id,
                Membership.role == Role.ADMIN,
                Membership.user_id.is_not(None),
            )
            .order_by(Membership.member_id)
            .with_for_update()
        )
        return set((await self._connection.execute(statement)).scalars())

    async def change_role(self, workspace_id: int, member_id: int, role: Role) -> None:
        """Gives a member another role."""
        await self._connection.execute(
            update(Membership)
            .where(Membership.workspace_id == workspace_id, Membership.member_id == member_id)
            .values(role=role)
        )

    async def remove(self, workspace_id: int, member_id: int) -> None:
        """Removes a member with their keys and sessions, or an invitation."""
        await self._connection.execute(
            delete(Membership).where(Membership.workspace_id == workspace_id, Membership.member_id == member_id)
        )


def _member(row: Sequence[Any]) -> MemberRow:
    member = MemberRow._make(row)
    return member._replace(role=Role(member.role))
