"""API keys: made, listed, revoked, and turned into a viewer."""

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cachetools import TTLCache

from app.db import Database
from app.errors import NotFound, Unauthenticated
from app.schemas.enums import Role
from app.schemas.rows import ApiKeyRow
from app.schemas.viewer import Viewer
from app.security.api_keys import new_api_key, parse_api_key

VIEWER_CACHE_S = 5.0
"""For how long a credential may be believed without a look at the database."""


class AuthService:
    """Who is asking."""

    def __init__(self, db: Database, pepper: bytes) -> None:
        self._db = db
        self._pepper = pepper
        self._viewers: TTLCache[bytes, Viewer] = TTLCache(10_000, VIEWER_CACHE_S)

    async def create_key(self, workspace_id: int, role: Role, name: str, expires_in: timedelta | None) -> str:
        """Makes an API key and returns it: the only time that it is seen."""
        key = new_api_key(workspace_id)
        now = datetime.now(UTC)
        expires_at = now + expires_in if expires_in else None
        row = ApiKeyRow(workspace_id, key.key_id, name, role, key.digest(self._pepper), now, expires_at, None)
        async with self._db.write() as unit:
            await unit.auth.add_key(row)
        return key.text

    async def keys(self, workspace_id: int) -> Sequence[ApiKeyRow]:
        """Returns a workspace's keys without their secrets."""
        async with self._db.read() as unit:
            return await unit.auth.keys(workspace_id)

    async def revoke_key(self, workspace_id: int, key_id: int) -> None:
        """Deletes a key; raises ``NotFound``."""
        async with self._db.write() as unit:
            if not await unit.auth.remove_key(workspace_id, key_id):
                raise NotFound(f"There is no key {key_id} in this workspace.")

    async def viewer(self, credential: str) -> Viewer:
        """Returns whose credential this is.

        Raises:
            Unauthenticated: if it is none of ours, expired or revoked.
        """
        key = parse_api_key(credential)
        if key is None:
            raise Unauthenticated("The credential is not an API key of this service.")
        digest = key.digest(self._pepper)
        viewer = self._viewers.get(digest)
        if viewer is None:
            async with self._db.read() as unit:
                row = await unit.auth.valid_key(key.workspace_id, key.key_id)
                if row is None or not hmac.compare_digest(row.digest, digest):
                    raise Unauthenticated("The API key does not exist, has expired or was revoked.")
                await unit.auth.note_use(row.workspace_id, row.key_id)
            viewer = self._viewers[digest] = Viewer(row.workspace_id, row.key_id, row.role)
        return viewer
