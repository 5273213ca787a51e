"""API keys: made, listed, replaced, deleted."""

from datetime import UTC, datetime, timedelta

from app.db import Database, Unit
from app.errors import NotFound
from app.schemas.accounts import Key, KeyIn, KeyList, KeyRotation, NewKey, PageQuery
from app.schemas.enums import Role
from app.schemas.rows import ApiKeyRow
from app.schemas.viewer import Viewer
from app.security.api_keys import new_api_key
from app.security.cursors import CursorSigner, time_at
from app.services.auth import confirm

NO_KEY = "There is no such key in this workspace."
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


class KeyService:
    """The API keys of the viewer's workspace."""

    def __init__(self, db: Database, cursors: CursorSigner, pepper: bytes) -> None:
        self._db = db
        self._cursors = cursors
        self._pepper = pepper

    async def create(self, viewer: Viewer, wanted: KeyIn) -> NewKey:
        """Makes a key, which goes with the member who makes it; raises ``Unauthenticated`` if they are gone."""
        now = datetime.now(UTC)
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            lifetime = wanted.expires_at - now if wanted.expires_at else None
            made = await self._add(unit, viewer, wanted.name, wanted.role, now, lifetime)
            details = {"role": wanted.role, "expires": wanted.expires_at is not None}
            await unit.audit.add(viewer.caller, "key.created", f"key:{made.id}", **details)
        return made

    async def rotate(self, viewer: Viewer, key_id: int, rotation: KeyRotation) -> NewKey:
        """Makes a key like another one, which ends after the overlap; raises ``NotFound``.

        A lifetime begins anew. The new key goes with who makes it: they have seen it.
        """
        now = datetime.now(UTC)
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            found = await unit.auth.key(viewer.workspace_id, key_id)
            if found is None:
                raise NotFound(NO_KEY)
            old, _ = found
            made = await self._add(unit, viewer, old.name, old.role, now, old.lifetime)
            await unit.auth.expire_key(viewer.workspace_id, key_id, now + timedelta(seconds=rotation.overlap_seconds))
            details = {"replacement": f"key:{made.id}", "overlap_seconds": rotation.overlap_seconds}
            await unit.audit.add(viewer.caller, "key.rotated", f"key:{key_id}", **details)
        return made

    async def page(self, viewer: Viewer, query: PageQuery) -> KeyList:
        """Returns a page of keys, newest first."""
        context = ["keys", viewer.workspace_id]
        after = None
        if query.cursor:
            time, key_id = self._cursors.read(context, query.cursor)
            after = time_at(time), key_id
        async with self._db.read() as unit:
            found = await unit.auth.keys(viewer.workspace_id, after, query.limit + 1)
        shown, has_more, cursor = self._cursors.cut(
            context, found, query.limit, lambda row: [row.created_at, row.key_id]
        )
        return KeyList(
            data=[Key(**_shown(row)) for row in shown],
            has_more=has_more,
            next_cursor=cursor,
        )

    async def delete(self, viewer: Viewer, key_id: int) -> None:
        """Deletes a key and ends its sessions; raises ``NotFound``."""
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            if not await unit.auth.remove_key(viewer.workspace_id, key_id):
                raise NotFound(NO_KEY)
            await unit.audit.add(viewer.caller, "key.deleted", f"key:{key_id}")

    async def _add(
        self, unit: Unit, viewer: Viewer, name: str, role: Role, now: datetime, lifetime: timedelta | None
    ) -> NewKey:
        key = new_api_key(viewer.workspace_id)
        row = ApiKeyRow(
            workspace_id=viewer.workspace_id,
            key_id=key.key_id,
            name=name,
            role=role,
            digest=key.digest(self._pepper),
            member_id=viewer.member_id,
            created_at=now,
            expires_at=now + min(lifetime, LAST_MOMENT - now) if lifetime else None,
            lifetime=lifetime,
            last_used_at=None,
        )
        await unit.auth.add_key(row)
        return NewKey(**_shown(row), key=key.text)


def _shown(row: ApiKeyRow) -> dict[str, object]:
    hidden = ("workspace_id", "key_id", "digest", "lifetime")
    shown = {name: value for name, value in row._asdict().items() if name not in hidden}
    return {**shown, "id": str(row.key_id), "member_id": str(row.member_id) if row.member_id else None}
