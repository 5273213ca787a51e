"""Idempotency keys and the answers that were given."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Conversation, IdempotencyKey
from app.repositories import SWEPT
from app.schemas.rows import Answered


class IdempotencyRepository:
    """The table of idempotency keys; of a key it holds a hash."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(
        self,
        workspace_id: int,
        key_digest: bytes,
        claim_id: int,
        fingerprint: bytes | None,
        lease: timedelta,
        lifetime: timedelta,
    ) -> datetime | None:
        """Takes a key that is new, over, or was left behind by a request of the same body; returns until when it is.

        A key that was left behind keeps its end. Returns None if the key is another request's.
        """
        await self._sweep(workspace_id)
        row, over = IdempotencyKey, IdempotencyKey.expires_at <= func.now()
        left_behind = and_(
            row.answer.is_(None),
            row.leased_until < func.now(),
            or_(row.fingerprint.is_(None), row.fingerprint == fingerprint),
        )
        values = {
            "claim_id": claim_id,
            "fingerprint": fingerprint,
            "leased_until": func.now() + lease,
            "answer": None,
            "conversation_id": None,
            "expires_at": func.now() + lifetime,
        }
        statement = upsert(row).values(workspace_id=workspace_id, key_digest=key_digest, **values)
        statement = statement.on_conflict_do_update(
            index_elements=["workspace_id", "key_digest"],
            set_={**values, "expires_at": case((over, values["expires_at"]), else_=row.expires_at)},
            where=or_(over, left_behind),
        )
        return (await self._connection.execute(statement.returning(row.expires_at))).scalar_one_or_none()

    async def get(self, workspace_id: int, key_digest: bytes) -> Answered | None:
        """Returns what is known of a key."""
        statement = select(IdempotencyKey.fingerprint, IdempotencyKey.answer, IdempotencyKey.expires_at).where(
            IdempotencyKey.workspace_id == workspace_id, IdempotencyKey.key_digest == key_digest
        )
        row = (await self._connection.execute(statement)).one_or_none()
        return Answered._make(row) if row else None

    async def renew(self, workspace_id: int, key_digest: bytes, claim_id: int, lease: timedelta) -> None:
        """Says that the request is still running."""
        statement = update(IdempotencyKey).where(_is(workspace_id, key_digest, claim_id))
        await self._connection.execute(statement.values(leased_until=func.now() + lease))

    async def finish(
        self,
        workspace_id: int,
        key_digest: bytes,
        claim_id: int,
        *,
        fingerprint: bytes,
        answer: bytes,
        conversation_id: str | None,
    ) -> None:
        """Stores the answer, which goes with a conversation; if that is gone already, the key is free again."""
        if conversation_id is not None:
            here = select(Conversation.conversation_id).where(
                Conversation.workspace_id == workspace_id, Conversation.conversation_id == conversation_id
            )
            found = await self._connection.execute(here.with_for_update(key_share=True, read=True))
            if found.one_or_none() is None:
                await self.release(workspace_id, key_digest, claim_id)
                return
        values = {"fingerprint": fingerprint, "answer": answer, "conversation_id": conversation_id}
        await self._connection.execute(
            update(IdempotencyKey).where(_is(workspace_id, key_digest, claim_id)).values(values)
        )

    async def release(self, workspace_id: int, key_digest: bytes, claim_id: int) -> None:
        """Frees a key whose request came to nothing; that it was used is kept."""
        values = {"fingerprint": None, "leased_until": datetime.min.replace(tzinfo=UTC)}
        await self._connection.execute(
            update(IdempotencyKey).where(_is(workspace_id, key_digest, claim_id)).values(values)
        )

    async def _sweep(self, workspace_id: int) -> None:
        ours = IdempotencyKey.workspace_id == workspace_id
        over = select(IdempotencyKey.key_digest).where(ours, IdempotencyKey.expires_at <= func.now()).limit(SWEPT)
        some = over.with_for_update(skip_locked=True)
        await self._connection.execute(delete(IdempotencyKey).where(ours, IdempotencyKey.key_digest.in_(some)))


def _is(workspace_id: int, key_digest: bytes, claim_id: int) -> ColumnElement[bool]:
    return and_(
        IdempotencyKey.workspace_id == workspace_id,
        IdempotencyKey.key_digest == key_digest,
        IdempotencyKey.claim_id == claim_id,
    )
