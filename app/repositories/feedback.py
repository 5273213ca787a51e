"""Feedback on summaries."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Conversation, Feedback
from app.schemas.enums import Rating
from app.schemas.rows import FeedbackRow


class FeedbackRepository:
    """The table of feedback."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def hold(self, workspace_id: int, conversation_id: str) -> None:
        """Keeps a conversation and its summary as they are until the transaction ends."""
        here = select(Conversation.conversation_id).where(
            Conversation.workspace_id == workspace_id, Conversation.conversation_id == conversation_id
        )
        await self._connection.execute(here.with_for_update(key_share=True, read=True))

    async def put(
        self,
        caller: tuple[int, str],
        conversation_id: str,
        *,
        summary_updated_at: datetime,
        rating: Rating,
        details: bytes,
    ) -> tuple[datetime, datetime]:
        """Stores what somebody thinks of a summary's version instead of what they thought of it before.

        Returns when they said something for the first and for the last time.
        """
        workspace_id, actor = caller
        values = {"rating": rating, "details": details}
        statement = upsert(Feedback).values(
            workspace_id=workspace_id,
            conversation_id=conversation_id,
            actor=actor,
            summary_updated_at=summary_updated_at,
            **values,
        )
        statement = statement.on_conflict_do_update(
            index_elements=["workspace_id", "conversation_id", "actor", "summary_updated_at"],
            set_={**values, "updated_at": func.clock_timestamp()},
        )
        times = (await self._connection.execute(statement.returning(Feedback.created_at, Feedback.updated_at))).one()
        return times.created_at, times.updated_at

    async def newest(self, workspace_id: int, limit: int) -> list[FeedbackRow]:
        """Returns what was said last in a workspace, newest first."""
        statement = (
            select(*(getattr(Feedback, name) for name in FeedbackRow._fields))
            .where(Feedback.workspace_id == workspace_id)
            .order_by(Feedback.updated_at.desc(), Feedback.conversation_id, Feedback.actor, Feedback.summary_updated_at)
            .limit(limit)
        )
        rows = [FeedbackRow._make(row) for row in await self._connection.execute(statement)]
        return [row._replace(rating=Rating(row.rating)) for row in rows]
