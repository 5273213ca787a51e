"""Workspaces: their settings, their data keys, and the rotation of the master key."""

from collections.abc import Callable, Sequence

from cachetools import LRUCache

from app.db import Database, Unit
from app.errors import NotFound
from app.schemas.accounts import Workspace, WorkspaceChange
from app.schemas.enums import Role
from app.schemas.rows import WorkspaceRow
from app.schemas.viewer import OPERATOR, Viewer
from app.security.api_keys import random_id
from app.security.encryption import MasterKeys, WorkspaceKeys, new_workspace_keys
from app.services.auth import confirm


class WorkspaceService:
    """For operators, the command line and the other services; a viewer gets only the settings of their own."""

    def __init__(self, db: Database, master_keys: MasterKeys) -> None:
        self._db = db
        self._master_keys = master_keys
        self._keys: LRUCache[int, WorkspaceKeys] = LRUCache(10_000)

    async def get_or_create(self, name: str) -> tuple[WorkspaceRow, bool]:
        """Returns the workspace of a name, and whether it was made just now."""
        keys = new_workspace_keys(random_id())
        wrapped = self._master_keys.wrap(keys)
        async with self._db.write() as unit:
            created = await unit.workspaces.add(keys.workspace_id, name, self._master_keys.current_id, wrapped)
            if created:
                await unit.audit.add((keys.workspace_id, OPERATOR), "workspace.created")
            workspace = await unit.workspaces.named(name)
        if workspace is None:
            raise NotFound(f"There is no workspace {name}.")
        return workspace, created

    async def make(self, unit: Unit, name: str) -> int:
        """Makes a workspace inside a transaction; if the name is taken, its id is added to it. Returns the id."""
        keys = new_workspace_keys(random_id())
        wrapped = self._master_keys.wrap(keys)
        for each in (name, f"{name}-{keys.workspace_id}"):
            if await unit.workspaces.add(keys.workspace_id, each, self._master_keys.current_id, wrapped):
                break
        return keys.workspace_id

    async def named(self, name: str) -> WorkspaceRow:
        """Returns the workspace of a name; raises ``NotFound``."""
        async with self._db.read() as unit:
            workspace = await unit.workspaces.named(name)
        if workspace is None:
            raise NotFound(f"There is no workspace {name}.")
        return workspace

    async def settings(self, viewer: Viewer) -> Workspace:
        """Returns the settings of the viewer's workspace."""
        async with self._db.read() as unit:
            return _shown(_found(await unit.workspaces.get(viewer.workspace_id)))

    async def redacts(self, workspace_id: int) -> bool:
        """Says whether a provider of models sees placeholders, as of now."""
        async with self._db.read() as unit:
            return _found(await unit.workspaces.get(workspace_id)).redact

    async def change(self, viewer: Viewer, wanted: WorkspaceChange) -> Workspace:
        """Changes the settings of the viewer's workspace; raises ``Unauthenticated`` if they are gone."""
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            was = _found(await unit.workspaces.set_redact(viewer.workspace_id, redact=wanted.redact))
            if was.redact != wanted.redact:
                await unit.audit.add(viewer.caller, "workspace.changed", redact=wanted.redact, was=was.redact)
        return _shown(was._replace(redact=wanted.redact))

    async def all(self) -> Sequence[WorkspaceRow]:
        """Returns every workspace by name."""
        async with self._db.read() as unit:
            return await unit.workspaces.all()

    async def keys(self, workspace_id: int) -> WorkspaceKeys:
        """Returns the keys of a workspace; they never change, so they are kept."""
        keys = self._keys.get(workspace_id)
        if keys is None:
            async with self._db.read() as unit:
                workspace = await unit.workspaces.get(workspace_id)
            keys = self._keys[workspace_id] = self._unwrap(_found(workspace))
        return keys

    async def check_master_keys(self) -> None:
        """Raises ``ConfigurationError`` unless the master keys at hand open what is stored."""
        async with self._db.read() as unit:
            for workspace in await unit.workspaces.one_per_master_key():
                self._unwrap(workspace)

    async def rewrap(self, progress: Callable[[int, int], None]) -> int:
        """Puts every data key under the current master key, while traffic goes on; returns how many were not.

        ``progress`` is told how many workspaces are done and how many there are.
        """
        workspaces = await self.all()
        changed = 0
        for done, workspace in enumerate(workspaces, 1):
            if workspace.master_key_id != self._master_keys.current_id:
                wrapped = self._master_keys.wrap(self._unwrap(workspace))
                async with self._db.write() as unit:
                    await unit.workspaces.rewrap(workspace, self._master_keys.current_id, wrapped)
                changed += 1
            progress(done, len(workspaces))
        return changed

    def _unwrap(self, workspace: WorkspaceRow) -> WorkspaceKeys:
        return self._master_keys.unwrap(workspace.workspace_id, workspace.master_key_id, workspace.wrapped_key)


def _found(workspace: WorkspaceRow | None) -> WorkspaceRow:
    if workspace is None:
        raise NotFound("The workspace is gone.")
    return workspace


def _shown(workspace: WorkspaceRow) -> Workspace:
    return Workspace(id=str(workspace.workspace_id), name=workspace.name, redact=workspace.redact)
