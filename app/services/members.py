"""Members: invited, listed, changed, removed."""

from datetime import timedelta

from app.db import Database, Unit
from app.errors import AlreadyMember, LastAdmin, NotFound
from app.schemas.accounts import Member, MemberIn, MemberList, PageQuery
from app.schemas.enums import MemberStatus, Role
from app.schemas.rows import MemberRow
from app.schemas.viewer import Viewer
from app.security.api_keys import random_id
from app.security.cursors import CursorSigner, time_at
from app.services.auth import confirm

INVITATION_LIFETIME = timedelta(days=14)


class MemberService:
    """The members of the viewer's workspace."""

    def __init__(self, db: Database, cursors: CursorSigner) -> None:
        self._db = db
        self._cursors = cursors

    async def page(self, viewer: Viewer, query: PageQuery) -> MemberList:
        """Returns a page of members and invitations, oldest first."""
        context = ["members", viewer.workspace_id]
        after = None
        if query.cursor:
            time, member_id = self._cursors.read(context, query.cursor)
            after = time_at(time), member_id
        async with self._db.read() as unit:
            found = await unit.members.members(viewer.workspace_id, after, query.limit + 1)
        shown, has_more, cursor = self._cursors.cut(
            context, found, query.limit, lambda row: [row.created_at, row.member_id]
        )
        return MemberList(
            data=[_shown(row) for row in shown],
            has_more=has_more,
            next_cursor=cursor,
        )

    async def invite(self, viewer: Viewer, wanted: MemberIn) -> Member:
        """Invites an e-mail address; done again, the invitation gets the new role and lasts longer.

        Raises:
            AlreadyMember: if a member has the address.
        """
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            if await unit.members.is_member(viewer.workspace_id, wanted.email):
                raise AlreadyMember("A member of this workspace has this e-mail address.")
            row = await unit.members.invite(viewer.workspace_id, random_id(), wanted.email, wanted.role)
            target = f"member:{row.member_id}"
            await unit.audit.add(viewer.caller, "member.invited", target, role=wanted.role)
        return _shown(row)

    async def change(self, viewer: Viewer, member_id: int, role: Role) -> Member:
        """Gives a member another role.

        Raises:
            NotFound: if there is no such member.
            LastAdmin: if nobody would be admin any more.
        """
        async with self._db.write() as unit:
            row = await _changeable(unit, viewer, member_id, still_admin=role is Role.ADMIN)
            await unit.members.change_role(viewer.workspace_id, member_id, role)
            details = {"role": role, "was": row.role}
            await unit.audit.add(viewer.caller, "member.changed", f"member:{member_id}", **details)
        return _shown(row._replace(role=role))

    async def remove(self, viewer: Viewer, member_id: int) -> None:
        """Removes a member with their keys and sessions, or an invitation; raises as ``change`` does."""
        async with self._db.write() as unit:
            row = await _changeable(unit, viewer, member_id, still_admin=False)
            await unit.members.remove(viewer.workspace_id, member_id)
            target = f"member:{member_id}"
            await unit.audit.add(viewer.caller, "member.removed", target, was=row.role)


async def _changeable(unit: Unit, viewer: Viewer, member_id: int, *, still_admin: bool) -> MemberRow:
    # Before the viewer's own row: two admins who change each other wait instead of blocking each other.
    admins = await unit.members.lock_admins(viewer.workspace_id)
    await confirm(unit, viewer, Role.ADMIN)
    row = await unit.members.member(viewer.workspace_id, member_id, lock=True)
    if row is None:
        raise NotFound("There is no such member in this workspace.")
    if admins == {member_id} and not still_admin:
        raise LastAdmin("The workspace would be left without an admin. Make another member admin first.")
    return row


def _shown(row: MemberRow) -> Member:
    invited = row.user_id is None
    return Member(
        id=str(row.member_id),
        email=row.email,
        name=row.name,
        role=row.role,
        status=MemberStatus.INVITED if invited else MemberStatus.ACTIVE,
        created_at=row.created_at,
        joined_at=row.joined_at,
        invitation_expires_at=row.created_at + INVITATION_LIFETIME if invited else None,
    )
