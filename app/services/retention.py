"""What is older than it may become is deleted."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from app.errors import Problem
from app.services.search import SearchService
from app.services.workspaces import WorkspaceService

_log = structlog.get_logger(__name__)


class RetentionService:
    """For the worker. ``days`` is how long a conversation stays after its last message; None is for ever."""

    def __init__(self, workspaces: WorkspaceService, search: SearchService, days: int | None) -> None:
        self._workspaces = workspaces
        self._search = search
        self._days = days

    async def run(self, stopping: asyncio.Event) -> None:
        """Deletes what is too old now, in every workspace; raises ``Unavailable``."""
        if self._days is None:
            return
        before = datetime.now(UTC) - timedelta(days=self._days)
        for workspace in await self._workspaces.all():
            deleted = 0
            try:
                while not stopping.is_set() and (some := await self._search.expire(workspace.workspace_id, before)):
                    deleted += some
            except Problem as problem:  # the other workspaces' turn comes all the same
                _log.warning("retention_failed", workspace_id=workspace.workspace_id, code=problem.code)
            if deleted:
                _log.info("retention", workspace_id=workspace.workspace_id, conversations=deleted)
