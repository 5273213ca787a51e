"""Who makes an analysis just now: one at a time, on whatever instance."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from app.db import Database
from app.errors import NotFound, Problem
from app.security.api_keys import random_id

LEASE = timedelta(seconds=10)
"""For how long others wait for an instance that is not heard of any more."""


class Claims:
    """Claims of conversations, each for one kind of analysis."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @asynccontextmanager
    async def tried(self, kind: str, workspace_id: int, conversation_id: str) -> AsyncIterator[int | None]:
        """Yields the number of a claim, which is renewed until it is given back; None if somebody else has it.

        Raises:
            NotFound: if there is no such conversation.
        """
        place, claim_id = (kind, workspace_id, conversation_id), random_id()
        async with self._db.write() as unit:
            claimed = await unit.analyses.claim(*place, claim_id, LEASE)
            if not claimed and await unit.chats.conversation(workspace_id, conversation_id) is None:
                raise NotFound("There is no such conversation.")
        if not claimed:
            yield None
            return
        renewing = asyncio.create_task(self._renew(*place, claim_id))
        try:
            yield claim_id
        finally:
            renewing.cancel()
            with suppress(Problem):
                async with self._db.write() as unit:
                    await unit.analyses.release(*place, claim_id)

    async def _renew(self, kind: str, workspace_id: int, conversation_id: str, claim_id: int) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            with suppress(Problem):
                async with self._db.write() as unit:
                    await unit.analyses.renew(kind, workspace_id, conversation_id, claim_id, LEASE)
