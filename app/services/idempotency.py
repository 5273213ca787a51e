"""Requests that may be sent again: the first answer is kept for a day and given again.

The header is ``Idempotency-Key`` (draft-ietf-httpapi-idempotency-key-header).
"""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from app.db import Database
from app.errors import IdempotencyKeyReused, Problem, StillRunning
from app.security.api_keys import random_id
from app.security.encryption import derive, seal, unseal
from app.services.workspaces import WorkspaceService

LIFETIME = timedelta(hours=24)
LEASE = timedelta(seconds=60)
"""For how long a request counts as running after the last sign of life; a crash frees its key that late."""
RETRY_S = 0.5
"""When a key is freed again that could not be freed."""


class Claim(NamedTuple):
    """The right to answer a request first.

    ``seed`` follows from the idempotency key and from when it was first used, and cannot be guessed from them.
    """

    workspace_id: int
    key_digest: bytes
    claim_id: int
    sealing_key: bytes
    seed: bytes = b""

    def mark(self, body_digest: bytes) -> bytes:
        """Returns what is stored of a request: not the digest itself, by which a short text could be guessed."""
        return hmac.digest(self.sealing_key, body_digest, hashlib.sha256)

    def until(self, expires_at: datetime) -> "Claim":
        """Returns the claim with its seed: not that of the same key on another day."""
        return self._replace(seed=hmac.digest(self.sealing_key, expires_at.isoformat().encode(), hashlib.sha256))


class Earlier(NamedTuple):
    """The first answer, and the mark of the request that it answers."""

    mark: bytes
    answer: bytes


class IdempotencyService:
    """Answers by key, on any instance; an answer is sealed so that only who sends the key again can read it."""

    def __init__(self, db: Database, workspaces: WorkspaceService) -> None:
        self._db = db
        self._workspaces = workspaces
        self._releasing = set[asyncio.Task[None]]()
        self._one_at_a_time = asyncio.Lock()

    async def claim(
        self, workspace_id: int, actor: str, key: str, body_digest: bytes | None
    ) -> tuple[Claim, Earlier | None]:
        """Returns the claim, and the earlier answer if there is one; ``body_digest`` is None for an unread stream.

        Raises:
            StillRunning: if the first request has not been answered.
            IdempotencyKeyReused: if it was another one.
        """
        keys = await self._workspaces.keys(workspace_id)
        named = f"{actor}\0{key}"
        key_digest = hmac.digest(derive(keys.data_key, "idempotency"), named.encode(), hashlib.sha256)
        claim = Claim(workspace_id, key_digest, random_id(), derive(keys.data_key, "idempotency answers", named))
        mark = claim.mark(body_digest) if body_digest else None
        try:
            async with self._db.write() as unit:
                until = await unit.idempotency.claim(workspace_id, key_digest, claim.claim_id, mark, LEASE, LIFETIME)
                if until:
                    return claim.until(until), None
                found = await unit.idempotency.get(workspace_id, key_digest)
        except BaseException:
            self.release(claim)  # it may be committed all the same
            raise
        if found and found.fingerprint and (mark or found.answer is None):
            check_same(mark or b"", found.fingerprint)  # of a stream there is an answer with the mark, or neither
        if found is None or found.answer is None or found.fingerprint is None:
            raise StillRunning("The first request with this idempotency key is still running. Try again.")
        answer = unseal(claim.sealing_key, found.answer, key_digest)
        return claim.until(found.expires_at), Earlier(found.fingerprint, answer)

    @asynccontextmanager
    async def running(self, claim: Claim) -> AsyncIterator[None]:
        """Keeps the claim alive while the request runs."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE.total_seconds() / 4)
                with suppress(Problem):
                    async with self._db.read() as unit:
                        await unit.idempotency.renew(claim.workspace_id, claim.key_digest, claim.claim_id, LEASE)

        task = asyncio.create_task(renew())
        try:
            yield
        finally:
            task.cancel()

    async def finish(self, claim: Claim, body_digest: bytes, answer: bytes, conversation_id: str | None) -> None:
        """Keeps the answer; one that speaks of a conversation goes with it."""
        async with self._db.write() as unit:
            await unit.idempotency.finish(
                claim.workspace_id,
                claim.key_digest,
                claim.claim_id,
                fingerprint=claim.mark(body_digest),
                answer=seal(claim.sealing_key, answer, claim.key_digest),
                conversation_id=conversation_id,
            )

    def release(self, claim: Claim) -> asyncio.Task[None]:
        """Frees the key: nothing was decided. While the database fails, that goes on until the claim ends anyway."""
        task = asyncio.create_task(self._release(claim))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
        return task

    async def _release(self, claim: Claim) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LEASE.total_seconds()):
                async with self._one_at_a_time:  # the connections are for requests
                    while not await self._released(claim):  # noqa: ASYNC110 — nobody tells
                        await asyncio.sleep(RETRY_S)

    async def _released(self, claim: Claim) -> bool:
        with suppress(Problem):
            async with self._db.read() as unit:
                await unit.idempotency.release(claim.workspace_id, claim.key_digest, claim.claim_id)
            return True
        return False


def check_same(mark: bytes, earlier: bytes) -> None:
    """Raises ``IdempotencyKeyReused`` if two requests differ."""
    if mark != earlier:
        raise IdempotencyKeyReused(
            "This idempotency key was used with another request. Use a new one for each request."
        )
